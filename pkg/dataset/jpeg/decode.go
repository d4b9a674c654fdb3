package jpeg

import (
	"errors"
	"fmt"
)

// Part is what of a picture to decode, in pixels.
type Part struct{ Left, Top, Width, Height int }

// Decode writes the part of the opened picture to dst as R, G, B, row after row, len(dst) = 3·Width·Height. The samples
// are those of the whole picture's decoding. What a truncated file lacks is as in Pillow, mostly grey, if lenient,
// otherwise Decode fails with ErrTruncated. A lenient Decode does not look at what follows the part.
func (d *Decoder) Decode(dst []byte, part Part, lenient bool) error {
	if part.Left < 0 || part.Top < 0 || part.Width < 1 || part.Height < 1 || part.Left+part.Width > d.width ||
		part.Top+part.Height > d.height || len(dst) != 3*part.Width*part.Height {
		panic("jpeg: the part is not inside the picture, or the memory does not fit")
	}
	if !d.frame {
		return errors.New("jpeg: Decode before Open")
	}
	d.window(part)
	s, err := d.readScan()
	if err != nil {
		return err
	}
	if len(s.comps) == len(d.comps) && !d.progressive {
		err = d.sequential(lenient)
	} else {
		err = d.multiScan(lenient)
	}
	switch {
	case lenient && err == errCutSegment:
		d.blank(dst)
		return nil
	case err != nil && !(lenient && errors.Is(err, ErrTruncated)):
		return err
	}
	d.convert(dst, part)
	return nil
}

// blank is what Pillow makes of a picture of several scans that breaks off inside a segment between them. The end of
// the picture that it puts behind the file becomes part of that segment, whose rest libjpeg then waits for: it gives
// nothing at all, and samples or inks stay 0.
func (d *Decoder) blank(dst []byte) {
	clear(dst)
	if len(d.comps) == 4 {
		for i := range dst {
			dst[i] = 255
		}
	}
}

// rectangle is a range of columns and rows.
type rectangle struct{ left, top, right, bottom int }

// window works out which blocks the part needs: interpolation looks one chroma sample beyond it.
func (d *Decoder) window(part Part) {
	reachX, reachY := d.hMax, d.vMax
	w, h := 8*d.hMax, 8*d.vMax
	d.win = rectangle{
		left: max(part.Left-reachX, 0) / w, top: max(part.Top-reachY, 0) / h,
		right:  min(up(part.Left+part.Width+reachX, w), d.mcusWide),
		bottom: min(up(part.Top+part.Height+reachY, h), d.mcusHigh),
	}
	for i := range d.comps {
		c := &d.comps[i]
		ch, cv := int(c.h), int(c.v)
		c.blocks = rectangle{d.win.left * ch, d.win.top * cv, d.win.right * ch, d.win.bottom * cv}
		c.pitch = (c.blocks.right - c.blocks.left) * 8
		c.plane = grow(c.plane, c.pitch*(c.blocks.bottom-c.blocks.top)*8+planeSlack)
	}
}

// planeSlack lets vector loads run over the end of the last row.
const planeSlack = 64

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// sequential decodes a picture of one scan, a row of MCUs at a time.
func (d *Decoder) sequential(lenient bool) error {
	for i := range d.comps {
		c := &d.comps[i]
		c.coefs = grow(c.coefs, c.stride*int(c.v)*64)
	}
	s := &d.scan
	s.begin(d)
	last := d.mcusHigh
	if lenient {
		last = d.win.bottom
	}
	for y := range last {
		for i := range d.comps {
			clear(d.comps[i].coefs)
		}
		if err := s.row(d, y, true); err != nil {
			return err
		}
		if y < d.win.top || y >= d.win.bottom {
			continue
		}
		for i := range d.comps {
			c := &d.comps[i]
			for v := range int(c.v) {
				c.inverse(c.coefs[v*c.stride*64:], y*int(c.v)+v)
			}
		}
	}
	if !lenient && s.cutOff(d) {
		return ErrTruncated
	}
	return nil
}

// multiScan collects the coefficients of all scans before it transforms them.
func (d *Decoder) multiScan(lenient bool) error {
	for i := range d.comps {
		c := &d.comps[i]
		c.coefs = grow(c.coefs, c.stride*c.rows*64)
		clear(c.coefs)
	}
	err := d.readScans(lenient)
	if err == errCutSegment || err != nil && !(lenient && errors.Is(err, ErrTruncated)) {
		return err
	}
	smooth := d.smoothes()
	for i := range d.comps {
		c := &d.comps[i]
		for y := c.blocks.top; y < c.blocks.bottom; y++ {
			if smooth {
				c.inverse(d.smoothRow(c, y), y)
			} else {
				c.inverse(c.coefs[y*c.stride*64:], y)
			}
		}
	}
	return nil
}

// readScans reads all scans, the header of the first being read already.
func (d *Decoder) readScans(lenient bool) error {
	s := &d.scan
	visits := 0
	for n := 1; ; n++ {
		visits += s.rows * s.cols
		if n > maxScans || visits > maxVisits {
			return fmt.Errorf("the JPEG file goes over its %d×%d pixels in more than %d scans; refused", d.width,
				d.height, n-1)
		}
		s.begin(d)
		for y := range s.rows {
			if s.starved && d.restart == 0 {
				break
			}
			if err := s.row(d, y, false); err != nil {
				return err
			}
		}
		if !lenient && s.cutOff(d) {
			return ErrTruncated
		}
		done, err := d.toNextScan()
		if done || err != nil {
			return err
		}
	}
}

// toNextScan reads segments up to the header of the next scan, or to the end of the picture.
func (d *Decoder) toNextScan() (done bool, err error) {
	m := d.scan.marker(d)
	for {
		if m == 0 {
			if m, err = d.nextMarker(); err != nil {
				return false, err
			}
		}
		switch m {
		case markEOI:
			return true, d.scan.endError(d)
		case markSOS:
			_, err = d.readScan()
			return false, err
		}
		if err := d.segment(m); err != nil {
			return false, err
		}
		m = 0
	}
}

// inverse transforms row y of the component's blocks, whose coefficients begin at coefs, as far as the window needs it.
func (c *component) inverse(coefs []int16, y int) {
	if !c.latched {
		// A component that no scan has: all coefficients are 0.
		out := c.plane[(y-c.blocks.top)*8*c.pitch:][:8*c.pitch]
		for i := range out {
			out[i] = 128
		}
		return
	}
	n := c.blocks.right - c.blocks.left
	inverseRow(c.plane[(y-c.blocks.top)*8*c.pitch:], c.pitch, coefs[c.blocks.left*64:(c.blocks.left+n)*64], &c.quant)
}
