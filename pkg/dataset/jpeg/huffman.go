package jpeg

import "errors"

// lookBits is the length of the codes that one look into a table decodes.
const lookBits = 10

// huffman is a table of codes, made for decoding.
type huffman struct {
	defined bool
	counts  [17]uint8
	symbols [256]uint8

	// look gives length<<8 | symbol of the code that begins the next lookBits bits; 0 where the code is longer.
	look [1 << lookBits]uint16
	// ac gives value<<16 | run<<8 | bits where the code and the coefficient's own bits fit in; 0 elsewhere.
	ac      [1 << lookBits]int32
	maxCode [18]int32 // the largest code of each length, −1 if there is none; the last one ends every search
	offset  [17]int32 // symbol index minus code
}

// set takes over a definition: how many codes of each length there are, and their symbols in order.
func (h *huffman) set(counts *[17]uint8, symbols []byte) error {
	h.counts = *counts
	clear(h.symbols[:])
	copy(h.symbols[:], symbols)
	h.defined = true
	code, k := int32(0), int32(0)
	clear(h.look[:])
	clear(h.ac[:])
	for length := 1; length <= 16; length++ {
		n := int32(counts[length])
		h.offset[length] = k - code
		h.maxCode[length] = -1
		if n > 0 {
			if code+n >= 1<<uint(length) { // a code of ones alone is not allowed
				return errors.New("a Huffman table has more codes than fit into their length")
			}
			h.spread(length, code, k, n)
			code += n
			k += n
			h.maxCode[length] = code - 1
		}
		code <<= 1
	}
	h.maxCode[17] = 1<<31 - 1
	h.combine()
	return nil
}

// spread enters n codes of one length into the look-up table.
func (h *huffman) spread(length int, code, first, n int32) {
	if length > lookBits {
		return
	}
	shift := uint(lookBits - length)
	for i := range n {
		entry := uint16(length)<<8 | uint16(h.symbols[first+i])
		from := (code + i) << shift
		for j := range int32(1) << shift {
			h.look[from+j] = entry
		}
	}
}

// combine fills the table of whole coefficients.
func (h *huffman) combine() {
	for i, e := range h.look {
		length, run, size := int(e>>8), int32(e>>4&15), int(e&15)
		if e == 0 || size == 0 || length+size > lookBits {
			continue
		}
		own := int32(i) >> uint(lookBits-length-size) & (1<<uint(size) - 1)
		value := extend(own, size)
		h.ac[i] = value<<16 | run<<8 | int32(length+size)
	}
}

// symbol decodes one code. A code that is in no table counts as symbol 0, after 17 bits, as in libjpeg.
func (b *bits) symbol(h *huffman) int {
	if b.n < 32 {
		b.fill()
	}
	if e := h.look[b.acc>>(64-lookBits)]; e != 0 {
		length := int(e >> 8)
		b.acc <<= uint(length)
		b.n -= length
		return int(e & 0xff)
	}
	return b.longSymbol(h)
}

func (b *bits) longSymbol(h *huffman) int {
	length := lookBits + 1
	code := int32(b.acc >> uint(64-length))
	for code > h.maxCode[length] {
		length++
		code = int32(b.acc >> uint(64-length))
	}
	b.acc <<= uint(length)
	b.n -= length
	if length > 16 {
		return 0
	}
	return int(h.symbols[uint8(code+h.offset[length])])
}

// checkDC refuses a table whose symbols cannot be sizes of a DC difference.
func (h *huffman) checkDC() error {
	n := 0
	for _, c := range h.counts[1:] {
		n += int(c)
	}
	for _, s := range h.symbols[:n] {
		if s > 15 {
			return errors.New("a Huffman table of DC coefficients has symbols above 15")
		}
	}
	return nil
}
