package nn

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// KV holds a layer's attention keys and values, each [batch, heads, tokens, head_dim].
type KV struct{ K, V *Node }

// Cache is what a decoder remembers of the texts that it writes. Its size is fixed, so that one compiled program serves
// every step (spec/stage2.md 8).
//
// A row is a prompt with the texts that continue it, such as beams. The prompt's tokens fill the first columns, there
// for all of its texts; every step fills as many as the row has texts, with one more token of each. When texts go on
// from others, only what they see changes: keys and values stay where they are.
type Cache struct {
	// KV are every layer's keys and values, [rows, heads, columns, head_dim].
	KV []KV
	// Visible, int32 [rows, texts, columns], is 1 where a text has a token; 0 at padding, at other texts' tokens and at
	// free columns.
	Visible *Node
	// Position, int32 [columns], is a column's place in its text, padding included.
	Position *Node
	// Length, an int32 scalar, is how many columns are filled.
	Length *Node
}

// Room is what a cache has room for behind the prompt; the zero value asks for no cache.
type Room struct {
	Tokens int // of every text
	Texts  int // of every row
}

// Nodes lists what the cache consists of, to hand it from one program to the next; CacheOf puts it together again.
func (c *Cache) Nodes() []*Node {
	nodes := []*Node{c.Visible, c.Position, c.Length}
	for _, kv := range c.KV {
		nodes = append(nodes, kv.K, kv.V)
	}
	return nodes
}

// CacheOf is the inverse of Cache.Nodes.
func CacheOf(nodes []*Node) *Cache {
	c := &Cache{Visible: nodes[0], Position: nodes[1], Length: nodes[2]}
	for i := 3; i < len(nodes); i += 2 {
		c.KV = append(c.KV, KV{K: nodes[i], V: nodes[i+1]})
	}
	return c
}

// Pick returns the cache of texts that go on from others of their rows: parents [rows, texts], integers, numbers these
// within the row.
func (c *Cache) Pick(parents *Node) *Cache {
	dims := c.Visible.Shape().Dimensions
	rows, texts := dims[0], dims[1]
	parents.AssertDims(rows, texts)
	// As a product, because it keeps every row by itself, on whichever device of a mesh it is.
	square := []int{rows, texts, texts}
	chosen := Equal(iota(c.Visible.Graph(), 2, square), BroadcastToDims(Cast(InsertAxes(parents, -1), dtypes.Int32),
		square...))
	picked := *c
	picked.Visible = Cast(Einsum("rtp,rpc->rtc", Float32(chosen), Float32(c.Visible)), dtypes.Int32)
	return &picked
}

// Span is the new tokens that a causal decoder works on: texts from their start on, or one more token of every text in a
// cache.
type Span struct {
	mask    *Node  // int32 [batch, L], 1 at new tokens that are no padding; nil behind a cache, where there is none
	visible *Node  // int32 [batch, L, columns], 1 where a new token sees a column
	start   *Node  // int32 scalar, column of the first new token
	past    *Cache // nil at the start
}

// NewSpan returns the tokens that texts start with: mask [batch, L] is 1 at tokens and 0 at padding, wherever that is.
func NewSpan(mask *Node) *Span {
	mask = Cast(mask, dtypes.Int32)
	g, length := mask.Graph(), mask.Shape().Dimensions[1]
	dims := []int{mask.Shape().Dimensions[0], length, length}
	triangle := InsertAxes(Cast(LowerTriangular(g, length), dtypes.Int32), 0)
	return &Span{mask: mask, start: Scalar(g, dtypes.Int32, 0),
		visible: Mul(BroadcastToDims(InsertAxes(mask, 1), dims...), BroadcastToDims(triangle, dims...))}
}

// Next returns one more token of every text of the cache: the batch are its rows, the tokens their texts.
func (c *Cache) Next() *Span {
	g, dims := c.Visible.Graph(), c.Visible.Shape().Dimensions
	behind := Sub(iota(g, 2, dims), BroadcastToDims(c.Length, dims...))
	own := Equal(behind, iota(g, 1, dims))
	return &Span{visible: Where(own, OnesLike(c.Visible), c.Visible), start: c.Length, past: c}
}

// Columns returns the number of columns that the new tokens attend to: all tokens, or all columns of the cache.
func (s *Span) Columns() int { return s.visible.Shape().Dimensions[2] }

// Positions returns the places of the new tokens in their texts, int32 [L], or [1] if all have the same, and those of the
// columns that they attend to, int32 [columns]. Padding counts.
func (s *Span) Positions() (tokens, columns *Node) {
	if s.past != nil {
		return Gather(s.past.Position, Reshape(s.start, 1, 1)), s.past.Position
	}
	all := iota(s.visible.Graph(), 0, []int{s.Columns()})
	return all, all
}

// Mask lets every new token see itself and the tokens in front of it in its text that are no padding: what is added to
// attention scores, [batch, 1, L, columns].
func (s *Span) Mask() *Node { return BarringMask(InsertAxes(s.visible, 1)) }

// Counts numbers the new tokens that are no padding within their texts, from 1; at padding it is 0. int32 [batch, L].
func (s *Span) Counts() *Node {
	counts := ReduceSum(s.visible, -1)
	if s.mask == nil {
		return counts
	}
	return Mul(counts, s.mask)
}

// Join returns what the new tokens of a layer attend to: their own keys and values, beside those of the cache.
func (s *Span) Join(layer int, fresh KV) KV {
	if s.past == nil {
		return fresh
	}
	past := s.past.KV[layer]
	return KV{K: write(past.K, fresh.K, s.start), V: write(past.V, fresh.V, s.start)}
}

// Cache returns the cache behind the new tokens; kv is what Join gave for every layer. Behind a start it has the given
// room, and is nil if there is none; behind a cache it is as large as that.
func (s *Span) Cache(kv []KV, room Room) *Cache {
	if s.past != nil {
		return &Cache{KV: kv, Visible: s.visible, Position: s.past.Position,
			Length: AddScalar(s.start, s.visible.Shape().Dimensions[1])}
	}
	if room == (Room{}) {
		return nil
	}
	if room.Tokens < 0 || room.Texts < 1 {
		panic(fmt.Errorf("a cache with room for %d tokens of %d texts", room.Tokens, room.Texts))
	}
	position, begin := room.positions(s.Columns())
	rows, columns, g := s.mask.Shape().Dimensions[0], len(position), s.mask.Graph()
	c := &Cache{KV: make([]KV, len(kv)), Position: Const(g, position), Length: Scalar(g, dtypes.Int32, begin),
		Visible: BroadcastToDims(extend(InsertAxes(s.mask, 1), columns), rows, room.Texts, columns)}
	for i, x := range kv {
		c.KV[i] = KV{K: extend(x.K, columns), V: extend(x.V, columns)}
	}
	return c
}

// positions returns the place in its text of every column, behind a prompt of the given length, and the column that the
// first step begins with. Steps begin at a multiple of their size, which lets a backend that cannot write anywhere
// write there; the columns that this leaves free are never seen.
func (r Room) positions(prompt int) (position []int32, begin int) {
	begin = (prompt + r.Texts - 1) / r.Texts * r.Texts
	position = make([]int32, begin+r.Tokens*r.Texts)
	for i := range position {
		position[i] = int32(min(i, prompt) + max(i-begin, 0)/r.Texts)
	}
	return position, begin
}

// extend appends zeros to the third axis of x, which is that of columns.
func extend(x *Node, columns int) *Node {
	config := make([]compute.PadAxis, x.Rank())
	config[2].End = columns - x.Shape().Dimensions[2]
	return Pad(x, ScalarZero(x.Graph(), x.DType()), config...)
}

// write replaces the columns of x [rows, heads, columns, d] from start on by fresh [rows, heads, texts, d]; start is a
// multiple of the number of texts.
func write(x, fresh, start *Node) *Node {
	g := x.Graph()
	fresh = Cast(fresh, x.DType())
	if g.Backend().Capabilities().Operations[compute.OpTypeDynamicUpdateSlice] {
		zero := ScalarZero(g, start.DType())
		return DynamicUpdateSlice(x, fresh, []*Node{zero, zero, start, zero})
	}
	dims, texts := x.Shape().Dimensions, fresh.Shape().Dimensions[2]
	wide := []int{dims[0], dims[1], dims[2] / texts, texts, dims[3]}
	step := []int{1, 1, wide[2], 1, 1}
	here := Equal(iota(g, 2, step), BroadcastToDims(DivScalar(start, texts), step...))
	out := Where(BroadcastToDims(here, wide...), BroadcastToDims(InsertAxes(fresh, 2), wide...), Reshape(x, wide...))
	return Reshape(out, dims...)
}

// iota numbers the axis of an int32 array of the given dimensions.
func iota(g *Graph, axis int, dims []int) *Node {
	return Iota(g, shapes.Make(dtypes.Int32, dims...), axis)
}
