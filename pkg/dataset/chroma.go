package dataset

import "image"

// fillYCbCr converts the planes of a JPEG picture to RGB with libjpeg's arithmetic: halved chroma is interpolated with
// weights ¾ and ¼ ("fancy upsampling"), then the inverse colour transform in 16-bit fixed point.
func fillYCbCr(dst *RGB, img *image.YCbCr) {
	up := newUpsampler(img)
	for y := range dst.H {
		cb, cr := up.row(y)
		luma := img.Y[y*img.YStride:][:dst.W]
		colorRow(dst.Pix[y*dst.W*3:(y+1)*dst.W*3], luma, cb, cr)
	}
}

// Constants of the inverse transform (ITU-T T.871) with 16 fractional bits.
const (
	crToRed   = 91881  // 1.40200
	cbToBlue  = 116130 // 1.77200
	crToGreen = 46802  // 0.71414
	cbToGreen = 22554  // 0.34414
	halfUnit  = 1 << 15
)

func colorRow(out, luma, cb, cr []byte) {
	cb, cr = cb[:len(luma)], cr[:len(luma)]
	for i, v := range luma {
		y, b, r := int32(v), int32(cb[i])-128, int32(cr[i])-128
		red := y + (crToRed*r+halfUnit)>>16
		green := y + (halfUnit-cbToGreen*b-crToGreen*r)>>16
		blue := y + (cbToBlue*b+halfUnit)>>16
		if uint32(red|green|blue) > 255 {
			red, green, blue = clamp(red), clamp(green), clamp(blue)
		}
		pixel := out[:3]
		pixel[0], pixel[1], pixel[2] = uint8(red), uint8(green), uint8(blue)
		out = out[3:]
	}
}

func clamp(v int32) int32 { return min(max(v, 0), 255) }

// upsampler gives the chroma of one picture row by row in full width.
type upsampler struct {
	img         *image.YCbCr
	w, h        int // size of the chroma planes without padding
	across      int // pixels per chroma sample
	down        int
	cb, cr      []byte  // one row in full width
	sum         []int32 // one chroma row, interpolated down, times 4
	interpolate bool
}

func newUpsampler(img *image.YCbCr) *upsampler {
	u := &upsampler{img: img, across: 1, down: 1}
	switch img.SubsampleRatio {
	case image.YCbCrSubsampleRatio422:
		u.across = 2
	case image.YCbCrSubsampleRatio420:
		u.across, u.down = 2, 2
	case image.YCbCrSubsampleRatio440:
		u.down = 2
	case image.YCbCrSubsampleRatio411:
		u.across = 4
	case image.YCbCrSubsampleRatio410:
		u.across, u.down = 4, 2
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	u.w, u.h = (w+u.across-1)/u.across, (h+u.down-1)/u.down
	// libjpeg repeats samples where the chroma plane is two or fewer samples wide, and for ratios of four.
	u.interpolate = u.across == 2 && u.w > 2 || u.across == 1 && u.down == 2
	u.cb, u.cr = make([]byte, u.w*u.across), make([]byte, u.w*u.across)
	u.sum = make([]int32, u.w)
	return u
}

// row is the chroma of picture row y; the slices are valid until the next call.
func (u *upsampler) row(y int) (cb, cr []byte) {
	near := y / u.down * u.img.CStride
	cb, cr = u.img.Cb[near:near+u.w], u.img.Cr[near:near+u.w]
	if u.across == 1 && u.down == 1 {
		return cb, cr
	}
	far := near
	if u.down == 2 {
		// An upper row lies nearer to the sample above, a lower row to the one below; the edge repeats.
		far = min(max(y/2+y%2*2-1, 0), u.h-1) * u.img.CStride
	}
	u.plane(u.cb, cb, u.img.Cb[far:far+u.w], y)
	u.plane(u.cr, cr, u.img.Cr[far:far+u.w], y)
	return u.cb, u.cr
}

// plane widens one row of a chroma plane, near and far being the two rows of samples around it.
func (u *upsampler) plane(out, near, far []byte, y int) {
	switch {
	case !u.interpolate:
		for i := range out {
			out[i] = near[i/u.across]
		}
	case u.across == 1:
		bias := int32(1 + y%2)
		for i, v := range near {
			out[i] = uint8((int32(v)*3 + int32(far[i]) + bias) >> 2)
		}
	case u.down == 1:
		widen(out, u.weigh(near, near), 4, 8)
	default:
		widen(out, u.weigh(near, far), 8, 7)
	}
}

// weigh interpolates down: ¾ of the near and ¼ of the far sample, times 4.
func (u *upsampler) weigh(near, far []byte) []int32 {
	for i, v := range near {
		u.sum[i] = int32(v)*3 + int32(far[i])
	}
	return u.sum
}

// widen doubles a row of samples times 4: an even pixel takes ¼ of its left neighbour, an odd one of its right one,
// and the ends keep their sample. The biases alternate so that rounding does not drift.
func widen(out []byte, in []int32, even, odd int32) {
	last := len(in) - 1
	before := in[0]
	for i, v := range in[:last] {
		after := in[i+1]
		pair := out[2*i : 2*i+2 : 2*i+2]
		pair[0], pair[1] = uint8((v*3+before+even)>>4), uint8((v*3+after+odd)>>4)
		before = v
	}
	out[2*last] = uint8((in[last]*3 + before + even) >> 4)
	out[2*last+1] = uint8((in[last]*4 + odd) >> 4)
}
