// Package opt is OPT, the decoder-only language model of BLIP-2 (spec/model.md 6; Zhang et al., 2022), as Hugging
// Face's OPTForCausalLM computes it.
//
// It works on embeddings, so that a visual prefix stands in front of the text like ordinary tokens (paper section 3.2):
// Embed looks tokens up, Forward runs the layers, Logits applies the head. Positions follow the mask: padding, wherever
// it is, shifts nothing. Forward serves training, and generation with a cache of fixed size:
//
//	training     Input{Embeds, Mask}
//	prefill      Input{Embeds, Mask, Room}            gives a Cache
//	step         Input{Embeds, Cache}                 gives the next Cache
package opt

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// Input is what one pass works on.
type Input struct {
	// Embeds are the embeddings of the tokens [batch, L, EmbedWidth]; their dtype is the compute type. With a Cache they
	// are one token of every text, [rows, texts, EmbedWidth].
	Embeds *Node
	// Mask [batch, L], integers, is 1 at tokens and 0 at padding; nil with a Cache, where there is none.
	Mask *Node
	// Cache holds what is in front of the tokens; nil if nothing is.
	Cache *nn.Cache
	// Room is that of the cache that a pass without Cache is to make.
	Room nn.Room
}

// Output is the result of one pass.
type Output struct {
	// Hidden are the states [batch, L, Hidden] that the head reads. At padding they mean nothing.
	Hidden *Node
	// Cache holds everything up to the tokens of this pass; nil unless Input asks for it.
	Cache *nn.Cache
}

// Embed looks up token ids [batch, L] and returns their embeddings [batch, L, EmbedWidth] in the given compute type.
// The scope is the model's root, as in all functions of this package.
func Embed(scope *model.Scope, ids *Node, dtype dtypes.DType) *Node {
	return nn.Embed(decoder(scope).At("embed_tokens"), ids, dtype)
}

// Forward runs the decoder. rng nil means no dropout.
func Forward(scope *model.Scope, cfg Config, in Input, rng *nn.RNG) *Output {
	in.Embeds.AssertDims(-1, -1, cfg.EmbedWidth())
	if length := in.Embeds.Shape().Dimensions[1]; in.Cache == nil && length > cfg.Positions {
		panic(fmt.Errorf("a sequence of %d tokens is too long for OPT: it has %d positions", length, cfg.Positions))
	}
	root, span := decoder(scope), in.span()
	mask := span.Mask()
	x := embed(root, cfg, in.Embeds, span.Counts())
	kv := make([]nn.KV, cfg.Layers)
	for i := range cfg.Layers {
		if cfg.Recompute {
			x = x.Checkpoint()
			rng.Checkpoint()
		}
		l := layer{scope: root.At("layers").At("%d", i), cfg: cfg, span: span, mask: mask, index: i, rng: rng}
		x, kv[i] = l.forward(x)
	}
	if cfg.Recompute {
		x = x.StopCheckpoint()
		rng.StopCheckpoint()
	}
	if !cfg.PostNorm {
		x = nn.LayerNorm(root.At("final_layer_norm"), x, cfg.LayerNormEps)
	}
	return &Output{Hidden: x, Cache: span.Cache(kv, in.Room)}
}

// span is where the tokens stand.
func (in Input) span() *nn.Span {
	if in.Cache != nil {
		return in.Cache.Next()
	}
	in.Mask.AssertDims(in.Embeds.Shape().Dimensions[:2]...)
	return nn.NewSpan(in.Mask)
}

func decoder(scope *model.Scope) *model.Scope { return scope.At("model").At("decoder") }

// embed brings token embeddings to the layers' width and adds the positions; counts [batch, L] numbers the tokens from
// 1 and is 0 at padding. There is no dropout here.
func embed(root *model.Scope, cfg Config, embeds, counts *Node) *Node {
	x := embeds
	if cfg.projects() {
		x = nn.Project(x, nn.Weight(root.At("project_in"), "weight", x))
	}
	rows := AddScalar(counts, positionOffset-1)
	return Add(x, nn.Embed(root.At("embed_positions"), rows, x.DType()))
}

// layer is one decoder layer at graph-building time.
type layer struct {
	scope *model.Scope
	cfg   Config
	span  *nn.Span
	mask  *Node
	index int
	rng   *nn.RNG
}

// forward is self-attention and the feed-forward network, each with a norm and a residual: x [batch, L, D] to the same.
// It also returns the keys and values that were attended to.
func (l layer) forward(x *Node) (*Node, nn.KV) {
	var kv nn.KV
	x = l.sublayer("self_attn_layer_norm", x, func(h *Node) (y *Node) {
		y, kv = l.attention(h)
		return y
	})
	x = l.sublayer("final_layer_norm", x, func(h *Node) *Node {
		h = nn.ReLU.Apply(nn.Linear(l.scope.At("fc1"), h))
		return nn.Linear(l.scope.At("fc2"), h)
	})
	return x, kv
}

// sublayer is x + dropout(f(norm(x))), or norm(x + dropout(f(x))) in a post-norm model.
func (l layer) sublayer(norm string, x *Node, f func(h *Node) *Node) *Node {
	normed := func(x *Node) *Node { return nn.LayerNorm(l.scope.At("%s", norm), x, l.cfg.LayerNormEps) }
	if l.cfg.PostNorm {
		return normed(Add(x, l.rng.Dropout(f(x), l.cfg.Dropout)))
	}
	return Add(x, l.rng.Dropout(f(normed(x)), l.cfg.Dropout))
}

// attention is causal self-attention of h [batch, L, D].
func (l layer) attention(h *Node) (*Node, nn.KV) {
	scope := l.scope.At("self_attn")
	heads := func(name string) *Node { return nn.SplitHeads(nn.Linear(scope.At("%s", name), h), l.cfg.Heads) }
	q := heads("q_proj")
	kv := l.span.Join(l.index, nn.KV{K: heads("k_proj"), V: heads("v_proj")})
	mixed := nn.Attention(q, kv.K, kv.V, l.mask, l.rng, l.cfg.AttentionDropout)
	return nn.Linear(scope.At("out_proj"), mixed), kv
}

// Logits applies the LM head to hidden states [..., Hidden]: [..., Vocab] in float32. The head is the embedding table.
func Logits(scope *model.Scope, cfg Config, hidden *Node) *Node {
	x, w := Head(scope, cfg, hidden)
	return nn.Float32(nn.Project(x, w))
}

// Head returns the two factors of Logits: hidden states as the head reads them, x [..., EmbedWidth], and the head,
// w [Vocab, EmbedWidth], in the type of x.
func Head(scope *model.Scope, cfg Config, hidden *Node) (x, w *Node) {
	root := decoder(scope)
	if cfg.projects() {
		hidden = nn.Project(hidden, nn.Weight(root.At("project_out"), "weight", hidden))
	}
	return hidden, nn.Weight(root.At("embed_tokens"), "weight", hidden)
}

// LMLoss is the mean cross entropy of predicting the next token: logits [batch, L, Vocab] at position i against labels
// [batch, L] at i+1, without those that are nn.IgnoredLabel (spec/stage2.md 3).
//
// Positions whose next label is ignored need no logits: a caller may leave out leading ones of both.
func LMLoss(logits, labels *Node) *Node { return nn.TokenLoss(logits, nn.NextLabels(labels)) }
