package stage2

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/t5"
)

// Batch is one batch at graph-building time. Masks are 1 at tokens and 0 at padding, which stands on the right.
type Batch struct {
	Pixels    *Node // [B, 3, S, S], normalised
	IDs, Mask *Node // [B, L]: OPT's texts, </s> first and the newline last; T5's prefixes, </s> last
	// OutputIDs and OutputMask [B, Lo] are what T5's decoder learns to write, </s> last; nil with OPT.
	OutputIDs, OutputMask *Node
}

// Outputs are the loss of a batch and what led to it.
type Outputs struct {
	Queries *Node // [B, Q, D] projected query outputs
	Encoded *Node // [B, Q+L, D] of T5's encoder; nil with OPT
	Labels  *Node // OPT [B, Q+L], T5 [B, Lo] int32: what is learned, nn.IgnoredLabel where nothing is
	Hidden  *Node // OPT [B, Q+L, D], T5 [B, Lo, D]: what the LM head reads
	Loss    *Node // scalar, float32
}

// Forward computes the loss of a batch: OPT goes on from the queries and learns the text (language modelling); T5's
// encoder reads queries and prefix, and its decoder learns the suffix (prefix language modelling; spec/stage2.md 3 and
// 4). Gradients flow through the language model to the queries. rng nil means no dropout.
func Forward(scope *model.Scope, cfg Config, b Batch, rng *nn.RNG) *Outputs {
	return read(scope, cfg, b, queryEmbeds(scope, cfg, b.Pixels, rng), rng)
}

// read is Forward behind the Q-Former: the language model reads queries [B, Q, D]. Pixels are not used.
func read(scope *model.Scope, cfg Config, b Batch, queries *Node, rng *nn.RNG) *Outputs {
	o := &Outputs{Queries: queries}
	embeds, mask := Prefix(scope, cfg, queries, b.IDs, b.Mask)
	llm, positions := cfg.llm(scope), cfg.lossPositions(b.IDs.Shape().Dimensions[0])
	if cfg.OPT != nil {
		o.Hidden = opt.Forward(llm, *cfg.OPT, opt.Input{Embeds: embeds, Mask: mask}, rng).Hidden
		o.Labels = textLabels(b.IDs, b.Mask, cfg.PromptLength, cfg.QFormer.Queries)
		// Every token of the text is learned one position before it, the first by the last query; nothing else needs logits.
		first := cfg.QFormer.Queries
		x, w := opt.Head(llm, *cfg.OPT, SliceAxis(o.Hidden, 1, AxisRange(first-1, -1)))
		o.Loss = nn.HeadLoss(x, w, SliceAxis(o.Labels, 1, AxisRangeToEnd(first)), positions)
		return o
	}
	o.Encoded = t5.Encode(llm, *cfg.T5, embeds, mask, rng)
	o.Labels = learned(b.OutputIDs, b.OutputMask)
	o.Hidden = t5.Decode(llm, *cfg.T5, t5.Input{
		Embeds: t5.Embed(llm, t5.DecoderIDs(o.Labels), embeds.DType()), Mask: b.OutputMask,
		Cross: t5.NewCross(llm, *cfg.T5, o.Encoded, mask),
	}, rng).Hidden
	o.Loss = nn.HeadLoss(o.Hidden, t5.Head(llm, o.Hidden), o.Labels, positions)
	return o
}

// Logits returns the logits of the token behind every position, OPT [B, Q+L, V], T5 [B, Lo, V] in float32. The loss
// needs no more than a part of them at a time.
func (o *Outputs) Logits(scope *model.Scope, cfg Config) *Node {
	if cfg.OPT != nil {
		return opt.Logits(cfg.llm(scope), *cfg.OPT, o.Hidden)
	}
	return t5.Logits(cfg.llm(scope), *cfg.T5, o.Hidden)
}

// learned replaces the ids [B, L] of padding by nn.IgnoredLabel.
func learned(ids, mask *Node) *Node {
	ids = nn.Cast(ids, dtypes.Int32)
	return Where(ConvertDType(mask, dtypes.Bool), ids, ignored(ids.Graph(), ids.Shape().Dimensions...))
}

// textLabels are the labels of OPT [B, queries+L]: nothing is learned from the queries, from padding, and from the
// first prompt tokens of the texts.
func textLabels(ids, mask *Node, prompt, queries int) *Node {
	g, dims := ids.Graph(), ids.Shape().Dimensions
	labels := learned(ids, mask)
	column := Iota(g, shapes.Make(dtypes.Int32, dims...), 1)
	labels = Where(LessThan(column, Scalar(g, dtypes.Int32, prompt)), ignored(g, dims...), labels)
	return Concatenate([]*Node{ignored(g, dims[0], queries), labels}, 1)
}

func ignored(g *Graph, dims ...int) *Node {
	return BroadcastToDims(Scalar(g, dtypes.Int32, nn.IgnoredLabel), dims...)
}
