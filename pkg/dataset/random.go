package dataset

import (
	"math"
	"math/bits"
)

// purpose separates the random draws that belong to one sample, so that a change of one leaves the others as they are.
type purpose uint64

const (
	purposeOrder purpose = iota + 1
	purposeCaption
	purposeCrop
	purposeFlip
	purposeReplace
	purposeAugment
)

// stream is a splitmix64 generator whose start is a hash of what the draw is for. A draw is therefore a function of
// (seed, epoch, index, purpose) alone: any worker can make it, in any order.
type stream struct{ state uint64 }

// newStream starts the generator of one purpose of one sample.
func newStream(seed, epoch, index int64, p purpose) stream {
	h := mix(uint64(seed) + 0x9e3779b97f4a7c15)
	h = mix(h ^ mix(uint64(epoch)+0xd1b54a32d192ed03))
	h = mix(h ^ mix(uint64(index)+0x8cb92ba72f3d8dd7))
	return stream{mix(h ^ mix(uint64(p)+0xabc98388fb8fac03))}
}

// newStreamSeed is a seed for another generator of the same purpose.
func newStreamSeed(seed, epoch, index int64, p purpose) int64 {
	s := newStream(seed, epoch, index, p)
	return int64(s.next())
}

// mix is the finaliser of splitmix64 (Steele, Lea and Flood 2014), a bijection of 64 bits.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (s *stream) next() uint64 {
	s.state += 0x9e3779b97f4a7c15
	return mix(s.state)
}

// float64 is uniform in [0, 1).
func (s *stream) float64() float64 { return float64(s.next()>>11) * 0x1p-53 }

// intN is uniform in [0, n) for n ≥ 1; the bias of the multiplication is below n/2⁶⁴.
func (s *stream) intN(n int64) int64 {
	hi, _ := bits.Mul64(s.next(), uint64(n))
	return int64(hi)
}

// uniform is uniform in [lo, hi).
func (s *stream) uniform(lo, hi float64) float64 { return lo + (hi-lo)*s.float64() }

// permutation is a keyed bijection of [0, n): the order of one epoch without a table, so that the row at any position
// is found at once and resuming costs nothing. It is a Feistel network over the next even power of two; values beyond
// n are mapped again until they fall inside (cycle walking).
type permutation struct {
	n    uint64
	half uint // bits per half
	keys [8]uint64
}

// epochOrder is the order of n rows in an epoch.
func epochOrder(seed, epoch, n int64) permutation {
	p := permutation{n: uint64(n), half: max(1, uint(bits.Len64(uint64(max(n-1, 0)))+1)/2)}
	s := newStream(seed, epoch, 0, purposeOrder)
	for i := range p.keys {
		p.keys[i] = s.next()
	}
	return p
}

// at is the row at position i of the order.
func (p *permutation) at(i int64) int64 {
	mask := uint64(1)<<p.half - 1
	v := uint64(i)
	for {
		left, right := v>>p.half, v&mask
		for _, key := range p.keys {
			left, right = right, left^(mix(right^key)>>(64-p.half))
		}
		v = left<<p.half | right
		if v < p.n {
			return int64(v)
		}
	}
}

// Crop are the limits of a random resized crop (spec/training.md §7).
type Crop struct {
	Scale [2]float64 // share of the picture's area
	Ratio [2]float64 // width / height
}

// DefaultCrop is the crop of BLIP-2's training: area 0.5–1, aspect ¾–4/3.
func DefaultCrop() Crop {
	return Crop{Scale: [2]float64{0.5, 1}, Ratio: [2]float64{3.0 / 4, 4.0 / 3}}
}

// cropTries is how often torchvision draws before it falls back to a centre crop.
const cropTries = 10

// Box is torchvision's RandomResizedCrop for a picture of w×h: draw gives the share of the area and the logarithm of
// the aspect ratio of one try, place a uniform integer in [0, n). Up to ten tries; then the centre crop with the
// aspect clipped into Ratio, and fallback is true.
func (c Crop) Box(w, h int, draw func() (area, logRatio float64), place func(n int) int) (box Box, fallback bool) {
	for range cropTries {
		share, logRatio := draw()
		area := float64(w*h) * share
		ratio := float64(float32(math.Exp(logRatio))) // float32 as in the reference
		bw := int(math.RoundToEven(math.Sqrt(area * ratio)))
		bh := int(math.RoundToEven(math.Sqrt(area / ratio)))
		if 0 < bw && bw <= w && 0 < bh && bh <= h {
			top := place(h - bh + 1)
			return Box{Top: top, Left: place(w - bw + 1), Height: bh, Width: bw}, false
		}
	}
	return c.center(w, h), true
}

func (c Crop) center(w, h int) Box {
	bw, bh := w, h
	switch ratio := float64(w) / float64(h); {
	case ratio < c.Ratio[0]:
		bh = int(math.RoundToEven(float64(w) / c.Ratio[0]))
	case ratio > c.Ratio[1]:
		bw = int(math.RoundToEven(float64(h) * c.Ratio[1]))
	}
	// A sliver one pixel wide may round to nothing, or a limit beyond the picture.
	bw, bh = min(max(bw, 1), w), min(max(bh, 1), h)
	return Box{Top: (h - bh) / 2, Left: (w - bw) / 2, Height: bh, Width: bw}
}

// RandomBox draws a crop of a w×h picture that is a function of seed, epoch and row.
func (c Crop) RandomBox(w, h int, seed, epoch, row int64) Box {
	s := newStream(seed, epoch, row, purposeCrop)
	lo, hi := math.Log(c.Ratio[0]), math.Log(c.Ratio[1])
	box, _ := c.Box(w, h, func() (float64, float64) {
		share := s.uniform(c.Scale[0], c.Scale[1])
		return share, s.uniform(lo, hi)
	}, func(n int) int { return int(s.intN(int64(n))) })
	return box
}

// mulMod is a·b mod n for a, b ≥ 0 and n ≥ 1.
func mulMod(a, b, n int64) int64 {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return int64(bits.Rem64(hi, lo, uint64(n)))
}
