package weights

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// contents is an open file of weights: mapped into memory, or read at each call where the system cannot map it.
type contents struct {
	path   string
	size   int
	mapped []byte
	file   *os.File // only if mapped is nil
}

// mapper maps size bytes of a file; it returns errNoMap if the file has to be read instead.
type mapper func(file *os.File, size int) ([]byte, error)

// errNoMap is what a mapper returns if this file or system cannot be mapped.
var errNoMap = errors.New("memory mapping is not available")

// openContents opens a regular file. The error does not name the path unless the system's does.
func openContents(path string, mapFile mapper) (_ *contents, err error) {
	// Before opening it: opening a named pipe waits for a writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, unwrapPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if info.Size() > math.MaxInt {
		return nil, fmt.Errorf("%d bytes are more than this machine can address", info.Size())
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, unwrapPath(err)
	}
	c := &contents{path: path, size: int(info.Size())}
	c.mapped, err = mapFile(file, c.size)
	if errors.Is(err, errNoMap) {
		c.file = file
		return c, nil
	}
	return c, errors.Join(err, file.Close()) // the mapping stays without the descriptor
}

// unwrapPath takes the path out of the system's error, since every error of this package starts with it.
func unwrapPath(err error) error {
	var inPath *os.PathError
	if errors.As(err, &inPath) {
		return inPath.Err
	}
	return err
}

// bytes returns the bytes from begin up to end, which alias the mapping where there is one. The caller has made sure
// that 0 ≤ begin ≤ end ≤ size.
func (c *contents) bytes(begin, end int) ([]byte, error) {
	if c.mapped != nil {
		return c.mapped[begin:end:end], nil
	}
	if c.file == nil {
		return nil, errors.New("the file is closed")
	}
	data := make([]byte, end-begin)
	if _, err := c.ReadAt(data, int64(begin)); err != nil {
		return nil, fmt.Errorf("reading %d bytes at %d: %w", end-begin, begin, err)
	}
	return data, nil
}

// ReadAt implements io.ReaderAt.
func (c *contents) ReadAt(p []byte, at int64) (int, error) {
	if c.mapped == nil {
		n, err := c.file.ReadAt(p, at)
		if n == len(p) { // the last bytes of a file may come with its end
			err = nil
		}
		return n, err
	}
	if at < 0 || at > int64(c.size) {
		return 0, io.EOF
	}
	n := copy(p, c.mapped[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// drop gives back the memory of the whole pages between begin and end; they are read again when they are next used.
func (c *contents) drop(begin, end int) {
	page := os.Getpagesize()
	begin, end = (begin+page-1)/page*page, end/page*page
	if c.mapped != nil && begin < end {
		dropPages(c.mapped[begin:end])
	}
}

// close releases the file; a second one does nothing.
func (c *contents) close() error {
	var err error
	if c.mapped != nil {
		err = unmapFile(c.mapped)
		c.mapped = nil
	}
	if c.file != nil {
		err = errors.Join(err, c.file.Close())
		c.file = nil
	}
	if err != nil {
		return fmt.Errorf("closing %s: %w", c.path, err)
	}
	return nil
}
