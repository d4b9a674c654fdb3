package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// put writes a file with its name as the content.
func put(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(filepath.Base(path)), 0o666); err != nil {
		t.Fatal(err)
	}
}

func TestWriteDir(t *testing.T) {
	root := t.TempDir()
	empty := filepath.Join(root, "empty")
	if err := os.Mkdir(empty, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{empty, filepath.Join(root, "new"), filepath.Join(root, "a", "b", "new") + "/"} {
		err := WriteDir(path, func(dir string) error {
			if _, err := os.Stat(filepath.Join(path, "x")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is visible before it is complete: %v", path, err)
			}
			put(t, filepath.Join(dir, "x"))
			if err := os.Mkdir(filepath.Join(dir, "sub"), 0o777); err != nil {
				return err
			}
			put(t, filepath.Join(dir, "sub", "y"))
			return os.Chmod(filepath.Join(dir, "sub", "y"), 0o444)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"x", "sub/y"} {
			if got, err := os.ReadFile(filepath.Join(path, name)); err != nil || string(got) != filepath.Base(name) {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		}
		wantOnly(t, filepath.Dir(filepath.Clean(path)), filepath.Base(path))
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTryDir: it says what WriteDir would, and leaves nothing.
func TestTryDir(t *testing.T) {
	root := t.TempDir()
	if err := TryDir(filepath.Join(root, "a", "b", "out")); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := TryDir(root); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	put(t, filepath.Join(root, "file"))
	for path, want := range map[string]string{root: "not empty", filepath.Join(root, "file", "x"): "cannot be made",
		filepath.Join(root, "file", "x", "y"): "cannot be made"} {
		if err := TryDir(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// An empty folder stays the folder it is: a mounted disk cannot be replaced, a link should not be.
func TestWriteDirIntoEmpty(t *testing.T) {
	root := t.TempDir()
	disk, link := filepath.Join(root, "disk"), filepath.Join(root, "link")
	if err := os.Mkdir(disk, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("disk", link); err != nil {
		t.Skip("no links here")
	}
	before, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	half := func(dir string) error { put(t, filepath.Join(dir, "half")); return syscall.ENOSPC }
	if err := WriteDir(link, half); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if entries, err := os.ReadDir(disk); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	late := func(dir string) error {
		put(t, filepath.Join(disk, "theirs"))
		put(t, filepath.Join(dir, "theirs"))
		return nil
	}
	if err := WriteDir(link, late); err == nil {
		t.Error("replaced what appeared meanwhile")
	}
	wantOnly(t, disk, "theirs")
	if err := os.Remove(filepath.Join(disk, "theirs")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(disk)
	if err := WriteDir(".", func(dir string) error { put(t, filepath.Join(dir, "x")); return nil }); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, ".", "x")
	after, err := os.Stat(disk)
	if to, errLink := os.Readlink(link); err != nil || !os.SameFile(before, after) || errLink != nil || to != "disk" {
		t.Errorf("the folder is another one: %v, link to %q", err, to)
	}
	if err := os.RemoveAll(disk); err != nil {
		t.Fatal(err)
	}
	if err := WriteDir(link, half); err == nil || !strings.Contains(err.Error(), "a link to disk") {
		t.Errorf("a link to nothing: %v", err)
	}
}

func TestWriteDirFails(t *testing.T) {
	full := func(dir string) error {
		put(t, filepath.Join(dir, "half"))
		return syscall.ENOSPC
	}
	root := t.TempDir()
	path := filepath.Join(root, "a", "b", "out")
	err := WriteDir(path, full)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), path) ||
		!strings.Contains(err.Error(), "free some") {
		t.Errorf("got %v", err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}

	taken := filepath.Join(root, "taken")
	if err := os.Mkdir(taken, 0o777); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(taken, "mine"))
	never := func(string) error { t.Error("called"); return nil }
	if err := WriteDir(taken, never); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a folder with contents: %v", err)
	}
	if err := WriteDir(filepath.Join(taken, "mine"), never); err == nil {
		t.Error("a file was replaced by a folder")
	}
	if err := WriteDir(filepath.Join(taken, "mine", "x"), never); err == nil {
		t.Error("a folder inside a file")
	}
	// Somebody else is faster.
	late := filepath.Join(root, "late")
	err = WriteDir(late, func(string) error {
		if err := os.Mkdir(late, 0o777); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(late, "theirs"))
		return nil
	})
	if err == nil {
		t.Error("replaced what appeared meanwhile")
	}
	wantOnly(t, late, "theirs")
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
