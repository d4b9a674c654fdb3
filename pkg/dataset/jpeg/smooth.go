package jpeg

// A progressive picture that lacks some of its scans is made of flat blocks. libjpeg then guesses the lowest
// coefficients from the DC values of a block and its 24 neighbours ("block smoothing"), in the spirit of T.81, K.8.

// estimate is how one coefficient is guessed: the weights of the 5×5 DC values around the block, in 1/256.
type estimate struct {
	at    int       // natural position
	known [25]int16 // where some of the coefficients are known
	blank [25]int16 // where none are
}

// estimates are those of the first coefficients in zigzag order; the last four are guessed only where nothing is
// known.
var estimates = [9]estimate{
	{at: 1,
		known: [25]int16{10: -7, 50, 0, -50, 7},
		blank: [25]int16{-1, -1, 0, 1, 1, -3, 13, 0, -13, 3, -3, 38, 0, -38, 3, -3, 13, 0, -13, 3, -1, -1, 0, 1, 1}},
	{at: 8,
		known: [25]int16{2: -7, 7: 50, 17: -50, 22: 7},
		blank: [25]int16{-1, -3, -3, -3, -1, -1, 13, 38, 13, -1, 0, 0, 0, 0, 0, 1, -13, -38, -13, 1, 1, 3, 3, 3, 1}},
	{at: 16,
		known: [25]int16{2: -1, 7: 13, 12: -24, 17: 13, 22: -1},
		blank: [25]int16{2: 1, 6: 2, 7, 2, 11: -5, -14, -5, 16: 2, 7, 2, 22: 1}},
	{at: 9,
		known: [25]int16{1: -1, 3: 1, 5: -1, 6: 10, 8: -10, 9: 1, 15: 1, 16: -10, 18: 10, 19: -1, 21: 1, 23: -1},
		blank: [25]int16{0: -1, 4: 1, 6: 9, 8: -9, 16: -9, 18: 9, 20: 1, 24: -1}},
	{at: 2,
		known: [25]int16{10: -1, 13, -24, 13, -1},
		blank: [25]int16{6: 2, -5, 2, 10: 1, 7, -14, 7, 1, 16: 2, -5, 2}},
	{at: 3, blank: [25]int16{6: 1, 0, -1, 11: 2, 0, -2, 16: 1, 0, -1}},
	{at: 10, blank: [25]int16{6: 1, -3, 1, 16: -1, 3, -1}},
	{at: 17, blank: [25]int16{6: 1, 0, -1, 11: -3, 0, 3, 16: 1, 0, -1}},
	{at: 24, blank: [25]int16{6: 1, 2, 1, 16: -1, -2, -1}},
}

// nothing is the accuracy of coefficients before the first scan.
var nothing = func() (bits [64]int8) {
	for k := range bits {
		bits[k] = -1
	}
	return bits
}()

// average is the DC value where no other coefficient is known.
var average = [25]int16{-2, -6, -8, -6, -2, -6, 6, 42, 6, -6, -8, 42, 152, 42, -8, -6, 6, 42, 6, -6, -2, -6, -8, -6, -2}

// smoothes says whether the picture is one to be smoothed: every DC is known at least in part, and some of the lowest
// coefficients are not known to the last bit.
func (d *Decoder) smoothes() bool {
	if !d.progressive {
		return false
	}
	useful := false
	for i := range d.comps {
		c := &d.comps[i]
		if !c.latched || c.accuracy[0] < 0 || c.quant[0] == 0 {
			return false
		}
		for k, e := range estimates {
			if c.quant[e.at] == 0 {
				return false
			}
			useful = useful || c.accuracy[k+1] != 0
		}
	}
	return useful
}

// smoothRow gives the coefficients of row y of the component's blocks with guesses where they are due.
func (d *Decoder) smoothRow(c *component, y int) []int16 {
	v := int(c.v)
	mcu := y / v
	// Rows of blocks as libjpeg counts them: the last row of MCUs has those alone that hold samples.
	rows := v
	if mcu == d.mcusHigh-1 && c.blocksHigh%v != 0 {
		rows = c.blocksHigh % v
	}
	place := mcu*rows + y - mcu*v
	known := &c.accuracy
	switch { // the scan that broke off says nothing about this row
	case mcu > d.lastGood && d.scans == 1:
		known = &nothing
	case mcu > d.lastGood:
		known = &c.before
	}
	up, down := min(place, 2), min(max(rows*d.mcusHigh-1-place, 0), 2)
	work := grow(d.smoothed, c.stride*64)
	d.smoothed = work
	copy(work, c.coefs[y*c.stride*64:(y+1)*c.stride*64])
	var dc [25]int32
	for x := range c.blocksWide {
		for r := range 5 {
			row := (y + min(max(r-2, -up), down)) * c.stride
			for k := range 5 {
				dc[r*5+k] = int32(c.coefs[(row+min(max(x+k-2, 0), c.blocksWide-1))*64])
			}
		}
		guess((*[64]int16)(work[x*64:]), &dc, known, &c.quant)
	}
	return work
}

// guess fills in the coefficients of one block that are zero and not fully known.
func guess(block *[64]int16, dc *[25]int32, known *[64]int8, quant *[64]uint16) {
	blank := true
	for _, bit := range known[1:10] {
		blank = blank && bit == -1
	}
	for k, e := range estimates {
		bit := known[k+1]
		if bit == 0 || block[e.at] != 0 || !blank && k >= 5 {
			continue
		}
		weights := &e.known
		if blank {
			weights = &e.blank
		}
		limit := int64(1 << 62)
		if bit > 0 {
			limit = 1<<uint(bit) - 1
		}
		block[e.at] = weighted(weights, dc, quant[0], quant[e.at], limit)
	}
	if blank {
		block[0] = weighted(&average, dc, quant[0], quant[0], 1<<62)
	}
}

// weighted is a sum of DC values brought from one quantiser to another and rounded away from zero at halves, at most
// limit.
func weighted(weights *[25]int16, dc *[25]int32, from, to uint16, limit int64) int16 {
	sum := int64(0)
	for i, w := range weights {
		sum += int64(w) * int64(dc[i])
	}
	sum *= int64(from)
	size := min((int64(to)<<7+max(sum, -sum))/(int64(to)<<8), limit)
	if sum < 0 {
		size = -size
	}
	return int16(size)
}
