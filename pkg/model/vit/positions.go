package vit

import (
	"fmt"
	"math"
)

// positionCubicA is the coefficient of the cubic kernel that resizes position tables (PyTorch's; pictures use −0.5).
const positionCubicA = -0.75

// PositionName returns the name of the position table among the encoder's tensors.
func (c Config) PositionName() string {
	if c.Arch == CLIP {
		return "positional_embedding"
	}
	return "pos_embed"
}

// ResizePositions returns the position table for a grid of newGrid² patches: table is [1+oldGrid², width] row-major,
// class position first, the result [1+newGrid², width]. The class position is kept; the patch positions are
// interpolated with the bicubic kernel A = −0.75 without antialiasing, borders replicated. The grids of EVA and BLIP
// have half-pixel centres, CLIP's aligned corners (spec/model.md 4).
func ResizePositions(cfg Config, table []float32, oldGrid, newGrid int) ([]float32, error) {
	w := cfg.Width
	if len(table) != (1+oldGrid*oldGrid)*w {
		return nil, fmt.Errorf("position table has %d values, a grid of %d×%d patches of width %d needs %d",
			len(table), oldGrid, oldGrid, w, (1+oldGrid*oldGrid)*w)
	}
	if oldGrid == newGrid {
		return append([]float32{}, table...), nil
	}
	taps := cubicTaps(oldGrid, newGrid, cfg.Arch == CLIP)
	out := make([]float32, (1+newGrid*newGrid)*w)
	copy(out[:w], table[:w])
	old := table[w:]
	acc := make([]float64, w)
	for y, ty := range taps {
		for x, tx := range taps {
			clear(acc)
			for a, row := range ty.index {
				for b, column := range tx.index {
					weight := ty.weight[a] * tx.weight[b]
					from := old[(row*oldGrid+column)*w:][:w]
					for c, v := range from {
						acc[c] += weight * float64(v)
					}
				}
			}
			to := out[(1+y*newGrid+x)*w:][:w]
			for c, v := range acc {
				to[c] = float32(v)
			}
		}
	}
	return out, nil
}

// taps are the four source positions of one output position, with their weights.
type taps struct {
	index  [4]int
	weight [4]float64
}

func cubicTaps(oldGrid, newGrid int, alignCorners bool) []taps {
	out := make([]taps, newGrid)
	for i := range out {
		source := (float64(i)+0.5)*float64(oldGrid)/float64(newGrid) - 0.5
		if alignCorners {
			source = 0
			if newGrid > 1 {
				source = float64(i) * float64(oldGrid-1) / float64(newGrid-1)
			}
		}
		base := math.Floor(source)
		t := source - base
		weights := [4]float64{cubic(t + 1), cubic(t), cubic(1 - t), cubic(2 - t)}
		for k := range 4 {
			out[i].index[k] = min(max(int(base)+k-1, 0), oldGrid-1)
		}
		out[i].weight = weights
	}
	return out
}

// cubic is the convolution kernel at distance t ≥ 0.
func cubic(t float64) float64 {
	const a = positionCubicA
	if t <= 1 {
		return ((a+2)*t-(a+3))*t*t + 1
	}
	return ((a*t-5*a)*t+8*a)*t - 4*a
}
