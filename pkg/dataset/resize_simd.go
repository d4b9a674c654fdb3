//go:build goexperiment.simd && amd64

package dataset

import (
	"encoding/binary"
	"simd/archsimd"
)

var hasAVX2 = archsimd.X86.AVX2()

// vectors are the tables and buffers of the vector code.
//
// A weight has up to 24 bits, a product of vectors takes 16. It is therefore split: weight = high·2¹⁵ + low with
// 0 ≤ low < 2¹⁵, the sums of both are kept apart, and put together at the end.
type vectors struct {
	// across has, for every output pixel and every four taps, the 16 low and the 16 high parts in the order of the
	// shuffled samples: taps 0 and 1 of R, of G, of B, of nothing, then taps 2 and 3.
	across []int16
	groups int // of four taps per output pixel
	// down has, for every output row and every two taps, the two low and the two high parts.
	down   []int16
	pairs  int
	source [2][]byte // two rows of the part, with room before and behind them
	middle []byte    // the rows after the pass across
}

const (
	lowBits = 15
	lowMask = 1<<lowBits - 1
	// slack is how far a load may run over the end of a row.
	slack = 32
	// before is how far loads begin before the pixel, so that two pixels lie in each half.
	before = 10
)

// spreadTaps brings four pixels of 3 bytes, of which the first begins at byte 10, to 16-bit samples, taps side by side.
var spreadTaps = [32]int8{
	10, -1, 13, -1, 11, -1, 14, -1, 12, -1, 15, -1, -1, -1, -1, -1,
	0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,
}

// fast resizes by vector instructions, row after row to put, if the processor has them; the row is valid until put
// returns. part is the part of src that is resized.
func (r *Resizer) fast(src *RGB, part Box, w, h int, put func(y int, row []byte)) bool {
	if !hasAVX2 {
		return false
	}
	v := &r.vectors
	changesX, changesY := part.Width != w, part.Height != h
	from, to := 0, part.Height
	if changesY {
		from, to = int(r.down.first[0]), int(r.down.first[h-1]+r.down.count[h-1])
	}
	stride := w*3 + slack
	v.middle = grow(v.middle, stride*(to-from+1)+slack)
	if changesX {
		v.splitAcross(&r.across, w)
	}
	for i := range v.source {
		v.source[i] = grow(v.source[i], before+(part.Width+4*v.groups)*3+slack)
	}
	for y := from; y < to; y += 2 {
		v.pairAcross(src, part, y, min(y+1, to-1), w, v.middle[(y-from)*stride:], stride, &r.across, changesX)
	}
	if !changesY {
		for y := range h {
			put(y, v.middle[y*stride:][:w*3])
		}
		return true
	}
	v.splitDown(&r.down, h)
	r.row = grow(r.row, w*3+slack)
	for y := range h {
		rows := v.middle[(int(r.down.first[y])-from)*stride:]
		sumRows(r.row, rows, stride, w*3, v.down[y*v.pairs*4:(y+1)*v.pairs*4])
		put(y, r.row[:w*3])
	}
	return true
}

// splitAcross lays out the weights of the pass across.
func (v *vectors) splitAcross(t *taps, w int) {
	v.groups = (t.width + 3) / 4
	v.across = grow(v.across, w*v.groups*32)
	clear(v.across)
	for x := range w {
		for i := range int(t.count[x]) {
			weight := int32(t.weight[x*t.width+i])
			group := v.across[(x*v.groups+i/4)*32:]
			at := i%4/2*8 + i%2
			for c := range 3 {
				group[at+2*c], group[16+at+2*c] = int16(weight&lowMask), int16(weight>>lowBits)
			}
		}
	}
}

// splitDown lays out the weights of the pass down.
func (v *vectors) splitDown(t *taps, h int) {
	v.pairs = (t.width + 1) / 2
	v.down = grow(v.down, h*v.pairs*4)
	clear(v.down)
	for y := range h {
		for i := range int(t.count[y]) {
			weight := int32(t.weight[y*t.width+i])
			pair := v.down[(y*v.pairs+i/2)*4:]
			pair[i%2], pair[2+i%2] = int16(weight&lowMask), int16(weight>>lowBits)
		}
	}
}

// pairAcross resamples rows y and z of the part to w pixels, into rows of out that are stride bytes apart.
func (v *vectors) pairAcross(src *RGB, part Box, y, z, w int, out []byte, stride int, t *taps, changes bool) {
	for i, y := range [2]int{y, z} {
		at := ((part.Top+y)*src.W + part.Left) * 3
		row := src.Pix[at : at+part.Width*3]
		if !changes {
			copy(out[i*stride:], row)
			continue
		}
		copy(v.source[i][before:], row)
	}
	if changes {
		sumPixels(out[:stride+w*3+4], stride, v.source[0], v.source[1], t.first[:w], v.across, v.groups)
	}
}

// sumPixels writes the weighted sums of the pixels of two rows.
func sumPixels(out []byte, stride int, top, bottom []byte, first []int32, weights []int16, groups int) {
	order := archsimd.LoadInt8x32(&spreadTaps)
	half := archsimd.BroadcastInt32x4(1 << (coefficientBits - 1))
	low, high := archsimd.BroadcastInt16x8(0), archsimd.BroadcastInt16x8(255)
	pack := archsimd.LoadInt8x16(&[16]int8{0, 2, 4, 6, 8, 10, 12, 14, -1, -1, -1, -1, -1, -1, -1, -1})
	for x, p := range first {
		var lo0, hi0, lo1, hi1 archsimd.Int32x8
		at := int(p) * 3
		group := weights[x*groups*32 : (x+1)*groups*32]
		for len(group) >= 32 {
			wl := archsimd.LoadInt16x16((*[16]int16)(group))
			wh := archsimd.LoadInt16x16((*[16]int16)(group[16:]))
			s := archsimd.LoadUint8x32((*[32]byte)(top[at:])).PermuteOrZeroGrouped(order).AsInt16x16()
			t := archsimd.LoadUint8x32((*[32]byte)(bottom[at:])).PermuteOrZeroGrouped(order).AsInt16x16()
			lo0, hi0 = lo0.Add(s.DotProductPairs(wl)), hi0.Add(s.DotProductPairs(wh))
			lo1, hi1 = lo1.Add(t.DotProductPairs(wl)), hi1.Add(t.DotProductPairs(wh))
			at += 12
			group = group[32:]
		}
		sum0 := lo0.Add(hi0.ShiftAllLeft(lowBits))
		sum1 := lo1.Add(hi1.ShiftAllLeft(lowBits))
		a := sum0.GetLo().Add(sum0.GetHi()).Add(half).ShiftAllRight(coefficientBits)
		b := sum1.GetLo().Add(sum1.GetHi()).Add(half).ShiftAllRight(coefficientBits)
		both := a.SaturateToInt16Concat(b).Max(low).Min(high).AsUint8x16().PermuteOrZero(pack).AsUint64x2().GetElem(0)
		// Four bytes are written for three; the pixel to the right comes later and sets the fourth.
		binary.LittleEndian.PutUint32(out[3*x:], uint32(both))
		binary.LittleEndian.PutUint32(out[stride+3*x:], uint32(both>>32))
	}
}

// sumRows writes the weighted sums of rows that are stride bytes apart, n samples each.
func sumRows(out, rows []byte, stride, n int, weights []int16) {
	half := archsimd.BroadcastInt32x8(1 << (coefficientBits - 1))
	low, high := archsimd.BroadcastInt16x16(0), archsimd.BroadcastInt16x16(255)
	order := archsimd.LoadInt8x32(&[32]int8{
		0, 2, 4, 6, 8, 10, 12, 14, -1, -1, -1, -1, -1, -1, -1, -1,
		-1, -1, -1, -1, -1, -1, -1, -1, 0, 2, 4, 6, 8, 10, 12, 14})
	for x := 0; x < n; x += 16 {
		var lo0, hi0, lo1, hi1 archsimd.Int32x8
		at := x
		for pair := weights; len(pair) >= 4; pair = pair[4:] {
			wl := archsimd.BroadcastInt32x8(int32(uint32(uint16(pair[0])) | uint32(uint16(pair[1]))<<16)).AsInt16x16()
			wh := archsimd.BroadcastInt32x8(int32(uint32(uint16(pair[2])) | uint32(uint16(pair[3]))<<16)).AsInt16x16()
			a := archsimd.LoadUint8x16((*[16]byte)(rows[at:])).ExtendToUint16().AsInt16x16()
			next := at
			if at+stride+16 <= len(rows) { // the last weight of an odd number is 0, whatever it is multiplied with
				next = at + stride
			}
			b := archsimd.LoadUint8x16((*[16]byte)(rows[next:])).ExtendToUint16().AsInt16x16()
			s, t := a.InterleaveLoGrouped(b), a.InterleaveHiGrouped(b)
			lo0, hi0 = lo0.Add(s.DotProductPairs(wl)), hi0.Add(s.DotProductPairs(wh))
			lo1, hi1 = lo1.Add(t.DotProductPairs(wl)), hi1.Add(t.DotProductPairs(wh))
			at = next + stride
			if at+16 > len(rows) {
				break
			}
		}
		a := lo0.Add(hi0.ShiftAllLeft(lowBits)).Add(half).ShiftAllRight(coefficientBits)
		b := lo1.Add(hi1.ShiftAllLeft(lowBits)).Add(half).ShiftAllRight(coefficientBits)
		v := a.SaturateToInt16ConcatGrouped(b).Max(low).Min(high) // undoes the interleaving
		bytes := v.AsUint8x32().PermuteOrZeroGrouped(order)
		bytes.GetLo().Or(bytes.GetHi()).Store((*[16]byte)(out[x:]))
	}
}
