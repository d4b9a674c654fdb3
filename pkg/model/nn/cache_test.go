package nn

import (
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
)

// matrix is a constant int32 matrix.
func matrix(g *Graph, columns int, values ...int32) *Node {
	return Const(g, tensors.FromFlatDataAndDimensions(values, len(values)/columns, columns))
}

// bothWays runs the test with either form of writing to a cache: that of backends with DynamicUpdateSlice, and that of
// the Go backend.
func bothWays(t *testing.T, test func(t *testing.T, backend compute.Backend)) {
	t.Run("go", func(t *testing.T) { test(t, graphtest.Open(t, "go")) })
	t.Run("xla", func(t *testing.T) { test(t, graphtest.OpenXLA(t)) })
}

// values runs a graph without weights or inputs that matter.
func values(t *testing.T, backend compute.Backend, build func(g *Graph) []*Node) [][]float32 {
	t.Helper()
	return graphtest.Run(t, backend, model.NewStore(), func(_ *model.Scope, in []*Node) []*Node {
		return build(in[0].Graph())
	}, int32(0))
}

// TestSpanAtStart: without a cache, columns are the new tokens themselves.
func TestSpanAtStart(t *testing.T) {
	got := values(t, graphtest.Open(t, "go"), func(g *Graph) []*Node {
		s := NewSpan(matrix(g, 4, 1, 1, 1, 0, 0, 1, 0, 1))
		if s.Columns() != 4 {
			t.Errorf("%d columns", s.Columns())
		}
		mask := s.Mask()
		mask.AssertDims(2, 1, 4, 4)
		tokens, columns := s.Positions()
		return []*Node{s.Counts(), Equal(mask, ZerosLike(mask)), tokens, columns}
	})
	graphtest.Near(t, "counts", got[0], []float64{1, 2, 3, 0, 0, 1, 0, 2}, 0)
	graphtest.Near(t, "visible", got[1], []float64{
		1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0,
		0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1,
	}, 0)
	graphtest.Near(t, "positions", got[2], []float64{0, 1, 2, 3}, 0)
	graphtest.Near(t, "positions of columns", got[3], []float64{0, 1, 2, 3}, 0)
}

// TestSteps follows two rows of two texts each through two steps behind a prompt of three tokens, with a padding on the
// left of the second row. In the second step, texts go on from others.
func TestSteps(t *testing.T) {
	bothWays(t, func(t *testing.T, backend compute.Backend) {
		got := values(t, backend, func(g *Graph) []*Node {
			prompt := NewSpan(matrix(g, 3, 1, 1, 1, 0, 1, 1))
			cache := prompt.Cache(nil, Room{Tokens: 2, Texts: 2})
			first := cache.Pick(matrix(g, 2, 0, 0, 0, 0)).Next()
			cache = CacheOf(first.Cache(nil, Room{}).Nodes())
			second := cache.Pick(matrix(g, 2, 1, 0, 0, 0)).Next()
			var out []*Node
			for _, s := range []*Span{first, second} {
				mask := s.Mask()
				mask.AssertDims(2, 1, 2, 8)
				tokens, columns := s.Positions()
				out = append(out, Equal(mask, ZerosLike(mask)), s.Counts(), tokens, columns)
			}
			return append(out, second.Cache(nil, Room{}).Length)
		})
		columns := []float64{0, 1, 2, 3, 3, 3, 4, 4} // the fourth is free, so that steps begin at even ones
		graphtest.Near(t, "first step, visible", got[0], []float64{
			1, 1, 1, 0, 1, 0, 0, 0,
			1, 1, 1, 0, 0, 1, 0, 0,
			0, 1, 1, 0, 1, 0, 0, 0,
			0, 1, 1, 0, 0, 1, 0, 0,
		}, 0)
		graphtest.Near(t, "first step, counts", got[1], []float64{4, 4, 3, 3}, 0)
		graphtest.Near(t, "first step, positions", got[2], []float64{3}, 0)
		graphtest.Near(t, "first step, columns", got[3], columns, 0)
		graphtest.Near(t, "second step, visible", got[4], []float64{
			1, 1, 1, 0, 0, 1, 1, 0,
			1, 1, 1, 0, 1, 0, 0, 1,
			0, 1, 1, 0, 1, 0, 1, 0,
			0, 1, 1, 0, 1, 0, 0, 1,
		}, 0)
		graphtest.Near(t, "second step, counts", got[5], []float64{5, 5, 4, 4}, 0)
		graphtest.Near(t, "second step, positions", got[6], []float64{4}, 0)
		graphtest.Near(t, "second step, columns", got[7], columns, 0)
		graphtest.Near(t, "length", got[8], []float64{8}, 0)
	})
}

// TestJoin: keys and values of new tokens go to the columns behind those that are filled, and nowhere else.
func TestJoin(t *testing.T) {
	const rows, heads, d = 2, 3, 2
	bothWays(t, func(t *testing.T, backend compute.Backend) {
		for texts := 1; texts <= 3; texts++ {
			columns := 4 * texts
			old := graphtest.Normals(1, rows*heads*columns*d, 1)
			fresh := graphtest.Normals(2, rows*heads*texts*d, 1)
			for start := 0; start < columns; start += texts {
				got := values(t, backend, func(g *Graph) []*Node {
					node := func(x []float32, columns int) *Node {
						return Const(g, tensors.FromFlatDataAndDimensions(x, rows, heads, columns, d))
					}
					past := &Cache{Visible: Zeros(g, shapes.Make(dtypes.Int32, rows, texts, columns)),
						Length: Scalar(g, dtypes.Int32, start), KV: []KV{{}, {K: node(old, columns), V: Neg(node(old, columns))}}}
					kv := past.Next().Join(1, KV{K: node(fresh, texts), V: Neg(node(fresh, texts))})
					return []*Node{kv.K, Neg(kv.V)}
				})
				want := graphtest.Wide(old)
				for i := range want {
					if text := i/d%columns - start; text >= 0 && text < texts {
						want[i] = float64(fresh[(i/d/columns*texts+text)*d+i%d])
					}
				}
				graphtest.Near(t, "keys", got[0], want, 0)
				graphtest.Near(t, "values", got[1], want, 0)
			}
		}
	})
}

// TestCache: a cache made at the start holds the tokens' keys and values and free columns, and it survives the way
// through Nodes.
func TestCache(t *testing.T) {
	const d = 2
	x := graphtest.Normals(1, 2*2*d, 1) // [batch 2, heads 1, tokens 2, d]
	got := values(t, graphtest.Open(t, "go"), func(g *Graph) []*Node {
		s := NewSpan(matrix(g, 2, 1, 0, 1, 1))
		kv := KV{K: Const(g, tensors.FromFlatDataAndDimensions(x, 2, 1, 2, d))}
		kv.V = Neg(kv.K)
		if joined := s.Join(0, kv); joined != kv {
			t.Error("without a cache, tokens attend to something else than themselves")
		}
		if s.Cache([]KV{kv}, Room{}) != nil {
			t.Error("a cache that was not asked for")
		}
		c := CacheOf(s.Cache([]KV{kv, kv}, Room{Tokens: 1, Texts: 1}).Nodes())
		if len(c.KV) != 2 {
			t.Fatalf("%d layers", len(c.KV))
		}
		return []*Node{c.Visible, c.Length, c.KV[0].K, c.KV[1].V}
	})
	graphtest.Near(t, "visible", got[0], []float64{1, 0, 0, 1, 1, 0}, 0)
	graphtest.Near(t, "length", got[1], []float64{2}, 0)
	w := graphtest.Wide(x)
	keys := slices.Concat(w[:4], []float64{0, 0}, w[4:], []float64{0, 0})
	graphtest.Near(t, "keys", got[2], keys, 0)
	for i := range keys {
		keys[i] = -keys[i]
	}
	graphtest.Near(t, "values", got[3], keys, 0)
}

// TestRoomForNothing: a cache for no texts is an error.
func TestRoomForNothing(t *testing.T) {
	_, err := try(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		return NewSpan(in[0]).Cache(nil, Room{Tokens: 3}).Nodes()
	}, tensors.FromFlatDataAndDimensions([]int32{1, 1}, 1, 2))
	if err == nil || !strings.Contains(err.Error(), "3 tokens of 0 texts") {
		t.Errorf("error %v", err)
	}
}
