package jpeg

// Constants of the inverse colour transform (ITU-T T.871) with 16 fractional bits.
const (
	crToRed   = 91881  // 1.40200
	cbToBlue  = 116130 // 1.77200
	crToGreen = 46802  // 0.71414
	cbToGreen = 22554  // 0.34414
	half      = 1 << 15
)

// ycc says whether three or four components are stored as luma and chroma. The rules are libjpeg's: a JFIF marker
// decides, then Adobe's, then the components' names.
func (d *Decoder) ycc() bool {
	id := func(i int) byte { return d.comps[i].id }
	switch {
	case len(d.comps) == 4:
		return d.adobe && d.transform != 0
	case d.jfif:
		return true
	case d.adobe:
		return d.transform != 0
	}
	return !(id(0) == 'R' && id(1) == 'G' && id(2) == 'B')
}

// convert writes the part of the decoded planes to dst as RGB.
func (d *Decoder) convert(dst []byte, part Part) {
	ycc := len(d.comps) > 1 && d.ycc()
	n := part.Width
	for y := part.Top; y < part.Top+part.Height; y++ {
		out := dst[:3*n]
		dst = dst[3*n:]
		first := d.row(0, y, part.Left, n)
		if len(d.comps) == 1 {
			greyRow(out, first)
			continue
		}
		second, third := d.row(1, y, part.Left, n), d.row(2, y, part.Left, n)
		if ycc {
			colorRow(out, first, second, third)
		} else {
			mergeRow(out, first, second, third)
		}
		if len(d.comps) == 4 {
			inkRow(out, d.row(3, y, part.Left, n), ycc)
		}
	}
}

func greyRow(out, in []byte) {
	for _, v := range in {
		pixel := out[:3]
		pixel[0], pixel[1], pixel[2] = v, v, v
		out = out[3:]
	}
}

func mergeRow(out, first, second, third []byte) {
	second, third = second[:len(first)], third[:len(first)]
	for i, v := range first {
		pixel := out[:3]
		pixel[0], pixel[1], pixel[2] = v, second[i], third[i]
		out = out[3:]
	}
}

func colorRowPlain(out, luma, cb, cr []byte) {
	cb, cr = cb[:len(luma)], cr[:len(luma)]
	for i, v := range luma {
		y, b, r := int32(v), int32(cb[i])-128, int32(cr[i])-128
		red := y + (crToRed*r+half)>>16
		green := y + (half-cbToGreen*b-crToGreen*r)>>16
		blue := y + (cbToBlue*b+half)>>16
		if uint32(red|green|blue) > 255 {
			red, green, blue = clip(red), clip(green), clip(blue)
		}
		pixel := out[:3]
		pixel[0], pixel[1], pixel[2] = uint8(red), uint8(green), uint8(blue)
		out = out[3:]
	}
}

func clip(v int32) int32 { return min(max(v, 0), 255) }

// inkRow turns three inks and black into RGB. The file holds the light that an ink lets through (Adobe's inversion). If
// the inks came from luma and chroma, out holds RGB, whose complement libjpeg takes for the stored value. Pillow then
// multiplies each ink with what black leaves, rounds, and takes it away.
func inkRow(out, black []byte, ycc bool) {
	for _, k := range black {
		rest := int(k)
		for c := range 3 {
			ink := int(out[c])
			if !ycc {
				ink = 255 - ink
			}
			ink = ink*rest + 128
			out[c] = uint8(max(0, rest-(ink+ink>>8)>>8))
		}
		out = out[3:]
	}
}
