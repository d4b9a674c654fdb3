//go:build goexperiment.simd && amd64

package jpeg

import "simd/archsimd"

// hasAVX2 says whether the vector code below can run.
var hasAVX2 = archsimd.X86.AVX2()

// pair repeats a, b.
func pair(a, b int16) archsimd.Int16x16 {
	return archsimd.BroadcastInt32x8(int32(uint32(uint16(a)) | uint32(uint16(b))<<16)).AsInt16x16()
}

// inverseRow transforms a row of blocks into 8 rows of samples, pitch bytes apart.
func inverseRow(out []byte, pitch int, coefs []int16, quant *[64]uint16) {
	if !hasAVX2 {
		inverseRowPlain(out, pitch, coefs, quant)
		return
	}
	x := 0
	for ; len(coefs) >= 128; coefs = coefs[128:] {
		inversePair(out[x:], pitch, (*[128]int16)(coefs), quant)
		x += 16
	}
	if len(coefs) >= 64 {
		inverseRowPlain(out[x:], pitch, coefs, quant)
	}
}

// inversePair transforms two neighbouring blocks, one in each half of the vectors. It goes as libjpeg-turbo's: eight
// columns at once, then the transposed rows.
func inversePair(out []byte, pitch int, in *[128]int16, quant *[64]uint16) {
	var v [8]archsimd.Int16x16
	for r := range v {
		q := archsimd.LoadUint16x8((*[8]uint16)(quant[r*8:])).AsInt16x8()
		a := archsimd.LoadInt16x8((*[8]int16)(in[r*8:])).Mul(q)
		b := archsimd.LoadInt16x8((*[8]int16)(in[64+r*8:])).Mul(q)
		v[r] = v[r].SetLo(a).SetHi(b)
	}
	// Such values no picture has; what becomes of them depends on the rest of the block.
	const most = 1 << (15 - pass1Bits)
	large := v[0].Add(archsimd.BroadcastInt16x16(most)).AsUint16x16().ShiftAllRight(16 - pass1Bits).AsUint64x4()
	if sum := large.GetLo().Or(large.GetHi()); sum.GetElem(0)|sum.GetElem(1) != 0 {
		inverseBlock(out, pitch, (*[64]int16)(in[:64]), quant)
		inverseBlock(out[8:], pitch, (*[64]int16)(in[64:]), quant)
		return
	}
	pass(&v, 1<<(constBits-pass1Bits-1), constBits-pass1Bits)
	transpose(&v)
	pass(&v, 1<<(constBits+pass1Bits+2), constBits+pass1Bits+3)
	transpose(&v)
	store(out, pitch, &v)
}

// pass is the butterfly over v[0] to v[7] for 16 columns.
func pass(v *[8]archsimd.Int16x16, round int32, shift uint64) {
	half := archsimd.BroadcastInt32x8(round)
	zero := archsimd.BroadcastInt16x16(0)

	k2, k3 := pair(fix0541, fix0541-fix1847), pair(fix0541+fix0765, fix0541)
	lo, hi := v[2].InterleaveLoGrouped(v[6]), v[2].InterleaveHiGrouped(v[6])
	tmp2l, tmp2h := lo.DotProductPairs(k2), hi.DotProductPairs(k2)
	tmp3l, tmp3h := lo.DotProductPairs(k3), hi.DotProductPairs(k3)
	sum, diff := v[0].Add(v[4]), v[0].Sub(v[4])
	// A value in the upper half of 32 bits, shifted down by 3, is the value times 2^13.
	tmp0l := zero.InterleaveLoGrouped(sum).AsInt32x8().ShiftAllRight(16 - constBits)
	tmp0h := zero.InterleaveHiGrouped(sum).AsInt32x8().ShiftAllRight(16 - constBits)
	tmp1l := zero.InterleaveLoGrouped(diff).AsInt32x8().ShiftAllRight(16 - constBits)
	tmp1h := zero.InterleaveHiGrouped(diff).AsInt32x8().ShiftAllRight(16 - constBits)
	e0l, e0h := tmp0l.Add(tmp3l).Add(half), tmp0h.Add(tmp3h).Add(half)
	e3l, e3h := tmp0l.Sub(tmp3l).Add(half), tmp0h.Sub(tmp3h).Add(half)
	e1l, e1h := tmp1l.Add(tmp2l).Add(half), tmp1h.Add(tmp2h).Add(half)
	e2l, e2h := tmp1l.Sub(tmp2l).Add(half), tmp1h.Sub(tmp2h).Add(half)

	s3, s4 := v[7].Add(v[3]), v[5].Add(v[1])
	k2, k3 = pair(fix1175-fix1961, fix1175), pair(fix1175, fix1175-fix0390)
	lo, hi = s3.InterleaveLoGrouped(s4), s3.InterleaveHiGrouped(s4)
	z3l, z3h := lo.DotProductPairs(k2), hi.DotProductPairs(k2)
	z4l, z4h := lo.DotProductPairs(k3), hi.DotProductPairs(k3)

	k2, k3 = pair(fix0298-fix0899, -fix0899), pair(-fix0899, fix1501-fix0899)
	lo, hi = v[7].InterleaveLoGrouped(v[1]), v[7].InterleaveHiGrouped(v[1])
	t0l, t0h := lo.DotProductPairs(k2).Add(z3l), hi.DotProductPairs(k2).Add(z3h)
	t3l, t3h := lo.DotProductPairs(k3).Add(z4l), hi.DotProductPairs(k3).Add(z4h)
	k2, k3 = pair(fix2053-fix2562, -fix2562), pair(-fix2562, fix3072-fix2562)
	lo, hi = v[5].InterleaveLoGrouped(v[3]), v[5].InterleaveHiGrouped(v[3])
	t1l, t1h := lo.DotProductPairs(k2).Add(z4l), hi.DotProductPairs(k2).Add(z4h)
	t2l, t2h := lo.DotProductPairs(k3).Add(z3l), hi.DotProductPairs(k3).Add(z3h)

	v[0] = e0l.Add(t3l).ShiftAllRight(shift).SaturateToInt16ConcatGrouped(e0h.Add(t3h).ShiftAllRight(shift))
	v[7] = e0l.Sub(t3l).ShiftAllRight(shift).SaturateToInt16ConcatGrouped(e0h.Sub(t3h).ShiftAllRight(shift))
	v[1] = e1l.Add(t2l).ShiftAllRight(shift).SaturateToInt16ConcatGrouped(e1h.Add(t2h).ShiftAllRight(shift))
	v[6] = e1l.Sub(t2l).ShiftAllRight(shift).SaturateToInt16ConcatGrouped(e1h.Sub(t2h).ShiftAllRight(shift))
	v[2] = e2l.Add(t1l).ShiftAllRight(shift).SaturateToInt16ConcatGrouped(e2h.Add(t1h).ShiftAllRight(shift))
	v[5] = e2l.Sub(t1l).ShiftAllRight(shift).SaturateToInt16ConcatGrouped(e2h.Sub(t1h).ShiftAllRight(shift))
	v[3] = e3l.Add(t0l).ShiftAllRight(shift).SaturateToInt16ConcatGrouped(e3h.Add(t0h).ShiftAllRight(shift))
	v[4] = e3l.Sub(t0l).ShiftAllRight(shift).SaturateToInt16ConcatGrouped(e3h.Sub(t0h).ShiftAllRight(shift))
}

// transpose swaps rows and columns of the 8×8 values in each half.
func transpose(v *[8]archsimd.Int16x16) {
	a0, a1 := v[0].InterleaveLoGrouped(v[1]).AsInt32x8(), v[0].InterleaveHiGrouped(v[1]).AsInt32x8()
	a2, a3 := v[2].InterleaveLoGrouped(v[3]).AsInt32x8(), v[2].InterleaveHiGrouped(v[3]).AsInt32x8()
	a4, a5 := v[4].InterleaveLoGrouped(v[5]).AsInt32x8(), v[4].InterleaveHiGrouped(v[5]).AsInt32x8()
	a6, a7 := v[6].InterleaveLoGrouped(v[7]).AsInt32x8(), v[6].InterleaveHiGrouped(v[7]).AsInt32x8()
	b0, b1 := a0.InterleaveLoGrouped(a2).AsInt64x4(), a0.InterleaveHiGrouped(a2).AsInt64x4()
	b2, b3 := a1.InterleaveLoGrouped(a3).AsInt64x4(), a1.InterleaveHiGrouped(a3).AsInt64x4()
	b4, b5 := a4.InterleaveLoGrouped(a6).AsInt64x4(), a4.InterleaveHiGrouped(a6).AsInt64x4()
	b6, b7 := a5.InterleaveLoGrouped(a7).AsInt64x4(), a5.InterleaveHiGrouped(a7).AsInt64x4()
	v[0], v[1] = b0.InterleaveLoGrouped(b4).AsInt16x16(), b0.InterleaveHiGrouped(b4).AsInt16x16()
	v[2], v[3] = b1.InterleaveLoGrouped(b5).AsInt16x16(), b1.InterleaveHiGrouped(b5).AsInt16x16()
	v[4], v[5] = b2.InterleaveLoGrouped(b6).AsInt16x16(), b2.InterleaveHiGrouped(b6).AsInt16x16()
	v[6], v[7] = b3.InterleaveLoGrouped(b7).AsInt16x16(), b3.InterleaveHiGrouped(b7).AsInt16x16()
}

// evenBytes takes the low byte of each 16-bit value to the front of the first half and to the end of the second.
var evenBytes = [32]int8{
	0, 2, 4, 6, 8, 10, 12, 14, -1, -1, -1, -1, -1, -1, -1, -1,
	-1, -1, -1, -1, -1, -1, -1, -1, 0, 2, 4, 6, 8, 10, 12, 14,
}

// bytesOf packs values 0 to 255 into bytes.
func bytesOf(v archsimd.Int16x16, order archsimd.Int8x32) archsimd.Uint8x16 {
	b := v.AsUint8x32().PermuteOrZeroGrouped(order)
	return b.GetLo().Or(b.GetHi())
}

// store writes the 8 rows of two blocks as bytes.
func store(out []byte, pitch int, v *[8]archsimd.Int16x16) {
	bias, low, high := archsimd.BroadcastInt16x16(128), archsimd.BroadcastInt16x16(0), archsimd.BroadcastInt16x16(255)
	order := archsimd.LoadInt8x32(&evenBytes)
	for r := range v {
		s := v[r].AddSaturated(bias).Max(low).Min(high)
		bytesOf(s, order).Store((*[16]byte)(out[r*pitch:]))
	}
}

// mixRows is ¾ of near and ¼ of far.
func mixRows(out, near, far []byte, bias uint16) {
	n := 0
	if hasAVX2 {
		three, b := archsimd.BroadcastUint16x16(3), archsimd.BroadcastUint16x16(bias)
		order := archsimd.LoadInt8x32(&evenBytes)
		for ; n+16 <= len(near); n += 16 {
			v := archsimd.LoadUint8x16((*[16]byte)(near[n:])).ExtendToUint16().Mul(three)
			v = v.Add(archsimd.LoadUint8x16((*[16]byte)(far[n:])).ExtendToUint16()).Add(b).ShiftAllRight(2)
			bytesOf(v.AsInt16x16(), order).Store((*[16]byte)(out[n:]))
		}
	}
	mixRowsPlain(out[n:], near[n:], far[n:], bias)
}

// weigh is 3·near + far.
func weigh(sums []uint16, near, far []byte) {
	n := 0
	if hasAVX2 {
		three := archsimd.BroadcastUint16x16(3)
		for ; n+16 <= len(near); n += 16 {
			v := archsimd.LoadUint8x16((*[16]byte)(near[n:])).ExtendToUint16().Mul(three)
			v = v.Add(archsimd.LoadUint8x16((*[16]byte)(far[n:])).ExtendToUint16())
			v.Store((*[16]uint16)(sums[n:]))
		}
	}
	weighPlain(sums[n:], near[n:], far[n:])
}

// widenRow is widenRowPlain, 16 samples at a time.
func widenRow(out []byte, sums []uint16, even, odd uint16) {
	n := 0
	if hasAVX2 {
		three := archsimd.BroadcastUint16x16(3)
		e, o := archsimd.BroadcastUint16x16(even), archsimd.BroadcastUint16x16(odd)
		for ; 2*n+32 <= len(out); n += 16 {
			v := archsimd.LoadUint16x16((*[16]uint16)(sums[n+1:])).Mul(three)
			left := archsimd.LoadUint16x16((*[16]uint16)(sums[n:]))
			right := archsimd.LoadUint16x16((*[16]uint16)(sums[n+2:]))
			a := v.Add(left).Add(e).ShiftAllRight(4)
			b := v.Add(right).Add(o).ShiftAllRight(4).ShiftAllLeft(8)
			a.Or(b).AsUint8x32().Store((*[32]byte)(out[2*n:]))
		}
	}
	widenRowPlain(out[2*n:], sums[n:], even, odd)
}

// spread puts the 16 bytes of one of three planes to their places among 48.
var spread = func() (s [3][3][16]int8) {
	for plane := range s {
		for part := range 3 {
			for i := range 16 {
				at := part*16 + i
				s[plane][part][i] = -1
				if at%3 == plane {
					s[plane][part][i] = int8(at / 3)
				}
			}
		}
	}
	return s
}()

// colorRow is colorRowPlain, 16 pixels at a time. The products are split so that they fit into 16 bits: 1.402 is 1 and
// 0.402, 1.772 is 2 less 0.228, 0.714 is 1 less 0.286.
func colorRow(out, luma, cb, cr []byte) {
	n := 0
	if hasAVX2 {
		n = colorRowAVX2(out, luma, cb[:len(luma)], cr[:len(luma)])
	}
	colorRowPlain(out[3*n:], luma[n:], cb[n:], cr[n:])
}

func colorRowAVX2(out, luma, cb, cr []byte) (n int) {
	bias, one := archsimd.BroadcastInt16x16(128), archsimd.BroadcastInt16x16(1)
	low, high := archsimd.BroadcastInt16x16(0), archsimd.BroadcastInt16x16(255)
	toRed, toBlue := archsimd.BroadcastInt16x16(crToRed-1<<16), archsimd.BroadcastInt16x16(cbToBlue-2<<16)
	toGreen := pair(-cbToGreen, 1<<16-crToGreen)
	round := archsimd.BroadcastInt32x8(half)
	order := archsimd.LoadInt8x32(&evenBytes)
	load := archsimd.LoadInt8x16
	r0, r1, r2 := load(&spread[0][0]), load(&spread[0][1]), load(&spread[0][2])
	g0, g1, g2 := load(&spread[1][0]), load(&spread[1][1]), load(&spread[1][2])
	b0, b1, b2 := load(&spread[2][0]), load(&spread[2][1]), load(&spread[2][2])
	for ; n+16 <= len(luma); n += 16 {
		y := archsimd.LoadUint8x16((*[16]byte)(luma[n:])).ExtendToUint16().AsInt16x16()
		b := archsimd.LoadUint8x16((*[16]byte)(cb[n:])).ExtendToUint16().AsInt16x16().Sub(bias)
		r := archsimd.LoadUint8x16((*[16]byte)(cr[n:])).ExtendToUint16().AsInt16x16().Sub(bias)
		red := r.Add(r).MulHigh(toRed).Add(one).ShiftAllRight(1).Add(r).Add(y)
		blue := b.Add(b).MulHigh(toBlue).Add(one).ShiftAllRight(1).Add(b).Add(b).Add(y)
		lo := b.InterleaveLoGrouped(r).DotProductPairs(toGreen).Add(round).ShiftAllRight(16)
		hi := b.InterleaveHiGrouped(r).DotProductPairs(toGreen).Add(round).ShiftAllRight(16)
		green := lo.SaturateToInt16ConcatGrouped(hi).Sub(r).Add(y)
		rs := bytesOf(red.Max(low).Min(high), order)
		gs := bytesOf(green.Max(low).Min(high), order)
		bs := bytesOf(blue.Max(low).Min(high), order)
		to := out[3*n : 3*n+48]
		rs.PermuteOrZero(r0).Or(gs.PermuteOrZero(g0)).Or(bs.PermuteOrZero(b0)).Store((*[16]byte)(to))
		rs.PermuteOrZero(r1).Or(gs.PermuteOrZero(g1)).Or(bs.PermuteOrZero(b1)).Store((*[16]byte)(to[16:]))
		rs.PermuteOrZero(r2).Or(gs.PermuteOrZero(g2)).Or(bs.PermuteOrZero(b2)).Store((*[16]byte)(to[32:]))
	}
	return n
}
