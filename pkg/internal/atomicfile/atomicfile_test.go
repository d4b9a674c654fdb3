package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWriteReplaces(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "latest")
	for _, want := range []string{"first", "second, longer", "3"} {
		if err := Write(path, func(w io.Writer) error { _, err := io.WriteString(w, want); return err }); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
	wantOnly(t, dir, "latest")
}

func TestFailureKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x")
	if err := os.WriteFile(path, []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	full := fmt.Errorf("write: %w", syscall.ENOSPC)
	err := Write(path, func(w io.Writer) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			t.Fatal(err)
		}
		return full
	})
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	if text := err.Error(); !strings.Contains(text, path) || !strings.Contains(text, "free some space") {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
		t.Errorf("the old file is %q, %v", got, err)
	}
	wantOnly(t, dir, "x")
}

// text writes a text.
func text(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

// A link stays one: what it leads to is written, whether it is there already or not.
func TestWriteThroughLinks(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "disk"), 0o777); err != nil {
		t.Fatal(err)
	}
	file, link := filepath.Join(dir, "disk", "file"), filepath.Join(dir, "link")
	for from, to := range map[string]string{link: "second", filepath.Join(dir, "second"): "disk/file",
		filepath.Join(dir, "circle"): "circle"} {
		if err := os.Symlink(to, from); err != nil {
			t.Skip("no links here")
		}
	}
	for _, want := range []string{"new", "replaced"} {
		if err := Write(link, text(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("the file behind the links holds %q, %v; want %q", got, err, want)
		}
		if to, err := os.Readlink(link); err != nil || to != "second" {
			t.Errorf("the link leads to %q, %v", to, err)
		}
	}
	wantOnly(t, filepath.Join(dir, "disk"), "file")
	if err := Write(filepath.Join(dir, "circle"), text("x")); err == nil {
		t.Error("a link to itself was written")
	}
}

// What is no file is written to, not replaced by one: /dev/stdout for one.
func TestWriteToStreams(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	link := filepath.Join(t.TempDir(), "stdout") // as /dev/stdout is one
	if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", write.Fd()), link); err != nil {
		t.Skip("no links here")
	}
	if _, err := os.Stat(link); err != nil {
		t.Skip("no /proc here")
	}
	if err := Write(link, text("to the pipe")); err != nil {
		t.Fatal(err)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(read); err != nil || string(got) != "to the pipe" {
		t.Errorf("got %q, %v", got, err)
	}
	wantOnly(t, filepath.Dir(link), "stdout")
}

func TestWriteIntoNothing(t *testing.T) {
	dir := t.TempDir()
	err := Write(filepath.Join(dir, "nosuch", "x"), func(io.Writer) error { return nil })
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	// A folder in the way makes the rename fail after everything was written.
	if err := os.MkdirAll(filepath.Join(dir, "taken", "inside"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(dir, "taken"), func(io.Writer) error { return nil }); err == nil {
		t.Error("a folder was replaced by a file")
	}
	wantOnly(t, dir, "taken")
}

func TestExplain(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EDQUOT: "free some space", syscall.EACCES: "make the folder writable",
		syscall.EROFS: "make the folder writable", io.ErrUnexpectedEOF: "unexpected EOF",
	} {
		if got := Explain(err); !errors.Is(got, err) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: %v", err, got)
		}
	}
}

func wantOnly(t *testing.T, dir, name string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != name {
		t.Errorf("the folder holds %v, %v; want %s alone", entries, err, name)
	}
}
