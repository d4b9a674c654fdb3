// Package bert holds the parts of BERT that the Q-Former and BLIP's text decoder are built of: post-LN layers of
// attention and feed-forward networks, embeddings without token types, and the LM head (spec/model.md 5 and 10).
//
// Tensors have BERT's names. Which parts a layer has, what attends to what and how masks look is the business of the
// network that uses them; for texts that are read from left to right, with or without a cache, there is Reader.
package bert

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// Config holds what all layers of a network share.
type Config struct {
	Hidden           int     // H: features per token
	Heads            int     // attention heads
	Intermediate     int     // hidden width of the feed-forward networks
	LayerNormEps     float64 // 1e-12
	InitializerRange float64 // spread of weights drawn from scratch; 0 means BERT's 0.02
	Dropout          float64 // rate on embeddings, attention probabilities and sublayer outputs, in training
}

// Validate reports dimensions that do not fit together.
func (c Config) Validate() error {
	if c.Heads <= 0 || c.Hidden%c.Heads != 0 {
		return fmt.Errorf("hidden size %d is not divisible by %d heads", c.Hidden, c.Heads)
	}
	return nil
}

// Names of a layer's attentions.
const (
	SelfAttention  = "attention"
	CrossAttention = "crossattention"
)

// TextEmbeddings is word + position embedding of ids [batch, L], [batch, L, H] in float32; positions count from 0. The
// scope is that of the embeddings.
func TextEmbeddings(scope *model.Scope, ids *Node) *Node {
	length := ids.Shape().Dimensions[1]
	words := scope.At("word_embeddings").GetVariable("weight").NodeValue(ids.Graph())
	positions := scope.At("position_embeddings").GetVariable("weight").NodeValue(ids.Graph())
	positions = SliceAxis(positions, 0, AxisRangeFromStart(length))
	return Add(Gather(words, InsertAxes(ids, -1)), InsertAxes(positions, 0))
}

// Embed is the end of the embeddings: LayerNorm and dropout of x [batch, L, H]. The scope is that of the embeddings.
func (c Config) Embed(scope *model.Scope, x *Node, rng *nn.RNG) *Node {
	return rng.Dropout(nn.LayerNorm(scope.At("LayerNorm"), x, c.LayerNormEps), c.Dropout)
}

// Layer is one layer while a graph is built.
type Layer struct {
	Config
	// Scope is the layer's.
	Scope *model.Scope
	// RNG draws dropout; nil means none.
	RNG *nn.RNG
}

// KeysValues projects x [batch, L, ·] to the keys and values of the named attention.
func (l Layer) KeysValues(attention string, x *Node) nn.KV {
	self := l.Scope.At("%s", attention).At("self")
	return nn.KV{
		K: nn.SplitHeads(nn.Linear(self.At("key"), x), l.Heads),
		V: nn.SplitHeads(nn.Linear(self.At("value"), x), l.Heads),
	}
}

// Queries projects rows [batch, L, H] to the queries of the named attention, [batch, heads, L, head_dim].
func (l Layer) Queries(attention string, rows *Node) *Node {
	return nn.SplitHeads(nn.Linear(l.Scope.At("%s", attention).At("self").At("query"), rows), l.Heads)
}

// Attend lets rows [batch, L, H] read keys and values in the named attention and ends the sublayer: [batch, L, H]. The
// mask is that of nn.Attention.
func (l Layer) Attend(attention string, rows *Node, kv nn.KV, mask *Node) *Node {
	mixed := nn.Attention(l.Queries(attention, rows), kv.K, kv.V, mask, l.RNG, l.Dropout)
	return l.Mixed(attention, mixed, rows)
}

// Mixed ends the named attention's sublayer: x [batch, L, H] are the values that rows [batch, L, H] have read.
func (l Layer) Mixed(attention string, x, rows *Node) *Node {
	return l.output(l.Scope.At("%s", attention).At("output"), x, rows)
}

// FeedForward is LN(x + W₂·gelu(W₁·x)) for x [batch, L, H]. The suffix chooses between networks: the Q-Former has one
// for queries ("_query") beside BERT's ("").
func (l Layer) FeedForward(suffix string, x *Node) *Node {
	h := nn.GELU.Apply(nn.Linear(l.Scope.At("%s", "intermediate"+suffix).At("dense"), x))
	return l.output(l.Scope.At("%s", "output"+suffix), h, x)
}

// output is LN(residual + dropout(dense(x))), the end of every sublayer.
func (l Layer) output(scope *model.Scope, x, residual *Node) *Node {
	x = l.RNG.Dropout(nn.Linear(scope.At("dense"), x), l.Dropout)
	return nn.LayerNorm(scope.At("LayerNorm"), Add(x, residual), l.LayerNormEps)
}

// LMLogits applies the LM head to rows [..., H]: logits [..., vocab] in float32. The scopes are those of the head
// ("cls.predictions") and of the embeddings, whose word table is the decoder.
func (c Config) LMLogits(head, embeddings *model.Scope, hidden *Node) *Node {
	transform := head.At("transform")
	h := nn.GELU.Apply(nn.Linear(transform.At("dense"), hidden))
	h = nn.LayerNorm(transform.At("LayerNorm"), h, c.LayerNormEps)
	logits := nn.Float32(nn.Project(h, nn.Weight(embeddings.At("word_embeddings"), "weight", h)))
	return nn.AddBias(logits, nn.Weight(head, "bias", logits))
}
