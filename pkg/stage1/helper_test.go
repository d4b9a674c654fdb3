package stage1

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
)

// Sizes of the tests' batch.
const (
	tinyBatch  = 4
	tinyLength = 6 // tokens per text
)

// tinyConfig returns a model that runs in milliseconds. Its last Q-Former layer has cross-attention.
func tinyConfig() Config {
	return Config{
		Vision: vit.Config{Arch: vit.CLIP, ImageSize: 4, PatchSize: 2, Width: 8, Layers: 1, Heads: 2, MLPRatio: 2,
			LayerNormEps: 1e-5},
		FreezeVision: true, LNVisionEps: 1e-5,
		QFormer: qformer.Config{Hidden: 16, Layers: 3, Heads: 2, Intermediate: 24, Queries: 3, CrossAttentionFreq: 2,
			EncoderWidth: 8, Vocab: 30, MaxPositions: 8, LayerNormEps: 1e-12},
		EmbedDim: 5, Temperature: 0.07, MaxTextLen: tinyLength, PadID: 0, CLSID: 1, SEPID: 2, BOSID: 29,
		LabelSmoothing: 0.1, HardNegatives: NegativesMaskedSoftmax, ITCWeight: 1, ITMWeight: 1, ITGWeight: 1,
	}
}

// hostBatch is a batch in host memory.
type hostBatch struct {
	pixels             []float32 // [batch, 3, S, S]
	ids, mask          []int32   // [batch, length]
	imageID            []int32   // [batch]
	negImage, negText  []int32   // [batch]
	withIDs, withDrawn bool      // feed image ids, and leave the negatives to be drawn
}

// newHostBatch returns the same batch every time: texts of 6, 4, 5 and 3 tokens, pictures 0 and 2 of equal id.
func newHostBatch(cfg Config) *hostBatch {
	s := cfg.Vision.ImageSize
	d := &hostBatch{pixels: normals(50, tinyBatch*3*s*s), imageID: []int32{7, 3, 7, 9},
		negImage: []int32{1, 3, 1, 0}, negText: []int32{3, 0, 1, 2}}
	rng := rand.New(rand.NewPCG(51, 5))
	for _, n := range []int{6, 4, 5, 3} {
		for i := range tinyLength {
			id, seen := int32(3+rng.IntN(cfg.QFormer.Vocab-4)), int32(1)
			switch {
			case i == 0:
				id = int32(cfg.CLSID)
			case i == n-1:
				id = int32(cfg.SEPID)
			case i >= n:
				id, seen = int32(cfg.PadID), 0
			}
			d.ids, d.mask = append(d.ids, id), append(d.mask, seen)
		}
	}
	return d
}

// normals returns n numbers from N(0, 1), the same for the same seed.
func normals(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 6))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

// randomStore returns a store with all tensors at random, far enough from zero that everything matters.
func randomStore(t *testing.T, cfg Config) *mlx.Store {
	t.Helper()
	store := mlx.NewStore()
	for i, p := range Params(cfg) {
		values := normals(uint64(1000+i), p.Size())
		for k := range values {
			values[k] *= 0.4
			if strings.Contains(p.Name, "LayerNorm.weight") || strings.Contains(p.Name, "ln_") {
				values[k]++
			}
		}
		if p.Name == "temp" {
			values[0] = 0.3
		}
		if err := model.Set(store, p.Name, p.Shape, values); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// evalGraph evaluates a graph of any inputs; outputs must be float32.
func evalGraph(t *testing.T, store *mlx.Store, in []any, build func(*mlx.Scope, []*Node) []*Node) [][]float32 {
	t.Helper()
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	outputs, err := mlx.CallOnceN(backend, store, build, in...)
	if err != nil {
		t.Fatal(err)
	}
	values := make([][]float32, len(outputs))
	for i, o := range outputs {
		values[i] = tensors.MustCopyFlatData[float32](o)
	}
	return values
}

// evalBatch evaluates a graph of the batch; state is the last input.
func evalBatch(
	t *testing.T, cfg Config, store *mlx.Store, d *hostBatch, build func(scope *mlx.Scope, b Batch, state *Node) []*Node,
) [][]float32 {
	t.Helper()
	s := cfg.Vision.ImageSize
	in := []any{tensors.FromFlatDataAndDimensions(d.pixels, tinyBatch, 3, s, s),
		tensors.FromFlatDataAndDimensions(d.ids, tinyBatch, tinyLength),
		tensors.FromFlatDataAndDimensions(d.mask, tinyBatch, tinyLength),
		idsTensor(d.imageID), idsTensor(d.negImage), idsTensor(d.negText), rngState(t, 12)}
	return evalGraph(t, store, in, func(scope *mlx.Scope, in []*Node) []*Node {
		b := Batch{Pixels: in[0], TextIDs: in[1], TextMask: in[2]}
		if d.withIDs {
			b.ImageID = in[3]
		}
		if !d.withDrawn {
			b.NegImage, b.NegText = in[4], in[5]
		}
		return build(scope, b, in[6])
	})
}

// rowsTensor is a float32 input [rows, len/rows].
func rowsTensor(rows int, values ...float32) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, rows, len(values)/rows)
}

func idsTensor(values []int32) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, len(values))
}

func rngState(t *testing.T, seed int64) *tensors.Tensor {
	t.Helper()
	state, err := RNGStateFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// paramNodes returns the nodes of the parameters in the graph.
func paramNodes(scope *mlx.Scope, params []model.Param, g *Graph) []*Node {
	nodes := make([]*Node, len(params))
	for i, p := range params {
		nodes[i] = scope.Store().GetVariable(model.Path(p.Name)).NodeValue(g)
	}
	return nodes
}

// sameValues compares to the tolerance in units of the largest value (at least of 1).
func sameValues[F float32 | float64](t *testing.T, name string, got []float32, want []F, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	unit := 1.0
	for _, w := range want {
		unit = max(unit, math.Abs(float64(w)))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= tolerance*unit) {
			t.Errorf("%s[%d] = %g, want %g (difference %.2g)", name, i, got[i], w, d)
			return
		}
	}
}

// largestOf is the largest magnitude.
func largestOf(x []float32) float64 {
	var size float64
	for _, v := range x {
		size = max(size, math.Abs(float64(v)))
	}
	return size
}

// nextTokens is one round of greedy captioning: image features [B, N, W] and texts so far, ids and mask [B, L] with
// [DEC] first, give the most likely next token after every position, [B, L] int32.
func nextTokens(scope *mlx.Scope, cfg Config, embeds, ids, mask *Node) *Node {
	return ArgMax(captionLogits(scope, cfg, ids, mask, imagePass(scope, cfg, embeds).SelfKV, nil), -1)
}
