package dataset

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"blip2/pkg/internal/jsonscan"
)

// Format is how an annotation file is written.
type Format string

// The formats. What the entries of a file say is always recognised by the names of their fields.
const (
	FormatAuto    Format = ""        // recognised by the contents
	FormatJSON    Format = "json"    // one document: a list or an object of entries, or an official file
	FormatJSONL   Format = "jsonl"   // an object per line
	FormatCSV     Format = "csv"     // with a header; the separator is a comma or a semicolon
	FormatTSV     Format = "tsv"     // with a header; separated by tabs
	FormatParquet Format = "parquet" // as img2dataset and Hugging Face's datasets write it
)

// document is an open annotation file. Entries are read again from where they start whenever they are asked for.
type document struct {
	path    string // as given, for messages
	format  Format
	r       io.ReaderAt
	size    int64
	base    int64 // of the file's offsets among those of the whole set
	comma   byte
	columns []role // of csv
	names   Columns
	parquet *parquetFile // where the pictures are in the file too
}

// openDocument opens a file, unpacks it if it is packed, and recognises its format.
func openDocument(path string, format Format, names Columns) (*document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("dataset: reading the annotation file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("it is a folder; name the file in it, or several with a pattern such as *.parquet")
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("dataset: reading the annotation file %s: %w", path, err)
	}
	d, err := newDocument(path, f, info.Size(), format, names)
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// file is what a document is read from.
type file interface {
	io.ReaderAt
	io.Closer
}

func newDocument(path string, f file, size int64, format Format, names Columns) (*document, error) {
	d := &document{path: path, format: format, r: f, size: size, names: names}
	if err := d.open(f); err != nil {
		if unpacked, ok := d.r.(io.Closer); ok && d.r != io.ReaderAt(f) {
			unpacked.Close()
		}
		return nil, fmt.Errorf("dataset: %s: %w", path, err)
	}
	return d, nil
}

func (d *document) open(f file) error {
	head, err := d.head()
	if err != nil {
		return err
	}
	if bytes.HasPrefix(head, []byte("\x1f\x8b")) {
		if d.r, d.size, err = gunzip(io.NewSectionReader(f, 0, d.size), d.size); err != nil {
			return err
		}
		f.Close()
		if head, err = d.head(); err != nil {
			return err
		}
	}
	if d.format == FormatAuto {
		if d.format, err = recognise(head, strings.TrimSuffix(d.path, ".gz")); err != nil {
			return err
		}
	}
	switch d.format {
	case FormatJSON, FormatJSONL:
		return nil
	case FormatCSV, FormatTSV:
		return d.readHeader()
	case FormatParquet:
		return d.openParquet(f)
	}
	return fmt.Errorf("unknown format %q; %q, %q, %q, %q and %q are known", d.format, FormatJSON, FormatJSONL,
		FormatCSV, FormatTSV, FormatParquet)
}

// head is the beginning of the file.
func (d *document) head() ([]byte, error) {
	head := make([]byte, min(d.size, 1<<16))
	n, err := d.r.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading: %w", err)
	}
	return head[:n], nil
}

// expected is what messages say an annotation file should be.
const expected = `expected a list of {"image": ..., "caption": ...} or of questions, COCO captions ` +
	`({"images": [...], "annotations": [...]}), or a table with a header that names image and caption`

// recognise finds the format by what a file begins with, and by its name where that leaves a choice.
func recognise(head []byte, path string) (Format, error) {
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\ufeff")), " \t\r\n")
	for _, known := range []struct{ prefix, name string }{
		{"<", "an HTML or XML page (an error page saved by a download?)"},
		{"PK\x03\x04", "a zip archive (unpack it)"},
		{"(\xb5/\xfd", "zstd-compressed (unpack it with zstd -d)"},
		{"\xff\xfe", "UTF-16 text (save it as UTF-8)"},
		{"\xfe\xff", "UTF-16 text (save it as UTF-8)"},
		{"version https://git-lfs", "a Git LFS pointer (fetch the file with git lfs pull)"},
	} {
		if bytes.HasPrefix(text, []byte(known.prefix)) {
			return "", fmt.Errorf("the file is %s; %s", known.name, expected)
		}
	}
	firstLine, _, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case len(text) == 0:
		return "", errors.New("the file is empty; " + expected)
	case bytes.HasPrefix(head, []byte("PAR1")):
		return FormatParquet, nil
	case text[0] == '[' && !strings.HasSuffix(path, ".jsonl"):
		return FormatJSON, nil
	case text[0] == '[':
		return FormatJSONL, nil
	case text[0] == '{':
		if strings.HasSuffix(path, ".jsonl") || strings.HasSuffix(path, ".ndjson") || isRow(firstLine) {
			return FormatJSONL, nil
		}
		return FormatJSON, nil
	case bytes.IndexByte(firstLine, 0) >= 0:
	case bytes.IndexByte(firstLine, '\t') >= 0:
		return FormatTSV, nil
	case bytes.ContainsAny(firstLine, ",;"):
		return FormatCSV, nil
	}
	return "", fmt.Errorf("the file is neither JSON nor a table (starts with %q); %s", text[:min(len(text), 16)],
		expected)
}

// isRow says whether a line is an entry by itself: an object that has one of the usual fields with a plain value.
func isRow(line []byte) bool {
	s, row := jsonscan.New(line), false
	err := s.Object(func(key []byte) error {
		switch kind := s.Kind(); roles[string(key)] {
		case roleImage, roleImageID, roleCaption, roleQuestion:
			row = row || kind == jsonscan.String || kind == jsonscan.Number
		}
		return s.Skip()
	})
	return err == nil && row
}

// maxUnpacked bounds what a packed file may grow to: this many times its size. Annotation files shrink to a fifth or a
// twentieth; a bomb is refused before it fills the disk.
const maxUnpacked = 300

// gunzip writes what a gzip file holds to a temporary file without a name, which goes when the program does.
func gunzip(packed io.Reader, size int64) (file, int64, error) {
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, 0, fmt.Errorf("unpacking: %w", err)
	}
	f, err := temporary()
	if err != nil {
		return nil, 0, err
	}
	limit := maxUnpacked*size + 1<<20
	n, err := io.Copy(f, io.LimitReader(z, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("the file grows to more than %d times its size", maxUnpacked)
	}
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("unpacking (into %s): %w", os.TempDir(), err)
	}
	return f, n, nil
}

// temporary makes a file that no other program sees and that is gone when it is closed.
func temporary() (*os.File, error) {
	f, err := os.CreateTemp("", "blip2-annotations-*")
	if err != nil {
		return nil, fmt.Errorf("an unpacked copy: %w (TMPDIR says where)", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("an unpacked copy: %w", err)
	}
	return f, nil
}

// readHeader finds out what the columns of a table are.
func (d *document) readHeader() error {
	w := newLineWalker(io.NewSectionReader(d.r, 0, d.size), d.quoting(), maxLine)
	line, _, err := w.next()
	if err != nil {
		return fmt.Errorf("the header: %w", err)
	}
	line = bytes.TrimPrefix(line, []byte("\ufeff"))
	if d.comma = ','; d.format == FormatTSV {
		d.comma = '\t'
	} else if bytes.IndexByte(line, ',') < 0 {
		d.comma = ';'
	}
	found := map[role]string{}
	var names []string
	for _, field := range splitFields(nil, line, d.comma) {
		name := strings.TrimSpace(string(field))
		what := d.names.roleOf(name)
		if other, twice := found[what]; twice && what != roleNone && what != roleCaption {
			return fmt.Errorf("line 1: the columns %q and %q both say the same; say which to use (columns)", other, name)
		}
		found[what] = name
		names = append(names, name)
		d.columns = append(d.columns, what)
	}
	_, image := found[roleImage]
	_, id := found[roleImageID]
	if !image && !id {
		return fmt.Errorf("line 1: no column is known to hold the file names of pictures (columns: %.200s); the file "+
			"needs a header with image, path or file_name, or the columns named (columns)", strings.Join(names, ", "))
	}
	return nil
}

// quoting follows the quotes of a csv file, from the beginning of a record on; it is nil for other files.
func (d *document) quoting() *quoting {
	if d.format != FormatCSV {
		return nil
	}
	return &quoting{comma: d.comma}
}

// scan visits every entry of the file.
func (d *document) scan(visit func(*item) error) error {
	r := io.NewSectionReader(d.r, 0, d.size)
	if d.format == FormatJSON {
		return walkJSON(r, visit)
	}
	w := newLineWalker(r, d.quoting(), maxLine)
	if d.parquet != nil {
		w.limit = maxItem
	}
	header := d.columns != nil
	for i := 0; ; {
		line, offset, err := w.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if offset == 0 && bytes.HasPrefix(line, []byte("\ufeff")) {
			line, offset = line[3:], 3
		}
		if header || len(bytes.TrimSpace(line)) == 0 {
			header = false
			continue
		}
		if err := visit(&item{line: true, index: i, offset: offset, data: line}); err != nil {
			return err
		}
		i++
	}
}

// parse reads an entry.
func (d *document) parse(r *record, data []byte) error {
	if d.columns != nil {
		if !utf8.Valid(data) {
			return errors.New("the text is not UTF-8; save the file in that encoding")
		}
		return r.parseFields(splitFields(nil, data, d.comma), d.columns)
	}
	return r.parseJSON(data, &d.names)
}

// entryGuess is how many bytes of an entry are read at first.
const entryGuess = 2048

// read reads the entry at an offset of this file into r, using buf for its bytes.
func (d *document) read(r *record, offset int64, buf *[]byte) error {
	for n := int64(entryGuess); ; n *= 8 {
		n = min(n, d.size-offset, maxItem+64)
		if int64(cap(*buf)) < n {
			*buf = make([]byte, n)
		}
		data := (*buf)[:n]
		if got, err := d.r.ReadAt(data, offset); err != nil && !(errors.Is(err, io.EOF) && int64(got) == n) {
			return fmt.Errorf("reading the annotation file %s again: %w", d.path, err)
		}
		end, whole := d.extent(data)
		if !whole && offset+n < d.size && n < maxItem {
			continue
		}
		if err := d.parse(r, data[:end]); err != nil {
			return fmt.Errorf("%s: byte %d: %w", d.path, offset, scanReason(err))
		}
		return nil
	}
}

// extent is where the entry ends that data begins with, and whether it ends there for sure.
func (d *document) extent(data []byte) (end int, whole bool) {
	switch d.format {
	case FormatJSON:
		return jsonExtent(data)
	case FormatCSV:
		quotes := d.quoting()
		for i, c := range data {
			if c == '\n' && quotes.state != inQuotes {
				return lineEnd(data, i), true
			}
			quotes.next(c)
		}
	default:
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			return lineEnd(data, i), true
		}
	}
	return lineEnd(data, len(data)), false
}

// lineEnd leaves a carriage return out.
func lineEnd(data []byte, end int) int {
	if end > 0 && data[end-1] == '\r' {
		return end - 1
	}
	return end
}

// jsonExtent finds the end of the object or list that data begins with, a name in front included.
func jsonExtent(data []byte) (end int, whole bool) {
	depth, text, escaped := 0, false, false
	for i, c := range data {
		switch {
		case escaped:
			escaped = false
		case text:
			escaped, text = c == '\\', c != '"'
		case c == '"':
			text = true
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth--; depth <= 0 {
				return i + 1, true
			}
		}
	}
	return len(data), false
}

// line says which line an offset is in.
func (d *document) line(offset int64) string {
	r, line := io.NewSectionReader(d.r, 0, min(offset, d.size)), 1
	buf := make([]byte, 1<<16)
	for {
		n, err := r.Read(buf)
		line += bytes.Count(buf[:n], []byte("\n"))
		if err != nil {
			return fmt.Sprintf("line %d", line)
		}
	}
}

// fail says in which file, line and entry something is wrong.
func (d *document) fail(it *item, err error) error {
	offset, where := int64(0), ""
	if it != nil {
		offset, where = it.offset, it.name()
	}
	var place *placeError
	var scan *jsonscan.Error
	switch {
	case errors.As(err, &place):
		offset, err, where = place.offset, place.err, ""
	case errors.As(err, &scan):
		offset, err = offset+int64(scan.Offset), scanReason(err)
	}
	if d.parquet != nil && it != nil {
		return fmt.Errorf("dataset: %s: row %d: %w", d.path, it.index, err)
	}
	if where != "" {
		where += ": "
	}
	return fmt.Errorf("dataset: %s: %s (byte %d): %s%w", d.path, d.line(offset), offset, where, err)
}

// name is what to call an entry in messages.
func (it *item) name() string {
	switch {
	case it.line:
		return ""
	case it.single:
		return fmt.Sprintf("%.40q", it.section)
	case it.section != "":
		return fmt.Sprintf("%.40s[%d]", it.section, it.index)
	}
	return fmt.Sprintf("item %d of the list", it.index)
}

// readError makes an error of a scan one that names the file.
func (d *document) readError(err error) error {
	var place *placeError
	if errors.As(err, &place) {
		return d.fail(nil, err)
	}
	return err
}
