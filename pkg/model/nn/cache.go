package nn

import (
	"fmt"
	"math"
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

// NewCache returns the cache of texts that have no tokens yet, with room for capacity tokens of each.
func NewCache(g *Graph, dtype dtypes.DType, layers, batch, heads, capacity, headDim int) *Cache {
	c := &Cache{KV: make([]KV, layers), Mask: Zeros(g, shapes.Make(dtypes.Int32, batch, capacity)),
		Length: Scalar(g, dtypes.Int32, 0)}
	for i := range c.KV {
		empty := Zeros(g, shapes.Make(dtype, batch, heads, capacity, headDim))
		c.KV[i] = KV{K: empty, V: empty}
	}
	return c
}

// Repeat returns the cache with every row of the batch as many times as given, one after the other.
func (c *Cache) Repeat(times int) *Cache {
	out := &Cache{KV: make([]KV, len(c.KV)), Mask: repeatRows(c.Mask, times), Length: c.Length}
	for i, kv := range c.KV {
		out.KV[i] = KV{K: repeatRows(kv.K, times), V: repeatRows(kv.V, times)}
	}
	return out
}

// repeatRows repeats every row of x's first axis.
func repeatRows(x *Node, times int) *Node {
	if times == 1 {
		return x
	}
	dims := x.Shape().Dimensions
	wide := append([]int{dims[0], times}, dims[1:]...)
	return Reshape(BroadcastToDims(InsertAxes(x, 1), wide...), append([]int{dims[0] * times}, dims[1:]...)...)
}

// Shared is what a decoder remembers of tokens that several texts have in common, such as a prompt's with several
// beams: keys and values are there once. As many rows of the texts, one after the other, share a row of it.
type Shared struct {
	KV   []KV  // of every layer, [rows, heads, tokens, head_dim]
	Mask *Node // int32 [rows, tokens], 1 at tokens and 0 at padding
}

// Nodes lists what Shared consists of, to hand it from one program to the next; SharedOf puts it together again.
func (s *Shared) Nodes() []*Node {
	nodes := []*Node{s.Mask}
	for _, kv := range s.KV {
		nodes = append(nodes, kv.K, kv.V)
	}
	return nodes
}

// SharedOf is the inverse of Shared.Nodes.
func SharedOf(nodes []*Node) *Shared {
	s := &Shared{Mask: nodes[0]}
	for i := 1; i < len(nodes); i += 2 {
		s.KV = append(s.KV, KV{K: nodes[i], V: nodes[i+1]})
	}
	return s
}

// Then returns the shared tokens with as many rows of others behind them: their keys and values by layer, and their
// mask [rows, tokens].
func (s *Shared) Then(kv []KV, mask *Node) *Shared {
	all := &Shared{Mask: Concatenate([]*Node{s.Mask, Cast(mask, dtypes.Int32)}, 1), KV: make([]KV, len(kv))}
	for i, x := range kv {
		all.KV[i] = KV{K: Concatenate([]*Node{s.KV[i].K, x.K}, 2), V: Concatenate([]*Node{s.KV[i].V, x.V}, 2)}
	}
	return all
}

// Counts returns how many tokens there are for each of batch texts, int32 [batch, 1].
func (s *Shared) Counts(batch int) *Node {
	return repeatRows(ReduceAndKeep(Cast(s.Mask, dtypes.Int32), ReduceSum, 1), batch/s.Mask.Shape().Dimensions[0])
}

// Attention is the attention of texts' new tokens to the shared tokens of a layer and, behind them, to own ones: q is
// [batch, heads, rows, d], own [batch, heads, columns, d], ownMask what is added to their scores. It returns
// [batch, rows, heads·d], as nn.Attention does.
func (s *Shared) Attention(layer int, q *Node, own KV, ownMask *Node) *Node {
	dims, rows := q.Shape().Dimensions, s.Mask.Shape().Dimensions[0]
	batch, heads, length, d := dims[0], dims[1], dims[2], dims[3]
	columns, kv := s.Mask.Shape().Dimensions[1], s.KV[layer]
	kv.K.AssertDims(rows, heads, columns, d)
	q = MulScalar(q, 1/math.Sqrt(float64(d)))
	scores := apart(Float32(Einsum("bhqd,bhkd->bhqk", together(q, rows), kv.K)), batch, length)
	hidden := repeatRows(InsertAxes(BarringMask(s.Mask), 1, 1), batch/rows)
	scores = Add(scores, BroadcastToDims(hidden, batch, heads, length, columns))
	ownScores := Float32(Einsum("bhqd,bhkd->bhqk", q, own.K))
	ownScores = Add(ownScores, spread(ownMask, ownScores))
	probs := Cast(softmax(Concatenate([]*Node{scores, ownScores}, -1)), own.V.DType())
	shared := together(SliceAxis(probs, -1, AxisRangeFromStart(columns)), rows)
	mixed := Add(apart(Einsum("bhqk,bhkd->bhqd", shared, kv.V), batch, length),
		Einsum("bhqk,bhkd->bhqd", SliceAxis(probs, -1, AxisRangeToEnd(columns)), own.V))
	return Reshape(TransposeAllAxes(mixed, 0, 2, 1, 3), batch, length, heads*d)
}

// together puts the texts that share a row beside each other: [batch, heads, rows, n] becomes
// [shared, heads, batch/shared·rows, n]; apart is its inverse.
func together(x *Node, shared int) *Node {
	dims := x.Shape().Dimensions
	x = Reshape(x, shared, dims[0]/shared, dims[1], dims[2], dims[3])
	return Reshape(TransposeAllAxes(x, 0, 2, 1, 3, 4), shared, dims[1], -1, dims[3])
}

func apart(x *Node, batch, rows int) *Node {
	dims := x.Shape().Dimensions
	x = Reshape(x, dims[0], dims[1], batch/dims[0], rows, dims[3])
	return Reshape(TransposeAllAxes(x, 0, 2, 1, 3, 4), batch, dims[1], rows, dims[3])
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
