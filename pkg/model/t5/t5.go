// Package t5 is Flan-T5, the encoder–decoder language model of BLIP-2 (spec/model.md 7; Chung et al., 2022), as Hugging
// Face's T5ForConditionalGeneration computes it: gated feed-forward networks, relative positions, an untied LM head.
//
// The encoder works on embeddings, so that a visual prefix stands in front of the text like ordinary tokens (paper
// section 3.2). The decoder reads the encoder through Cross, made once per encoder output, and serves training, and
// generation with a cache of fixed size:
//
//	training     Input{Embeds, Mask, Cross}
//	prefill      Input{Embeds, Cross, Room}           gives a Cache
//	step         Input{Embeds, Cross, Cache}          gives the next Cache
package t5

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// StartID is the id with which every decoder input starts; it is also T5's padding.
const StartID = 0

// Embed looks up token ids [batch, L], of the encoder or the decoder, and returns their embeddings [batch, L, D] in the
// given compute type. The scope is the model's root, as in all functions of this package.
func Embed(scope *model.Scope, ids *Node, dtype dtypes.DType) *Node {
	return nn.Embed(scope.At("shared"), ids, dtype)
}

// Encode runs the encoder on embeddings [batch, L, D], whose dtype is the compute type: [batch, L, D]. mask [batch, L],
// integers, is 1 at tokens and 0 at padding, where the result means nothing. rng nil means no dropout.
func Encode(scope *model.Scope, cfg Config, embeds, mask *Node, rng *nn.RNG) *Node {
	embeds.AssertDims(-1, -1, cfg.Hidden)
	mask.AssertDims(embeds.Shape().Dimensions[:2]...)
	encoder := stack{scope: scope.At("encoder"), cfg: cfg, compute: embeds.DType(), rng: rng}
	scores := withBias(paddingMask(mask), encoder.bias(true, nn.NewSpan(mask).Positions))
	return encoder.run(embeds, cfg.EncoderLayers, func(b block, _ int, x *Node) *Node {
		x = b.selfAttention(x, scores, func(kv nn.KV) nn.KV { return kv })
		return b.feedForward("1", x)
	})
}

// Cross is what a decoder reads of encoded sequences.
type Cross struct {
	// KV are the keys and values of every decoder block's cross-attention, [batch, heads, L, HeadDim].
	KV []nn.KV
	// Mask is 1 at tokens and 0 at padding, [batch, L].
	Mask *Node
}

// NewCross projects the encoder's output [batch, L, D], with its mask [batch, L], for every block of the decoder.
func NewCross(scope *model.Scope, cfg Config, encoded, mask *Node) *Cross {
	encoded.AssertDims(-1, -1, cfg.Hidden)
	mask.AssertDims(encoded.Shape().Dimensions[0], encoded.Shape().Dimensions[1])
	c := &Cross{Mask: mask, KV: make([]nn.KV, cfg.DecoderLayers)}
	for i := range c.KV {
		attention := scope.At("decoder").At("block").At("%d", i).At("layer").At("1").At("EncDecAttention")
		c.KV[i] = keysValues(attention, cfg, encoded)
	}
	return c
}

// Nodes lists what the cross-attention's source consists of, to hand it from one program to the next; CrossOf puts it
// together again.
func (c *Cross) Nodes() []*Node {
	nodes := []*Node{c.Mask}
	for _, kv := range c.KV {
		nodes = append(nodes, kv.K, kv.V)
	}
	return nodes
}

// CrossOf is the inverse of Cross.Nodes.
func CrossOf(nodes []*Node) *Cross {
	c := &Cross{Mask: nodes[0]}
	for i := 1; i < len(nodes); i += 2 {
		c.KV = append(c.KV, nn.KV{K: nodes[i], V: nodes[i+1]})
	}
	return c
}

// Input is what one pass of the decoder works on.
type Input struct {
	// Embeds are the embeddings of the tokens [batch, L, D]; their dtype is the compute type. With a Cache they are one
	// token of every text, [rows, texts, D].
	Embeds *Node
	// Mask [batch, L], integers, is 1 at tokens and 0 at padding; nil means that there is no padding.
	Mask *Node
	// Cross is the encoder's output, of as many sequences as Embeds has rows.
	Cross *Cross
	// Cache holds what is in front of the tokens; nil if nothing is.
	Cache *nn.Cache
	// Room is that of the cache that a pass without Cache is to make.
	Room nn.Room
}

// Output is the result of one pass of the decoder.
type Output struct {
	// Hidden are the states [batch, L, D] that the head reads. At padding they mean nothing.
	Hidden *Node
	// Cache holds everything up to the tokens of this pass; nil unless Input asks for it.
	Cache *nn.Cache
}

// Decode runs the decoder. rng nil means no dropout.
func Decode(scope *model.Scope, cfg Config, in Input, rng *nn.RNG) *Output {
	in.Embeds.AssertDims(in.Cross.Mask.Shape().Dimensions[0], -1, cfg.Hidden)
	decoder := stack{scope: scope.At("decoder"), cfg: cfg, compute: in.Embeds.DType(), rng: rng}
	span := in.span()
	self := withBias(span.Mask(), decoder.bias(false, span.Positions))
	cross := paddingMask(in.Cross.Mask)
	kv := make([]nn.KV, cfg.DecoderLayers)
	x := decoder.run(in.Embeds, cfg.DecoderLayers, func(b block, i int, x *Node) *Node {
		x = b.selfAttention(x, self, func(fresh nn.KV) nn.KV {
			kv[i] = span.Join(i, fresh)
			return kv[i]
		})
		x = b.crossAttention(x, in.Cross.KV[i], cross)
		return b.feedForward("2", x)
	})
	return &Output{Hidden: x, Cache: span.Cache(kv, in.Room)}
}

// span is where the tokens stand.
func (in Input) span() *nn.Span {
	if in.Cache != nil {
		return in.Cache.Next()
	}
	dims := in.Embeds.Shape().Dimensions[:2]
	if in.Mask == nil {
		in.Mask = Ones(in.Embeds.Graph(), shapes.Make(dtypes.Int32, dims...))
	}
	in.Mask.AssertDims(dims...)
	return nn.NewSpan(in.Mask)
}

// paddingMask hides padding: mask [batch, L] becomes scores [batch, 1, 1, L].
func paddingMask(mask *Node) *Node { return InsertAxes(nn.BarringMask(mask), 1, 1) }

// withBias adds position biases [1, heads, 1|rows, columns] to a mask [batch, 1, 1|rows, columns].
func withBias(mask, bias *Node) *Node {
	m, b := mask.Shape().Dimensions, bias.Shape().Dimensions
	dims := []int{m[0], b[1], max(m[2], b[2]), m[3]}
	return Add(BroadcastToDims(mask, dims...), BroadcastToDims(bias, dims...))
}

// Logits applies the LM head to the decoder's hidden states [..., D]: [..., Vocab] in float32.
func Logits(scope *model.Scope, cfg Config, hidden *Node) *Node {
	logits := nn.Float32(nn.Project(hidden, Head(scope, hidden)))
	logits.AssertDims(append(append([]int{}, hidden.Shape().Dimensions[:hidden.Rank()-1]...), cfg.Vocab)...)
	return logits
}

// Head returns the LM head [Vocab, D] in the type of the hidden states.
func Head(scope *model.Scope, hidden *Node) *Node {
	return nn.Weight(scope.At("lm_head"), "weight", hidden)
}

// DecoderIDs makes the decoder's input of labels [batch, L]: StartID, then all labels but the last, with StartID in
// place of nn.IgnoredLabel.
func DecoderIDs(labels *Node) *Node {
	dims := labels.Shape().Dimensions
	start := Scalar(labels.Graph(), labels.DType(), StartID)
	first := BroadcastToDims(start, dims[0], 1)
	ids := Concatenate([]*Node{first, SliceAxis(labels, 1, AxisRangeFromStart(-1))}, 1)
	ignored := Equal(ids, Scalar(labels.Graph(), labels.DType(), nn.IgnoredLabel))
	return Where(ignored, BroadcastToDims(start, dims...), ids)
}

// Loss is the mean cross entropy of logits [batch, L, Vocab] against labels [batch, L], without those that are
// nn.IgnoredLabel (spec/stage2.md 4).
func Loss(logits, labels *Node) *Node { return nn.TokenLoss(logits, labels) }
