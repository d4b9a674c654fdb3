package atomicfile

import (
	"runtime"

	"github.com/gofrs/flock"
)

// Claim locks a file that this process appends to; free says that no other has claimed it. Where files cannot be locked it
// is free, as on Windows, where a lock would keep this process out, too. The claim ends with release or the process.
func Claim(path string) (release func() error, free bool) {
	if runtime.GOOS == "windows" {
		return func() error { return nil }, true
	}
	lock := flock.New(path)
	got, err := lock.TryLock()
	return lock.Close, got || err != nil
}
