package answer

import (
	"image"
	"image/color"
	"math"

	"blip2/pkg/dataset"
)

// Sizes of an attention picture, in pixels.
const (
	heatLarge = 448 // side of the mean map
	heatSmall = 104 // side of a query's map
	heatGap   = 8
)

// Draw draws the maps over the picture: the mean of all queries large, beside it one small map for each query, row by
// row. Every map has its own scale, from its least to its greatest probability.
func (a *Attention) Draw(img *dataset.RGB) *image.RGBA {
	rows := (heatLarge + heatGap) / (heatSmall + heatGap)
	columns := (len(a.Maps) + rows - 1) / rows
	out := image.NewRGBA(image.Rect(0, 0, heatLarge+columns*(heatSmall+heatGap)+2*heatGap, heatLarge+2*heatGap))
	for i := range out.Pix {
		out.Pix[i] = 255
	}
	overlay(out, heatGap, heatGap, dataset.Resize(img, nil, heatLarge, heatLarge, dataset.Bicubic), a.Mean(), a.Grid)
	small := dataset.Resize(img, nil, heatSmall, heatSmall, dataset.Bicubic)
	for i, m := range a.Maps {
		x := heatLarge + 2*heatGap + i%columns*(heatSmall+heatGap)
		overlay(out, x, heatGap+i/columns*(heatSmall+heatGap), small, m, a.Grid)
	}
	return out
}

// overlay draws a picture with a map of grid×grid values over it at (left, top).
func overlay(out *image.RGBA, left, top int, img *dataset.RGB, heat []float32, grid int) {
	low, high := heat[0], heat[0]
	for _, v := range heat {
		low, high = min(low, v), max(high, v)
	}
	for y := range img.H {
		for x := range img.W {
			v := 0.0
			if high > low {
				v = (between(heat, grid, position(x, img.W, grid), position(y, img.H, grid)) - float64(low)) /
					float64(high-low)
			}
			at := (y*img.W + x) * 3
			hot := heatColor(v)
			mix := func(under, over uint8) uint8 { return uint8(0.45*float64(under) + 0.55*float64(over)) }
			out.SetRGBA(left+x, top+y, color.RGBA{mix(img.Pix[at], hot.R), mix(img.Pix[at+1], hot.G),
				mix(img.Pix[at+2], hot.B), 255})
		}
	}
}

// position is where pixel i of size lies among the centres of grid patches.
func position(i, size, grid int) float64 {
	p := (float64(i)+0.5)*float64(grid)/float64(size) - 0.5
	return min(max(p, 0), float64(grid-1))
}

// between interpolates a map linearly.
func between(heat []float32, grid int, x, y float64) float64 {
	x0, y0 := int(x), int(y)
	x1, y1 := min(x0+1, grid-1), min(y0+1, grid-1)
	fx, fy := x-float64(x0), y-float64(y0)
	at := func(x, y int) float64 { return float64(heat[y*grid+x]) }
	return (at(x0, y0)*(1-fx)+at(x1, y0)*fx)*(1-fy) + (at(x0, y1)*(1-fx)+at(x1, y1)*fx)*fy
}

// heatColor goes from blue over green and yellow to red for v from 0 to 1.
func heatColor(v float64) color.RGBA {
	ramp := func(centre float64) uint8 { return uint8(255 * min(max(1.5-math.Abs(4*v-centre), 0), 1)) }
	return color.RGBA{ramp(3), ramp(2), ramp(1), 255}
}
