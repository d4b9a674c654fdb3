package stage2

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/t5"
)

// Decoder is how a language model writes texts: the programs of generate.NewCachedProgram.
type Decoder struct {
	// Prefix turns the inputs of a batch into embeddings [B, N, D] and their mask [B, N], which the text follows (OPT) or
	// the encoder reads (T5). OPT's must end with a token: padding stands on the left.
	Prefix func(scope *model.Scope, inputs []*Node) (embeds, mask *Node)
	// LLM is the scope of the language model.
	LLM func(scope *model.Scope) *model.Scope
	OPT *opt.Config // either
	T5  *t5.Config
}

// Prefill is generate.Prefill. OPT's prompts are there once for all texts of a row, like what T5's encoder has read.
func (d Decoder) Prefill(scope *model.Scope, inputs []*Node, newTokens, width int) (
	logits *Node, fixed, cache []*Node) {
	embeds, mask := d.Prefix(scope, inputs)
	llm, batch := d.LLM(scope), mask.Shape().Dimensions[0]
	if c := d.OPT; c != nil {
		out := opt.Forward(llm, *c, opt.Input{Embeds: embeds, Mask: mask}, nil)
		shared := &nn.Shared{KV: out.KV, Mask: nn.Cast(mask, dtypes.Int32)}
		empty := nn.NewCache(mask.Graph(), embeds.DType(), c.Layers, batch*width, c.Heads, newTokens, c.Hidden/c.Heads)
		return opt.Logits(llm, *c, last(out.Hidden)), shared.Nodes(), empty.Nodes()
	}
	cross := t5.NewCross(llm, *d.T5, t5.Encode(llm, *d.T5, embeds, mask, nil), mask)
	start := AddScalar(ZerosLike(SliceAxis(mask, 1, AxisRangeFromStart(1))), t5.StartID)
	words := t5.Embed(llm, start, embeds.DType())
	logits, begun := d.t5(llm, t5.Input{Embeds: words, Cross: cross, Capacity: 1 + newTokens})
	return logits, cross.Nodes(), begun.Repeat(width).Nodes()
}

// Advance is generate.Advance.
func (d Decoder) Advance(scope *model.Scope, fixed, cache []*Node, parents, tokens *Node) (logits *Node, next []*Node) {
	llm, ids := d.LLM(scope), InsertAxes(tokens, -1)
	past := nn.CacheOf(cache).Pick(parents)
	dtype := past.KV[0].K.DType()
	if d.OPT != nil {
		out := opt.Forward(llm, *d.OPT, opt.Input{Embeds: opt.Embed(llm, ids, dtype), Mask: OnesLike(ids),
			Shared: nn.SharedOf(fixed), Cache: past}, nil)
		return opt.Logits(llm, *d.OPT, last(out.Hidden)), out.Cache.Nodes()
	}
	logits, behind := d.t5(llm, t5.Input{Embeds: t5.Embed(llm, ids, dtype), Cross: t5.CrossOf(fixed), Cache: past})
	return logits, behind.Nodes()
}

// t5 runs T5's decoder and gives the logits behind the last token, [texts, V], and the cache.
func (d Decoder) t5(llm *model.Scope, in t5.Input) (*Node, *nn.Cache) {
	out := t5.Decode(llm, *d.T5, in, nil)
	return t5.Logits(llm, *d.T5, last(out.Hidden)), out.Cache
}

// last returns the last position of hidden states [texts, L, D]: [texts, D].
func last(hidden *Node) *Node { return Squeeze(SliceAxis(hidden, 1, AxisElem(-1)), 1) }
