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
	size := img.W * img.H
	if len(dst) != 3*size {
		panic(fmt.Sprintf("dataset: normalising a picture of %d×%d into %d values", img.W, img.H, len(dst)))
	}
	var table [3][256]float32 // a value per sample: the arithmetic of the reference, rounded to float32 at each step
	for c := range table {
		for v := range table[c] {
			table[c][v] = (float32(v)/255 - mean[c]) / std[c]
		}
	}
	for y := range img.H {
		row := img.Pix[y*img.W*3 : (y+1)*img.W*3]
		at := y * img.W
		red, green, blue := dst[at:at+img.W], dst[size+at:][:img.W], dst[2*size+at:][:img.W]
		x, step := 0, 1
		if flip {
			x, step = img.W-1, -1
		}
		for len(row) >= 3 {
			red[x], green[x], blue[x] = table[0][row[0]], table[1][row[1]], table[2][row[2]]
			row = row[3:]
			x += step
		}
	}
}
