package nn

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// KV holds a layer's attention keys and values, each [batch, heads, tokens, head_dim].
type KV struct{ K, V *Node }

// Cache is what a decoder remembers of the tokens in front of those it is given. Its size is fixed, so that one
// compiled program serves every step (spec/stage2.md 8).
//
// Tokens fill the slots from the left, padding included. It is for the caller to see that there is room.
type Cache struct {
	// KV are every layer's keys and values, [batch, heads, capacity, head_dim].
	KV []KV
	// Mask, int32 [batch, capacity], is 1 at slots that hold tokens; 0 at padding and at free slots.
	Mask *Node
	// Length, an int32 scalar, is how many slots are filled.
	Length *Node
}

// Nodes lists what the cache consists of, to hand it from one program to the next; CacheOf puts it together again.
func (c *Cache) Nodes() []*Node {
	nodes := []*Node{c.Mask, c.Length}
	for _, kv := range c.KV {
		nodes = append(nodes, kv.K, kv.V)
	}
	return nodes
}

// CacheOf is the inverse of Cache.Nodes.
func CacheOf(nodes []*Node) *Cache {
	c := &Cache{Mask: nodes[0], Length: nodes[1]}
	for i := 2; i < len(nodes); i += 2 {
		c.KV = append(c.KV, KV{K: nodes[i], V: nodes[i+1]})
	}
	return c
}

// Pick returns the cache of the given rows [n] of the batch: beams reorder and repeat them.
func (c *Cache) Pick(rows *Node) *Cache {
	rows = InsertAxes(rows, -1)
	picked := &Cache{Mask: Gather(c.Mask, rows), Length: c.Length, KV: make([]KV, len(c.KV))}
	for i, kv := range c.KV {
		picked.KV[i] = KV{K: Gather(kv.K, rows), V: Gather(kv.V, rows)}
	}
	return picked
}

// Span is a stretch of new tokens in the sequence that a causal decoder works on: at its start, or behind the tokens
// of a cache.
type Span struct {
	rows  int    // new tokens
	fresh *Node  // int32 [batch, rows], 1 at new tokens that are no padding
	mask  *Node  // int32 [batch, columns], the same for all tokens that there are
	start *Node  // int32 scalar, column of the first new token
	past  *Cache // nil at the start
}

// NewSpan returns the span of new tokens: mask [batch, L] is 1 at tokens and 0 at padding, wherever that is. past holds
// the tokens in front of them; nil means none.
func NewSpan(mask *Node, past *Cache) *Span {
	mask = Cast(mask, dtypes.Int32)
	s := &Span{rows: mask.Shape().Dimensions[1], fresh: mask, mask: mask, past: past}
	if past == nil {
		s.start = Scalar(mask.Graph(), dtypes.Int32, 0)
		return s
	}
	s.start = past.Length
	s.mask = write(past.Mask, mask, 1, s.start)
	return s
}

// Columns returns the number of columns that the new tokens attend to: all tokens, or all slots of the cache.
func (s *Span) Columns() int { return s.mask.Shape().Dimensions[1] }

// Start returns the column of the first new token, an int32 scalar.
func (s *Span) Start() *Node { return s.start }

// CausalMask lets every new token see itself and the tokens in front of it that are no padding: what is added to
// attention scores, [batch, 1, L, columns].
func (s *Span) CausalMask() *Node {
	g, batch, columns := s.mask.Graph(), s.mask.Shape().Dimensions[0], s.Columns()
	dims := []int{batch, 1, s.rows, columns}
	tokens := BroadcastToDims(Reshape(s.mask, batch, 1, 1, columns), dims...)
	past := LessOrEqual(iota(g, 3, dims), Add(iota(g, 2, dims), BroadcastToDims(s.start, dims...)))
	return BarringMask(Mul(tokens, Cast(past, dtypes.Int32)))
}

// Counts numbers the new tokens that are no padding, from 1 in every row of the batch and counting those of the cache;
// at padding it is 0. int32 [batch, L].
func (s *Span) Counts() *Node {
	dims := []int{s.fresh.Shape().Dimensions[0], s.rows, s.rows}
	triangle := Cast(LowerTriangular(s.fresh.Graph(), s.rows), dtypes.Int32)
	upTo := Mul(BroadcastToDims(InsertAxes(s.fresh, 1), dims...), BroadcastToDims(InsertAxes(triangle, 0), dims...))
	counts := ReduceSum(upTo, 2)
	if s.past != nil {
		counts = Add(counts, spread(ReduceAndKeep(s.past.Mask, ReduceSum, 1), counts))
	}
	return Mul(counts, s.fresh)
}

// Join returns what the new tokens of a layer attend to: their own keys and values, behind those of the cache.
func (s *Span) Join(layer int, fresh KV) KV {
	if s.past == nil {
		return fresh
	}
	past := s.past.KV[layer]
	return KV{K: write(past.K, fresh.K, 2, s.start), V: write(past.V, fresh.V, 2, s.start)}
}

// Cache returns the cache behind the new tokens; kv is what Join gave for every layer. At the start of a sequence the
// capacity says how many slots it gets; 0 means that no cache is wanted. After that, the size stays.
func (s *Span) Cache(kv []KV, capacity int) *Cache {
	length := AddScalar(s.start, s.rows)
	if s.past != nil {
		return &Cache{KV: kv, Mask: s.mask, Length: length}
	}
	if capacity == 0 {
		return nil
	}
	if capacity < s.rows {
		panic(fmt.Errorf("a cache of %d slots has no room for %d tokens", capacity, s.rows))
	}
	c := &Cache{KV: make([]KV, len(kv)), Mask: extend(s.mask, 1, capacity), Length: length}
	for i, x := range kv {
		c.KV[i] = KV{K: extend(x.K, 2, capacity), V: extend(x.V, 2, capacity)}
	}
	return c
}

// extend appends zeros to the axis of x until it has the given size.
func extend(x *Node, axis, size int) *Node {
	config := make([]compute.PadAxis, x.Rank())
	config[axis].End = size - x.Shape().Dimensions[axis]
	return Pad(x, ScalarZero(x.Graph(), x.DType()), config...)
}

// write replaces the part of x's axis that starts at start by fresh, which has x's other dimensions.
func write(x, fresh *Node, axis int, start *Node) *Node {
	g := x.Graph()
	fresh = Cast(fresh, x.DType())
	if g.Backend().Capabilities().Operations[compute.OpTypeDynamicUpdateSlice] {
		starts := make([]*Node, x.Rank())
		for i := range starts {
			starts[i] = ScalarZero(g, start.DType())
		}
		starts[axis] = start
		return DynamicUpdateSlice(x, fresh, starts)
	}
	// Row by row: there are few, usually one.
	along := slices.Repeat([]int{1}, x.Rank())
	along[axis] = x.Shape().Dimensions[axis]
	columns := iota(g, axis, along)
	for row := range fresh.Shape().Dimensions[axis] {
		here := Equal(columns, BroadcastToDims(AddScalar(start, row), along...))
		x = Where(spread(here, x), spread(SliceAxis(fresh, axis, AxisElem(row)), x), x)
	}
	return x
}

// iota numbers the axis of an int32 array of the given dimensions.
func iota(g *Graph, axis int, dims []int) *Node {
	return Iota(g, shapes.Make(dtypes.Int32, dims...), axis)
}
