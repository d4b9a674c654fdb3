//go:build unix

package shard

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps size bytes of a file for reading; some file systems cannot.
func mapFile(file *os.File, size int) ([]byte, error) {
	return unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
}

func unmapFile(data []byte) error { return unix.Munmap(data) }
