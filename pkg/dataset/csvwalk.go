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
	quotes bool // line ends inside quotes do not end a record
	limit  int
}

func newLineWalker(r io.Reader, quotes bool, limit int) *lineWalker {
	return &lineWalker{r: bufio.NewReaderSize(r, 1<<18), quotes: quotes, limit: limit}
}

// next reads a line without its end; it is valid until the next one. io.EOF follows the last.
func (w *lineWalker) next() (line []byte, offset int64, err error) {
	offset, w.buf = w.offset, w.buf[:0]
	inside := false
	for {
		chunk, err := w.r.ReadSlice('\n')
		w.offset += int64(len(chunk))
		if len(w.buf)+len(chunk) > w.limit {
			return nil, offset, failAt(offset, "a line is longer than %d KiB (an open quote?)", w.limit>>10)
		}
		w.buf = append(w.buf, chunk...)
		if w.quotes && bytes.Count(chunk, []byte{'"'})%2 == 1 {
			inside = !inside
		}
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

// splitFields divides a record into its fields, appending them to fields. A field in quotes may hold separators, line
// ends and, doubled, quotes. In files separated by tabs a quote has no meaning.
func splitFields(fields [][]byte, record []byte, comma byte) [][]byte {
	for {
		var field []byte
		if comma != '\t' && len(record) > 0 && record[0] == '"' {
			field, record = quotedField(record[1:])
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

// quotedField reads up to the closing quote.
func quotedField(record []byte) (field, rest []byte) {
	end := bytes.IndexByte(record, '"')
	if end < 0 {
		return record, nil
	}
	if end+1 == len(record) || record[end+1] != '"' {
		return record[:end:end], record[end+1:]
	}
	field = []byte{}
	for end >= 0 && end+1 < len(record) && record[end+1] == '"' {
		field = append(field, record[:end+1]...)
		record = record[end+2:]
		end = bytes.IndexByte(record, '"')
	}
	if end < 0 {
		return append(field, record...), nil
	}
	return append(field, record[:end]...), record[end+1:]
}
