package jpeg

// Constants of the inverse DCT of Loeffler, Ligtenberg and Moschytz (1989) with 13 fractional bits, as libjpeg's
// "islow" has them.
const (
	fix0298 = 2446
	fix0390 = 3196
	fix0541 = 4433
	fix0765 = 6270
	fix0899 = 7373
	fix1175 = 9633
	fix1501 = 12299
	fix1847 = 15137
	fix1961 = 16069
	fix2053 = 16819
	fix2562 = 20995
	fix3072 = 25172

	constBits = 13
	pass1Bits = 2
)

// inverseRowPlain transforms a row of blocks into 8 rows of samples, pitch bytes apart. Products, sums of the first two
// inputs and the results of the first pass are kept to 16 bits as libjpeg-turbo's vector code does: they wrap around
// where it lets them, and are clipped where it clips. That matters for damaged data alone.
func inverseRowPlain(out []byte, pitch int, coefs []int16, quant *[64]uint16) {
	for x := 0; len(coefs) >= 64; x += 8 {
		inverseBlock(out[x:], pitch, (*[64]int16)(coefs), quant)
		coefs = coefs[64:]
	}
}

func inverseBlock(out []byte, pitch int, in *[64]int16, quant *[64]uint16) {
	var mid [64]int16
	flat := true // no column has anything but its first coefficient
	for _, v := range in[8:] {
		flat = flat && v == 0
	}
	for c := range 8 {
		if flat {
			dc := in[c] * int16(quant[c]) << pass1Bits
			for r := 0; r < 64; r += 8 {
				mid[r+c] = dc
			}
			continue
		}
		var v [8]int16
		for r := range v {
			v[r] = in[r*8+c] * int16(quant[r*8+c])
		}
		w := butterfly(&v)
		for r, s := range w {
			mid[r*8+c] = saturate16((s + 1<<(constBits-pass1Bits-1)) >> (constBits - pass1Bits))
		}
	}
	for r := range 8 {
		w := butterfly((*[8]int16)(mid[r*8:]))
		row := out[r*pitch : r*pitch+8]
		for c, s := range w {
			const shift = constBits + pass1Bits + 3
			row[c] = sample((s + 1<<(shift-1)) >> shift)
		}
	}
}

// butterfly is one pass over 8 values; the result has constBits fractional bits.
func butterfly(v *[8]int16) [8]int32 {
	z2, z3 := int32(v[2]), int32(v[6])
	tmp2 := z2*fix0541 + z3*(fix0541-fix1847)
	tmp3 := z2*(fix0541+fix0765) + z3*fix0541
	tmp0, tmp1 := int32(v[0]+v[4])<<constBits, int32(v[0]-v[4])<<constBits
	e0, e3, e1, e2 := tmp0+tmp3, tmp0-tmp3, tmp1+tmp2, tmp1-tmp2

	o0, o1, o2, o3 := int32(v[7]), int32(v[5]), int32(v[3]), int32(v[1])
	s3, s4 := int32(v[7]+v[3]), int32(v[5]+v[1])
	z3 = s3*(fix1175-fix1961) + s4*fix1175
	z4 := s3*fix1175 + s4*(fix1175-fix0390)
	t0 := o0*(fix0298-fix0899) - o3*fix0899 + z3
	t1 := o1*(fix2053-fix2562) - o2*fix2562 + z4
	t2 := o2*(fix3072-fix2562) - o1*fix2562 + z3
	t3 := o3*(fix1501-fix0899) - o0*fix0899 + z4
	return [8]int32{e0 + t3, e1 + t2, e2 + t1, e3 + t0, e3 - t0, e2 - t1, e1 - t2, e0 - t3}
}

func saturate16(v int32) int16 { return int16(min(max(v, -1<<15), 1<<15-1)) }

// sample shifts a value from around 0 to around 128 and clips it to a byte.
func sample(v int32) byte { return byte(min(max(v+128, 0), 255)) }
