package dataset

import (
	"fmt"
	"math"
)

// AugmentOp is an operation of RandAugment (LAVIS, processors/randaugment.py).
type AugmentOp string

// The operations of LAVIS's blip_image_train.
const (
	OpIdentity     AugmentOp = "Identity"
	OpAutoContrast AugmentOp = "AutoContrast"
	OpBrightness   AugmentOp = "Brightness"
	OpSharpness    AugmentOp = "Sharpness"
	OpEqualize     AugmentOp = "Equalize"
	OpShearX       AugmentOp = "ShearX"
	OpShearY       AugmentOp = "ShearY"
	OpTranslateX   AugmentOp = "TranslateX"
	OpTranslateY   AugmentOp = "TranslateY"
	OpRotate       AugmentOp = "Rotate"
)

// AugmentOps are the operations that are drawn from.
func AugmentOps() []AugmentOp {
	return []AugmentOp{OpIdentity, OpAutoContrast, OpBrightness, OpSharpness, OpEqualize, OpShearX, OpShearY,
		OpTranslateX, OpTranslateY, OpRotate}
}

// AugmentMode says how AutoContrast is computed.
type AugmentMode string

const (
	// AugmentPIL stretches every channel over the whole range, as Pillow does and LAVIS means to.
	AugmentPIL AugmentMode = "pil"
	// AugmentLAVIS is what LAVIS does: it negates an unsigned byte, so that a channel whose minimum is above 0 becomes
	// 255 everywhere.
	AugmentLAVIS AugmentMode = "lavis"
)

const (
	// MaxMagnitude is the largest level of an operation.
	MaxMagnitude = 10
	// augmentShare is the probability with which a drawn operation is applied.
	augmentShare = 0.5
	// augmentFill is the colour of what comes in from outside the picture.
	augmentFill = 128
)

// RandAugment draws operations for a picture, with replacement, and applies each with probability ½. The zero value
// does nothing.
type RandAugment struct {
	Ops       int     // operations per picture; 0 is none at all. LAVIS has 2
	Magnitude float64 // 0 to MaxMagnitude, LAVIS has 5, at which Brightness and Sharpness change nothing
	Mode      AugmentMode
}

func (a RandAugment) check() error {
	const most = 16
	switch {
	case a.Ops == 0:
		return nil
	case a.Ops < 0 || a.Ops > most:
		return fmt.Errorf("dataset: RandAugment with %d operations per picture; need 0 to %d", a.Ops, most)
	case !(0 <= a.Magnitude && a.Magnitude <= MaxMagnitude):
		return fmt.Errorf("dataset: RandAugment of magnitude %g; need 0 to %d", a.Magnitude, MaxMagnitude)
	case a.Mode != AugmentPIL && a.Mode != AugmentLAVIS:
		return fmt.Errorf("dataset: unknown mode of RandAugment %q; %q and %q are known", a.Mode, AugmentPIL,
			AugmentLAVIS)
	}
	return nil
}

// AugmentDraw is one drawn operation.
type AugmentDraw struct {
	Op    AugmentOp
	Apply bool    // false leaves the picture as it is
	Sign  float64 // 1 or −1, the direction of shear, translation and rotation
}

// Draw gives the operations for a row of an epoch, a function of seed, epoch and row.
func (a RandAugment) Draw(seed, epoch, row int64) []AugmentDraw {
	ops := AugmentOps()
	s := newStream(seed, epoch, row, purposeAugment)
	draws := make([]AugmentDraw, a.Ops)
	for i := range draws {
		draws[i] = AugmentDraw{Op: ops[s.intN(int64(len(ops)))], Apply: s.float64() < augmentShare, Sign: 1}
		if s.float64() < 0.5 {
			draws[i].Sign = -1
		}
	}
	return draws
}

// Value is what a level means to the operation: degrees for Rotate, the shear, pixels for translation, or the factor
// for Brightness and Sharpness.
func (op AugmentOp) Value(level, sign float64) float64 {
	share := level / MaxMagnitude
	switch op {
	case OpRotate:
		return sign * (share * 30)
	case OpShearX, OpShearY:
		return sign * (share * 0.3)
	case OpTranslateX, OpTranslateY:
		return sign * (share * 10)
	case OpBrightness, OpSharpness:
		return float64(share*1.8) + 0.1
	}
	return 0
}

// augmenter applies operations and keeps its memory between pictures.
type augmenter struct{ spare RGB }

// apply applies the drawn operations to img.
func (g *augmenter) apply(img *RGB, a RandAugment, draws []AugmentDraw) {
	for _, d := range draws {
		if d.Apply {
			g.operate(img, d.Op, d.Op.Value(a.Magnitude, d.Sign), a.Mode)
		}
	}
}

// Augment applies one operation to img with a value as AugmentOp.Value gives it. It panics on an unknown operation.
func Augment(img *RGB, op AugmentOp, value float64, mode AugmentMode) {
	var g augmenter
	g.operate(img, op, value, mode)
}

func (g *augmenter) operate(img *RGB, op AugmentOp, value float64, mode AugmentMode) {
	switch op {
	case OpIdentity:
	case OpAutoContrast:
		perChannel(img, func(counts *[256]int) (table [256]uint8) { return autoContrast(counts, mode) })
	case OpEqualize:
		perChannel(img, equalize)
	case OpBrightness:
		var table [256]uint8
		for v := range table {
			table[v] = uint8(min(max(float32(v)*float32(value), 0), 255))
		}
		lookUp(img, &[3][256]uint8{table, table, table})
	case OpSharpness:
		g.sharpen(img, value)
	case OpShearX:
		g.warp(img, [6]float64{1, float64(float32(value)), 0, 0, 1, 0})
	case OpShearY:
		g.warp(img, [6]float64{1, 0, 0, float64(float32(value)), 1, 0})
	case OpTranslateX:
		g.warp(img, [6]float64{1, 0, float64(float32(-value)), 0, 1, 0})
	case OpTranslateY:
		g.warp(img, [6]float64{1, 0, 0, 0, 1, float64(float32(-value))})
	case OpRotate:
		g.warp(img, rotation(img.W, img.H, value))
	default:
		panic(fmt.Sprintf("dataset: unknown operation of RandAugment %q", op))
	}
}

// perChannel replaces the samples of each channel by a table made from its histogram.
func perChannel(img *RGB, table func(counts *[256]int) [256]uint8) {
	var counts [3][256]int
	for i := 0; i+3 <= len(img.Pix); i += 3 {
		p := img.Pix[i : i+3 : i+3]
		counts[0][p[0]]++
		counts[1][p[1]]++
		counts[2][p[2]]++
	}
	var tables [3][256]uint8
	for c := range tables {
		tables[c] = table(&counts[c])
	}
	lookUp(img, &tables)
}

func lookUp(img *RGB, tables *[3][256]uint8) {
	for i := 0; i+3 <= len(img.Pix); i += 3 {
		p := img.Pix[i : i+3 : i+3]
		p[0], p[1], p[2] = tables[0][p[0]], tables[1][p[1]], tables[2][p[2]]
	}
}

// autoContrast stretches the samples between the lowest and the highest over the range.
func autoContrast(counts *[256]int, mode AugmentMode) (table [256]uint8) {
	low, high := 0, 255
	for low < 255 && counts[low] == 0 {
		low++
	}
	for high > 0 && counts[high] == 0 {
		high--
	}
	if high <= low {
		for v := range table {
			table[v] = uint8(v)
		}
		return table
	}
	scale := 255 / float64(high-low)
	offset := float64(-float64(low) * scale)
	if mode == AugmentLAVIS {
		offset = float64(float64(uint8(-low)) * scale)
	}
	for v := range table {
		table[v] = uint8(min(max(float64(float64(v)*scale)+offset, 0), 255))
	}
	return table
}

// equalize spreads the samples so that their histogram becomes flat.
func equalize(counts *[256]int) (table [256]uint8) {
	total, last := 0, 0
	for v, n := range counts {
		if n > 0 {
			total, last = total+n, v
		}
	}
	step := (total - counts[last]) / 255
	sum := step / 2
	for v := range table {
		if step == 0 {
			table[v] = uint8(v)
			continue
		}
		table[v] = uint8(min(sum/step, 255))
		sum += counts[v]
	}
	return table
}

// sharpen moves every sample that has 8 neighbours away from the smoothed picture (factor above 1) or towards it
// (below 1). Values that leave 0 to 255 wrap around, as in the reference.
func (g *augmenter) sharpen(img *RGB, factor float64) {
	if factor == 1 {
		return
	}
	smooth := g.smoothed(img)
	if factor == 0 {
		copy(img.Pix, smooth.Pix)
		return
	}
	f := float32(factor)
	for y := 1; y < img.H-1; y++ {
		from, to := (y*img.W+1)*3, (y*img.W+img.W-1)*3
		for i := from; i < to; i++ {
			d := float32(smooth.Pix[i])
			img.Pix[i] = uint8(int32(d + float32(f*(float32(img.Pix[i])-d))))
		}
	}
}

// smoothed is the picture filtered with weights 5 in the middle and 1 around, over 13; at the edge it is mirrored
// without repeating the edge.
func (g *augmenter) smoothed(img *RGB) *RGB {
	g.spare.reshape(img.W, img.H)
	mirror := func(i, n int) int {
		if n == 1 {
			return 0
		}
		if i < 0 {
			return -i
		}
		return min(i, 2*(n-1)-i)
	}
	for y := range img.H {
		for x := range img.W {
			var sum [3]int
			for dy := -1; dy <= 1; dy++ {
				row := mirror(y+dy, img.H) * img.W
				for dx := -1; dx <= 1; dx++ {
					p := img.Pix[(row+mirror(x+dx, img.W))*3:]
					sum[0], sum[1], sum[2] = sum[0]+int(p[0]), sum[1]+int(p[1]), sum[2]+int(p[2])
				}
			}
			for c := range sum {
				at := (y*img.W+x)*3 + c
				// The sum over 13 is never half way between two integers.
				g.spare.Pix[at] = uint8((2*(sum[c]+4*int(img.Pix[at])) + 13) / 26)
			}
		}
	}
	return &g.spare
}

// rotation turns counter-clockwise about the middle of the picture (OpenCV's getRotationMatrix2D).
func rotation(w, h int, degrees float64) [6]float64 {
	angle := degrees * math.Pi / 180
	a, b := math.Cos(angle), math.Sin(angle)
	cx, cy := float64(w)/2, float64(h)/2
	return [6]float64{a, b, float64((1-a)*cx) - float64(b*cy), -b, a, float64(b*cx) + float64((1-a)*cy)}
}

// Fixed point of OpenCV's warpAffine: positions are summed up with 10 fractional bits and rounded to 1/32 pixel.
const (
	warpBits  = 10
	warpSteps = 32
)

// warp moves the pixels by the affine map m (rows of 3), interpolating between four neighbours, as OpenCV 4.5's
// warpAffine does: bilinear, with a constant border.
func (g *augmenter) warp(img *RGB, m [6]float64) {
	g.spare.reshape(img.W, img.H)
	inv := invert(m)
	fixed := func(v float64) int { return int(math.RoundToEven(v * (1 << warpBits))) }
	const half = 1 << warpBits / warpSteps / 2
	out := g.spare.Pix
	for y := range img.H {
		x0 := fixed(float64(inv[1]*float64(y))+inv[2]) + half
		y0 := fixed(float64(inv[4]*float64(y))+inv[5]) + half
		for x := range img.W {
			px := (x0 + fixed(inv[0]*float64(x))) >> 5
			py := (y0 + fixed(inv[3]*float64(x))) >> 5
			interpolate(out[:3], img, px>>5, py>>5, px&31, py&31)
			out = out[3:]
		}
	}
	*img, g.spare = g.spare, *img
}

func invert(m [6]float64) [6]float64 {
	d := float64(m[0]*m[4]) - float64(m[1]*m[3])
	if d != 0 {
		d = 1 / d
	}
	a, b, c, e := m[4]*d, m[1]*-d, m[3]*-d, m[0]*d
	return [6]float64{a, b, float64(-a*m[2]) - float64(b*m[5]), c, e, float64(-c*m[2]) - float64(e*m[5])}
}

// interpolate mixes the pixel at x, y with its right, lower and lower right neighbours, ax and ay 32nds of the way
// towards them.
func interpolate(out []uint8, img *RGB, x, y, ax, ay int) {
	sum := [3]int{}
	add := func(x, y, weight int) {
		if uint(x) >= uint(img.W) || uint(y) >= uint(img.H) {
			for c := range sum {
				sum[c] += weight * augmentFill
			}
			return
		}
		p := img.Pix[(y*img.W+x)*3:][:3]
		sum[0], sum[1], sum[2] = sum[0]+weight*int(p[0]), sum[1]+weight*int(p[1]), sum[2]+weight*int(p[2])
	}
	bx, by := warpSteps-ax, warpSteps-ay
	add(x, y, bx*by)
	add(x+1, y, ax*by)
	add(x, y+1, bx*ay)
	add(x+1, y+1, ax*ay)
	for c, v := range sum {
		out[c] = uint8((v + warpSteps*warpSteps/2) / (warpSteps * warpSteps))
	}
}
