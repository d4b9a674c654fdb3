package nn

import (
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
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
		s := NewSpan(matrix(g, 4, 1, 1, 1, 0, 0, 1, 0, 1), nil)
		if s.Columns() != 4 {
			t.Errorf("%d columns", s.Columns())
		}
		mask := s.CausalMask()
		mask.AssertDims(2, 1, 4, 4)
		return []*Node{s.Counts(), Equal(mask, ZerosLike(mask)), s.Start()}
	})
	graphtest.Near(t, "counts", got[0], []float64{1, 2, 3, 0, 0, 1, 0, 2}, 0)
	graphtest.Near(t, "visible", got[1], []float64{
		1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0,
		0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1,
	}, 0)
	graphtest.Near(t, "start", got[2], []float64{0}, 0)
}

// TestSpanBehindCache: new tokens stand behind those of the cache, see them and go on with their count.
func TestSpanBehindCache(t *testing.T) {
	bothWays(t, func(t *testing.T, backend compute.Backend) {
		got := values(t, backend, func(g *Graph) []*Node {
			past := &Cache{Mask: matrix(g, 6, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0), Length: Scalar(g, dtypes.Int32, 3)}
			s := NewSpan(matrix(g, 2, 1, 1, 0, 1), past)
			mask := s.CausalMask()
			mask.AssertDims(2, 1, 2, 6)
			next := s.Cache(nil, 0)
			return []*Node{s.Counts(), Equal(mask, ZerosLike(mask)), next.Mask, next.Length}
		})
		graphtest.Near(t, "counts", got[0], []float64{3, 4, 0, 3}, 0)
		graphtest.Near(t, "visible", got[1], []float64{
			1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0,
			0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 1, 0,
		}, 0)
		graphtest.Near(t, "mask", got[2], []float64{1, 1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 0}, 0)
		graphtest.Near(t, "length", got[3], []float64{5}, 0)
	})
}

// TestJoin: keys and values of new tokens go to the slots behind those that are filled, and nowhere else.
func TestJoin(t *testing.T) {
	const batch, heads, capacity, d = 2, 3, 5, 2
	old := graphtest.Normals(1, batch*heads*capacity*d, 1)
	bothWays(t, func(t *testing.T, backend compute.Backend) {
		for rows := 1; rows <= 2; rows++ {
			fresh := graphtest.Normals(2, batch*heads*rows*d, 1)
			for start := range capacity - rows + 1 {
				got := values(t, backend, func(g *Graph) []*Node {
					node := func(x []float32, columns int) *Node {
						return Const(g, tensors.FromFlatDataAndDimensions(x, batch, heads, columns, d))
					}
					past := &Cache{Mask: matrix(g, capacity, make([]int32, batch*capacity)...),
						Length: Scalar(g, dtypes.Int32, start), KV: []KV{{}, {K: node(old, capacity), V: Neg(node(old, capacity))}}}
					s := NewSpan(matrix(g, rows, slices.Repeat([]int32{1}, batch*rows)...), past)
					kv := s.Join(1, KV{K: node(fresh, rows), V: Neg(node(fresh, rows))})
					return []*Node{kv.K, Neg(kv.V)}
				})
				want := graphtest.Wide(old)
				for i := range want {
					if slot := i/d%capacity - start; slot >= 0 && slot < rows {
						want[i] = float64(fresh[(i/d/capacity*rows+slot)*d+i%d])
					}
				}
				graphtest.Near(t, "keys", got[0], want, 0)
				graphtest.Near(t, "values", got[1], want, 0)
			}
		}
	})
}

// TestNewCache: a cache made at the start holds the tokens and free slots, its rows can be picked, and it survives the
// way through Nodes.
func TestNewCache(t *testing.T) {
	const d = 2
	x := graphtest.Normals(1, 2*2*d, 1) // [batch 2, heads 1, tokens 2, d]
	got := values(t, graphtest.Open(t, "go"), func(g *Graph) []*Node {
		s := NewSpan(matrix(g, 2, 1, 0, 1, 1), nil)
		kv := KV{K: Const(g, tensors.FromFlatDataAndDimensions(x, 2, 1, 2, d))}
		kv.V = Neg(kv.K)
		if joined := s.Join(0, kv); joined != kv {
			t.Error("without a cache, tokens attend to something else than themselves")
		}
		if s.Cache([]KV{kv}, 0) != nil {
			t.Error("a cache of no slots")
		}
		first := s.Cache([]KV{kv, kv}, 3)
		c := CacheOf(first.Nodes()).Pick(Const(g, []int32{1, 0, 1}))
		if len(c.KV) != 2 {
			t.Fatalf("%d layers", len(c.KV))
		}
		return []*Node{c.Mask, c.Length, c.KV[0].K, c.KV[1].V}
	})
	graphtest.Near(t, "mask", got[0], []float64{1, 1, 0, 1, 0, 0, 1, 1, 0}, 0)
	graphtest.Near(t, "length", got[1], []float64{2}, 0)
	w := graphtest.Wide(x)
	free := []float64{0, 0}
	keys := slices.Concat(w[4:], free, w[:4], free, w[4:], free)
	graphtest.Near(t, "keys", got[2], keys, 0)
	for i := range keys {
		keys[i] = -keys[i]
	}
	graphtest.Near(t, "values", got[3], keys, 0)
}

// TestSmallCache: a cache that is too small from the start is an error.
func TestSmallCache(t *testing.T) {
	_, err := try(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		return NewSpan(in[0], nil).Cache(nil, 1).Nodes()
	}, tensors.FromFlatDataAndDimensions([]int32{1, 1}, 1, 2))
	if err == nil || !strings.Contains(err.Error(), "1 slots") {
		t.Errorf("error %v", err)
	}
}

// TestShared: attention to tokens that texts share, and to their own behind them, is attention to both in one row of each
// text; padding among the shared ones is not seen, and tokens are counted.
func TestShared(t *testing.T) {
	const rows, width, heads, prompt, columns, d = 2, 3, 2, 4, 5, 3
	const batch = rows * width
	normals := func(g *Graph, seed uint64, dims ...int) *Node {
		n := 1
		for _, d := range dims {
			n *= d
		}
		return Const(g, tensors.FromFlatDataAndDimensions(graphtest.Normals(seed, n, 1), dims...))
	}
	got := values(t, graphtest.Open(t, "go"), func(g *Graph) []*Node {
		shared := &Shared{Mask: matrix(g, prompt, 0, 1, 1, 1, 0, 0, 1, 1),
			KV: []KV{{normals(g, 1, rows, heads, prompt, d), normals(g, 2, rows, heads, prompt, d)}}}
		shared = SharedOf(shared.Nodes())
		own := KV{normals(g, 3, batch, heads, columns, d), normals(g, 4, batch, heads, columns, d)}
		q := normals(g, 5, batch, heads, 2, d)
		ownMask := BarringMask(BroadcastToDims(Reshape(matrix(g, columns, 1, 1, 1, 0, 0), 1, 1, 1, columns), batch, 1, 2,
			columns))
		mixed := shared.Attention(0, q, own, ownMask)
		mixed.AssertDims(batch, 2, heads*d)
		all := func(shared, own *Node) *Node { return Concatenate([]*Node{repeatRows(shared, width), own}, 2) }
		hidden := BroadcastToDims(repeatRows(InsertAxes(BarringMask(shared.Mask), 1, 1), width), batch, 1, 2, prompt)
		plain := Attention(q, all(shared.KV[0].K, own.K), all(shared.KV[0].V, own.V),
			Concatenate([]*Node{hidden, ownMask}, -1), nil, 0)
		return []*Node{mixed, plain, shared.Counts(batch)}
	})
	graphtest.Same(t, "attention", got[0], got[1], 1e-6)
	graphtest.Near(t, "counts", got[2], []float64{3, 3, 3, 2, 2, 2}, 0)
}

// TestRepeat: every row of a cache becomes several, and a new cache is empty.
func TestRepeat(t *testing.T) {
	got := values(t, graphtest.Open(t, "go"), func(g *Graph) []*Node {
		c := NewCache(g, dtypes.Float32, 2, 3, 2, 4, 1)
		c.Mask = matrix(g, 4, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0)
		wide := c.Repeat(2)
		wide.KV[1].V.AssertDims(6, 2, 4, 1)
		return []*Node{wide.Mask, wide.Length, ReduceAllSum(Abs(wide.KV[0].K))}
	})
	graphtest.Near(t, "mask", got[0], []float64{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 0}, 0)
	graphtest.Near(t, "length", got[1], []float64{0}, 0)
	graphtest.Near(t, "keys", got[2], []float64{0}, 0)
}
