// Package qformer is the Querying Transformer of BLIP-2 (paper section 3.1; spec/model.md 5): BERT whose learned
// queries read the picture through cross-attention in every other layer, and share their self-attention with texts.
//
// One function, Forward, serves all uses; they differ in what goes in and in the mask:
//
//	image pass (ITC, stage 2)      queries                    no mask
//	text pass (ITC)                text                       nn.PaddingMask
//	image-grounded pass (ITM)      queries + text             MultimodalMask
//	generation (ITG)               text + Past of queries     nn.CausalMask
package qformer

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// KV holds a layer's attention keys and values, each [batch, heads, tokens, head_dim].
type KV struct{ K, V *Node }

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
	bert := scope.At("Qformer").At("bert")
	x := embed(bert.At("embeddings"), cfg, in, rng)
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
		l := layer{scope: bert.At("encoder").At("layer").At("%d", i), cfg: cfg, index: i, queries: queries, rng: rng}
		var past *KV
		if in.Past != nil {
			past = &in.Past[i]
		}
		x, out.SelfKV[i] = l.forward(x, rows, in.Mask, in.Cross, past)
	}
	out.Hidden = x
	return out
}

// embed puts queries and text into one sequence and normalises both: [batch, Q+L, H].
func embed(scope *model.Scope, cfg Config, in Input, rng *nn.RNG) *Node {
	var parts []*Node
	if in.Queries != nil {
		parts = append(parts, in.Queries)
	}
	if in.TextIDs != nil {
		parts = append(parts, textEmbeddings(scope, cfg, in.TextIDs))
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
	return rng.Dropout(nn.LayerNorm(scope.At("LayerNorm"), x, cfg.LayerNormEps), cfg.Dropout)
}

// textEmbeddings is word + position embedding, [batch, L, H]; BERT's token types are not used.
func textEmbeddings(scope *model.Scope, cfg Config, ids *Node) *Node {
	length := ids.Shape().Dimensions[1]
	words := scope.At("word_embeddings").GetVariable("weight").NodeValue(ids.Graph())
	positions := scope.At("position_embeddings").GetVariable("weight").NodeValue(ids.Graph())
	positions = SliceAxis(positions, 0, AxisRangeFromStart(length))
	return Add(Gather(words, InsertAxes(ids, -1)), Reshape(positions, 1, length, cfg.Hidden))
}

// layer is one Q-Former layer at graph-building time.
type layer struct {
	scope   *model.Scope
	cfg     Config
	index   int
	queries int // leading rows that are queries
	rng     *nn.RNG
}

// forward computes self-attention of rows over x (both [batch, ·, H]; rows are x or its first queries), then
// cross-attention of the query rows, then each side's feed-forward network. It returns the new rows and the
// self-attention keys and values of x.
func (l layer) forward(x, rows, mask *Node, cross *Cross, past *KV) (*Node, KV) {
	heads := l.cfg.Heads
	self := l.scope.At("attention").At("self")
	kv := KV{
		K: nn.SplitHeads(nn.Linear(self.At("key"), x), heads),
		V: nn.SplitHeads(nn.Linear(self.At("value"), x), heads),
	}
	keys, values := kv.K, kv.V
	if past != nil {
		keys = Concatenate([]*Node{past.K, keys}, 2)
		values = Concatenate([]*Node{past.V, values}, 2)
	}
	q := nn.SplitHeads(nn.Linear(self.At("query"), rows), heads)
	mask = rowsOfMask(mask, rows.Shape().Dimensions[1])
	mixed := nn.Attention(q, keys, values, mask, l.rng, l.cfg.Dropout)
	a := l.output(l.scope.At("attention").At("output"), mixed, rows)
	if l.queries == 0 {
		return l.feedForward("", a), kv
	}
	aq, at := a, (*Node)(nil)
	if a.Shape().Dimensions[1] > l.queries {
		aq = SliceAxis(a, 1, AxisRangeFromStart(l.queries))
		at = SliceAxis(a, 1, AxisRangeToEnd(l.queries))
	}
	if l.cfg.HasCross(l.index) {
		aq = l.crossAttention(aq, cross)
	}
	aq = l.feedForward("_query", aq)
	if at == nil {
		return aq, kv
	}
	return Concatenate([]*Node{aq, l.feedForward("", at)}, 1), kv
}

// rowsOfMask keeps the mask's first rows.
func rowsOfMask(mask *Node, rows int) *Node {
	if mask == nil || mask.Shape().Dimensions[2] == 1 || mask.Shape().Dimensions[2] == rows {
		return mask
	}
	return SliceAxis(mask, 2, AxisRangeFromStart(rows))
}

// crossAttention lets the query rows x [batch, Q, H] read the pictures.
func (l layer) crossAttention(x *Node, cross *Cross) *Node {
	scope := l.scope.At("crossattention")
	q := nn.SplitHeads(nn.Linear(scope.At("self").At("query"), x), l.cfg.Heads)
	mixed := cross.attend(l.index, q, l.rng, l.cfg.Dropout)
	return l.output(scope.At("output"), mixed, x)
}

// feedForward is LN(x + W₂·gelu(W₁·x)) with the text's ("") or the queries' ("_query") weights.
func (l layer) feedForward(side string, x *Node) *Node {
	h := nn.GELU.Apply(nn.Linear(l.scope.At("%s", "intermediate"+side).At("dense"), x))
	return l.output(l.scope.At("%s", "output"+side), h, x)
}

// output is LN(residual + dropout(dense(x))), the end of every sublayer.
func (l layer) output(scope *model.Scope, x, residual *Node) *Node {
	x = l.rng.Dropout(nn.Linear(scope.At("dense"), x), l.cfg.Dropout)
	return nn.LayerNorm(scope.At("LayerNorm"), Add(x, residual), l.cfg.LayerNormEps)
}

// LMLogits applies the LM head to text rows [..., H]: logits [..., vocab] in float32. The decoder is the word
// embedding table.
func LMLogits(scope *model.Scope, cfg Config, hidden *Node) *Node {
	head := scope.At("Qformer").At("cls").At("predictions")
	transform := head.At("transform")
	h := nn.GELU.Apply(nn.Linear(transform.At("dense"), hidden))
	h = nn.LayerNorm(transform.At("LayerNorm"), h, cfg.LayerNormEps)
	table := scope.At("Qformer").At("bert").At("embeddings").At("word_embeddings")
	logits := nn.Float32(nn.Project(h, nn.Weight(table, "weight", h)))
	return nn.AddBias(logits, nn.Weight(head, "bias", logits))
}
