package shard

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
)

// block is the unit of a tar file, in bytes.
const block = 512

// maxSpecial bounds the members that hold long names and other records, in bytes.
const maxSpecial = 1 << 20

// Damage says that a shard is broken at a place.
type Damage struct {
	Offset int64 // byte in the tar; of a packed shard, in what is unpacked
	Reason string
}

// Error gives the offset and the reason.
func (d *Damage) Error() string { return fmt.Sprintf("byte %d: %s", d.Offset, d.Reason) }

// input is a tar file read from front to back.
type input interface {
	// read fills p, or fails with io.ErrUnexpectedEOF, or io.EOF if there is not a single byte.
	read(p []byte) error
	// skip passes over n bytes; it may notice only later that they are missing.
	skip(n int64) error
	// at is the offset of the next byte.
	at() int64
	// size is the length of the file; -1 if that is not known.
	size() int64
}

// kind is what matters of a member's type.
type kind byte

const (
	regular kind = iota
	ignored      // folders, links, devices
	sparse       // a file with holes
)

// member is an entry of a tar file.
type member struct {
	name  []byte // valid until the next call
	start int64  // first of its headers
	data  int64
	size  int64
	kind  kind
}

// tarReader gives the members of a tar file: POSIX ustar and pax, and GNU's long names. Memory is bounded whatever the
// bytes.
type tarReader struct {
	in      input
	head    [block]byte
	name    []byte
	left    int64 // bytes of the member's data that are still to come
	padding int64 // and what fills its last block
	resync  bool  // the last header was damaged: look for the next one
	ended   bool
}

// next gives the next member; its data may be read from the input. At the end it is io.EOF. After a *Damage the caller
// may go on: the reader looks for the next header.
func (t *tarReader) next(m *member) error {
	if t.ended {
		return io.EOF
	}
	if err := t.in.skip(t.left); err != nil {
		return t.cut(err)
	}
	t.left = 0
	if err := t.in.skip(t.padding); err != nil {
		if err != io.EOF {
			return t.cut(err)
		}
		*m = member{start: t.in.at()}
		return t.unmarked()
	}
	t.padding = 0
	*m = member{start: t.in.at()}
	var long, pax extra
	for {
		if err := t.header(m); err != nil {
			return err
		}
		size, ok := number(t.head[124:136])
		if !ok || size < 0 || size > math.MaxInt64-2*block {
			return t.damaged(m.start, "a member's size is not a number")
		}
		switch t.head[156] {
		case 'L', 'K', 'x', 'g', 'X':
			x := extra{}
			if err := t.readExtra(&x, t.head[156], size); err != nil {
				return err
			}
			switch t.head[156] {
			case 'L':
				long = x
			case 'x', 'X':
				pax = x
			}
			continue
		}
		return t.finish(m, size, &long, &pax)
	}
}

// header reads the next header into t.head, or io.EOF where the archive ends.
func (t *tarReader) header(m *member) error {
	for {
		at := t.in.at()
		switch err := t.in.read(t.head[:]); {
		case err == io.EOF && t.resync: // the damage was reported
			t.ended = true
			return io.EOF
		case err == io.EOF:
			return t.unmarked()
		case err != nil:
			return t.cut(err)
		}
		empty := isEmpty(t.head[:])
		if t.resync {
			if empty || !checksum(t.head[:]) || string(t.head[257:262]) != "ustar" {
				continue
			}
			t.resync = false
			m.start = at
			return nil
		}
		if empty {
			t.ended = true
			return io.EOF
		}
		if !checksum(t.head[:]) {
			return t.damaged(at, "a header's checksum is wrong")
		}
		return nil
	}
}

// finish makes the member of the header that was read last.
func (t *tarReader) finish(m *member, size int64, long, pax *extra) error {
	flag := t.head[156]
	name := t.plainName()
	switch {
	case long.hasName:
		name = long.name
	case pax.hasName:
		name = pax.name
	}
	if pax.hasSize {
		size = pax.size
	}
	m.name = name
	switch flag {
	case '0', 0, '7':
		if flag == 0 && bytes.HasSuffix(name, []byte("/")) {
			m.kind = ignored
		}
	case '1', '2', '3', '4', '5', '6':
		m.kind, size = ignored, 0
	case 'S':
		m.kind = sparse
		if err := t.skipSparse(); err != nil {
			return err
		}
	default:
		m.kind = ignored
	}
	if pax.sparse {
		m.kind = sparse
	}
	m.data, m.size = t.in.at(), size
	if end := t.in.size(); end >= 0 && size > end-m.data {
		t.ended = true
		return &Damage{end, fmt.Sprintf("the shard is cut off inside %.200q, which has %d bytes from byte %d", m.name,
			size, m.data)}
	}
	t.left, t.padding = size, padded(size)-size
	return nil
}

// took notes that n bytes of the member's data were read.
func (t *tarReader) took(n int64) { t.left -= n }

// plainName is the name in a header itself; it stays valid until the next call.
func (t *tarReader) plainName() []byte {
	t.name = t.name[:0]
	if string(t.head[257:265]) == "ustar\x0000" {
		if prefix := cString(t.head[345:500]); len(prefix) > 0 {
			t.name = append(append(t.name, prefix...), '/')
		}
	}
	t.name = append(t.name, cString(t.head[:100])...)
	return t.name
}

// skipSparse passes over the further blocks of a GNU sparse header.
func (t *tarReader) skipSparse() error {
	for more := t.head[482] != 0; more; more = t.head[504] != 0 {
		if err := t.in.read(t.head[:]); err != nil {
			return t.cut(err)
		}
	}
	return nil
}

// unmarked reports the end of a file that does not end as archives do.
func (t *tarReader) unmarked() error {
	t.ended = true
	end := t.in.at()
	if size := t.in.size(); size >= 0 { // what filled the last block may be missing
		end = min(end, size)
	}
	return &Damage{end, "the shard is cut off: it ends without the empty blocks that mark the end of a tar"}
}

// damaged reports a broken header and makes the reader look for the next one.
func (t *tarReader) damaged(at int64, reason string) error {
	t.resync = true
	return &Damage{at, reason}
}

// cut reports the end of the file inside a member, and packed data that is broken. Other errors pass: those of the
// medium may wrap io.ErrUnexpectedEOF, but are not it.
func (t *tarReader) cut(err error) error {
	t.ended = true
	var flipped flate.CorruptInputError
	switch {
	case err == io.EOF || err == io.ErrUnexpectedEOF:
		return &Damage{t.in.at(), "the shard is cut off"}
	case errors.As(err, &flipped), err == gzip.ErrChecksum, err == gzip.ErrHeader:
		return &Damage{t.in.at(), "the packed data is damaged: " + err.Error()}
	}
	return err
}

// extra is what a special member says of the one that follows.
type extra struct {
	name    []byte
	hasName bool
	size    int64
	hasSize bool
	sparse  bool
}

// readExtra reads a special member: GNU's long name, or the records of pax.
func (t *tarReader) readExtra(x *extra, flag byte, size int64) error {
	at := t.in.at()
	if size > maxSpecial {
		return t.damaged(at-block, "the records of a member are unreasonably long")
	}
	data := make([]byte, padded(size))
	if err := t.in.read(data); err != nil && size > 0 {
		return t.cut(err)
	}
	data = data[:size]
	switch flag {
	case 'L':
		x.name, x.hasName = cString(data), true
	case 'x', 'X':
		if !x.parse(data) {
			return t.damaged(at-block, "the records of a member are broken")
		}
	}
	return nil
}

// parse reads records of pax: "12 path=abc\n", where 12 is the record's length.
func (x *extra) parse(data []byte) bool {
	for len(data) > 0 {
		digits, _, found := bytes.Cut(data, []byte(" "))
		n, ok := decimal(digits)
		if !found || !ok || n > int64(len(data)) || n < int64(len(digits))+3 || data[n-1] != '\n' {
			return false
		}
		key, value, found := bytes.Cut(data[len(digits)+1:n-1], []byte("="))
		if !found || len(key) == 0 {
			return false
		}
		switch {
		case string(key) == "path":
			if bytes.IndexByte(value, 0) >= 0 {
				return false
			}
			x.name, x.hasName = value, len(value) > 0
		case string(key) == "size":
			if len(value) == 0 {
				x.hasSize = false
			} else if x.size, x.hasSize = decimal(value); !x.hasSize || x.size > math.MaxInt64-2*block {
				return false
			}
		case bytes.HasPrefix(key, []byte("GNU.sparse.")):
			x.sparse = true
		}
		data = data[n:]
	}
	return true
}

// decimal is a whole number without a sign.
func decimal(s []byte) (int64, bool) {
	if len(s) == 0 || len(s) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// number reads a number field: octal digits, or GNU's binary form for what they cannot hold.
func number(field []byte) (int64, bool) {
	if field[0]&0x80 != 0 {
		n := int64(field[0] & 0x7f)
		if field[0] == 0xff {
			return -1, true
		}
		for _, c := range field[1:] {
			if n > math.MaxInt64>>8 {
				return 0, false
			}
			n = n<<8 | int64(c)
		}
		return n, true
	}
	n := int64(0)
	for _, c := range bytes.Trim(field, " \x00") {
		if c < '0' || c > '7' {
			return 0, c == 0 // what follows the end of the text is nobody's business
		}
		n = n<<3 | int64(c-'0')
	}
	return n, true
}

// checksum says whether a header's checksum is right. Some old writers add up signed bytes.
func checksum(head []byte) bool {
	want, ok := number(head[148:156])
	if !ok {
		return false
	}
	var unsigned, signed int64
	for i, c := range head {
		if 148 <= i && i < 156 {
			c = ' '
		}
		unsigned += int64(c)
		signed += int64(int8(c))
	}
	return want == unsigned || want == signed
}

func isEmpty(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func cString(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// padded rounds up to whole blocks.
func padded(n int64) int64 { return (n + block - 1) / block * block }

// fileInput reads a tar that can be read anywhere; what is skipped is never read.
type fileInput struct {
	r      io.ReaderAt
	length int64
	pos    int64
	window []byte // the bytes from base that are in memory
	base   int64
	buf    []byte // its length is how much is read at a time
}

// windowSize is how much is read at a time: enough for the headers and captions of small samples, little enough not
// to read much of a picture behind a header.
const windowSize = 8 << 10

func newFileInput(r io.ReaderAt, length int64, window int) *fileInput {
	return &fileInput{r: r, length: length, buf: make([]byte, window)}
}

func (f *fileInput) at() int64   { return f.pos }
func (f *fileInput) size() int64 { return f.length }

func (f *fileInput) skip(n int64) error {
	f.pos += n
	return nil
}

func (f *fileInput) read(p []byte) error {
	if f.pos >= f.length {
		return io.EOF
	}
	for done := 0; done < len(p); {
		if f.pos >= f.length {
			return io.ErrUnexpectedEOF
		}
		if f.pos < f.base || f.pos >= f.base+int64(len(f.window)) {
			if err := f.load(); err != nil {
				return err
			}
		}
		n := copy(p[done:], f.window[f.pos-f.base:])
		done += n
		f.pos += int64(n)
	}
	return nil
}

func (f *fileInput) load() error {
	n, err := f.r.ReadAt(f.buf[:min(int64(len(f.buf)), f.length-f.pos)], f.pos)
	if n == 0 {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	f.base, f.window = f.pos, f.buf[:n]
	return nil
}

// streamInput reads a tar that can only be read in order.
type streamInput struct {
	r      io.Reader
	length int64 // -1 if not known
	pos    int64
}

func (s *streamInput) at() int64   { return s.pos }
func (s *streamInput) size() int64 { return s.length }

func (s *streamInput) read(p []byte) error {
	n, err := io.ReadFull(s.r, p)
	s.pos += int64(n)
	return err
}

func (s *streamInput) skip(n int64) error {
	skipped, err := io.CopyN(io.Discard, s.r, n)
	s.pos += skipped
	return err
}
