package checkpoint

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// saveBroken saves with a saver that must fail, beside an existing good checkpoint, and makes sure that nothing of it
// stays and the good one does.
func saveBroken(t *testing.T, ctx context.Context, sv saver) error {
	t.Helper()
	run := t.TempDir()
	good := mustSave(t, run, snapshot(1, 0, 300_000))
	for _, step := range []int{1, 2} { // in place of a good one, and as a new one
		_, err := sv.save(ctx, run, snapshot(step, 1, 300_000))
		if err == nil {
			t.Fatal("saved")
		}
		if got := visible(t, run); !slices.Equal(got, []string{"latest", "step-00000001"}) {
			t.Fatalf("in the folder: %v", got)
		}
		if dir, skipped, err := Latest(run); dir != good || len(skipped) != 0 || err != nil {
			t.Fatalf("latest is %s, %v, %v", dir, skipped, err)
		}
		if step == 2 {
			if text := err.Error(); !strings.Contains(text, "checkpoint of step 2 in "+filepath.Join(run, Folder)) {
				t.Errorf("the error does not say what failed: %s", text)
			}
			return err
		}
	}
	return nil
}

func TestNoSpaceIsSeenBeforeWriting(t *testing.T) {
	touched := false
	err := saveBroken(t, context.Background(), saver{
		free: func(string) (uint64, bool, error) { return 12345, true, nil },
		wrap: func(_ string, w io.Writer) io.Writer { touched = true; return w },
	})
	// Three tensors and a copy of the first value, 1.2 MB each, and the reserve.
	if text := err.Error(); !strings.Contains(text, "needs 46") || !strings.Contains(text, "the disk has 12345 bytes") ||
		!strings.Contains(text, "free some space") {
		t.Error(text)
	}
	if touched {
		t.Error("something was written")
	}
	unknown := saver{free: func(string) (uint64, bool, error) { return 0, false, nil }}
	if _, err := unknown.save(context.Background(), t.TempDir(), snapshot(1, 0, 2)); err != nil {
		t.Errorf("unknown free space: %v", err)
	}
	broken := errors.New("broken")
	if err := saveBroken(t, context.Background(), saver{
		free: func(string) (uint64, bool, error) { return 0, false, broken },
	}); !errors.Is(err, broken) {
		t.Error(err)
	}
}

func TestFreeBytes(t *testing.T) {
	free, known, err := freeBytes(t.TempDir())
	if err != nil || known && free == 0 {
		t.Errorf("%d, %v, %v", free, known, err)
	}
	if _, known, err := freeBytes(filepath.Join(t.TempDir(), "nosuch")); known && err == nil {
		t.Error("a missing folder has free space")
	}
}

// TestDiskFillsWhileWriting makes the writing of each file fail, early and late.
func TestDiskFillsWhileWriting(t *testing.T) {
	for _, name := range []string{ModelFile, OptimizerFile, StateFile, ManifestFile} {
		for _, room := range []int{0, 100, 1_100_000} {
			if room > 100 && (name == StateFile || name == ManifestFile) {
				continue
			}
			wrap := func(file string, w io.Writer) io.Writer {
				if file == name {
					return &filling{w, room}
				}
				return w
			}
			err := saveBroken(t, context.Background(), saver{free: freeBytes, wrap: wrap})
			if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), name) ||
				!strings.Contains(err.Error(), "free some space there") {
				t.Errorf("%s after %d bytes: %v", name, room, err)
			}
		}
	}
}

// filling writes some bytes and then fails as a full disk does.
type filling struct {
	w    io.Writer
	room int
}

func (f *filling) Write(p []byte) (int, error) {
	n, err := f.w.Write(p[:min(len(p), f.room)])
	f.room -= n
	if err == nil && n < len(p) {
		err = &os.PathError{Op: "write", Path: "disk", Err: syscall.ENOSPC}
	}
	return n, err
}

// TestFullDevice gets the error from the kernel.
func TestFullDevice(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/dev/full is Linux's")
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	wrap := func(string, io.Writer) io.Writer { return full }
	err = saveBroken(t, context.Background(), saver{free: freeBytes, wrap: wrap})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "free some space there") {
		t.Error(err)
	}
}

// TestCancel cancels before, and while each of the files is written.
func TestCancel(t *testing.T) {
	before, cancel := context.WithCancel(context.Background())
	cancel()
	if err := saveBroken(t, before, saver{free: freeBytes}); !errors.Is(err, context.Canceled) {
		t.Errorf("before: %v", err)
	}
	for _, name := range []string{ModelFile, OptimizerFile, StateFile, ManifestFile} {
		ctx, cancel := context.WithCancel(context.Background())
		err := saveBroken(t, ctx, saver{free: freeBytes, wrap: func(file string, w io.Writer) io.Writer {
			if file == name {
				cancel()
			}
			return w
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("in %s: %v", name, err)
		}
		cancel()
	}
}

func TestNoPermission(t *testing.T) {
	run := t.TempDir()
	if os.Geteuid() == 0 {
		if runtime.GOOS != "linux" {
			t.Skip("nothing is forbidden to root")
		}
		run = "/sys" // not even root may make folders there
	} else if err := os.Chmod(run, 0o555); err != nil {
		t.Fatal(err)
	}
	_, err := Save(context.Background(), run, snapshot(1, 0, 2))
	if err == nil || !strings.Contains(err.Error(), "make the folder writable or choose another one") ||
		!strings.Contains(err.Error(), filepath.Join(run, Folder)) {
		t.Error(err)
	}
}

func TestFileInPlaceOfFolder(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run")
	if err := os.WriteFile(run, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Save(context.Background(), run, snapshot(1, 0, 2)); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	run = t.TempDir()
	if err := os.Mkdir(filepath.Join(run, Folder), 0o777); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(run, Folder, DirName(1))
	if err := os.WriteFile(taken, []byte("mine"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Save(context.Background(), run, snapshot(1, 0, 2)); err != nil {
		t.Errorf("a stray file stands in the way: %v", err)
	}
	if err := Verify(taken); err != nil {
		t.Error(err)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	run := t.TempDir()
	good := mustSave(t, run, snapshot(1, 0, 2))
	unlock, err := lock(filepath.Join(run, Folder, lockFile))
	if err != nil {
		t.Fatal(err)
	}
	_, saveErr := Save(context.Background(), run, snapshot(2, 0, 2))
	_, pruneErr := Prune(run, Policy{KeepLast: 1})
	unlock()
	if runtime.GOOS == "linux" || runtime.GOOS == "darwin" {
		for _, err := range []error{saveErr, pruneErr} {
			if err == nil || !strings.Contains(err.Error(), "its own run folder") {
				t.Error(err)
			}
		}
		if dir, _, err := Latest(run); dir != good || err != nil {
			t.Error(dir, err)
		}
	}
	mustSave(t, run, snapshot(3, 0, 2))
}

func TestLeftoversAreRemoved(t *testing.T) {
	run := t.TempDir()
	root := filepath.Join(run, Folder)
	for _, name := range []string{".tmp-step-00000002", ".tmp-pruned-step-00000001", ".tmp-replaced-step-00000003"} {
		if err := os.MkdirAll(filepath.Join(root, name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name, ModelFile), []byte("half"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".latest.0123abcd.tmp", ".mine", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if _, skipped, err := Latest(run); !errors.Is(err, ErrNone) || len(skipped) != 0 {
		t.Errorf("leftovers are taken for checkpoints: %v, %v", skipped, err)
	}
	mustSave(t, run, snapshot(2, 0, 2))
	if got := visible(t, run); !slices.Equal(got, []string{".mine", "latest", "notes.txt", "step-00000002"}) {
		t.Errorf("in the folder: %v", got)
	}
}

func TestLatestCannotBeMoved(t *testing.T) {
	run := t.TempDir()
	if err := os.MkdirAll(filepath.Join(run, Folder, LatestFile, "x"), 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := Save(context.Background(), run, snapshot(4, 0, 2))
	if err == nil || !strings.Contains(err.Error(), LatestFile) {
		t.Errorf("got %v", err)
	}
	dir, skipped, err := Latest(run)
	if filepath.Base(dir) != DirName(4) || len(skipped) != 0 || err != nil {
		t.Errorf("the checkpoint itself is %q, %v, %v", dir, skipped, err)
	}
	if _, err := os.Stat(filepath.Join(run, Folder, tempPrefix+DirName(4))); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
