package stage1

import (
	"math"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// hostSoftmax of a row on the host.
func hostSoftmax(row []float64) []float64 {
	highest, sum := slices.Max(row), 0.0
	out := make([]float64, len(row))
	for i, v := range row {
		out[i] = math.Exp(v - highest)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

// TestNegativeWeights compares both ways to weight negatives with the host, for own columns and for equal image ids.
func TestNegativeWeights(t *testing.T) {
	sim := []float32{9, 1, -2, 0.5, 3, 30, 2, 1, 0, 0, 0, 0, -5, 14, 13, 2}
	for name, id := range map[string][]int32{"own column": {0, 1, 2, 3}, "image ids": {7, 3, 7, 9}} {
		for _, kind := range []string{NegativesMaskedSoftmax, NegativesSoftmaxEps} {
			var want []float64
			for b := range tinyBatch {
				row := make([]float64, tinyBatch)
				for g := range row {
					row[g] = float64(sim[b*tinyBatch+g])
					if id[b] == id[g] && kind == NegativesMaskedSoftmax {
						row[g] = -10000
					}
				}
				row = hostSoftmax(row)
				for g := range row {
					if kind == NegativesSoftmaxEps {
						row[g] += 1e-4
					}
					if id[b] == id[g] {
						row[g] = 0
					}
				}
				want = append(want, row...)
			}
			cfg := tinyConfig()
			cfg.HardNegatives = kind
			in := []any{rowsTensor(tinyBatch, sim...), idsTensor(id)}
			got := evalGraph(t, mlx.NewStore(), in, func(_ *mlx.Scope, in []*Node) []*Node {
				positives := positivePairs(Batch{ImageID: in[1]}, in[0])
				if name == "own column" {
					positives = positivePairs(Batch{}, in[0])
				}
				weights := negativeWeights(cfg, in[0], positives)
				return append([]*Node{weights}, Gradient(ReduceAllSum(Mul(weights, in[0])), in[0])...)
			})
			sameValues(t, kind+", "+name, got[0], want, 1e-6)
			sameValues(t, kind+", "+name+": gradient through the weights", got[1], got[0], 0)
			for i := range want {
				if id[i/tinyBatch] == id[i%tinyBatch] && got[0][i] != 0 {
					t.Errorf("%s, %s: a positive has weight %g", kind, name, got[0][i])
				}
			}
		}
	}
}

// TestSample: draws follow the weights, which need not sum to 1, never hit a weight of 0, and differ between states.
func TestSample(t *testing.T) {
	const rows = 20000
	for name, weights := range map[string][]float32{
		"masked softmax": {0.5, 0, 0.3, 0.15, 0.05, 0},
		"far from 1":     {0, 40, 3, 0, 2, 1},
		"softmax + 1e-4": {0, 1e-4, 0.9, 0.1, 3e-4, 1e-4},
		"one choice":     {0, 0, 0, 1e-4, 0, 0},
	} {
		pick := func(seed int64) []float32 {
			all := tensors.FromFlatDataAndDimensions(slices.Repeat(weights, rows), rows, len(weights))
			return evalGraph(t, mlx.NewStore(), []any{all, rngState(t, seed)}, func(_ *mlx.Scope, in []*Node) []*Node {
				picked := sample(in[0], nn.NewRNG(in[1]))
				picked.AssertDims(rows)
				return []*Node{nn.Float32(picked)}
			})[0]
		}
		first := pick(4)
		counts, sum := make([]float64, len(weights)), 0.0
		for _, column := range first {
			counts[int(column)]++
		}
		for _, w := range weights {
			sum += float64(w)
		}
		for column, w := range weights {
			p := float64(w) / sum
			if d := 5 * math.Sqrt(p*(1-p)*rows); math.Abs(counts[column]-p*rows) > d {
				t.Errorf("%s: column %d drawn %g times, want %g ± %.2g", name, column, counts[column], p*rows, d)
			}
		}
		if name == "one choice" {
			continue
		}
		if !slices.Equal(first, pick(4)) || slices.Equal(first, pick(5)) {
			t.Errorf("%s: draws are not keyed by the random state", name)
		}
	}
}

// TestMine: a text's negative picture is drawn by text→image similarity, a picture's negative text by image→text;
// negatives that the batch brings are kept; the two draws differ.
func TestMine(t *testing.T) {
	i2t, t2i := make([]float32, tinyBatch*tinyBatch), make([]float32, tinyBatch*tinyBatch)
	for b := range tinyBatch {
		i2t[b*tinyBatch+(b+1)%tinyBatch] = 100
		t2i[b*tinyBatch+(b+2)%tinyBatch] = 100
	}
	given := idsTensor([]int32{3, 3, 0, 0})
	in := []any{rowsTensor(tinyBatch, i2t...), rowsTensor(tinyBatch, t2i...), rngState(t, 2), given}
	got := evalGraph(t, mlx.NewStore(), in, func(_ *mlx.Scope, in []*Node) []*Node {
		positives := positivePairs(Batch{}, in[0])
		drawn, given := &Outputs{SimI2T: in[0], SimT2I: in[1]}, &Outputs{SimI2T: in[0], SimT2I: in[1]}
		mine(tinyConfig(), drawn, Batch{}, positives, nn.NewRNG(in[2]))
		mine(tinyConfig(), given, Batch{NegImage: in[3], NegText: in[3]}, positives, nil)
		var out []*Node
		for _, n := range []*Node{drawn.NegImage, drawn.NegText, given.NegImage, given.NegText} {
			out = append(out, nn.Float32(n))
		}
		return out
	})
	for i, want := range [][]float32{{2, 3, 0, 1}, {1, 2, 3, 0}, {3, 3, 0, 0}, {3, 3, 0, 0}} {
		if !slices.Equal(got[i], want) {
			t.Errorf("%s: %v, want %v",
				[]string{"negative pictures", "negative texts", "given pictures", "given texts"}[i], got[i], want)
		}
	}
	const rows = 200
	flat := tensors.FromFlatDataAndDimensions(make([]float32, rows*rows), rows, rows)
	drawn := evalGraph(t, mlx.NewStore(), []any{flat, rngState(t, 2)}, func(_ *mlx.Scope, in []*Node) []*Node {
		o := &Outputs{SimI2T: in[0], SimT2I: in[0]}
		mine(tinyConfig(), o, Batch{}, positivePairs(Batch{}, in[0]), nn.NewRNG(in[1]))
		return []*Node{nn.Float32(o.NegImage), nn.Float32(o.NegText)}
	})
	equal := 0
	for i, picture := range drawn[0] {
		if int(picture) == i || int(drawn[1][i]) == i {
			t.Fatalf("row %d drew itself", i)
		}
		if picture == drawn[1][i] {
			equal++
		}
	}
	if equal > 10 {
		t.Errorf("negative picture and text are equal in %d of %d rows: the draws depend on each other", equal, rows)
	}
}
