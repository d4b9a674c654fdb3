package raster

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// PNGSignature is how every PNG file begins.
const PNGSignature = "\x89PNG\r\n\x1a\n"

// Colour types of PNG.
const (
	pngGrey      = 0
	pngRGB       = 2
	pngPalette   = 3
	pngGreyAlpha = 4
	pngRGBA      = 6
)

// pngFile is a PNG file that is being read.
type pngFile struct {
	rest      []byte // what follows the last chunk read
	lenient   bool
	w, h      int
	depth     int
	kind      byte
	interlace bool
	colors    palette
	samples   int // per pixel
}

// DecodePNG reads a PNG picture of any depth, colour type and interlacing. If lenient, what a truncated or damaged file
// lacks stays black (or colour 0), and checksums of chunks that do not matter are not looked at.
func DecodePNG(data []byte, lenient bool, canvas Canvas) error {
	if !bytes.HasPrefix(data, []byte(PNGSignature)) {
		return errors.New("not a PNG file")
	}
	f := pngFile{rest: data[len(PNGSignature):], lenient: lenient}
	first, err := f.header()
	if err != nil {
		return err
	}
	pix, err := blank(canvas, f.w, f.h)
	if err != nil {
		return err
	}
	rows, err := zlib.NewReader(&idat{f: &f, chunk: first})
	if err == nil {
		err = f.read(pix, rows)
	} else {
		f.blankColor(pix)
	}
	if err != nil && !lenient {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return ErrTruncated
		}
		return fmt.Errorf("the compressed samples of the PNG file are damaged: %w", err)
	}
	return nil
}

// chunk reads the next chunk; a body that the file cuts short is given as far as it goes.
func (f *pngFile) chunk() (name string, body []byte, whole bool) {
	if len(f.rest) < 8 {
		f.rest = nil
		return "", nil, false
	}
	n := binary.BigEndian.Uint32(f.rest)
	name = string(f.rest[4:8])
	body = f.rest[8:]
	if uint64(n) > uint64(len(body)) {
		f.rest = nil
		return name, body, false
	}
	f.rest = body[n:]
	return name, body[:n], true
}

// checksum verifies the last chunk read.
func (f *pngFile) checksum(name string, body []byte) error {
	ancillary := name[0]&0x20 != 0
	if len(f.rest) < 4 {
		if f.lenient && ancillary {
			f.rest = nil
			return nil
		}
		return ErrTruncated
	}
	sum := crc32.Update(crc32.ChecksumIEEE([]byte(name)), crc32.IEEETable, body)
	ok := binary.BigEndian.Uint32(f.rest) == sum
	f.rest = f.rest[4:]
	if !ok && !(f.lenient && ancillary) {
		return fmt.Errorf("chunk %q of the PNG file has a wrong checksum", name)
	}
	return nil
}

// header reads everything up to the first chunk of samples, and gives that chunk's body.
func (f *pngFile) header() (first []byte, err error) {
	for {
		name, body, whole := f.chunk()
		switch {
		case name == "":
			return nil, ErrTruncated
		case name == "IDAT":
			if f.depth == 0 {
				return nil, errors.New("the PNG file has no header")
			}
			return body, nil
		case !whole:
			return nil, ErrTruncated
		case name == "IEND":
			return nil, errors.New("the PNG file has no samples")
		}
		if err := f.headerChunk(name, body); err != nil {
			return nil, err
		}
		if err := f.checksum(name, body); err != nil {
			return nil, err
		}
	}
}

func (f *pngFile) headerChunk(name string, body []byte) error {
	for _, c := range []byte(name) {
		if c < '0' && !f.lenient {
			return fmt.Errorf("the PNG file has a chunk named %q", name)
		}
	}
	switch name {
	case "IHDR":
		return f.setHeader(body)
	case "PLTE":
		for i := range min(len(body)/3, 256) {
			copy(f.colors[i][:], body[3*i:])
		}
	}
	return nil
}

func (f *pngFile) setHeader(b []byte) error {
	if len(b) < 13 {
		return errors.New("the header of the PNG file is too short")
	}
	w, h := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if w > 1<<31-1 || h > 1<<31-1 {
		return fmt.Errorf("the PNG picture claims %d×%d pixels", w, h)
	}
	f.w, f.h, f.depth, f.kind, f.interlace = int(w), int(h), int(b[8]), b[9], b[12] != 0
	f.samples = map[byte]int{pngGrey: 1, pngRGB: 3, pngPalette: 1, pngGreyAlpha: 2, pngRGBA: 4}[f.kind]
	ok := f.depth == 8 || f.depth == 16 && f.kind != pngPalette ||
		(f.depth == 1 || f.depth == 2 || f.depth == 4) && (f.kind == pngGrey || f.kind == pngPalette)
	if f.samples == 0 || !ok {
		return fmt.Errorf("PNG of colour type %d with %d bits does not exist", f.kind, f.depth)
	}
	if b[11] != 0 {
		return fmt.Errorf("filter method %d of the PNG file is not known", b[11])
	}
	return nil
}

// idat reads the samples' chunks as one stream.
type idat struct {
	f     *pngFile
	chunk []byte
}

func (r *idat) Read(p []byte) (int, error) {
	for len(r.chunk) == 0 {
		if len(r.f.rest) < 4 {
			return 0, io.EOF
		}
		r.f.rest = r.f.rest[4:] // the checksum of samples is zlib's business
		name, body, _ := r.f.chunk()
		if name != "IDAT" {
			return 0, io.EOF
		}
		r.chunk = body
	}
	n := copy(p, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

// ReadByte keeps the decompressor from putting a buffer of its own in between.
func (r *idat) ReadByte() (byte, error) {
	if len(r.chunk) > 0 {
		b := r.chunk[0]
		r.chunk = r.chunk[1:]
		return b, nil
	}
	var one [1]byte
	_, err := r.Read(one[:])
	return one[0], err
}

// adam7 are the passes of interlacing: first pixel and step in each direction.
var adam7 = [7][4]int{{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}}

// read decompresses the rows and writes their pixels.
func (f *pngFile) read(pix []byte, rows io.Reader) error {
	f.blankColor(pix)
	passes := [][4]int{{0, 0, 1, 1}}
	if f.interlace {
		passes = adam7[:]
	}
	bits := f.samples * f.depth
	size := rowBytes(f.w, bits)
	// Both rows have room for the filter's type.
	row, before := make([]byte, 1+size), make([]byte, 1+size)
	samples := make([]byte, f.w*f.samples)
	left := 0 // rows
	for _, p := range passes {
		if p[0] < f.w && p[1] < f.h {
			left += (f.h - p[1] + p[3] - 1) / p[3]
		}
	}
	for _, p := range passes {
		n := (f.w - p[0] + p[2] - 1) / p[2]
		if n <= 0 {
			continue
		}
		size := 1 + rowBytes(n, bits)
		clear(before)
		for y := p[1]; y < f.h; y += p[3] {
			if _, err := io.ReadFull(rows, row[:size]); err != nil {
				return err
			}
			if err := unfilter(row[:size], before[:size], max(bits/8, 1)); err != nil {
				return err
			}
			if left--; left == 0 && damaged(rows) {
				return zlib.ErrChecksum
			}
			f.pixels(pix[y*f.w*3:(y+1)*f.w*3], row[1:size], samples, n, p[0], p[2])
			row, before = before, row
		}
	}
	return nil
}

// damaged says that the stream ends here with a checksum that is wrong. The row before it is then lost as well.
func damaged(rows io.Reader) bool {
	_, err := rows.Read(make([]byte, 1))
	return errors.Is(err, zlib.ErrChecksum)
}

// blankColor fills a picture of palette colours with the first of them.
func (f *pngFile) blankColor(pix []byte) {
	if c := f.colors[0]; f.kind == pngPalette && c != [3]byte{} {
		for ; len(pix) >= 3; pix = pix[3:] {
			copy(pix[:3], c[:])
		}
	}
}

// unfilter undoes the prediction of a row from its left and upper neighbours, size bytes per pixel.
func unfilter(row, before []byte, size int) error {
	kind := row[0]
	row, before = row[1:], before[1:]
	before = before[:len(row)]
	switch kind {
	case 0:
	case 1:
		for i := size; i < len(row); i++ {
			row[i] += row[i-size]
		}
	case 2:
		for i, b := range before {
			row[i] += b
		}
	case 3:
		for i := range min(size, len(row)) {
			row[i] += before[i] / 2
		}
		for i := size; i < len(row); i++ {
			row[i] += byte((int(row[i-size]) + int(before[i])) / 2)
		}
	case 4:
		for i := range min(size, len(row)) {
			row[i] += before[i]
		}
		for i := size; i < len(row); i++ {
			row[i] += paeth(row[i-size], before[i], before[i-size])
		}
	default:
		return fmt.Errorf("filter type %d does not exist", kind)
	}
	return nil
}

// paeth is the neighbour nearest to left + up − corner (PNG specification, 9.4).
func paeth(left, up, corner byte) byte {
	a, b, c := int(left), int(up), int(corner)
	pa, pb := b-c, a-c
	pc := pa + pb
	pa, pb, pc = max(pa, -pa), max(pb, -pb), max(pc, -pc)
	switch {
	case pa <= pb && pa <= pc:
		return left
	case pb <= pc:
		return up
	}
	return corner
}

// pixels writes n pixels of a pass to a row of the picture, from pixel x on, step apart.
func (f *pngFile) pixels(out, in, samples []byte, n, x, step int) {
	if f.depth < 8 {
		unpackBits(samples[:n], in, f.depth)
		in = samples
	}
	width := f.samples * max(f.depth, 8) / 8 // bytes per pixel
	out = out[3*x:]
	for i := range n {
		p := in[i*width:]
		to := out[3*i*step:][:3]
		switch f.kind {
		case pngPalette:
			copy(to, f.colors[p[0]][:])
		case pngRGB, pngRGBA:
			s := f.depth / 8
			to[0], to[1], to[2] = p[0], p[s], p[2*s]
		default:
			v := f.grey(p)
			to[0], to[1], to[2] = v, v, v
		}
	}
}

// grey brings a sample to 8 bits: small ones are spread over the range, 16 bits without alpha are clipped.
func (f *pngFile) grey(p []byte) byte {
	switch {
	case f.depth < 8:
		return p[0] * byte(255/(1<<uint(f.depth)-1))
	case f.depth == 16 && f.kind == pngGrey:
		if p[0] != 0 {
			return 255
		}
		return p[1]
	}
	return p[0]
}
