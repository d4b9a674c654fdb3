package dataset

import "fmt"

// CLIPMean is CLIP's mean per channel, RGB, with which BLIP-2 normalises for both of its image encoders
// (spec/training.md §7).
func CLIPMean() [3]float32 { return [3]float32{0.48145466, 0.4578275, 0.40821073} }

// CLIPStd is the standard deviation that belongs to CLIPMean.
func CLIPStd() [3]float32 { return [3]float32{0.26862954, 0.26130258, 0.27577711} }

// Normalize writes (x/255 − mean)/std of img to dst as planes [3,H,W], every row mirrored if flip is set.
// It panics if dst is not 3·H·W long.
func Normalize(dst []float32, img *RGB, flip bool, mean, std [3]float32) {
	if len(dst) != 3*img.W*img.H {
		panic(fmt.Sprintf("dataset: normalising a picture of %d×%d into %d values", img.W, img.H, len(dst)))
	}
	var n norm
	n.set(mean, std)
	for y := range img.H {
		n.row(dst, img.Pix[y*img.W*3:(y+1)*img.W*3], y, img.H, flip)
	}
}

// norm is the table of normalised values, by channel and sample.
type norm struct {
	mean, std [3]float32
	table     [3][256]float32
}

// set fills the table with the arithmetic of the reference, rounded to float32 at each step.
func (n *norm) set(mean, std [3]float32) {
	if n.mean == mean && n.std == std {
		return
	}
	n.mean, n.std = mean, std
	for c := range n.table {
		for v := range n.table[c] {
			n.table[c][v] = (float32(v)/255 - mean[c]) / std[c]
		}
	}
}

// row writes row y of h of a picture to the planes in dst.
func (n *norm) row(dst []float32, row []byte, y, h int, flip bool) {
	w := len(row) / 3
	at, size := y*w, w*h
	red, green, blue := dst[at:at+w], dst[size+at:][:w], dst[2*size+at:][:w]
	if flip {
		for x := w - 1; x >= 0; x-- {
			p := row[:3]
			red[x], green[x], blue[x] = n.table[0][p[0]], n.table[1][p[1]], n.table[2][p[2]]
			row = row[3:]
		}
		return
	}
	for x := range red {
		p := row[:3]
		red[x], green[x], blue[x] = n.table[0][p[0]], n.table[1][p[1]], n.table[2][p[2]]
		row = row[3:]
	}
}

// ResizeNormalize is Resize to size×size by the bicubic kernel followed by Normalize, without a picture in between.
func (r *Resizer) ResizeNormalize(dst []float32, src *RGB, box *Box, size int, flip bool, mean, std [3]float32) {
	if len(dst) != 3*size*size {
		panic(fmt.Sprintf("dataset: normalising a picture of %d×%d into %d values", size, size, len(dst)))
	}
	r.norm.set(mean, std)
	r.resize(src, box, size, size, Bicubic, func(y int, row []byte) { r.norm.row(dst, row, y, size, flip) })
}
