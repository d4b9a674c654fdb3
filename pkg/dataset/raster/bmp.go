package raster

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Compressions of BMP.
const (
	bmpRaw       = 0
	bmpRLE8      = 1
	bmpRLE4      = 2
	bmpBitFields = 3
)

// bmpFile is the header of a BMP file.
type bmpFile struct {
	w, h        int
	topDown     bool
	bits        int
	compression uint32
	offset      int // of the samples
	colors      palette
	masks       [4]uint32 // red, green, blue, alpha
	lenient     bool
}

// bmpLayouts are the places of red, green and blue in a pixel of 4 bytes, by the masks that Pillow knows.
var bmpLayouts = map[[4]uint32][3]int{
	{0xff0000, 0xff00, 0xff, 0}:          {2, 1, 0},
	{0xff000000, 0xff0000, 0xff00, 0}:    {3, 2, 1},
	{0xff000000, 0xff00, 0xff, 0}:        {3, 1, 0},
	{0xff000000, 0xff0000, 0xff00, 0xff}: {3, 2, 1},
	{0xff, 0xff00, 0xff0000, 0xff000000}: {0, 1, 2},
	{0xff0000, 0xff00, 0xff, 0xff000000}: {2, 1, 0},
	{0xff000000, 0xff00, 0xff, 0xff0000}: {3, 1, 0},
	{}:                                   {2, 1, 0},
}

// DecodeBMP reads a BMP picture of 1, 4, 8, 16, 24 or 32 bits, plain, with masks or run-length coded. If lenient, rows
// that a truncated file lacks stay black (or colour 0).
func DecodeBMP(data []byte, lenient bool, canvas Canvas) error {
	f := bmpFile{lenient: lenient}
	if err := f.header(data); err != nil {
		return err
	}
	pix, err := blank(canvas, f.w, f.h)
	if err != nil {
		return err
	}
	if f.bits <= 8 {
		for p := pix; len(p) >= 3; p = p[3:] {
			copy(p[:3], f.colors[0][:])
		}
	}
	samples := data[min(f.offset, len(data)):]
	if f.compression == bmpRLE4 || f.compression == bmpRLE8 {
		return f.runs(pix, samples, f.offset)
	}
	stride := (f.w*f.bits + 31) / 32 * 4
	for y := range f.h {
		if len(samples) < rowBytes(f.w, f.bits) {
			if lenient {
				return nil
			}
			return ErrTruncated
		}
		f.row(f.line(pix, y), samples)
		samples = samples[min(stride, len(samples)):]
	}
	return nil
}

// line is the picture's line that is row y of the file.
func (f *bmpFile) line(pix []byte, y int) []byte {
	if !f.topDown {
		y = f.h - 1 - y
	}
	return pix[y*f.w*3 : (y+1)*f.w*3]
}

func (f *bmpFile) header(data []byte) error {
	if len(data) < 2 || string(data[:2]) != "BM" {
		return errors.New("not a BMP file")
	}
	if len(data) < 26 {
		return ErrTruncated
	}
	f.offset = int(binary.LittleEndian.Uint32(data[10:]))
	size := int(binary.LittleEndian.Uint32(data[14:]))
	colors, padding := 0, 4
	switch size {
	case 12: // OS/2
		f.w, f.h = int(binary.LittleEndian.Uint16(data[18:])), int(binary.LittleEndian.Uint16(data[20:]))
		f.bits, padding = int(binary.LittleEndian.Uint16(data[24:])), 3
	case 40, 52, 56, 64, 108, 124:
		if len(data) < 14+size {
			return ErrTruncated
		}
		w, h := binary.LittleEndian.Uint32(data[18:]), binary.LittleEndian.Uint32(data[22:])
		if data[25] == 0xff {
			h, f.topDown = -h, true
		}
		if w > 1<<31-1 || h > 1<<31-1 {
			return fmt.Errorf("the BMP picture claims %d×%d pixels", w, h)
		}
		f.w, f.h, f.bits = int(w), int(h), int(binary.LittleEndian.Uint16(data[28:]))
		f.compression = binary.LittleEndian.Uint32(data[30:])
		colors = int(binary.LittleEndian.Uint32(data[46:]))
	default:
		return fmt.Errorf("BMP with a header of %d bytes is not supported", size)
	}
	if colors == 0 && f.bits <= 8 {
		colors = 1 << uint(f.bits)
	}
	return f.details(data, 14+size, colors, padding)
}

// details reads what lies between the header, which ends at place end, and the samples.
func (f *bmpFile) details(data []byte, end, colors, padding int) error {
	switch {
	case f.bits != 1 && f.bits != 4 && f.bits != 8 && f.bits != 16 && f.bits != 24 && f.bits != 32:
		return fmt.Errorf("BMP of %d bits per pixel is not supported", f.bits)
	case f.compression > bmpBitFields:
		return fmt.Errorf("BMP of compression %d is not supported", f.compression)
	case (f.compression == bmpRLE8 || f.compression == bmpRLE4) && f.bits > 8:
		return fmt.Errorf("BMP with runs of %d bits does not exist", f.bits)
	}
	if f.compression == bmpBitFields {
		if err := f.readMasks(data, end); err != nil {
			return err
		}
		if end == 14+40 {
			end += 12
		}
	}
	if f.offset == 0 {
		f.offset = end
	}
	if f.bits > 8 {
		return nil
	}
	if colors < 1 || colors > 65536 {
		return fmt.Errorf("a BMP palette of %d colours is not allowed", colors)
	}
	for i := range min(colors, 256) {
		at := end + i*padding
		if at+3 > len(data) {
			if f.lenient {
				break
			}
			return ErrTruncated
		}
		f.colors[i] = [3]byte{data[at+2], data[at+1], data[at]}
	}
	if f.colors.grey(min(colors, 256)) {
		f.colors = greys()
	}
	// Pillow ends such a palette before the samples, wherever the header says that these begin.
	if f.offset == end {
		f.offset += 4 * colors
	}
	return nil
}

func (f *bmpFile) readMasks(data []byte, end int) error {
	const at = 14 + 40 // behind the shortest header, or inside a longer one
	n := 3
	if end >= 14+56 {
		n = 4
	}
	if len(data) < at+4*n {
		return ErrTruncated
	}
	for i := range n {
		f.masks[i] = binary.LittleEndian.Uint32(data[at+4*i:])
	}
	rgb := [3]uint32(f.masks[:])
	_, known := bmpLayouts[f.masks]
	switch {
	case f.bits == 32 && known, f.bits == 24 && rgb == [3]uint32{0xff0000, 0xff00, 0xff},
		f.bits == 16 && (rgb == [3]uint32{0xf800, 0x7e0, 0x1f} || rgb == [3]uint32{0x7c00, 0x3e0, 0x1f}):
		return nil
	}
	return fmt.Errorf("BMP of %d bits with masks %x is not supported", f.bits, f.masks)
}

// row writes the pixels of one uncompressed row.
func (f *bmpFile) row(out, in []byte) {
	switch f.bits {
	case 16:
		f.row16(out, in)
	case 24:
		for ; len(out) >= 3; out, in = out[3:], in[3:] {
			out[0], out[1], out[2] = in[2], in[1], in[0]
		}
	case 32:
		at := bmpLayouts[f.masks]
		for ; len(out) >= 3; out, in = out[3:], in[4:] {
			out[0], out[1], out[2] = in[at[0]], in[at[1]], in[at[2]]
		}
	default:
		for x := range len(out) / 3 {
			bit := x * f.bits
			v := in[bit>>3] >> uint(8-f.bits-bit&7) & (1<<uint(f.bits) - 1)
			copy(out[3*x:3*x+3], f.colors[v][:])
		}
	}
}

// row16 spreads samples of 5 (green: 5 or 6) bits over 8.
func (f *bmpFile) row16(out, in []byte) {
	greenBits := uint(5)
	if f.masks[1] == 0x7e0 {
		greenBits = 6
	}
	for ; len(out) >= 3; out, in = out[3:], in[2:] {
		v := uint32(in[0]) | uint32(in[1])<<8
		r, g, b := v>>(5+greenBits)&31, v>>5&(1<<greenBits-1), v&31
		out[0], out[1], out[2] = byte(r*255/31), byte(g*255/(1<<greenBits-1)), byte(b*255/31)
	}
}

// bmpRuns is the state of decoding run-length coded samples.
type bmpRuns struct {
	f     *bmpFile
	pix   []byte
	in    []byte
	at    int // place of in in the file
	n     int // pixels so far
	total int
	x     int // where the row stands
}

// runs decodes run-length coded samples, which lie at place at of the file.
func (f *bmpFile) runs(pix, in []byte, at int) error {
	r := bmpRuns{f: f, pix: pix, in: in, at: at, total: f.w * f.h}
	for r.n < r.total && len(r.in) >= 2 {
		count, value := int(r.in[0]), r.in[1]
		r.skip(2)
		if count == 0 {
			if err := r.escape(value); err != nil {
				return err
			}
			continue
		}
		count = max(min(count, f.w-r.x), 0)
		for i := range count {
			r.put(f.nibble(value, i))
		}
		r.x += count
	}
	if r.n < r.total {
		return ErrTruncated
	}
	return nil
}

func (r *bmpRuns) skip(n int) { r.in, r.at = r.in[n:], r.at+n }

// put writes the next pixel.
func (r *bmpRuns) put(c byte) {
	if r.n < r.total {
		copy(r.f.line(r.pix, r.n/r.f.w)[r.n%r.f.w*3:], r.f.colors[c][:])
	}
	r.n++
}

// escape follows what a run of no pixels stands for.
func (r *bmpRuns) escape(kind byte) error {
	switch kind {
	case 0: // end of the row
		for r.n%r.f.w != 0 {
			r.put(0)
		}
		r.x = 0
	case 1: // end of the picture
		r.in = nil
	case 2: // to another place; Pillow takes the way from behind the two bytes that hold it, and so do we
		if len(r.in) < 4 {
			return ErrTruncated
		}
		for range min(int(r.in[2])+int(r.in[3])*r.f.w, r.total+1-r.n) {
			r.put(0)
		}
		r.skip(4)
		r.x = r.n % r.f.w
	default:
		return r.plain(int(kind))
	}
	return nil
}

// plain copies pixels that are no run; they fill an even number of bytes.
func (r *bmpRuns) plain(pixels int) error {
	size := pixels
	if r.f.compression == bmpRLE4 {
		size /= 2
	}
	if len(r.in) < size {
		return ErrTruncated
	}
	for _, b := range r.in[:size] {
		r.put(r.f.nibble(b, 0))
		if r.f.compression == bmpRLE4 {
			r.put(r.f.nibble(b, 1))
		}
	}
	r.x += pixels
	r.skip(size)
	if r.at%2 != 0 && len(r.in) > 0 {
		r.skip(1)
	}
	return nil
}

// nibble is pixel i of a byte of a run.
func (f *bmpFile) nibble(b byte, i int) byte {
	switch {
	case f.compression == bmpRLE8:
		return b
	case i%2 == 0:
		return b >> 4
	}
	return b & 15
}
