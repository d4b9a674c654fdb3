package bert

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// Text is a stretch of texts that are read from left to right, every token seeing those up to itself: whole texts,
// their beginnings, or one more token of every text in a cache.
type Text struct {
	// IDs are the tokens, [batch, L]; with a Cache one of every text, [rows, texts].
	IDs *Node
	// Mask [batch, L], integers, is 1 at tokens and 0 at padding, wherever that is: positions do not count it. nil with a
	// Cache, where there is none.
	Mask *Node
	// Front are every layer's keys and values of what stands in front of the texts and is no words, such as queries; nil
	// if nothing does.
	Front []nn.KV
	// Ahead is how many tokens of Front there are, which a Cache holds too: positions do not count them either.
	Ahead int
	// Cache holds what is in front of the tokens; nil if nothing is.
	Cache *nn.Cache
	// Room is that of the cache that a pass without Cache is to make.
	Room nn.Room
}

// Read is the result of reading a Text.
type Read struct {
	// Hidden are the last layer's states [batch, L, H]. At padding they mean nothing.
	Hidden *Node
	// Cache holds everything up to the tokens of the Text; nil unless that asks for it.
	Cache *nn.Cache
}

// Last returns the state of the last token, [batch, H].
func (r *Read) Last() *Node { return Squeeze(SliceAxis(r.Hidden, 1, AxisElem(-1)), 1) }

// Reader reads a Text through the layers of a network. There is no dropout.
type Reader struct {
	text Text
	span *nn.Span
	mask *Node
	kv   []nn.KV
}

// NewReader starts to read.
func NewReader(text Text) *Reader {
	r := &Reader{text: text}
	switch {
	case text.Cache != nil:
		r.span = text.Cache.Next()
	case text.Front != nil:
		r.span = nn.NewSpan(text.Mask).Behind(text.Front)
	default:
		r.span = nn.NewSpan(text.Mask)
	}
	r.mask = r.span.Mask()
	return r
}

// Embed is the whole embedding of the tokens in the given compute type, [batch, L, H]. The scope is that of the
// embeddings.
func (r *Reader) Embed(c Config, scope *model.Scope, dtype dtypes.DType) *Node {
	words := nn.Embed(scope.At("word_embeddings"), r.text.IDs, dtypes.Float32)
	positions := nn.Embed(scope.At("position_embeddings"), r.positions(), dtypes.Float32)
	return c.Embed(scope, nn.Cast(Add(words, positions), dtype), nil)
}

// positions numbers the tokens from 0, those in front included; padding has any number. int32 [batch, L].
func (r *Reader) positions() *Node { return MaxScalar(AddScalar(r.span.Counts(), -1-r.text.Ahead), 0) }

// SelfAttention is the self-attention of x [batch, L, H] with what is in front of it, and the end of the sublayer:
// [batch, L, H]. It is called for every layer of the network, one after the other.
func (r *Reader) SelfAttention(l Layer, x *Node) *Node {
	kv := r.span.Join(len(r.kv), l.KeysValues(SelfAttention, x))
	r.kv = append(r.kv, kv)
	return l.Attend(SelfAttention, x, kv, r.mask)
}

// End ends reading with the last layer's states [batch, L, H].
func (r *Reader) End(hidden *Node) *Read {
	return &Read{Hidden: hidden, Cache: r.span.Cache(r.kv, r.text.Room)}
}
