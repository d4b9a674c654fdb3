package stage1

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
)

// Batch is one batch at graph-building time.
type Batch struct {
	Pixels   *Node // [B, 3, S, S], normalised
	TextIDs  *Node // [B, L] integers: [CLS] words [SEP] padding
	TextMask *Node // [B, L]: 1 at tokens, 0 at padding
	ImageID  *Node // [B], or nil: equal ids are positives of each other
	NegImage *Node // [B], or nil to draw: the negative picture of text b
	NegText  *Node // [B], or nil to draw: the negative text of picture b
}

// Outputs are the losses of a batch and what led to them.
type Outputs struct {
	ImageEmbeds            *Node // [B, N, W] image features after ln_vision
	QueryHidden            *Node // [B, Q, H] of the image pass
	TextCLSHidden          *Node // [B, H] of the text pass
	ImageFeats             *Node // [B, Q, E] unit length
	TextFeat               *Node // [B, E] unit length
	SimI2T, SimT2I         *Node // [B, B] cosine divided by temperature
	WeightsI2T, WeightsT2I *Node // [B, B] sampling weights of hard negatives, 0 at positives
	NegImage, NegText      *Node // [B] the negatives used
	ITMQueryHidden         *Node // [3B, Q, H]; rows as in ITMLogits
	ITMLogits              *Node // [3B, 2]; rows of each replica: own pairs, negative pictures, negative texts
	LMLogits               *Node // [B, L−1, V]: position i predicts token i+1

	LossITC, LossITM, LossLM, Loss *Node // scalars, float32: the means of what follows
	Replicas                       Losses
}

// Losses are the losses of every replica, each over its own rows: [R] float32.
type Losses struct{ ITC, ITM, LM, Sum *Node }

// Forward computes the three losses of a batch; negatives that the batch does not bring are drawn with rng. A nil
// rng means no dropout, and then the batch must bring its negatives.
func Forward(scope *model.Scope, cfg Config, b Batch, rng *nn.RNG) *Outputs {
	o := &Outputs{}
	o.ImageEmbeds = EncodeImages(scope, cfg, b.Pixels)
	cross := qformer.NewCross(scope, cfg.QFormer, o.ImageEmbeds)
	batch := b.Pixels.Shape().Dimensions[0]
	queries := qformer.Queries(scope, cfg.QFormer, b.Pixels.Graph(), batch, cfg.compute())

	image := qformer.Forward(scope, cfg.QFormer, qformer.Input{Queries: queries, Cross: cross}, rng)
	o.QueryHidden = image.Hidden
	o.ImageFeats = nn.UnitNorm(nn.Float32(nn.Linear(scope.At("vision_proj"), o.QueryHidden)))

	o.TextCLSHidden = textCLS(scope, cfg, b.TextIDs, b.TextMask, rng)
	o.TextFeat = nn.UnitNorm(nn.Float32(nn.Linear(scope.At("text_proj"), o.TextCLSHidden)))

	positives := positivePairs(b, o.TextFeat)
	contrast(scope, cfg, o, positives)
	mine(cfg, o, b, positives, rng)
	match(scope, cfg, o, b, cross, rng)
	generateText(scope, cfg, o, b, image.SelfKV, rng)

	r := &o.Replicas
	r.Sum = Add(Add(MulScalar(r.ITC, cfg.ITCWeight), MulScalar(r.ITM, cfg.ITMWeight)), MulScalar(r.LM, cfg.ITGWeight))
	o.Loss = ReduceAllMean(r.Sum)
	return o
}

// EncodeImages is ln_vision(ViT(pixels)): [B, 3, S, S] → [B, N, W] in the compute type. A frozen encoder passes no
// gradient; ln_vision is always trained.
func EncodeImages(scope *model.Scope, cfg Config, pixels *Node) *Node {
	features := vit.Forward(scope.At("visual_encoder"), cfg.Vision, nn.Cast(pixels, cfg.compute()))
	if cfg.FreezeVision {
		features = StopGradient(features)
	}
	return nn.LayerNorm(scope.At("ln_vision"), features, cfg.LNVisionEps)
}

func (c Config) compute() dtypes.DType {
	if c.Compute == dtypes.InvalidDType {
		return dtypes.Float32
	}
	return c.Compute
}

// textPass is the text alone: its last hidden states [B, L, H].
func textPass(scope *model.Scope, cfg Config, ids, mask *Node, rng *nn.RNG) *Node {
	return qformer.Forward(scope, cfg.QFormer, qformer.Input{
		TextIDs: ids, DType: cfg.compute(), Mask: nn.PaddingMask(mask),
	}, rng).Hidden
}

// textCLS is the last hidden state of [CLS] in the text pass, [B, H].
func textCLS(scope *model.Scope, cfg Config, ids, mask *Node, rng *nn.RNG) *Node {
	return Squeeze(SliceAxis(textPass(scope, cfg, ids, mask, rng), 1, AxisElem(0)), 1)
}

// contrast fills in the similarities and L_itc (spec/stage1.md 4).
func contrast(scope *model.Scope, cfg Config, o *Outputs, positives *Node) {
	temp := scope.GetVariable("temp").NodeValue(o.TextFeat.Graph())
	allImages, allTexts := o.ImageFeats, o.TextFeat
	if !cfg.ITCGatherGrad {
		// In the reference's data-parallel form gathered features carry no gradient: image→text then trains the
		// pictures' side alone, text→image the texts' side.
		allImages, allTexts = StopGradient(allImages), StopGradient(allTexts)
	}
	o.SimI2T = Div(Similarity(o.ImageFeats, allTexts), temp)
	o.SimT2I = Div(Transpose(Similarity(allImages, o.TextFeat), 0, 1), temp)
	target := softTarget(positives, cfg.LabelSmoothing)
	i2t := byReplica(nn.SoftCrossEntropy(o.SimI2T, target), cfg)
	t2i := byReplica(nn.SoftCrossEntropy(o.SimT2I, target), cfg)
	o.Replicas.ITC = MulScalar(Add(ReduceMean(i2t, -1), ReduceMean(t2i, -1)), 0.5)
	o.LossITC = ReduceAllMean(o.Replicas.ITC)
}

// byReplica gives every replica its part of the values [n]: [R, n/R].
func byReplica(values *Node, cfg Config) *Node { return Reshape(values, cfg.replicas(), -1) }

// Similarity is the largest cosine of a text with any of a picture's queries: images [I, Q, E] and texts [T, E], all
// of unit length, give [I, T].
func Similarity(images, texts *Node) *Node {
	return ReduceMax(Einsum("iqe,te->iqt", images, texts), 1)
}

// positivePairs marks the pairs (row, column) that belong together, [B, B] float32: equal image ids, or the diagonal.
func positivePairs(b Batch, like *Node) *Node {
	n := like.Shape().Dimensions[0]
	if b.ImageID == nil {
		return nn.Float32(Diagonal(like.Graph(), n))
	}
	rows := BroadcastToDims(Reshape(b.ImageID, n, 1), n, n)
	columns := BroadcastToDims(Reshape(b.ImageID, 1, n), n, n)
	return nn.Float32(Equal(rows, columns))
}

// softTarget is (1−ε)·positive/n_positive + ε/G for every pair, [B, G].
func softTarget(positives *Node, smoothing float64) *Node {
	g := float64(positives.Shape().Dimensions[1])
	share := Div(positives, ReduceAndKeep(positives, ReduceSum, -1))
	return AddScalar(MulScalar(share, 1-smoothing), smoothing/g)
}

// MatchClass is the class of a pair that belongs together among the two of ITM.
const MatchClass = 1

// match fills in the ITM pass over 3·B pairs and L_itm (spec/stage1.md 5). The three pairs of a row of the batch stand
// together, so that many devices share the pairs as they share the batch, and none has to move.
func match(scope *model.Scope, cfg Config, o *Outputs, b Batch, cross *qformer.Cross, rng *nn.RNG) {
	batch, length := b.TextIDs.Shape().Dimensions[0], b.TextIDs.Shape().Dimensions[1]
	three := func(x *Node) *Node {
		return Reshape(Stack([]*Node{x, x, Gather(x, InsertAxes(o.NegText, -1))}, 1), 3*batch, length)
	}
	hidden, logits := matchPass(scope, cfg, three(b.TextIDs), three(b.TextMask), cross.WithNegatives(o.NegImage), rng)
	o.ITMQueryHidden, o.ITMLogits = byGroup(hidden, cfg), byGroup(logits, cfg)

	isMatch := Equal(Iota(logits.Graph(), shapeInt32(batch, 3), 1), ScalarZero(logits.Graph(), dtypes.Int32))
	loss := nn.SmoothedCrossEntropy(logits, Reshape(nn.Cast(isMatch, dtypes.Int32), -1), 0)
	o.Replicas.ITM = ReduceMean(byReplica(loss, cfg), -1)
	o.LossITM = ReduceAllMean(o.Replicas.ITM)
}

// byGroup sorts the rows of x [3B, ...] as the reference has them: of every replica first the own pairs, then those
// with a negative picture, then those with a negative text.
func byGroup(x *Node, cfg Config) *Node {
	dims := x.Shape().Dimensions
	pairs := Reshape(x, cfg.replicas(), dims[0]/3/cfg.replicas(), 3, -1)
	return Reshape(TransposeAllAxes(pairs, 0, 2, 1, 3), dims...)
}

// matchPass runs queries and texts together and scores each pair: the queries' hidden states [rows, Q, H] and the
// logits [rows, 2] in float32, averaged over the queries; class 1 is a match.
func matchPass(scope *model.Scope, cfg Config, ids, mask *Node, cross *qformer.Cross, rng *nn.RNG) (
	hidden, logits *Node) {
	queries := qformer.Queries(scope, cfg.QFormer, ids.Graph(), ids.Shape().Dimensions[0], cfg.compute())
	out := qformer.Forward(scope, cfg.QFormer, qformer.Input{
		Queries: queries, TextIDs: ids, Cross: cross, QueriesOnly: true,
		Mask: qformer.MultimodalMask(mask, cfg.QFormer.Queries),
	}, rng)
	logits = nn.Float32(nn.Linear(scope.At("itm_head"), out.Hidden))
	return out.Hidden, ReduceMean(logits, 1)
}

// generateText fills in the ITG pass and L_itg (spec/stage1.md 6). The queries' cached keys and values stand for the
// image pass, which the queries' rows of the full mask would only repeat. The last position predicts nothing and is
// seen by no other row: it is left out.
func generateText(scope *model.Scope, cfg Config, o *Outputs, b Batch, past []qformer.KV, rng *nn.RNG) {
	length := b.TextIDs.Shape().Dimensions[1] - 1
	ids := SliceAxis(DecoderIDs(b.TextIDs, cfg.BOSID), 1, AxisRangeFromStart(length))
	mask := SliceAxis(b.TextMask, 1, AxisRangeFromStart(length))
	o.LMLogits = captionLogits(scope, cfg, ids, mask, past, rng)

	labels := Reshape(SliceAxis(b.TextIDs, 1, AxisRangeToEnd(1)), -1)
	counted := nn.Float32(NotEqual(labels, Scalar(labels.Graph(), labels.DType(), cfg.PadID)))
	loss := nn.SmoothedCrossEntropy(Reshape(o.LMLogits, -1, cfg.QFormer.Vocab), labels, cfg.LabelSmoothing)
	o.Replicas.LM = Div(ReduceSum(byReplica(Mul(loss, counted), cfg), -1), ReduceSum(byReplica(counted, cfg), -1))
	o.LossLM = ReduceAllMean(o.Replicas.LM)
}

// DecoderIDs replaces the first token of every text by [DEC]: ids [B, L] → [B, L].
func DecoderIDs(ids *Node, bos int) *Node {
	first := Equal(Iota(ids.Graph(), ids.Shape(), 1), ScalarZero(ids.Graph(), ids.DType()))
	return Where(first, BroadcastToShape(Scalar(ids.Graph(), ids.DType(), bos), ids.Shape()), ids)
}
