package dataset

import (
	"encoding/binary"
	"fmt"
	"math"
)

// RGB is a picture of 8-bit samples, rows from the top, R G B interleaved: len(Pix) = W·H·3.
type RGB struct {
	W, H int
	Pix  []uint8
}

// reshape makes the picture w×h and keeps its memory where it suffices; the samples are undefined afterwards.
func (m *RGB) reshape(w, h int) {
	m.W, m.H = w, h
	m.Pix = grow(m.Pix, w*h*3)
}

// grow gives a slice of length n, the old memory if it is large enough.
func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// Box is a part of a picture in pixels.
type Box struct{ Top, Left, Height, Width int }

// Filter is a resampling kernel of Pillow.
type Filter int

const (
	// Bicubic is Keys' kernel with a = −0.5 and support 2.
	Bicubic Filter = iota
	// Bilinear is the triangle with support 1.
	Bilinear
)

// ParseFilter knows the names "bicubic" and "bilinear".
func ParseFilter(name string) (Filter, error) {
	switch name {
	case "bicubic":
		return Bicubic, nil
	case "bilinear":
		return Bilinear, nil
	}
	return 0, fmt.Errorf("dataset: unknown filter %q; bicubic and bilinear are known", name)
}

func (f Filter) support() float64 {
	if f == Bilinear {
		return 1
	}
	return 2
}

// at is the kernel's value. The conversions keep the compiler from fusing multiply and add: Pillow's rounding is that
// of separate operations.
func (f Filter) at(x float64) float64 {
	const a = -0.5
	x = math.Abs(x)
	if f == Bilinear {
		return max(0, 1-x)
	}
	switch {
	case x < 1:
		return float64(float64(float64(float64((a+2)*x)-(a+3))*x)*x) + 1
	case x < 2:
		return float64((float64((float64((x-5)*x)+8)*x) - 4) * a)
	}
	return 0
}

// coefficientBits is the number of fractional bits of Pillow's 8-bit resampling.
const coefficientBits = 32 - 8 - 2

// taps are the precomputed weights of one axis: output i is the sum of weight[i·width+t] · input[first[i]+t].
type taps struct {
	first, count []int32
	weight       []uint64 // sign-extended fixed point, ready for the packed multiplication
	width        int
	raw          []float64
}

// compute fills the table for an axis of in samples that becomes out samples.
func (c *taps) compute(in, out int, f Filter) {
	scale := float64(in) / float64(out)
	stretch := max(scale, 1)
	support := f.support() * stretch
	c.width = int(math.Ceil(support))*2 + 1
	c.first, c.count = grow(c.first, out), grow(c.count, out)
	c.weight, c.raw = grow(c.weight, out*c.width), grow(c.raw, c.width)
	for i := range out {
		center := float64((float64(i) + 0.5) * scale)
		lo := max(int(center-support+0.5), 0)
		hi := min(int(center+support+0.5), in)
		raw, sum := c.raw[:hi-lo], 0.0
		for t := range raw {
			raw[t] = f.at(float64((float64(lo+t) - center + 0.5) * (1 / stretch)))
			sum += raw[t]
		}
		c.first[i], c.count[i] = int32(lo), int32(len(raw))
		weight := c.weight[i*c.width:]
		for t, w := range raw {
			if sum != 0 {
				w /= sum
			}
			weight[t] = uint64(int64(math.Round(w * (1 << coefficientBits))))
		}
	}
}

// Resizer resizes pictures and keeps its tables and buffers between calls; it is not safe for concurrent use.
// The zero value is ready.
type Resizer struct {
	across, down taps
	packed       []uint64
	middle       []byte
	row          []byte
	vectors      vectors
	norm         norm
}

// Resize cuts box out of src (nil: all of it) and resamples it to w×h into a new picture, equal to Pillow 11's
// Image.crop and Image.resize in every sample. It panics on an empty size or a box that leaves the picture.
func Resize(src *RGB, box *Box, w, h int, f Filter) *RGB {
	var r Resizer
	dst := new(RGB)
	r.Resize(dst, src, box, w, h, f)
	return dst
}

// Resize is the function Resize into dst, whose memory is reused; dst must not be src.
func (r *Resizer) Resize(dst, src *RGB, box *Box, w, h int, f Filter) {
	dst.reshape(w, h)
	r.resize(src, box, w, h, f, func(y int, row []byte) { copy(dst.Pix[y*w*3:], row) })
}

// resize gives put every row of the resampled picture from the top; the row is valid until put returns. Across first,
// then down, each pass rounded to 8 bits; an axis whose length stays is not touched.
func (r *Resizer) resize(src *RGB, box *Box, w, h int, f Filter, put func(y int, row []byte)) {
	part := Box{Height: src.H, Width: src.W}
	if box != nil {
		part = *box
	}
	if w < 1 || h < 1 || part.Width < 1 || part.Height < 1 || part.Top < 0 || part.Left < 0 ||
		part.Top+part.Height > src.H || part.Left+part.Width > src.W {
		panic(fmt.Sprintf("dataset: cannot resize box %+v of a picture of %d×%d to %d×%d", part, src.W, src.H, w, h))
	}
	if part.Width != w {
		r.across.compute(part.Width, w, f)
	}
	if part.Height != h {
		r.down.compute(part.Height, h, f)
	}
	if !r.fast(src, part, w, h, put) {
		r.plain(src, part, w, h, put)
	}
}

// plain resizes without vector instructions. Two samples share one 64-bit multiplication: k·(a + b·2³²) holds k·a and
// k·b, since the sums stay within 32 bits.
func (r *Resizer) plain(src *RGB, part Box, w, h int, put func(y int, row []byte)) {
	changesX, changesY := part.Width != w, part.Height != h
	if !changesY {
		r.row = grow(r.row, w*6)
		for y := 0; y < h; y += 2 {
			n := min(2, h-y)
			r.rowsAcross(r.row, w*3, 1, src, part, y, n, w, changesX)
			for i := range n {
				put(y+i, r.row[i*w*3:(i+1)*w*3])
			}
		}
		return
	}
	// The buffer between the passes has 4 bytes per sample, so that one load fetches a packed pair.
	stride := w * 3 * 4
	from := int(r.down.first[0])
	to := int(r.down.first[h-1] + r.down.count[h-1])
	r.middle = grow(r.middle, stride*(to-from))
	for y := from; y < to; y += 2 {
		r.rowsAcross(r.middle[(y-from)*stride:], stride, 4, src, part, y, min(2, to-y), w, changesX)
	}
	r.row = grow(r.row, w*3)
	for y := range h {
		at := y * r.down.width
		weights := r.down.weight[at : at+int(r.down.count[y])]
		downRow(r.row, r.middle[(int(r.down.first[y])-from)*stride:], stride, weights)
		put(y, r.row)
	}
}

// rowsAcross writes n (1 or 2) rows of the picture part from row y on, resampled to w pixels unless !changes, to dst,
// whose rows are stride bytes and whose samples are size (1 or 4) bytes apart.
func (r *Resizer) rowsAcross(dst []byte, stride, size int, src *RGB, part Box, y, n, w int, changes bool) {
	at := ((part.Top+y)*src.W + part.Left) * 3
	top := src.Pix[at : at+part.Width*3]
	bottom := top // one row only: computed twice, written once
	if n == 2 {
		bottom = src.Pix[at+src.W*3 : at+src.W*3+part.Width*3]
	}
	second := (n - 1) * stride
	switch {
	case !changes && size == 1:
		copy(dst, top)
		copy(dst[second:], bottom)
	case !changes:
		for i, v := range top {
			binary.LittleEndian.PutUint32(dst[i*4:], uint32(v))
			binary.LittleEndian.PutUint32(dst[second+i*4:], uint32(bottom[i]))
		}
	default:
		r.packed = packRows(grow(r.packed, part.Width*3), top, bottom)
		if size == 1 {
			r.acrossNarrow(dst, dst[second:], w)
		} else {
			r.acrossWide(dst, dst[second:], w)
		}
	}
}

func packRows(packed []uint64, top, bottom []byte) []uint64 {
	top, bottom = top[:len(packed)], bottom[:len(packed)]
	for i := range packed {
		packed[i] = uint64(top[i]) | uint64(bottom[i])<<32
	}
	return packed
}

// acrossWide resamples the packed pair of rows to w pixels of 4 bytes per sample.
func (r *Resizer) acrossWide(top, bottom []byte, w int) {
	top, bottom = top[:w*12], bottom[:w*12]
	for x := range w {
		red, green, blue := r.pixelAcross(x)
		t, b := top[x*12:x*12+12], bottom[x*12:x*12+12]
		t0, b0 := unpack(red)
		t1, b1 := unpack(green)
		t2, b2 := unpack(blue)
		binary.LittleEndian.PutUint32(t, uint32(t0))
		binary.LittleEndian.PutUint32(t[4:], uint32(t1))
		binary.LittleEndian.PutUint32(t[8:], uint32(t2))
		binary.LittleEndian.PutUint32(b, uint32(b0))
		binary.LittleEndian.PutUint32(b[4:], uint32(b1))
		binary.LittleEndian.PutUint32(b[8:], uint32(b2))
	}
}

// acrossNarrow is acrossWide for one byte per sample.
func (r *Resizer) acrossNarrow(top, bottom []byte, w int) {
	for x := range w {
		red, green, blue := r.pixelAcross(x)
		t, b := top[x*3:x*3+3], bottom[x*3:x*3+3]
		t[0], b[0] = unpack(red)
		t[1], b[1] = unpack(green)
		t[2], b[2] = unpack(blue)
	}
}

// pixelAcross sums the weighted samples of output pixel x of a packed pair of rows.
func (r *Resizer) pixelAcross(x int) (red, green, blue uint64) {
	const half = 1<<(coefficientBits-1) | 1<<(coefficientBits-1+32)
	red, green, blue = half, half, half
	weights := r.across.weight[x*r.across.width:][:r.across.count[x]]
	in := r.packed[r.across.first[x]*3:]
	for i, k := range weights {
		v := in[3*i : 3*i+3 : 3*i+3]
		red += k * v[0]
		green += k * v[1]
		blue += k * v[2]
	}
	return red, green, blue
}

// downRow sums weighted rows of 4-byte samples, stride bytes apart, into one row of bytes.
func downRow(dst, rows []byte, stride int, weights []uint64) {
	const half = 1<<(coefficientBits-1) | 1<<(coefficientBits-1+32)
	i := 0
	for ; i+8 <= len(dst); i += 8 {
		s0, s1, s2, s3 := uint64(half), uint64(half), uint64(half), uint64(half)
		at := i * 4
		for _, k := range weights {
			in := rows[at : at+32]
			s0 += k * binary.LittleEndian.Uint64(in)
			s1 += k * binary.LittleEndian.Uint64(in[8:])
			s2 += k * binary.LittleEndian.Uint64(in[16:])
			s3 += k * binary.LittleEndian.Uint64(in[24:])
			at += stride
		}
		out := dst[i : i+8]
		out[0], out[1] = unpack(s0)
		out[2], out[3] = unpack(s1)
		out[4], out[5] = unpack(s2)
		out[6], out[7] = unpack(s3)
	}
	for ; i < len(dst); i++ {
		sum := uint64(half)
		for t, k := range weights {
			sum += k * uint64(binary.LittleEndian.Uint32(rows[t*stride+i*4:]))
		}
		dst[i], _ = unpack(sum)
	}
}

// unpack splits a packed pair of sums and rounds each to 8 bits.
func unpack(sum uint64) (low, high uint8) {
	a := int32(uint32(sum))
	b := int32(uint32((sum - uint64(int64(a))) >> 32))
	return clip8(a), clip8(b)
}

func clip8(sum int32) uint8 {
	v := sum >> coefficientBits
	if uint32(v) > 255 {
		return uint8(^(v >> 31)) // 0 below, 255 above
	}
	return uint8(v)
}
