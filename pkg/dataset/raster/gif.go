package raster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// gifFrame is what has to be known of the first frame.
type gifFrame struct {
	screenW, screenH int
	x, y, w, h       int
	interlace        bool
	colors           palette
	back             byte // what the rest of the screen shows
	bits             int  // of the first codes
}

// errGIF is a file whose structure does not hold.
var errGIF = errors.New("the GIF file is broken")

// DecodeGIF reads the first frame of a GIF picture, on the whole of its screen: what the frame leaves free has the
// transparent colour, or colour 0. If lenient, so has what a truncated file lacks.
func DecodeGIF(data []byte, lenient bool, canvas Canvas) error {
	var f gifFrame
	rest, err := f.header(data)
	if err != nil {
		return err
	}
	w, h := max(f.screenW, f.x+f.w), max(f.screenH, f.y+f.h)
	pix, err := blank(canvas, w, h)
	if err != nil {
		return err
	}
	for p := pix; len(p) >= 3; p = p[3:] {
		copy(p[:3], f.colors[f.back][:])
	}
	if f.w == 0 || f.h == 0 {
		return nil
	}
	done := f.draw(pix, w, rest)
	if !done && !lenient {
		return ErrTruncated
	}
	return nil
}

// header reads up to the codes of the first frame, which it gives.
func (f *gifFrame) header(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte("GIF87a")) && !bytes.HasPrefix(data, []byte("GIF89a")) {
		return nil, errors.New("not a GIF file")
	}
	if len(data) < 13 {
		return nil, ErrTruncated
	}
	f.screenW, f.screenH = int(binary.LittleEndian.Uint16(data[6:])), int(binary.LittleEndian.Uint16(data[8:]))
	flags, rest := data[10], data[13:]
	f.colors = greys()
	rest, err := f.table(rest, flags)
	for err == nil {
		if len(rest) == 0 {
			return nil, ErrTruncated
		}
		kind := rest[0]
		rest = rest[1:]
		switch kind {
		case '!':
			rest, err = f.extension(rest)
		case ',':
			return f.image(rest)
		case ';':
			return nil, errors.New("the GIF file holds no picture")
		}
	}
	return nil, err
}

// table reads a table of colours if flags announce one. A table of greys alone is none to Pillow.
func (f *gifFrame) table(rest []byte, flags byte) ([]byte, error) {
	if flags&0x80 == 0 {
		return rest, nil
	}
	n := 2 << (flags & 7)
	if len(rest) < 3*n {
		return nil, ErrTruncated
	}
	var colors palette
	for i := range n {
		copy(colors[i][:], rest[3*i:])
	}
	if !colors.grey(n) {
		f.colors = colors
	}
	return rest[3*n:], nil
}

func (f *gifFrame) extension(rest []byte) ([]byte, error) {
	if len(rest) == 0 {
		return nil, ErrTruncated
	}
	kind := rest[0]
	rest = rest[1:]
	for first := true; ; first = false {
		block, after, ok := gifBlock(rest)
		if !ok {
			return nil, ErrTruncated
		}
		if len(block) == 0 {
			return after, nil
		}
		const graphicControl = 0xf9
		if first && kind == graphicControl && len(block) >= 4 && block[0]&1 != 0 {
			f.back = block[3]
		}
		rest = after
	}
}

// gifBlock cuts off one block of data, an empty one at the end of a sequence.
func gifBlock(rest []byte) (block, after []byte, ok bool) {
	if len(rest) == 0 || len(rest) < 1+int(rest[0]) {
		return nil, nil, false
	}
	n := 1 + int(rest[0])
	return rest[1:n], rest[n:], true
}

func (f *gifFrame) image(rest []byte) ([]byte, error) {
	if len(rest) < 9 {
		return nil, ErrTruncated
	}
	at := func(i int) int { return int(binary.LittleEndian.Uint16(rest[i:])) }
	f.x, f.y, f.w, f.h = at(0), at(2), at(4), at(6)
	flags := rest[8]
	f.interlace = flags&0x40 != 0
	rest, err := f.table(rest[9:], flags)
	if err != nil {
		return nil, err
	}
	if len(rest) == 0 {
		return nil, ErrTruncated
	}
	f.bits = int(rest[0])
	if f.bits < 1 || f.bits > 11 {
		return nil, fmt.Errorf("%w: its codes begin with %d bits", errGIF, f.bits)
	}
	return rest[1:], nil
}

// draw decompresses the frame onto the screen and says whether it was whole.
func (f *gifFrame) draw(pix []byte, screenW int, rest []byte) bool {
	row := 0 // in the order of the file
	x := 0
	out := pix[(f.y*screenW+f.x)*3:]
	codes := gifCodes{rest: rest, width: uint(f.bits + 1)}
	return codes.expand(f.bits, func(c byte) bool {
		copy(out[:3], f.colors[c][:])
		if x++; x == f.w {
			x = 0
			if row++; row == f.h {
				return false
			}
			out = pix[((f.y+f.line(row))*screenW+f.x)*3:]
			return true
		}
		out = out[3:]
		return true
	})
}

// line is the line of the picture that a row of the file is.
func (f *gifFrame) line(row int) int {
	if !f.interlace {
		return row
	}
	for _, pass := range [][2]int{{0, 8}, {4, 8}, {2, 4}, {1, 2}} {
		n := max((f.h-pass[0]+pass[1]-1)/pass[1], 0)
		if row < n {
			return pass[0] + row*pass[1]
		}
		row -= n
	}
	return 0
}

// gifCodes reads the codes of a frame from its blocks.
type gifCodes struct {
	rest, block []byte
	acc         uint32
	n, width    uint
}

func (g *gifCodes) next() (code uint32, ok bool) {
	for g.n < g.width {
		for len(g.block) == 0 {
			block, after, ok := gifBlock(g.rest) // of a block cut short Pillow takes nothing either
			if !ok || len(block) == 0 {
				return 0, false
			}
			g.block, g.rest = block, after
		}
		g.acc |= uint32(g.block[0]) << g.n
		g.block = g.block[1:]
		g.n += 8
	}
	code = g.acc & (1<<g.width - 1)
	g.acc >>= g.width
	g.n -= g.width
	return code, true
}

// expand decompresses LZW codes (GIF's kind, up to 12 bits) and gives every value to put until that says false, in
// which case expand says true.
func (g *gifCodes) expand(bits int, put func(byte) bool) bool {
	const full = 4096
	var prefix [full]uint16
	var suffix [full]byte
	var stack [full]byte
	clearCode, end := uint32(1)<<uint(bits), uint32(1)<<uint(bits)+1
	next, last := end+1, uint32(full) // full: no code before
	first := byte(0)
	for {
		code, ok := g.next()
		if !ok || code == end {
			return false
		}
		if code == clearCode {
			g.width, next, last = uint(bits+1), end+1, full
			continue
		}
		if code > next || code == next && last == full {
			return false
		}
		at, c := full, code
		if code == next { // the code that is being defined: what was last, and its first value again
			at--
			stack[at] = first
			c = last
		}
		for c > end {
			at--
			stack[at] = suffix[c]
			c = uint32(prefix[c])
		}
		first = byte(c)
		at--
		stack[at] = first
		for _, v := range stack[at:] {
			if !put(v) {
				return true
			}
		}
		if last != full && next < full {
			prefix[next], suffix[next] = uint16(last), first
			next++
			if next == 1<<g.width && g.width < 12 {
				g.width++
			}
		}
		last = code
	}
}
