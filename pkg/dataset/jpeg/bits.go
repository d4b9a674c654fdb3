package jpeg

import "encoding/binary"

// bits reads the entropy-coded segments of a scan: bytes without the zeros stuffed after 0xff, up to a marker.
type bits struct {
	data []byte
	pos  int
	acc  uint64 // the next n bits, from the top; zeros below
	n    int
	pad  int  // how many of the n bits are zeros made up behind the end of the segment
	mark byte // the marker that ended the segment, at data[pos-1]; 0 if none is met yet
}

// start begins a segment at pos.
func (b *bits) start(pos int) { *b = bits{data: b.data, pos: pos} }

// fill brings n to 56 or more. Behind the end it adds zeros, as libjpeg does.
func (b *bits) fill() {
	if b.mark == 0 && b.pos+8 <= len(b.data) {
		v := binary.BigEndian.Uint64(b.data[b.pos:])
		if !hasFF(v) {
			b.acc |= v >> uint(b.n&63)
			b.pos += (63 - b.n) >> 3
			b.n |= 56
			return
		}
	}
	b.fillSlow()
}

// hasFF says whether one of the eight bytes is 0xff.
func hasFF(v uint64) bool { return (^v-0x0101010101010101)&v&0x8080808080808080 != 0 }

func (b *bits) fillSlow() {
	// A fill by eight bytes may have left bits of the next byte below the n valid ones.
	b.acc &^= 1<<uint(64-b.n) - 1
	for b.n < 56 {
		if b.mark != 0 || !b.byteInto() {
			b.pad += 56 - b.n
			b.n = 56
		}
	}
}

// byteInto appends one byte of the segment, or says that the segment is over.
func (b *bits) byteInto() bool {
	if b.pos >= len(b.data) {
		b.mark = markEOI // as if the file were complete; the caller knows where the data ended
		return false
	}
	c := b.data[b.pos]
	b.pos++
	if c == 0xff {
		for b.pos < len(b.data) && b.data[b.pos] == 0xff {
			b.pos++
		}
		if b.pos >= len(b.data) {
			b.mark = markEOI
			return false
		}
		b.pos++
		if next := b.data[b.pos-1]; next != 0 {
			b.mark = next
			return false
		}
	}
	b.acc |= uint64(c) << uint(56-b.n)
	b.n += 8
	return true
}

// dry says that more bits were used than the segment has.
func (b *bits) dry() bool { return b.pad > b.n }

// take uses up k bits, 0 ≤ k ≤ 16.
func (b *bits) take(k int) int32 {
	if b.n < k {
		b.fill()
	}
	v := int32(b.acc >> 1 >> uint(63-k))
	b.acc <<= uint(k)
	b.n -= k
	return v
}

// extend gives a coefficient of k bits its sign (T.81, F.2.2.1).
func extend(v int32, k int) int32 {
	if v < int32(1)<<uint(k)>>1 {
		v += int32(-1)<<uint(k) + 1
	}
	return v
}
