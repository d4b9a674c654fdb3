package dataset

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"blip2/pkg/internal/jsonscan"
)

// maxItem bounds one entry of an annotation file, in bytes: all that is ever held of a file at a time.
const maxItem = 16 << 20

// item is one entry of an annotation file as it stands there.
type item struct {
	section string // name of the list at the top level that it is in; "" for a list or lines without a name
	line    bool   // the file has an entry per line
	single  bool   // it is itself a value at the top level, named section
	index   int    // from 0 within its section
	offset  int64  // where it starts
	data    []byte // valid during the visit
}

// placeError is what is wrong at a place of a file.
type placeError struct {
	offset int64
	err    error
}

func (e *placeError) Error() string { return e.err.Error() }
func (e *placeError) Unwrap() error { return e.err }

func failAt(offset int64, format string, args ...any) error {
	return &placeError{offset, fmt.Errorf(format, args...)}
}

// jsonWalker passes over a JSON document entry by entry, whatever its length.
type jsonWalker struct {
	r      *bufio.Reader
	offset int64 // of the next byte
	buf    []byte
	visit  func(*item) error
}

// walkJSON visits the elements of the list that the document is, or of the lists that it has at its top level, and
// what else stands at the top level.
func walkJSON(r io.Reader, visit func(*item) error) error {
	w := &jsonWalker{r: bufio.NewReaderSize(r, 1<<18), visit: visit}
	if head, _ := w.r.Peek(3); string(head) == "\ufeff" {
		w.skip(3)
	}
	c, err := w.peek()
	switch {
	case err != nil:
		return err
	case c == '[':
		err = w.list("")
	case c == '{':
		err = w.object()
	default:
		return failAt(w.offset, "a list or an object is needed, not %q", c)
	}
	if err != nil {
		return err
	}
	if c, err := w.peek(); err == nil {
		return failAt(w.offset, "broken JSON: there is more after the end of the document (%q)", c)
	} else if !errors.Is(err, errCut) {
		return err
	}
	return nil
}

func (w *jsonWalker) skip(n int) {
	n, _ = w.r.Discard(n)
	w.offset += int64(n)
}

var errCut = errors.New("the JSON ends too early: the file is cut off")

// peek is the next byte that is not white space.
func (w *jsonWalker) peek() (byte, error) {
	for {
		head, err := w.r.Peek(1)
		if err != nil {
			return 0, w.readError(err)
		}
		switch head[0] {
		case ' ', '\t', '\r', '\n':
			w.skip(1)
		default:
			return head[0], nil
		}
	}
}

func (w *jsonWalker) readError(err error) error {
	if errors.Is(err, io.EOF) {
		return &placeError{w.offset, errCut}
	}
	return fmt.Errorf("reading: %w", err)
}

// list visits every element of a list.
func (w *jsonWalker) list(section string) error {
	w.skip(1)
	for i := 0; ; i++ {
		c, err := w.peek()
		if err != nil {
			return err
		}
		if c == ']' && i == 0 {
			w.skip(1)
			return nil
		}
		it := item{section: section, index: i, offset: w.offset}
		if w.buf, err = w.value(w.buf[:0]); err != nil {
			return err
		}
		it.data = w.buf
		if err := w.visit(&it); err != nil {
			return err
		}
		if c, err = w.peek(); err != nil {
			return err
		}
		switch c {
		case ',':
			w.skip(1)
		case ']':
			w.skip(1)
			return nil
		default:
			return failAt(w.offset, "broken JSON: a comma or ] is missing, there is %q", c)
		}
	}
}

// object visits the elements of the lists within an object, and its other values with their names.
func (w *jsonWalker) object() error {
	w.skip(1)
	for i := 0; ; i++ {
		c, err := w.peek()
		if err != nil {
			return err
		}
		if c == '}' && i == 0 {
			w.skip(1)
			return nil
		}
		if c != '"' {
			return failAt(w.offset, "broken JSON: the name of a field is missing, there is %q", c)
		}
		start := w.offset
		if err := w.field(i, start); err != nil {
			return err
		}
		if c, err = w.peek(); err != nil {
			return err
		}
		switch c {
		case ',':
			w.skip(1)
		case '}':
			w.skip(1)
			return nil
		default:
			return failAt(w.offset, "broken JSON: a comma or } is missing, there is %q", c)
		}
	}
}

// field reads a name and what belongs to it.
func (w *jsonWalker) field(i int, start int64) error {
	var err error
	if w.buf, err = w.value(w.buf[:0]); err != nil {
		return err
	}
	name, err := jsonscan.New(w.buf).Bytes()
	if err != nil {
		return &placeError{start, scanReason(err)}
	}
	section := string(name)
	c, err := w.peek()
	if err != nil {
		return err
	}
	if c != ':' {
		return failAt(w.offset, "broken JSON: a colon is missing after a field's name")
	}
	w.skip(1)
	w.buf = append(w.buf, ':')
	if c, err = w.peek(); err != nil {
		return err
	}
	if c == '[' {
		if err := w.visit(&item{section: section, single: true, index: i, offset: start}); err != nil {
			return err
		}
		return w.list(section)
	}
	if w.buf, err = w.value(w.buf); err != nil {
		return err
	}
	return w.visit(&item{section: section, single: true, index: i, offset: start, data: w.buf})
}

// value appends the bytes of the next value to buf. Only its brackets and strings are looked at: who parses it finds
// what else may be wrong.
func (w *jsonWalker) value(buf []byte) ([]byte, error) {
	start, depth, text, escaped := w.offset, 0, false, false
	for {
		chunk, err := w.r.Peek(max(1, w.r.Buffered()))
		if len(chunk) == 0 {
			return buf, w.readError(err)
		}
		end := -1
	scan:
		for i, c := range chunk {
			switch {
			case escaped:
				escaped = false
			case text:
				switch c {
				case '\\':
					escaped = true
				case '"':
					if text = false; depth == 0 {
						end = i + 1
						break scan
					}
				}
			default:
				switch c {
				case '"':
					text = true
				case '[', '{':
					depth++
				case ']', '}', ',', ':', ' ', '\t', '\r', '\n':
					if depth == 0 {
						end = i
						break scan
					}
					if c == ']' || c == '}' {
						if depth--; depth == 0 {
							end = i + 1
							break scan
						}
					}
				}
			}
		}
		n := end
		if end < 0 {
			n = len(chunk)
		}
		if len(buf)+n > maxItem {
			return buf, failAt(start, "an entry is longer than %d MiB", maxItem>>20)
		}
		buf = append(buf, chunk[:n]...)
		w.skip(n)
		if end >= 0 {
			if w.offset == start {
				return buf, failAt(start, "broken JSON: a value is missing")
			}
			return buf, nil
		}
	}
}

// scanReason is the reason of a scanner's error, without the place within the entry.
func scanReason(err error) error {
	var scan *jsonscan.Error
	if errors.As(err, &scan) {
		return errors.New("broken JSON: " + scan.Reason)
	}
	return err
}
