package dataset

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/format"
)

// Bounds of what is read of a Parquet file; real ones stay far below.
const (
	maxFooter     = 256 << 20 // bytes of metadata
	maxPage       = 256 << 20 // bytes of a page, unpacked
	maxPageValues = 1 << 24
	minRowBits    = 1 // bits of the file per row: a file of nothing can claim any number of rows
)

// parquetFile gives the pictures that a Parquet file holds.
type parquetFile struct {
	r      file
	column int // the pictures' among the leaves
	kind   parquetKind
	chunks []pageList // per row group
	starts []int64    // first row of every row group, and one more
	groups []parquet.RowGroup
}

// pageList is where the pages of a column chunk are.
type pageList struct {
	prefix  int64 // where the chunk's dictionary ends, if it has one
	codec   format.CompressionCodec
	end     int64
	rows    []int64 // first row of every page, within the row group
	offsets []int64
	checked []atomic.Bool // pages that were found good
}

// Close closes the file.
func (p *parquetFile) Close() error { return p.r.Close() }

// openParquet writes the texts of a Parquet file as lines to a temporary file, and notes where its pictures are.
func (d *document) openParquet(f file) (err error) {
	defer func() {
		if r := recover(); r != nil { // the reader's way to say that a file is damaged
			err = fmt.Errorf("the Parquet file is damaged: %v", r)
		}
	}()
	if err := checkFooter(d.r, d.size); err != nil {
		return fmt.Errorf("the Parquet file is damaged: %w", err)
	}
	pf, err := parquet.OpenFile(d.r, d.size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return fmt.Errorf("the Parquet file is damaged: %w", err)
	}
	columns, picture, kind, err := d.parquetColumns(pf)
	if err != nil {
		return err
	}
	if pf.NumRows() < 0 || pf.NumRows()*minRowBits > 8*d.size {
		return fmt.Errorf("the Parquet file is damaged: it claims %d rows in %d bytes", pf.NumRows(), d.size)
	}
	pictures := &parquetFile{r: f, column: picture, kind: kind, starts: []int64{0}, groups: pf.RowGroups()}
	lines, err := temporary()
	if err != nil {
		return err
	}
	w := &parquetWriter{limit: maxUnpacked*d.size + 1<<20, w: bufio.NewWriterSize(lines, 1<<18), columns: columns, pictures: picture >= 0}
	for g := range pf.RowGroups() {
		if err = d.parquetGroup(w, pictures, g, pf); err != nil {
			lines.Close()
			return fmt.Errorf("row group %d: %w", g, err)
		}
	}
	if err = w.w.Flush(); err != nil {
		lines.Close()
		return fmt.Errorf("a copy of the texts (in %s): %w", os.TempDir(), err)
	}
	d.r, d.size = lines, w.n
	if picture >= 0 {
		d.parquet = pictures
	} else {
		f.Close()
	}
	return nil
}

// parquetColumn is a leaf of the schema that is of use.
type parquetColumn struct {
	index  int
	kind   parquetKind
	field  string // name in the lines
	status bool   // img2dataset's: rows that are not a "success" have no picture
}

// pictureColumns are the names of columns with encoded pictures.
func pictureColumn(name string) bool {
	switch strings.ToLower(name) {
	case "jpg", "jpeg", "png", "webp", "image", "img", "image_bytes", "img_bytes", "bytes", "picture":
		return true
	}
	return false
}

// parquetColumns picks the columns with texts, and the one with pictures (−1 if there is none).
func (d *document) parquetColumns(pf *parquet.File) (columns []parquetColumn, picture int, pictures parquetKind,
	err error) {
	picture = -1
	for _, path := range pf.Schema().Columns() {
		leaf, _ := pf.Schema().Lookup(path...)
		name, last := path[0], path[len(path)-1]
		kind := leaf.Node.Type().Kind()
		bytesType := kind == parquet.ByteArray || kind == parquet.FixedLenByteArray
		text := isText(leaf.Node.Type())
		how := parquetKind{leaf.MaxRepetitionLevel, leaf.MaxDefinitionLevel, kind}
		switch {
		case leaf.MaxRepetitionLevel == 0 && bytesType && !text && picture < 0 &&
			(len(path) == 1 && pictureColumn(name) || len(path) == 2 && last == "bytes"):
			picture, pictures = leaf.ColumnIndex, how
		case len(path) == 2 && last == "path" && pictureColumn(name):
			columns = append(columns, parquetColumn{index: leaf.ColumnIndex, kind: how, field: "image"})
		case len(path) == 1 && name == "status":
			columns = append(columns, parquetColumn{index: leaf.ColumnIndex, kind: how, status: true})
		case d.names.roleOf(name) == roleNone, kind == parquet.Boolean, kind == parquet.Float, kind == parquet.Double,
			kind == parquet.Int96, leaf.MaxRepetitionLevel > 1, len(path) > 1 && leaf.MaxRepetitionLevel == 0,
			len(path) > 3 && (len(path) > 4 || last != "answer" && last != "raw"):
		default:
			columns = append(columns, parquetColumn{index: leaf.ColumnIndex, kind: how, field: name})
		}
	}
	named := picture >= 0
	for _, c := range columns {
		what := d.names.roleOf(c.field)
		named = named || what == roleImage || what == roleImageID
	}
	if !named {
		return nil, 0, pictures, fmt.Errorf("no column holds pictures or their file names (columns: %.200s)",
			strings.Join(columnNames(pf), ", "))
	}
	return columns, picture, pictures, nil
}

func isText(t parquet.Type) bool {
	logical := t.LogicalType()
	if logical == nil {
		return false
	}
	_, text := logical.Value.(*format.StringType)
	return text
}

func columnNames(pf *parquet.File) []string {
	var all []string
	for _, path := range pf.Schema().Columns() {
		all = append(all, strings.Join(path, "."))
	}
	return all
}

// parquetGroup writes the texts of a row group.
func (d *document) parquetGroup(w *parquetWriter, p *parquetFile, g int, pf *parquet.File) error {
	group := pf.RowGroups()[g]
	n := group.NumRows()
	if n < 0 || n*minRowBits > 8*d.size {
		return fmt.Errorf("it claims %d rows", n)
	}
	if n == 0 { // pyarrow writes one for an empty table, with places of pages that are not there
		p.chunks, p.starts = append(p.chunks, pageList{}), append(p.starts, p.starts[g])
		return nil
	}
	chunks, meta := group.ColumnChunks(), pf.Metadata().RowGroups[g].Columns
	if p.column >= 0 {
		pages, err := d.walkPages(&meta[p.column].MetaData, p.kind, n, true)
		if err != nil {
			return fmt.Errorf("the pictures: %w", err)
		}
		p.chunks = append(p.chunks, pages)
		p.starts = append(p.starts, p.starts[g]+n)
	}
	var readers []*columnReader
	defer func() {
		for _, r := range readers {
			r.pages.Close()
		}
	}()
	for _, c := range w.columns {
		if _, err := d.walkPages(&meta[c.index].MetaData, c.kind, n, false); err != nil {
			return fmt.Errorf("column %s: %w", c.field, err)
		}
		readers = append(readers, &columnReader{pages: chunks[c.index].Pages()})
	}
	for range n {
		if err := w.row(readers); err != nil {
			return fmt.Errorf("row %d: %w", w.row0, err)
		}
	}
	return nil
}

// columnReader gives the values of a column row by row.
type columnReader struct {
	pages  parquet.Pages
	values parquet.ValueReader
	page   parquet.Page
	buf    [256]parquet.Value
	have   []parquet.Value
	end    bool
}

// next appends the values of the next row; null is left out.
func (c *columnReader) next(row []parquet.Value) ([]parquet.Value, error) {
	for first := true; ; first = false {
		if len(c.have) == 0 {
			if err := c.fill(); err != nil {
				return row, err
			}
		}
		if c.end || !first && c.have[0].RepetitionLevel() == 0 {
			if c.end && first {
				return row, errors.New("the column ends too early")
			}
			return row, nil
		}
		if len(row) > maxTexts {
			return row, fmt.Errorf("it has more than %d values", maxTexts)
		}
		if !c.have[0].IsNull() {
			row = append(row, c.have[0].Clone())
		}
		c.have = c.have[1:]
	}
}

func (c *columnReader) fill() error {
	for !c.end {
		if c.values != nil {
			n, err := c.values.ReadValues(c.buf[:])
			c.have = c.buf[:n]
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if err != nil {
				c.values = nil
			}
			if n > 0 {
				return nil
			}
			continue
		}
		page, err := c.pages.ReadPage()
		if errors.Is(err, io.EOF) {
			c.end = true
			return nil
		}
		if err != nil {
			return err
		}
		c.page, c.values = page, page.Values()
	}
	return nil
}

// parquetWriter writes rows as lines of JSON.
type parquetWriter struct {
	w        *bufio.Writer
	n        int64 // bytes
	limit    int64 // for n
	row0     int64 // rows read
	columns  []parquetColumn
	pictures bool
	values   []parquet.Value
	line     []byte
}

func (w *parquetWriter) row(readers []*columnReader) error {
	w.line = append(w.line[:0], '{')
	skip := false
	if w.pictures {
		w.line = strconv.AppendInt(append(w.line, `"parquet_row":`...), w.row0, 10)
	}
	w.row0++
	for i, r := range readers {
		var err error
		if w.values, err = r.next(w.values[:0]); err != nil {
			return err
		}
		c := &w.columns[i]
		if c.status {
			skip = len(w.values) > 0 && w.values[0].Kind() == parquet.ByteArray && w.values[0].String() != "success"
			continue
		}
		if err := w.field(c.field); err != nil {
			return err
		}
	}
	if len(w.line) > maxItem {
		return fmt.Errorf("its texts are longer than %d MiB", maxItem>>20)
	}
	if skip || len(w.line) == 1 {
		return nil
	}
	w.line = append(w.line, '}', '\n')
	if w.n += int64(len(w.line)); w.n > w.limit {
		return fmt.Errorf("its texts grow to more than %d times the file's size", maxUnpacked)
	}
	_, err := w.w.Write(w.line)
	return err
}

// field writes a name and the values: null if there is none, a list if there are several.
func (w *parquetWriter) field(name string) error {
	if len(w.line) > 1 {
		w.line = append(w.line, ',')
	}
	if err := w.text([]byte(name)); err != nil {
		return err
	}
	w.line = append(w.line, ':')
	if len(w.values) == 0 {
		w.line = append(w.line, "null"...)
	}
	if len(w.values) > 1 {
		w.line = append(w.line, '[')
	}
	for i, v := range w.values {
		if i > 0 {
			w.line = append(w.line, ',')
		}
		var err error
		switch v.Kind() {
		case parquet.Int32:
			w.line = strconv.AppendInt(w.line, int64(v.Int32()), 10)
		case parquet.Int64:
			w.line = strconv.AppendInt(w.line, v.Int64(), 10)
		default:
			err = w.text(v.ByteArray())
		}
		if err != nil {
			return err
		}
	}
	if len(w.values) > 1 {
		w.line = append(w.line, ']')
	}
	return nil
}

func (w *parquetWriter) text(b []byte) error {
	quoted, err := json.Marshal(string(b))
	w.line = append(w.line, quoted...)
	return err
}

// picture opens the picture of a row. Only the page that holds it is read.
func (p *parquetFile) picture(text []byte) (_ io.ReadCloser, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the Parquet file is damaged: %v", r)
		}
	}()
	row, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil || row < 0 || row >= p.starts[len(p.starts)-1] {
		return nil, fmt.Errorf("row %.20s is not in the Parquet file", text)
	}
	g := sort.Search(len(p.chunks), func(g int) bool { return p.starts[g+1] > row })
	list, row := &p.chunks[g], row-p.starts[g]
	page := sort.Search(len(list.rows), func(i int) bool { return list.rows[i] > row }) - 1
	chunk, ok := p.groups[g].ColumnChunks()[p.column].(*parquet.FileColumnChunk)
	if !ok {
		return nil, errors.New("the Parquet file's pictures cannot be read one by one")
	}
	if !list.checked[page].Load() {
		packed := document{r: p.r, size: list.end}
		h, err := packed.pageHeader(list.offsets[page], list.end)
		if err == nil {
			err = packed.checkPage(list.codec, p.kind, list.offsets[page], &h)
		}
		if err != nil {
			return nil, fmt.Errorf("the page of the picture: %w", err)
		}
		list.checked[page].Store(true)
	}
	pages := chunk.PagesFrom(&jumpReader{r: p.r, prefix: list.prefix, target: list.offsets[page]})
	defer pages.Close()
	if err := pages.SeekToRow(row - list.rows[page]); err != nil {
		return nil, fmt.Errorf("reading the picture: %w", err)
	}
	data, err := pages.ReadPage()
	if err != nil {
		return nil, fmt.Errorf("reading the picture: %w", err)
	}
	defer parquet.Release(data)
	var value [1]parquet.Value
	if n, err := data.Values().ReadValues(value[:]); n == 0 {
		return nil, fmt.Errorf("reading the picture: %w", err)
	}
	if value[0].IsNull() || len(value[0].ByteArray()) == 0 {
		return nil, errors.New("the row has no picture")
	}
	return io.NopCloser(bytes.NewReader(bytes.Clone(value[0].ByteArray()))), nil
}

// jumpReader shows a column chunk as if the page at target were its first one after the dictionary: what is read from
// prefix on comes from target on.
type jumpReader struct {
	r              io.ReaderAt
	prefix, target int64
}

func (j *jumpReader) ReadAt(p []byte, offset int64) (int, error) {
	if offset >= j.prefix {
		return j.r.ReadAt(p, offset-j.prefix+j.target)
	}
	if short := j.prefix - offset; int64(len(p)) > short {
		n, err := j.r.ReadAt(p[:short], offset)
		if int64(n) < short {
			return n, err
		}
		m, err := j.r.ReadAt(p[n:], j.target)
		return n + m, err
	}
	return j.r.ReadAt(p, offset)
}

// checkFooter refuses metadata whose lists are longer than itself, which would be made room for.
func checkFooter(r io.ReaderAt, size int64) error {
	if size < 12 {
		return errors.New("it is cut off")
	}
	var tail [8]byte
	if _, err := r.ReadAt(tail[:], size-8); err != nil {
		return fmt.Errorf("reading its end: %w", err)
	}
	n := int64(binary.LittleEndian.Uint32(tail[:4]))
	switch {
	case string(tail[4:]) == "PARE":
		return errors.New("it is encrypted")
	case string(tail[4:]) != "PAR1":
		return errors.New("it does not end as a Parquet file does: it is cut off")
	case n > size-12 || n > maxFooter:
		return fmt.Errorf("its metadata would have %d bytes", n)
	}
	footer := make([]byte, n)
	if _, err := r.ReadAt(footer, size-8-n); err != nil {
		return fmt.Errorf("reading its metadata: %w", err)
	}
	t := thrift{data: footer}
	return t.structure(0, nil)
}

// walkPages finds the pages of a column chunk of so many rows by their headers, and refuses sizes that cannot be.
func (d *document) walkPages(meta *format.ColumnMetaData, kind parquetKind, rows int64, pictures bool) (pageList,
	error) {
	pages := pageList{prefix: meta.DataPageOffset, codec: meta.Codec}
	base := meta.DataPageOffset
	if meta.DictionaryPageOffset != 0 {
		base = meta.DictionaryPageOffset
	}
	end := base + meta.TotalCompressedSize
	if base < 4 || meta.TotalCompressedSize < 0 || end > d.size || end < base || pages.prefix < base {
		return pages, fmt.Errorf("it lies from byte %d to %d of %d", base, end, d.size)
	}
	pages.end = end
	total := int64(0)
	for at := base; at < end; {
		h, err := d.pageHeader(at, end)
		if err != nil {
			return pages, fmt.Errorf("the page at byte %d: %w", at, err)
		}
		if !pictures || h.kind == dictionaryPage { // pages of pictures are looked at when they are read
			if err := d.checkPage(meta.Codec, kind, at, &h); err != nil {
				return pages, fmt.Errorf("the page at byte %d: %w", at, err)
			}
		}
		next := at + h.size + h.compressed
		if h.kind == dictionaryPage && meta.DictionaryPageOffset == 0 {
			pages.prefix = next
		}
		if h.kind == dataPage || h.kind == dataPageV2 {
			pages.offsets, pages.rows = append(pages.offsets, at), append(pages.rows, total)
			total += h.values
		}
		at = next
	}
	if most := rows + 8*d.size; kind.repetition == 0 && total != rows || total > most {
		return pages, fmt.Errorf("its pages have %d values, the row group %d rows", total, rows)
	}
	pages.checked = make([]atomic.Bool, len(pages.offsets))
	return pages, nil
}

// Kinds of page.
const (
	dataPage       = 0
	dictionaryPage = 2
	dataPageV2     = 3
)

// pageHeader is what of a page's header is of use.
type pageHeader struct {
	size       int64 // of the header
	kind       int64
	unpacked   int64 // size of the page
	compressed int64
	values     int64
	encoding   int64
	repLevels  int64 // sizes of what is never compressed of a version 2 page
	defLevels  int64
	plain      bool // nothing is compressed of it
}

// checkPage reads the page at an offset and checks that it is what its header says.
func (d *document) checkPage(codec format.CompressionCodec, kind parquetKind, at int64, h *pageHeader) error {
	page := make([]byte, h.compressed)
	if _, err := d.r.ReadAt(page, at+h.size); err != nil {
		return fmt.Errorf("reading: %w", err)
	}
	if err := checkPacked(codec, page, h); err != nil {
		return err
	}
	return kind.checkValues(codec, page, h)
}

// pageHeader reads the header of the page at an offset.
func (d *document) pageHeader(at, end int64) (pageHeader, error) {
	var err error
	for _, n := range []int64{512, 1 << 20} { // statistics may be long
		buf := make([]byte, min(n, end-at))
		if _, err := d.r.ReadAt(buf, at); err != nil {
			return pageHeader{}, fmt.Errorf("reading: %w", err)
		}
		t := thrift{data: buf}
		said := map[[2]int]int64{{8, 7}: 1}
		err = t.structure(0, func(path [2]int, v int64) {
			if path[0] >= 0 && path[0] <= 8 && path[1] >= 0 && path[1] <= 8 { // the others are of no use
				said[path] = v
			}
		})
		if err != nil {
			continue
		}
		h := pageHeader{size: int64(t.at), kind: said[[2]int{1, 0}], unpacked: said[[2]int{2, 0}],
			compressed: said[[2]int{3, 0}]}
		switch h.kind {
		case dataPage:
			h.values, h.encoding = said[[2]int{5, 1}], said[[2]int{5, 2}]
		case dictionaryPage:
			h.values, h.encoding = said[[2]int{7, 1}], said[[2]int{7, 2}]
		case dataPageV2:
			h.values, h.encoding = said[[2]int{8, 1}], said[[2]int{8, 4}]
			h.defLevels, h.repLevels, h.plain = said[[2]int{8, 5}], said[[2]int{8, 6}], said[[2]int{8, 7}] == 0
		}
		if h.compressed < 0 || at+h.size+h.compressed > end || h.unpacked < 0 || h.unpacked > maxPage ||
			h.values < 0 || h.values > maxPageValues {
			return h, fmt.Errorf("it has %d values in %d bytes, %d unpacked, of %d", h.values, h.compressed, h.unpacked,
				end-at)
		}
		return h, nil
	}
	return pageHeader{}, err
}
