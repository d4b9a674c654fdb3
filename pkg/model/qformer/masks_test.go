package qformer

import (
	"math/rand/v2"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// TestMasks compares every mask with the matrices of spec/stage1.md 2, written out here as who may see whom. Where a
// mask has one row for all, the matrix's rows are equal.
func TestMasks(t *testing.T) {
	const q, l, texts = 3, 6, 5
	pad := make([]int32, texts*l)
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range texts {
		n := []int{l, 1, 1 + rng.IntN(l), 1 + rng.IntN(l), 1 + rng.IntN(l)}[i]
		for j := range n {
			pad[i*l+j] = 1
		}
	}
	// visible says whether row i sees column j of text b; queries come first where there are any.
	type matrix struct {
		name          string
		build         func(mask *Node) *Node
		rows, columns int
		visible       func(b, i, j int) bool
	}
	token := func(b, j int) bool { return pad[b*l+j] == 1 }
	for _, m := range []matrix{
		{"ITC text", nn.PaddingMask, 1, l, func(b, _, j int) bool { return token(b, j) }},
		{"ITM", func(mask *Node) *Node { return MultimodalMask(mask, q) }, 1, q + l, func(b, _, j int) bool {
			return j < q || token(b, j-q)
		}},
		{"ITG with cached queries", func(mask *Node) *Node { return nn.CausalMask(mask, q) }, l, q + l,
			func(b, i, j int) bool { return j < q || token(b, j-q) && j-q <= i }},
		{"causal text", func(mask *Node) *Node { return nn.CausalMask(mask, 0) }, l, l,
			func(b, i, j int) bool { return token(b, j) && j <= i }},
		{"ITG", func(mask *Node) *Node { return FullCausalMask(mask, q) }, q + l, q + l,
			func(b, i, j int) bool {
				if i < q {
					return j < q
				}
				return j < q || token(b, j-q) && j-q <= i-q
			}},
	} {
		var want []float32
		for b := range texts {
			for i := range m.rows {
				for j := range m.columns {
					value := float32(-10000)
					if m.visible(b, i, j) {
						value = 0
					}
					want = append(want, value)
				}
			}
		}
		in := []any{tensors.FromFlatDataAndDimensions(pad, texts, l)}
		got := run(t, mlx.NewStore(), in, func(_ *mlx.Scope, in []*Node) []*Node {
			mask := m.build(in[0])
			mask.AssertDims(texts, 1, m.rows, m.columns)
			return []*Node{mask}
		})[0]
		if !slices.Equal(got, want) {
			t.Errorf("%s:\n%v\nwant\n%v", m.name, got, want)
		}
	}
}
