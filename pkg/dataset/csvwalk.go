package dataset

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// maxLine bounds a line of jsonl, and a record of csv, in bytes.
const maxLine = 1 << 20

// lineWalker passes over a file line by line, or csv record by csv record.
type lineWalker struct {
	r      *bufio.Reader
	offset int64
	buf    []byte
	quotes *quoting // of csv: line ends inside quotes do not end a record; nil where quotes mean nothing
	limit  int
}

func newLineWalker(r io.Reader, quotes *quoting, limit int) *lineWalker {
	return &lineWalker{r: bufio.NewReaderSize(r, 1<<18), quotes: quotes, limit: limit}
}

// next reads a line without its end; it is valid until the next one. io.EOF follows the last.
func (w *lineWalker) next() (line []byte, offset int64, err error) {
	offset, w.buf = w.offset, w.buf[:0]
	if w.quotes != nil {
		w.quotes.state = atStart
	}
	for {
		chunk, err := w.r.ReadSlice('\n')
		w.offset += int64(len(chunk))
		if len(w.buf)+len(chunk) > w.limit {
			return nil, offset, failAt(offset, "a line is longer than %d KiB (an open quote?)", w.limit>>10)
		}
		w.buf = append(w.buf, chunk...)
		inside := w.quotes != nil && w.quotes.pass(chunk)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err == nil && inside:
		case errors.Is(err, io.EOF) && inside:
			return nil, offset, failAt(offset, "a quote is opened and never closed")
		case errors.Is(err, io.EOF) && len(w.buf) == 0:
			return nil, offset, io.EOF
		case err == nil, errors.Is(err, io.EOF):
			line = bytes.TrimSuffix(w.buf, []byte("\n"))
			return bytes.TrimSuffix(line, []byte("\r")), offset, nil
		default:
			return nil, offset, err
		}
	}
}

// quoting follows the quotes of a csv file byte by byte. As for Python's csv module, a quote opens only where a field
// begins (5" is five inches), and two inside quotes stand for one.
type quoting struct {
	comma byte // the separator; 0 where it is not known yet, and may be a comma or a semicolon
	state int
}

// States of quoting.
const (
	atStart = iota // of a field
	inField        // without quotes, or behind them
	inQuotes
	quoteSeen // inside quotes: the end of them, or the first of two
)

func (q *quoting) next(c byte) {
	switch {
	case q.state == inQuotes:
		if c == '"' {
			q.state = quoteSeen
		}
	case c == '"' && q.state != inField:
		q.state = inQuotes
	case c == '\n' || c == q.comma || q.comma == 0 && (c == ',' || c == ';'):
		q.state = atStart
	default:
		q.state = inField
	}
}

// pass goes over bytes and says whether quotes are open behind them.
func (q *quoting) pass(data []byte) (inside bool) {
	if n := len(data); n > 0 && q.state < inQuotes && bytes.IndexByte(data, '"') < 0 {
		data = data[n-1:] // the last byte decides
	}
	for _, c := range data {
		q.next(c)
	}
	return q.state == inQuotes
}

// splitFields divides a record into its fields, appending them to fields. A field in quotes may hold separators, line
// ends and, doubled, quotes. In files separated by tabs quotes count only where they enclose a field.
func splitFields(fields [][]byte, record []byte, comma byte) [][]byte {
	for {
		var field []byte
		if len(record) > 0 && record[0] == '"' {
			quoted, rest, closed := quotedField(record[1:])
			if comma != '\t' || closed && (len(rest) == 0 || rest[0] == comma) {
				field, record = quoted, rest
			}
		}
		end := bytes.IndexByte(record, comma)
		if end < 0 {
			return append(fields, join(field, record))
		}
		fields = append(fields, join(field, record[:end]))
		record = record[end+1:]
	}
}

// join is the quoted part of a field and what stands behind the quote, which is nothing in a proper file.
func join(quoted, rest []byte) []byte {
	switch {
	case quoted == nil:
		return rest
	case len(rest) == 0:
		return quoted
	}
	return append(bytes.Clone(quoted), rest...)
}

// quotedField reads up to the closing quote, or to the end where there is none.
func quotedField(record []byte) (field, rest []byte, closed bool) {
	end := bytes.IndexByte(record, '"')
	if end < 0 {
		return record, nil, false
	}
	if end+1 == len(record) || record[end+1] != '"' {
		return record[:end:end], record[end+1:], true
	}
	field = []byte{}
	for end >= 0 && end+1 < len(record) && record[end+1] == '"' {
		field = append(field, record[:end+1]...)
		record = record[end+2:]
		end = bytes.IndexByte(record, '"')
	}
	if end < 0 {
		return append(field, record...), nil, false
	}
	return append(field, record[:end]...), record[end+1:], true
}
