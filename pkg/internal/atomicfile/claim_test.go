package atomicfile

import (
	"path/filepath"
	"runtime"
	"testing"
)

// TestClaim: a file has one claim at a time, and a file that cannot be locked is free.
func TestClaim(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files are not locked there")
	}
	path := filepath.Join(t.TempDir(), "lines")
	release, free := Claim(path)
	if !free {
		t.Fatal("a new file is taken")
	}
	again, free := Claim(path)
	if free {
		t.Error("a claimed file is free")
	}
	if err := again(); err != nil {
		t.Error(err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{path, filepath.Join(path, "in a file")} {
		release, free := Claim(path)
		if !free {
			t.Errorf("%s is taken", path)
		}
		if err := release(); err != nil {
			t.Error(err)
		}
	}
}
