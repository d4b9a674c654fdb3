package bert

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model/nn"
)

// read reads a text through a network of one layer without cross-attention.
func read(scope *mlx.Scope, text Text) *Read {
	cfg := tiny()
	r, layer := NewReader(text), Layer{Config: cfg, Scope: scope.At("layer")}
	x := r.Embed(cfg, scope.At("embeddings"), dtypes.Float32)
	return r.End(layer.FeedForward("", r.SelfAttention(layer, x)))
}

// TestReader: a text in two parts, of which the first is there once for two texts, is what it is in one part, wherever
// its padding stands.
func TestReader(t *testing.T) {
	store := graphtest.Store(t, params(tiny()), 2)
	got := graphtest.Run(t, graphtest.Open(t, "go"), store, func(scope *mlx.Scope, in []*Node) []*Node {
		g := in[0].Graph()
		first, firstMask := Const(g, [][]int32{{0, 3, 7}, {2, 9, 1}}), Const(g, [][]int32{{0, 1, 1}, {1, 1, 1}})
		begun := read(scope, Text{IDs: first, Mask: firstMask})
		shared := &nn.Shared{KV: begun.KV, Mask: firstMask}
		second := Const(g, [][]int32{{5, 4}, {8, 0}, {6, 6}, {5, 4}})
		mask := Const(g, [][]int32{{1, 1}, {1, 0}, {1, 1}, {1, 1}})
		parts := read(scope, Text{IDs: second, Mask: mask, Shared: shared})
		if parts.Cache != nil {
			t.Error("there is a cache that was not asked for")
		}
		more := read(scope, Text{IDs: second, Mask: mask, Shared: shared.Then(begun.KV, firstMask), Ahead: 1})
		whole := read(scope, Text{
			IDs:  Const(g, [][]int32{{3, 7, 5, 4, 0}, {3, 7, 8, 0, 0}, {2, 9, 1, 6, 6}, {2, 9, 1, 5, 4}}),
			Mask: Const(g, [][]int32{{1, 1, 1, 1, 0}, {1, 1, 1, 0, 0}, {1, 1, 1, 1, 1}, {1, 1, 1, 1, 1}})})
		return []*Node{parts.Hidden, whole.Hidden, parts.Last(), more.Hidden}
	}, tensors.FromFlatDataAndDimensions([]float32{0}, 1))
	h := tiny().Hidden
	parts, whole := func(text, i int) []float32 { return got[0][(2*text+i)*h:][:h] },
		func(text, i int) []float32 { return got[1][(5*text+i)*h:][:h] }
	for text, begin := range []int{2, 2, 3, 3} {
		graphtest.Same(t, "first token", parts(text, 0), whole(text, begin), 1e-5)
		if text != 1 {
			graphtest.Same(t, "second token", parts(text, 1), whole(text, begin+1), 1e-5)
		}
	}
	if !slices.Equal(got[2][:h], parts(0, 1)) || slices.Equal(got[0], got[3]) {
		t.Error("the last state is another, or what is ahead does not matter")
	}
}

// TestPositions: neither padding nor what is ahead of the words is counted.
func TestPositions(t *testing.T) {
	got := graphtest.Run(t, graphtest.Open(t, "go"), mlx.NewStore(), func(_ *mlx.Scope, in []*Node) []*Node {
		g := in[0].Graph()
		mask := Const(g, [][]int32{{0, 1, 1, 0, 1}, {1, 1, 1, 0, 0}})
		shared := &nn.Shared{Mask: Const(g, [][]int32{{1, 1, 0, 1, 1, 1}})}
		return []*Node{NewReader(Text{IDs: mask, Mask: mask}).positions(),
			NewReader(Text{IDs: mask, Mask: mask, Shared: shared, Ahead: 2}).positions()}
	}, tensors.FromFlatDataAndDimensions([]float32{0}, 1))
	for i, want := range [][]float32{{0, 0, 1, 0, 2, 0, 1, 2, 0, 0}, {0, 3, 4, 0, 5, 3, 4, 5, 0, 0}} {
		for k, v := range want {
			if padding := slices.Contains([]int{0, 3, 8, 9}, k); !padding && got[i][k] != v {
				t.Errorf("positions %v, want %v", got[i], want)
				break
			}
		}
	}
}

// TestCrossAttentionTogether: texts that share a picture read it as if each had its own.
func TestCrossAttentionTogether(t *testing.T) {
	cfg := tiny()
	got := graphtest.Run(t, graphtest.Open(t, "go"), graphtest.Store(t, params(cfg), 2),
		func(scope *mlx.Scope, in []*Node) []*Node {
			layer := Layer{Config: cfg, Scope: scope.At("layer")}
			twice := Gather(in[1], Const(in[0].Graph(), [][]int32{{0}, {0}, {1}, {1}}))
			return []*Node{layer.CrossAttention(in[0], layer.KeysValues(CrossAttention, in[1])),
				layer.Attend(CrossAttention, in[0], layer.KeysValues(CrossAttention, twice), nil)}
		}, tensors.FromFlatDataAndDimensions(graphtest.Normals(1, 4*length*cfg.Hidden, 1), 4, length, cfg.Hidden),
		tensors.FromFlatDataAndDimensions(graphtest.Normals(2, 2*pictures*width, 1), 2, pictures, width))
	graphtest.Same(t, "rows", got[0], got[1], 1e-5)
}
