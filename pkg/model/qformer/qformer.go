// Package qformer is the Querying Transformer of BLIP-2 (paper section 3.1; spec/model.md 5): BERT whose learned
// queries read the picture through cross-attention in every other layer, and share their self-attention with texts.
//
// One function, Forward, serves all uses; they differ in what goes in and in the mask:
//
//	image pass (ITC, stage 2)      queries                    no mask
//	text pass (ITC)                text                       nn.PaddingMask
//	image-grounded pass (ITM)      queries + text             MultimodalMask
//	generation (ITG)               text + Past of queries     nn.CausalMask
//
// Decode is the last of them token by token, as captions are written.
package qformer

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
)

// Suffixes of the two feed-forward networks of a layer.
const (
	textSide  = ""
	querySide = "_query"
)

// KV holds a layer's attention keys and values, each [batch, heads, tokens, head_dim].
type KV = nn.KV

// Input is what one pass works on.
type Input struct {
	// Queries are the query embeddings [batch, Q, H]; nil in a text-only pass.
	Queries *Node
	// TextIDs are word-piece ids [batch, L]; nil in an image-only pass. Positions count from 0.
	TextIDs *Node
	// DType is the compute type of the pass; the zero value means that of Queries, or float32 without any.
	DType dtypes.DType
	// Mask is added to self-attention scores, [1|batch, 1, 1|rows, columns]; nil when everything is visible.
	Mask *Node
	// Cross is what the queries read of the pictures; required with Queries.
	Cross *Cross
	// Past holds every layer's self-attention keys and values of tokens in front of the text, from an earlier pass.
	Past []KV
	// QueriesOnly says that the caller reads only the query rows of the output: the text rows of the last layer,
	// which nothing else depends on, are then not computed.
	QueriesOnly bool
	// Seen, if set, is given what the queries look at in every layer with cross-attention: the probabilities, averaged
	// over the heads, [batch, Q, N] in float32.
	Seen func(layer int, probs *Node)
}

// Output is the result of one pass.
type Output struct {
	// Hidden are the last layer's hidden states [batch, Q+L, H] ([batch, Q, H] with QueriesOnly).
	Hidden *Node
	// SelfKV are every layer's self-attention keys and values of this pass's tokens.
	SelfKV []KV
}

// Queries returns the learned query tokens for a batch in the given compute type: [batch, Q, H]. The scope is the
// model's root.
func Queries(scope *model.Scope, cfg Config, g *Graph, batch int, dtype dtypes.DType) *Node {
	tokens := nn.Cast(scope.GetVariable("query_tokens").NodeValue(g), dtype)
	return BroadcastToDims(tokens, batch, cfg.Queries, cfg.Hidden)
}

// Forward runs the Q-Former. The scope is the model's root; rng nil means no dropout.
func Forward(scope *model.Scope, cfg Config, in Input, rng *nn.RNG) *Output {
	x := embed(scope.At("Qformer").At("bert").At("embeddings"), cfg, in, rng)
	queries := 0
	if in.Queries != nil {
		queries = cfg.Queries
	}
	out := &Output{SelfKV: make([]KV, cfg.Layers)}
	for i := range cfg.Layers {
		rows := x
		if in.QueriesOnly && i == cfg.Layers-1 {
			rows = SliceAxis(x, 1, AxisRangeFromStart(queries))
		}
		l := layer{index: i, cross: cfg.HasCross(i), queries: queries, Layer: cfg.layer(scope, i, rng)}
		var past *KV
		if in.Past != nil {
			past = &in.Past[i]
		}
		x, out.SelfKV[i] = l.forward(x, rows, in, past)
	}
	out.Hidden = x
	return out
}

// layer returns the parts of layer i; the scope is the model's root.
func (c Config) layer(scope *model.Scope, i int, rng *nn.RNG) bert.Layer {
	layers := scope.At("Qformer").At("bert").At("encoder").At("layer")
	return bert.Layer{Config: c.bert(), Scope: layers.At("%d", i), RNG: rng}
}

// embed puts queries and text into one sequence and normalises both: [batch, Q+L, H].
func embed(scope *model.Scope, cfg Config, in Input, rng *nn.RNG) *Node {
	var parts []*Node
	if in.Queries != nil {
		parts = append(parts, in.Queries)
	}
	if in.TextIDs != nil {
		parts = append(parts, bert.TextEmbeddings(scope, in.TextIDs))
	}
	dtype := in.DType
	if dtype == dtypes.InvalidDType {
		dtype = parts[0].DType()
	}
	for i, part := range parts {
		parts[i] = nn.Cast(part, dtype)
	}
	x := parts[0]
	if len(parts) == 2 {
		x = Concatenate(parts, 1)
	}
	return cfg.bert().Embed(scope, x, rng)
}

// layer is one Q-Former layer while a graph is built.
type layer struct {
	bert.Layer
	index   int
	cross   bool // the layer has cross-attention
	queries int  // leading rows that are queries
}

// forward computes self-attention of rows over x (both [batch, ·, H]; rows are x or its first queries), then
// cross-attention of the query rows, then each side's feed-forward network. It returns the new rows and the
// self-attention keys and values of x.
func (l layer) forward(x, rows *Node, in Input, past *KV) (*Node, KV) {
	kv := l.KeysValues(bert.SelfAttention, x)
	seen := kv
	if past != nil {
		seen = KV{K: Concatenate([]*Node{past.K, kv.K}, 2), V: Concatenate([]*Node{past.V, kv.V}, 2)}
	}
	a := l.Attend(bert.SelfAttention, rows, seen, rowsOfMask(in.Mask, rows.Shape().Dimensions[1]))
	if l.queries == 0 {
		return l.FeedForward(textSide, a), kv
	}
	aq, at := a, (*Node)(nil)
	if a.Shape().Dimensions[1] > l.queries {
		aq = SliceAxis(a, 1, AxisRangeFromStart(l.queries))
		at = SliceAxis(a, 1, AxisRangeToEnd(l.queries))
	}
	if l.cross {
		q := l.Queries(bert.CrossAttention, aq)
		if in.Seen != nil {
			in.Seen(l.index, ReduceMean(nn.AttentionProbs(q, in.Cross.kv[l.index].K), 1))
		}
		mixed := in.Cross.attend(l.index, q, l.RNG, l.Dropout)
		aq = l.Mixed(bert.CrossAttention, mixed, aq)
	}
	aq = l.FeedForward(querySide, aq)
	if at == nil {
		return aq, kv
	}
	return Concatenate([]*Node{aq, l.FeedForward(textSide, at)}, 1), kv
}

// rowsOfMask keeps the mask's first rows.
func rowsOfMask(mask *Node, rows int) *Node {
	if mask == nil || mask.Shape().Dimensions[2] == 1 || mask.Shape().Dimensions[2] == rows {
		return mask
	}
	return SliceAxis(mask, 2, AxisRangeFromStart(rows))
}

// LMLogits applies the LM head to text rows [..., H]: logits [..., vocab] in float32. The decoder is the word
// embedding table.
func LMLogits(scope *model.Scope, cfg Config, hidden *Node) *Node {
	q := scope.At("Qformer")
	return cfg.bert().LMLogits(q.At("cls").At("predictions"), q.At("bert").At("embeddings"), hidden)
}
