//go:build !unix

package weights

import "os"

// mapFile leaves the file to be read piecewise on systems without mmap.
func mapFile(*os.File, int) ([]byte, error) { return nil, errNoMap }

func unmapFile([]byte) error { return nil }

func dropPages([]byte) {}
