//go:build unix

package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// saveLimited saves in a process that may write 64 kB per file: the kernel refuses in the middle of the model.
func saveLimited(runDir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 16, Max: 1 << 16}); err != nil {
		return err
	}
	if _, err := Save(context.Background(), runDir, snapshot(2, 0, 100_000)); !errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("saving beyond the limit: %v", err)
	}
	_, err := Save(context.Background(), runDir, snapshot(3, 0, 100)) // small enough
	return err
}

func TestFileSizeLimit(t *testing.T) {
	run := t.TempDir()
	mustSave(t, run, snapshot(1, 0, 100_000))
	if out, err := child(t, "limited", run).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := visible(t, run); !slices.Equal(got, []string{"latest", "step-00000001", "step-00000003"}) {
		t.Errorf("in the folder: %v", got)
	}
}
