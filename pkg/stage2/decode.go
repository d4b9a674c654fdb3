package stage2

import (
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

// Prefill is generate.Prefill.
func (d Decoder) Prefill(scope *model.Scope, inputs []*Node, room nn.Room) (logits *Node, fixed, cache []*Node) {
	embeds, mask := d.Prefix(scope, inputs)
	llm := d.LLM(scope)
	if c := d.OPT; c != nil {
		out := opt.Forward(llm, *c, opt.Input{Embeds: embeds, Mask: mask, Room: room}, nil)
		last := Squeeze(SliceAxis(out.Hidden, 1, AxisElem(-1)), 1)
		return opt.Logits(llm, *c, last), nil, out.Cache.Nodes()
	}
	cross := t5.NewCross(llm, *d.T5, t5.Encode(llm, *d.T5, embeds, mask, nil), mask)
	start := AddScalar(ZerosLike(SliceAxis(mask, 1, AxisRangeFromStart(1))), t5.StartID)
	logits, cache = d.t5(llm, t5.Input{Embeds: t5.Embed(llm, start, embeds.DType()), Cross: cross, Room: room})
	return Squeeze(logits, 1), cross.Nodes(), cache
}

// Advance is generate.Advance.
func (d Decoder) Advance(scope *model.Scope, fixed, cache []*Node, parents, tokens *Node) (logits *Node, next []*Node) {
	llm, past := d.LLM(scope), nn.CacheOf(cache).Pick(parents)
	dtype := past.KV[0].K.DType()
	if d.OPT != nil {
		out := opt.Forward(llm, *d.OPT, opt.Input{Embeds: opt.Embed(llm, tokens, dtype), Cache: past}, nil)
		return opt.Logits(llm, *d.OPT, out.Hidden), out.Cache.Nodes()
	}
	return d.t5(llm, t5.Input{Embeds: t5.Embed(llm, tokens, dtype), Cross: t5.CrossOf(fixed), Cache: past})
}

// t5 runs T5's decoder and gives the logits behind its tokens and the cache.
func (d Decoder) t5(llm *model.Scope, in t5.Input) (logits *Node, cache []*Node) {
	out := t5.Decode(llm, *d.T5, in, nil)
	return t5.Logits(llm, *d.T5, out.Hidden), out.Cache.Nodes()
}
