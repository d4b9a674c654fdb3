package weights

import (
	"bufio"
	"fmt"
	"io"
)

// pickleReader reads what a pickle consists of. It allocates nothing that the input does not have.
type pickleReader struct {
	r     *bufio.Reader
	at    int // bytes read so far
	end   int // bytes that there are
	limit int // where the present pickle must end
}

// newPickleReader reads from begin up to end; positions count from begin.
func newPickleReader(c *contents, begin, end int) *pickleReader {
	section := io.NewSectionReader(c, int64(begin), int64(end-begin))
	return &pickleReader{r: bufio.NewReader(section), end: end - begin}
}

// check makes sure that n more bytes are there.
func (r *pickleReader) check(n uint64) error {
	switch {
	case n > uint64(r.end-r.at):
		return fmt.Errorf("truncated: needs %d bytes, %d are left", n, r.end-r.at)
	case n > uint64(r.limit-r.at):
		return fmt.Errorf("longer than %d bytes, more than a checkpoint of weights needs", maxPickle)
	}
	return nil
}

func (r *pickleReader) byte() (byte, error) {
	if err := r.check(1); err != nil {
		return 0, err
	}
	r.at++
	return r.r.ReadByte()
}

// take returns the next n bytes in new memory.
func (r *pickleReader) take(n uint64) ([]byte, error) {
	if err := r.check(n); err != nil {
		return nil, err
	}
	data := make([]byte, n)
	if _, err := io.ReadFull(r.r, data); err != nil {
		return nil, err
	}
	r.at += int(n)
	return data, nil
}

// uint reads a little-endian number of width bytes.
func (r *pickleReader) uint(width int) (n uint64, err error) {
	for i := range width {
		b, err := r.byte()
		if err != nil {
			return 0, err
		}
		n |= uint64(b) << (8 * i)
	}
	return n, nil
}

// prefixed returns bytes that stand after their number, which takes width bytes.
func (r *pickleReader) prefixed(width int) ([]byte, error) {
	n, err := r.uint(width)
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

// line reads a name up to the newline that ends it.
func (r *pickleReader) line() (string, error) {
	var name []byte
	for len(name) <= maxName {
		b, err := r.byte()
		if err != nil {
			return "", err
		}
		if b == '\n' {
			return string(name), nil
		}
		name = append(name, b)
	}
	return "", fmt.Errorf("names a class by more than %d bytes: %s", maxName, clip(string(name)))
}
