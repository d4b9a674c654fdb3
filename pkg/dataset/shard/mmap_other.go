//go:build !unix

package shard

import (
	"errors"
	"os"
)

// mapFile leaves the file to be read on systems without mmap.
func mapFile(*os.File, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmapFile([]byte) error { return nil }
