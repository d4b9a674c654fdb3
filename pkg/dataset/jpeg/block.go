package jpeg

// sequentialBlock reads the coefficients of one block of a sequential picture. The state of the reader lives in local
// variables on the way.
func (b *bits) sequentialBlock(block *[64]int16, dc, ac *huffman, pred *int32) error {
	if err := b.firstDC(block, dc, pred, 0); err != nil {
		return err
	}
	acc, n := b.acc, b.n
	for k := 1; k < 64; {
		if n < 32 {
			b.acc, b.n = acc, n
			b.fill()
			acc, n = b.acc, b.n
		}
		look := acc >> (64 - lookBits)
		if e := ac.ac[look]; e != 0 {
			k += int(e >> 8 & 15)
			block[zigzag[k&127]] = int16(e >> 16)
			k++
			acc <<= uint(e & 31)
			n -= int(e & 31)
			continue
		}
		var sym int
		if e := ac.look[look]; e != 0 {
			sym = int(e & 0xff)
			acc <<= uint(e >> 8)
			n -= int(e >> 8)
		} else {
			b.acc, b.n = acc, n
			sym = b.longSymbol(ac)
			acc, n = b.acc, b.n
		}
		size := sym & 15
		if size == 0 {
			if sym != 0xf0 {
				break
			}
			k += 16
			continue
		}
		k += sym >> 4
		v := int32(acc >> 1 >> uint(63-size))
		acc <<= uint(size)
		n -= size
		block[zigzag[k&127]] = int16(extend(v, size))
		k++
	}
	b.acc, b.n = acc, n
	return nil
}

// maxPred is where libjpeg refuses to go on adding up DC differences.
const maxPred = 1 << 30

// firstDC reads the DC coefficient, but for its al lowest bits.
func (b *bits) firstDC(block *[64]int16, dc *huffman, pred *int32, al int) error {
	diff := int32(0)
	if size := b.symbol(dc); size != 0 {
		diff = extend(b.take(size&15), size&15)
	}
	*pred += diff
	if *pred > maxPred || *pred < -maxPred {
		return errCoefficient
	}
	block[0] = int16(*pred << uint(al))
	return nil
}

// firstAC reads the coefficients ss to se of one block, but for their al lowest bits (T.81, G.1.2.2).
func (b *bits) firstAC(block *[64]int16, ac *huffman, s *scan) {
	if s.eobRun > 0 {
		s.eobRun--
		return
	}
	for k := s.ss; k <= s.se; k++ {
		sym := b.symbol(ac)
		run, size := sym>>4, sym&15
		if size != 0 {
			k += run
			block[zigzag[k]] = int16(extend(b.take(size), size) << uint(s.al))
			continue
		}
		if run != 15 {
			s.eobRun = b.endRun(run) - 1
			return
		}
		k += 15
	}
}

// endRun is the length of a run of blocks that have ended.
func (b *bits) endRun(size int) int32 {
	run := int32(1) << uint(size)
	if size > 0 {
		run += b.take(size)
	}
	return run
}

// refineAC reads one more bit of the coefficients ss to se (T.81, G.1.2.3).
func (b *bits) refineAC(block *[64]int16, ac *huffman, s *scan) {
	plus, minus := int16(1)<<uint(s.al), int16(-1)<<uint(s.al)
	k := s.ss
	if s.eobRun == 0 {
		for ; k <= s.se; k++ {
			sym := b.symbol(ac)
			run, value := sym>>4, int16(0)
			if sym&15 != 0 { // the size should be 1; libjpeg takes any other for it
				value = minus
				if b.take(1) != 0 {
					value = plus
				}
			} else if run != 15 {
				s.eobRun = b.endRun(run)
				break
			}
			k = b.refineZeros(block, k, s.se, run, plus)
			if value != 0 {
				block[zigzag[k]] = value
			}
		}
	}
	if s.eobRun > 0 {
		b.refineZeros(block, k, s.se, 64, plus)
		s.eobRun--
	}
}

// refineZeros goes on from k over run coefficients that are still zero and corrects those that are not; it gives the
// place of the next zero, or the one behind se.
func (b *bits) refineZeros(block *[64]int16, k, se, run int, plus int16) int {
	for ; k <= se; k++ {
		c := &block[zigzag[k]]
		if *c == 0 {
			if run == 0 {
				break
			}
			run--
			continue
		}
		if b.take(1) != 0 && *c&plus == 0 {
			if *c >= 0 {
				*c += plus
			} else {
				*c -= plus
			}
		}
	}
	return k
}
