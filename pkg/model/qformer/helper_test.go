package qformer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
)

// Sizes of the tests' batch.
const (
	batch  = 3
	length = 5 // tokens per text
	tokens = 4 // image tokens
)

// tiny returns a Q-Former that runs in milliseconds; its last layer has cross-attention.
func tiny() Config {
	return Config{Hidden: 8, Layers: 3, Heads: 2, Intermediate: 12, Queries: 3, CrossAttentionFreq: 2, EncoderWidth: 6,
		Vocab: 20, MaxPositions: 9, LayerNormEps: 1e-12}
}

// draw returns n numbers from N(0, 1), the same for the same seed.
func draw(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 3))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

// storeOf returns a store with the parameters at random, far enough from zero that everything matters.
func storeOf(t *testing.T, params []model.Param) *mlx.Store {
	t.Helper()
	store := mlx.NewStore()
	for i, p := range params {
		values := draw(uint64(i), p.Size())
		for k := range values {
			values[k] *= 0.5
			if strings.HasSuffix(p.Name, "LayerNorm.weight") {
				values[k]++
			}
		}
		if err := model.Set(store, p.Name, p.Shape, values); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// Indices of the tests' inputs.
const (
	inFeatures = iota // [batch, tokens, W]
	inIDs             // [batch, length]
	inMask            // [batch, length]
	inPicked          // [batch] indices of pictures
	inState           // random state
)

// inputs returns a batch whose texts have the given numbers of tokens.
func inputs(t *testing.T, cfg Config, lengths [batch]int) []any {
	t.Helper()
	ids, mask := make([]int32, batch*length), make([]int32, batch*length)
	rng := rand.New(rand.NewPCG(1, 4))
	for i := range ids {
		if i%length < lengths[i/length] {
			ids[i], mask[i] = 1+rng.Int32N(int32(cfg.Vocab-1)), 1
		}
	}
	state, err := RNGStateFromSeed(9)
	if err != nil {
		t.Fatal(err)
	}
	return []any{
		tensors.FromFlatDataAndDimensions(draw(77, batch*tokens*cfg.EncoderWidth), batch, tokens, cfg.EncoderWidth),
		tensors.FromFlatDataAndDimensions(ids, batch, length), tensors.FromFlatDataAndDimensions(mask, batch, length),
		tensors.FromFlatDataAndDimensions([]int32{2, 0, 0}, batch), state,
	}
}

// run evaluates a graph of the inputs with the store's tensors.
func run(t *testing.T, store *mlx.Store, in []any, build func(*mlx.Scope, []*Node) []*Node) [][]float32 {
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

// probe weights the elements of all nodes unevenly and sums them, so that the gradient of the sum shows every element.
func probe(nodes ...*Node) *Node {
	var flat []*Node
	for _, n := range nodes {
		flat = append(flat, Reshape(n, -1))
	}
	all := Concatenate(flat, 0)
	return ReduceAllSum(Mul(all, Cos(Iota(all.Graph(), all.Shape(), 0))))
}

// form builds one way to compute something.
type form func(scope *mlx.Scope, in []*Node) []*Node

// sameForms checks that two ways to compute something agree, to 1e-5 of the largest value: the outputs, and a loss's
// gradients with respect to all parameters and the image features.
func sameForms(t *testing.T, cfg Config, in []any, plain, rewritten form) {
	t.Helper()
	params := Params(cfg, true)
	var names []string
	values := run(t, storeOf(t, params), in, func(scope *mlx.Scope, in []*Node) []*Node {
		wanted := []*Node{in[inFeatures]}
		for _, p := range params {
			wanted = append(wanted, scope.Store().GetVariable(model.Path(p.Name)).NodeValue(in[0].Graph()))
		}
		names = nil
		evaluate := func(f form) []*Node {
			names = names[:0]
			outputs := f(scope, in)
			for i := range outputs {
				names = append(names, fmt.Sprintf("output %d", i))
			}
			names = append(names, "gradient of the image features")
			for _, p := range params {
				names = append(names, "gradient of "+p.Name)
			}
			return append(outputs, Gradient(probe(outputs...), wanted...)...)
		}
		return append(evaluate(plain), evaluate(rewritten)...)
	})
	want, got := values[:len(values)/2], values[len(values)/2:]
	moving := 0
	for i, name := range names {
		same(t, name, got[i], want[i])
		if largest(want[i]) > 1e-3 {
			moving++
		}
	}
	if moving < len(names)/3 {
		t.Errorf("only %d of %d outputs and gradients are not zero: the comparison says little", moving, len(names))
	}
}

// same compares to 1e-5 of the largest value (at least of 1).
func same(t *testing.T, name string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	tolerance := 1e-5 * max(1, largest(want))
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= tolerance) {
			t.Errorf("%s[%d] = %g, want %g (difference %.2g)", name, i, got[i], w, d)
			return
		}
	}
}

// largest is the largest magnitude.
func largest(x []float32) float64 {
	var size float64
	for _, v := range x {
		size = max(size, math.Abs(float64(v)))
	}
	return size
}
