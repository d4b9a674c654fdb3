package raster

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"

	"golang.org/x/image/ccitt"
	"golang.org/x/image/tiff/lzw"

	"blip2/pkg/dataset/jpeg"
)

// Compressions of TIFF.
const (
	tiffPlain    = 1
	tiffG3       = 3
	tiffG4       = 4
	tiffLZW      = 5
	tiffJPEG     = 7
	tiffDeflate  = 8
	tiffPackBits = 32773
	tiffOldZip   = 32946
)

// tiffLayout says how the samples are cut into parts: strips, or tiles.
type tiffLayout struct {
	offsets, counts tiffEntry
	w, h            int // of a part, in pixels
	samples         int // per pixel in a part: 1 if every component has planes of its own
	stride          int // bytes per row of a part
}

// layout finds the strips or tiles.
func (f *tiffFile) layout() (tiffLayout, error) {
	l := tiffLayout{offsets: f.entries[tagStripOffsets], counts: f.entries[tagStripCounts], w: f.w,
		h: min(f.number(tagRowsPerStrip, f.h), f.h), samples: f.samples}
	if l.offsets.count == 0 {
		l.offsets, l.counts = f.entries[tagTileOffsets], f.entries[tagTileCounts]
		l.w, l.h = f.number(tagTileWidth, 0), f.number(tagTileHeight, 0)
	}
	const maxTile = 1 << 16
	if l.w < 1 || l.h < 1 || l.offsets.count == 0 || l.w > max(f.w, maxTile) || l.h > max(f.h, maxTile) {
		return l, errors.New("the TIFF file does not say where its samples are")
	}
	if f.planar {
		l.samples = 1
	}
	l.stride = rowBytes(l.w*l.samples, f.bits)
	// A tile may be larger than the picture, but not by much.
	if int64(l.stride)*int64(l.h) > 192*int64(f.w)*int64(f.h)+1<<20 {
		return l, fmt.Errorf("the TIFF file has parts of %d×%d pixels for a picture of %d×%d", l.w, l.h, f.w, f.h)
	}
	return l, nil
}

// read decompresses strip after strip, or tile after tile, and writes their pixels.
func (f *tiffFile) read(pix []byte) error {
	l, err := f.layout()
	if err != nil {
		return err
	}
	row := newTIFFRow(f)
	i := uint64(0)
	for plane := range f.samples / l.samples {
		for y := 0; y < f.h; y += l.h {
			for x := 0; x < f.w; x += l.w {
				if err := f.writePart(pix, row, &l, i, x, y, plane); err != nil {
					return err
				}
				i++
			}
		}
	}
	return nil
}

// writePart writes the pixels of strip or tile i, whose upper left one is at x, y.
func (f *tiffFile) writePart(pix []byte, row *tiffRow, l *tiffLayout, i uint64, x, y, plane int) error {
	if i >= l.offsets.count {
		return ErrTruncated
	}
	part, err := f.part(l.offsets, l.counts, i)
	if err != nil {
		return err
	}
	rows := min(l.h, f.h-y)
	raw, err := f.expand(part, l.w, rows, l.h, l.stride)
	if err != nil {
		return err
	}
	n := min(l.w, f.w-x)
	for r := range rows {
		if len(raw) < l.stride {
			return ErrTruncated
		}
		f.unpredict(raw[:l.stride], l.samples)
		row.write(pix[((y+r)*f.w+x)*3:][:3*n], raw[:l.stride], plane)
		raw = raw[l.stride:]
	}
	return nil
}

// part is the stored form of strip or tile i.
func (f *tiffFile) part(offsets, counts tiffEntry, i uint64) ([]byte, error) {
	at := f.value(offsets, i)
	if at > uint64(len(f.data)) {
		return nil, ErrTruncated
	}
	part := f.data[at:]
	if i < counts.count && f.compression != tiffPlain {
		n := f.value(counts, i)
		if n > uint64(len(part)) {
			return nil, ErrTruncated
		}
		part = part[:n]
	}
	return part, nil
}

// expand decompresses a part into rows of stride bytes.
func (f *tiffFile) expand(part []byte, w, rows, fullRows, stride int) ([]byte, error) {
	size := stride * rows
	if f.reversed && f.compression != tiffJPEG && f.compression != tiffG3 && f.compression != tiffG4 {
		flipped := make([]byte, min(len(part), max(size, len(f.data))))
		for i := range flipped {
			flipped[i] = bits.Reverse8(part[i])
		}
		part = flipped
	}
	var r io.Reader
	switch f.compression {
	case tiffPlain:
		return bytes.Clone(part[:min(size, len(part))]), nil
	case tiffPackBits:
		return unpackRuns(part, size)
	case tiffJPEG:
		return f.expandJPEG(part, w, rows, stride)
	case tiffDeflate, tiffOldZip:
		z, err := zlib.NewReader(bytes.NewReader(part))
		if err != nil {
			return nil, fmt.Errorf("the TIFF file's samples are damaged: %w", err)
		}
		r = z
	case tiffLZW:
		r = lzw.NewReader(bytes.NewReader(part), lzw.MSB, 8)
	case tiffG3, tiffG4:
		var err error
		if r, err = f.fax(part, w, fullRows); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("TIFF of compression %d is not supported", f.compression)
	}
	out := make([]byte, size)
	if _, err := io.ReadFull(r, out); err != nil {
		return nil, fmt.Errorf("the TIFF file's samples are damaged: %w", err)
	}
	return out, nil
}

// fax reads the codes of facsimile machines, which mean black where other pictures have 0.
func (f *tiffFile) fax(part []byte, w, rows int) (io.Reader, error) {
	order, kind := ccitt.MSB, ccitt.Group4
	if f.reversed {
		order = ccitt.LSB
	}
	if f.compression == tiffG3 {
		kind = ccitt.Group3
		if f.number(tagT4Options, 0)&1 != 0 {
			return nil, errors.New("TIFF of two-dimensional Group 3 codes is not supported")
		}
	}
	if f.bits != 1 || f.samples != 1 {
		return nil, errors.New("TIFF with fax codes for more than one bit does not exist")
	}
	return ccitt.NewReader(bytes.NewReader(part), order, kind, w, rows, &ccitt.Options{Invert: true}), nil
}

// unpackRuns undoes PackBits.
func unpackRuns(in []byte, size int) ([]byte, error) {
	out := make([]byte, 0, size)
	for len(out) < size {
		if len(in) < 2 {
			return nil, ErrTruncated
		}
		n := int(int8(in[0]))
		in = in[1:]
		switch {
		case n >= 0:
			n = min(n+1, size-len(out))
			if len(in) < n {
				return nil, ErrTruncated
			}
			out, in = append(out, in[:n]...), in[n:]
		case n > -128:
			for range min(1-n, size-len(out)) {
				out = append(out, in[0])
			}
			in = in[1:]
		}
	}
	return out, nil
}

// expandJPEG decodes a part that is a JPEG picture whose tables may be kept apart.
func (f *tiffFile) expandJPEG(part []byte, w, rows, stride int) ([]byte, error) {
	if f.bits != 8 || f.samples != 1 && f.samples != 3 || f.planar && f.samples != 1 {
		return nil, fmt.Errorf("TIFF with JPEG of %d samples is not supported", f.samples)
	}
	if len(f.tables) > 4 && len(part) > 2 {
		part = append(bytes.Clone(f.tables[:len(f.tables)-2]), part[2:]...)
	}
	var d jpeg.Decoder
	pw, ph, err := d.Open(part)
	if err != nil {
		return nil, err
	}
	if pw > w || ph < rows || d.Components() != f.samples {
		return nil, fmt.Errorf("the TIFF file has a JPEG part of %d×%d for %d×%d", pw, ph, w, rows)
	}
	d.SetColor(f.photo == photoYCbCr)
	rgb := make([]byte, 3*pw*rows)
	if err := d.Decode(rgb, jpeg.Part{Width: pw, Height: rows}, false); err != nil {
		return nil, err
	}
	out := make([]byte, stride*rows)
	for y := range rows {
		to, from := out[y*stride:], rgb[y*pw*3:(y+1)*pw*3]
		if f.samples == 3 {
			copy(to, from)
			continue
		}
		for x := range pw {
			to[x] = from[3*x]
		}
	}
	return out, nil
}

// unpredict undoes the storing of differences to the left neighbour.
func (f *tiffFile) unpredict(row []byte, samples int) {
	if f.predictor != 2 || f.compression == tiffPlain || f.compression == tiffJPEG {
		return
	}
	switch f.bits {
	case 8:
		for i := samples; i < len(row); i++ {
			row[i] += row[i-samples]
		}
	case 16:
		for i := 2 * samples; i+2 <= len(row); i += 2 {
			f.order.PutUint16(row[i:], f.order.Uint16(row[i:])+f.order.Uint16(row[i-2*samples:]))
		}
	case 32:
		for i := 4 * samples; i+4 <= len(row); i += 4 {
			f.order.PutUint32(row[i:], f.order.Uint32(row[i:])+f.order.Uint32(row[i-4*samples:]))
		}
	}
}

// tiffRow brings rows of samples to RGB.
type tiffRow struct {
	f       *tiffFile
	samples []byte // unpacked ones
	high    int    // offset of the high byte of 16 bits
}

func newTIFFRow(f *tiffFile) *tiffRow {
	r := &tiffRow{f: f}
	if f.order == binary.ByteOrder(binary.LittleEndian) && f.bits == 16 {
		r.high = 1
	}
	return r
}

// write writes the pixels of one row, or the plane of one component of them.
func (r *tiffRow) write(out, in []byte, plane int) {
	f := r.f
	n := len(out) / 3
	if f.bits < 8 {
		r.samples = append(r.samples[:0], make([]byte, n)...)
		unpackBits(r.samples, in, f.bits)
		in = r.samples
	}
	size := max(f.bits, 8) / 8
	if f.planar && f.samples > 1 {
		r.writePlane(out, in, plane, size)
		return
	}
	for i := range n {
		r.pixel(out[3*i:3*i+3], in[i*size*f.samples:], size)
	}
}

// writePlane writes one of the first three samples of each pixel. Planes of inks or of alpha beside colour are not met
// with in pictures; Pillow reads RGB alone in planes.
func (r *tiffRow) writePlane(out, in []byte, plane, size int) {
	if plane > 2 {
		return
	}
	for i := range len(out) / 3 {
		out[3*i+plane] = in[i*size+r.high]
	}
}

// pixel brings one pixel to RGB.
func (r *tiffRow) pixel(out, in []byte, size int) {
	f := r.f
	switch f.photo {
	case photoPalette:
		copy(out, f.colors[in[0]][:])
	case photoRGB:
		for c := range 3 {
			out[c] = in[c*size+r.high]
		}
		if f.samples > 3 && len(f.extra) > 0 && f.extra[0] == 1 {
			unmultiply(out, in[3*size+r.high])
		}
	case photoCMYK:
		ink(out, in, size, r.high)
	case photoYCbCr:
		if f.samples == 3 { // RGB by now
			copy(out, in[:3])
			return
		}
		out[0], out[1], out[2] = in[0], in[0], in[0]
	default:
		v := r.grey(in)
		out[0], out[1], out[2] = v, v, v
	}
}

// unmultiply takes alpha out of colours that were multiplied with it.
func unmultiply(out []byte, alpha byte) {
	for c := range out[:3] {
		switch alpha {
		case 0:
			out[c] = 0
		case 255:
		default:
			out[c] = byte(min(255*int(out[c])/int(alpha), 255))
		}
	}
}

// ink converts inks as Pillow does: each is multiplied with what black leaves, rounded, and taken from it.
func ink(out, in []byte, size, high int) {
	rest := 255 - int(in[3*size+high])
	for c := range 3 {
		v := int(in[c*size+high])*rest + 128
		out[c] = byte(max(0, rest-(v+v>>8)>>8))
	}
}

// grey brings a sample to 8 bits: up to 8 bits it is spread over the range, beyond it is clipped.
func (r *tiffRow) grey(in []byte) byte {
	f := r.f
	switch {
	case f.bits < 8:
		v := in[0] * byte(255/(1<<uint(f.bits)-1))
		if f.photo == photoWhiteIsZero {
			v = ^v
		}
		return v
	case f.bits == 8:
		if f.photo == photoWhiteIsZero {
			return ^in[0]
		}
		return in[0]
	case f.format == 3:
		return byte(min(max(math.Float32frombits(f.order.Uint32(in)), 0), 255))
	case f.bits == 16 && f.format == 1:
		return byte(min(f.order.Uint16(in), 255))
	case f.bits == 16:
		return byte(min(max(int16(f.order.Uint16(in)), 0), 255))
	}
	return byte(min(max(int32(f.order.Uint32(in)), 0), 255))
}
