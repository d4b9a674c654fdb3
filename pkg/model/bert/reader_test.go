package bert

import (
	"fmt"
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

// TestReader: texts that are read token by token behind a prompt, some going on from others, are what they are at once,
// wherever the prompt's padding stands, and with something in front that is no words.
func TestReader(t *testing.T) {
	cfg, prompts := tiny(), [][]int32{{3, 7}, {2, 9, 1}}
	tree := graphtest.NewTree(4, len(prompts), 2, 2, vocab)
	backend, store := graphtest.Open(t, "go"), graphtest.Store(t, params(cfg), 2)
	for _, ahead := range []int{0, 3} {
		front := func(kv *Node, rows ...int32) []nn.KV {
			if ahead == 0 {
				return nil
			}
			kv = Gather(kv, InsertAxes(Const(kv.Graph(), rows), -1))
			return []nn.KV{{K: kv, V: Cos(kv)}}
		}
		got := graphtest.Run(t, backend, store, func(scope *mlx.Scope, in []*Node) []*Node {
			g := in[0].Graph()
			begun := read(scope, Text{IDs: Const(g, [][]int32{{0, 3, 7}, {2, 9, 1}}), Front: front(in[0], 0, 1), Ahead: ahead,
				Mask: Const(g, [][]int32{{0, 1, 1}, {1, 1, 1}}), Room: nn.Room{Tokens: tree.Steps, Texts: tree.Texts}})
			var steps, wholes []*Node
			cache := begun.Cache
			for step := range tree.Steps {
				next := func(values []int32) *Node { return Reshape(Const(g, values), tree.Rows, tree.Texts) }
				got := read(scope, Text{IDs: next(tree.Tokens[step]), Ahead: ahead,
					Cache: cache.Pick(next(tree.Parents[step]))})
				steps, cache = append(steps, Reshape(got.Hidden, -1, cfg.Hidden)), got.Cache
				for i := range tree.Rows * tree.Texts {
					row := i / tree.Texts
					ids := Const(g, [][]int32{slices.Concat(prompts[row], tree.Text(step, row, i%tree.Texts))})
					wholes = append(wholes, read(scope, Text{IDs: ids, Mask: OnesLike(ids), Front: front(in[0], int32(row)),
						Ahead: ahead}).Last())
				}
			}
			return []*Node{Concatenate(steps, 0), Concatenate(wholes, 0)}
		}, tensors.FromFlatDataAndDimensions(graphtest.Normals(1, 2*8*3, 1), 2, cfg.Heads, 3, cfg.Hidden/cfg.Heads))
		graphtest.Same(t, fmt.Sprintf("%d tokens ahead", ahead), got[0], got[1], 1e-5)
	}
}

// TestPositions: neither padding nor what is ahead of the words is counted.
func TestPositions(t *testing.T) {
	front := []nn.KV{{}}
	got := graphtest.Run(t, graphtest.Open(t, "go"), mlx.NewStore(), func(_ *mlx.Scope, in []*Node) []*Node {
		mask := Const(in[0].Graph(), [][]int32{{0, 1, 1, 0, 1}, {1, 1, 1, 0, 0}})
		front[0] = nn.KV{K: in[0], V: in[0]}
		return []*Node{NewReader(Text{IDs: mask, Mask: mask}).positions(),
			NewReader(Text{IDs: mask, Mask: mask, Front: front, Ahead: 2}).positions()}
	}, tensors.FromFlatDataAndDimensions(make([]float32, 4), 2, 1, 2, 1))
	want := []float32{0, 0, 1, 0, 2, 0, 1, 2, 0, 0}
	for i := range got {
		for k, v := range want {
			if padding := slices.Contains([]int{0, 3, 8, 9}, k); !padding && got[i][k] != v {
				t.Errorf("positions %v, want %v", got[i], want)
				break
			}
		}
	}
}
