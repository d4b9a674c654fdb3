package bert

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// Text is a stretch of texts that are read from left to right, every token seeing those up to itself: whole texts,
// their beginnings, or what stands behind Shared and Cache.
type Text struct {
	// IDs are the tokens, [batch, L].
	IDs *Node
	// Mask [batch, L], integers, is 1 at tokens and 0 at padding, wherever that is: positions do not count it.
	Mask *Node
	// Shared holds what is in front of the tokens and of Cache, for several texts at once; nil if nothing is.
	Shared *nn.Shared
	// Ahead is how many tokens of Shared are no words, such as queries: positions do not count them either.
	Ahead int
	// Cache holds what is in front of the tokens and behind Shared; nil if nothing is.
	Cache *nn.Cache
}

// Read is the result of reading a Text.
type Read struct {
	// Hidden are the last layer's states [batch, L, H]. At padding they mean nothing.
	Hidden *Node
	// KV are the keys and values of every layer's self-attention that the tokens attended to, Shared's not among them.
	KV []nn.KV
	// Cache is that of the Text with the tokens behind it; nil without one.
	Cache *nn.Cache
}

// Last returns the state of the last token, [batch, H].
func (r *Read) Last() *Node { return Squeeze(SliceAxis(r.Hidden, 1, AxisElem(-1)), 1) }

// Reader reads a Text through the layers of a network. There is no dropout.
type Reader struct {
	text Text
	span *nn.Span
	mask *Node // is added to the scores of the tokens and those of Cache
	kv   []nn.KV
}

// NewReader starts to read.
func NewReader(text Text) *Reader {
	text.Mask.AssertDims(text.IDs.Shape().Dimensions...)
	span := nn.NewSpan(text.Mask, text.Cache)
	return &Reader{text: text, span: span, mask: span.CausalMask()}
}

// Embed is the whole embedding of the tokens in the given compute type, [batch, L, H]. The scope is that of the
// embeddings.
func (r *Reader) Embed(c Config, scope *model.Scope, dtype dtypes.DType) *Node {
	words := nn.Embed(scope.At("word_embeddings"), r.text.IDs, dtypes.Float32)
	positions := nn.Embed(scope.At("position_embeddings"), r.positions(), dtypes.Float32)
	return c.Embed(scope, nn.Cast(Add(words, positions), dtype), nil)
}

// positions numbers the tokens from 0, those in front included; padding has any number. int32 [batch, L].
func (r *Reader) positions() *Node {
	counts := r.span.Counts()
	if r.text.Shared != nil {
		dims := counts.Shape().Dimensions
		before := AddScalar(r.text.Shared.Counts(dims[0]), -r.text.Ahead)
		counts = Add(counts, BroadcastToDims(before, dims...))
	}
	return MaxScalar(AddScalar(counts, -1), 0)
}

// SelfAttention is the self-attention of x [batch, L, H] with what is in front of it, and the end of the sublayer:
// [batch, L, H]. It is called for every layer of the network, one after the other.
func (r *Reader) SelfAttention(l Layer, x *Node) *Node {
	index := len(r.kv)
	kv := r.span.Join(index, l.KeysValues(SelfAttention, x))
	r.kv = append(r.kv, kv)
	if r.text.Shared == nil {
		return l.Attend(SelfAttention, x, kv, r.mask)
	}
	return l.Mixed(SelfAttention, r.text.Shared.Attention(index, l.Queries(SelfAttention, x), kv, r.mask), x)
}

// End ends reading with the last layer's states [batch, L, H].
func (r *Reader) End(hidden *Node) *Read {
	return &Read{Hidden: hidden, KV: r.kv, Cache: r.span.Cache(r.kv, 0)}
}

// CrossAttention is cross-attention to keys and values of which all is visible, and the end of the sublayer: x
// [batch, L, H] to the same. The batch of kv may be a fraction of that of x: then as many rows of x, one after the
// other, read the same and attend together, so that beams need no copies of it.
func (l Layer) CrossAttention(x *Node, kv nn.KV) *Node {
	together := Reshape(x, kv.K.Shape().Dimensions[0], -1, l.Hidden)
	return Reshape(l.Attend(CrossAttention, together, kv, nil), x.Shape().Dimensions...)
}
