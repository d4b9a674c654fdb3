//go:build linux || darwin || freebsd

package checkpoint

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// freeBytes returns the space an unprivileged process may still use on the file system of dir. File systems without
// that notion, as some mounted object stores, report no blocks at all: known is false then.
func freeBytes(dir string) (free uint64, known bool, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return uint64(s.Bavail) * uint64(s.Bsize), s.Blocks > 0, nil
}

// lock takes an exclusive lock that the system drops when the process ends, however it ends. File systems that cannot
// lock are used without.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		_ = file.Close()
		return nil, errors.New("checkpoints are being saved or pruned here already: " +
			"give each training its own run folder, or wait for the other one")
	}
	return func() { _ = file.Close() }, nil
}
