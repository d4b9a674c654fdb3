package jpeg

// upsampler gives the planes of one picture row by row in full resolution.
type upsampler struct {
	rows [4][]byte // per component a row in full width, where it has to be made
	sums []uint16
}

// reach is how many samples of room the sums have on each side.
const reach = 16

// way is how a plane is brought to full resolution.
type way int

const (
	wayFull   way = iota // nothing to do
	wayRepeat            // samples are repeated
	wayAcross            // interpolated across: 2×1
	wayDown              // interpolated down: 1×2
	wayBoth              // 2×2
)

// way follows libjpeg: twofold chroma is interpolated, unless the plane is too narrow for it; what else divides is
// repeated.
func (d *Decoder) way(c *component) way {
	across, down := d.hMax/int(c.h), d.vMax/int(c.v)
	switch {
	case across == 1 && down == 1:
		return wayFull
	case across == 1 && down == 2:
		return wayDown
	case across == 2 && down == 1 && c.width > 2:
		return wayAcross
	case across == 2 && down == 2 && c.width > 2:
		return wayBoth
	}
	return wayRepeat
}

// samples is the row of a component's plane that holds the samples of its row y; the first is sample
// 8·c.blocks.left of the row.
func (c *component) samples(y int) []byte {
	at := (y - c.blocks.top*8) * c.pitch
	return c.plane[at : at+c.pitch]
}

// row gives the samples of component i for pixels left to left+n of picture row y. The result holds until the next
// call for the component, and may be followed by a few bytes more.
func (d *Decoder) row(i, y, left, n int) []byte {
	c := &d.comps[i]
	across, down := d.hMax/int(c.h), d.vMax/int(c.v)
	kind := d.way(c)
	near := c.samples(y / down)
	start := c.blocks.left * 8
	if kind == wayFull {
		return near[left-start:][:n]
	}
	// The samples lo to hi cover the pixels wanted.
	lo, hi := left/across, up(left+n, across)
	out := grow(d.up.rows[i], (hi-lo)*across+planeSlack)
	d.up.rows[i] = out
	switch kind {
	case wayRepeat:
		repeatSamples(out[:(hi-lo)*across], near[lo-start:hi-start], across)
	case wayDown:
		far, bias := d.far(c, y)
		mixRows(out[:n], near[lo-start:hi-start], far[lo-start:hi-start], bias)
	case wayAcross:
		d.widen(out, near, near, c, lo, hi, 4, 8)
	case wayBoth:
		far, _ := d.far(c, y)
		d.widen(out, near, far, c, lo, hi, 8, 7)
	}
	return out[left-lo*across:][:n]
}

// far is the row of samples on the other side of picture row y where two rows share one: above for the upper, below
// for the lower, itself at the picture's edge. bias alternates so that rounding does not drift.
func (d *Decoder) far(c *component, y int) (row []byte, bias uint16) {
	other := min(max(y/2+y%2*2-1, 0), c.height-1)
	return c.samples(other), uint16(1 + y%2)
}

// widen interpolates samples lo to hi of two rows (the same one twice: across only) to twice the width.
func (d *Decoder) widen(out, near, far []byte, c *component, lo, hi int, even, odd uint16) {
	start := c.blocks.left * 8
	// One sample more on each side, where the plane has it; at its edge the sample itself.
	from, to := max(lo-1, 0), min(hi+1, c.width)
	d.up.sums = grow(d.up.sums, hi-lo+2*reach)
	sums := d.up.sums
	weigh(sums[reach+from-lo:][:to-from], near[from-start:to-start], far[from-start:to-start])
	if lo == 0 {
		sums[reach-1] = sums[reach]
	}
	if hi >= c.width {
		sums[reach+c.width-lo] = sums[reach+c.width-lo-1]
	}
	widenRow(out[:2*(hi-lo)], sums[reach-1:], even, odd)
}

func repeatSamples(out, in []byte, times int) {
	for _, v := range in {
		for range times {
			out[0] = v
			out = out[1:]
		}
	}
}

// mixRowsPlain is ¾ of near and ¼ of far.
func mixRowsPlain(out, near, far []byte, bias uint16) {
	far, out = far[:len(near)], out[:len(near)]
	for i, v := range near {
		out[i] = byte((uint16(v)*3 + uint16(far[i]) + bias) >> 2)
	}
}

// weighPlain is 3·near + far.
func weighPlain(sums []uint16, near, far []byte) {
	far, sums = far[:len(near)], sums[:len(near)]
	for i, v := range near {
		sums[i] = uint16(v)*3 + uint16(far[i])
	}
}

// widenRowPlain doubles a row of samples times 4, sums[1] being the first and sums[0] the one before it: an even pixel
// takes ¼ of its left neighbour, an odd one of its right one.
func widenRowPlain(out []byte, sums []uint16, even, odd uint16) {
	sums = sums[:len(out)/2+2]
	for i := range len(out) / 2 {
		v := sums[i+1] * 3
		pair := out[2*i : 2*i+2 : 2*i+2]
		pair[0], pair[1] = byte((v+sums[i]+even)>>4), byte((v+sums[i+2]+odd)>>4)
	}
}
