//go:build unix

package weights

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps size bytes of a file for reading. Some network and user-space file systems cannot map; they are read.
func mapFile(file *os.File, size int) ([]byte, error) {
	data, err := unix.Mmap(int(file.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errNoMap
	}
	return data, nil
}

func unmapFile(data []byte) error { return unix.Munmap(data) }

// dropPages gives back the memory of whole pages of a mapping. It is advice: a system that does not take it keeps them.
func dropPages(pages []byte) { _ = unix.Madvise(pages, unix.MADV_DONTNEED) }
