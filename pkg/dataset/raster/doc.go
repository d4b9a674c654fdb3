// Package raster decodes the picture formats beside JPEG that image–text data comes in, PNG, GIF, BMP, TIFF and WebP,
// into RGB samples as Pillow's Image.open(f).convert("RGB") gives them: alpha is dropped without blending, 16-bit grey
// is clipped at 255 while 16-bit colour keeps its high byte, of animations the first frame is taken, colour profiles
// are ignored.
//
// Every decoder asks for the memory of the picture once, when its size is known and before anything is decompressed, so
// that the caller can refuse sizes; what it allocates itself stays in proportion to the file and the picture.
package raster

import (
	"errors"
	"fmt"
)

// Canvas gives the memory for a picture of w×h pixels, 3·w·h bytes of R, G, B row after row, or refuses the size. Its
// contents may be anything.
type Canvas func(w, h int) ([]byte, error)

// ErrTruncated says that the file ends before the picture does.
var ErrTruncated = errors.New("the file is cut off")

// blank asks for a canvas and makes it black.
func blank(canvas Canvas, w, h int) ([]byte, error) {
	if w < 1 || h < 1 {
		return nil, fmt.Errorf("the picture has no pixels (%d×%d)", w, h)
	}
	pix, err := canvas(w, h)
	if err != nil {
		return nil, err
	}
	clear(pix)
	return pix, nil
}

// palette is a table of colours; entries that a file leaves out are black.
type palette [256][3]byte

// grey says whether the first n entries are levels of grey in order: GIF and BMP files with such a table are grey
// pictures to Pillow.
func (p *palette) grey(n int) bool {
	for i, c := range p[:n] {
		if c != [3]byte{byte(i), byte(i), byte(i)} {
			return false
		}
	}
	return true
}

func greys() (p palette) {
	for i := range p {
		p[i] = [3]byte{byte(i), byte(i), byte(i)}
	}
	return p
}

// unpackBits spreads the samples of bits (1, 2, 4 or 8) each, the first in the highest bits, to bytes.
func unpackBits(out, in []byte, bits int) {
	if bits == 8 {
		copy(out, in)
		return
	}
	mask := byte(1)<<uint(bits) - 1
	for i := range out {
		at := i * bits
		out[i] = in[at>>3] >> uint(8-bits-at&7) & mask
	}
}

// rowBytes is the length of a row of n samples of bits each.
func rowBytes(n, bits int) int { return (n*bits + 7) / 8 }
