package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestFirstSignalCancelsSecondExits(t *testing.T) {
	signals, exited := make(chan os.Signal), make(chan int, 1)
	var w bytes.Buffer
	ctx, stop := watchSignals(t.Context(), signals, &w, func(code int) { exited <- code })
	if ctx.Err() != nil {
		t.Fatal("cancelled without a signal")
	}
	signals <- os.Interrupt
	<-ctx.Done()
	if !errors.Is(ctx.Err(), context.Canceled) || !strings.Contains(context.Cause(ctx).Error(), "interrupt") {
		t.Errorf("error %v, cause %v", ctx.Err(), context.Cause(ctx))
	}
	signals <- syscall.SIGTERM
	if code := <-exited; code != ExitInterrupted {
		t.Errorf("the second signal exits with %d", code)
	}
	stop()
	if !strings.Contains(w.String(), "once more to stop at once") {
		t.Errorf("stderr %q", w.String())
	}
}

func TestStopWithoutSignal(t *testing.T) {
	ctx, stop := watchSignals(t.Context(), make(chan os.Signal), nil, nil)
	stop()
	if ctx.Err() == nil {
		t.Error("the context outlives stop")
	}
	ctx, stop = NotifyInterrupt(t.Context(), nil)
	if ctx.Err() != nil {
		t.Error("cancelled without a signal")
	}
	stop()
}
