package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// NotifyInterrupt returns a context that the first SIGINT or SIGTERM cancels, so that the running command can finish
// its step, save and return; it says so on w. The second signal ends the process at once with ExitInterrupted.
// stop gives the signals back to the system.
func NotifyInterrupt(parent context.Context, w io.Writer) (ctx context.Context, stop func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, stopWatching := watchSignals(parent, signals, w, os.Exit)
	return ctx, func() {
		signal.Stop(signals)
		stopWatching()
	}
}

// watchSignals is NotifyInterrupt on a channel. stop waits for its goroutine.
func watchSignals(parent context.Context, signals <-chan os.Signal, w io.Writer, exit func(int)) (
	context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for first := true; ; first = false {
			select {
			case <-quit:
				return
			case sig := <-signals:
				if !first {
					exit(ExitInterrupted)
					return // only in tests
				}
				fmt.Fprintf(w, "blip2: %v: stopping after the current step; once more to stop at once\n", sig)
				cancel(fmt.Errorf("signal %v: %w", sig, context.Canceled))
			}
		}
	}()
	return ctx, func() {
		close(quit)
		<-done
		cancel(nil)
	}
}
