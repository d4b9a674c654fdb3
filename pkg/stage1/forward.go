package stage1

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
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
//
// A loss of weight 0 is 0, and what only it needs is not computed and nil.
func Forward(scope *model.Scope, cfg Config, b Batch, rng *nn.RNG) *Outputs {
	o := noLosses(cfg, b.Pixels.Graph())
	image := readPictures(scope, cfg, o, encode(scope, cfg, b.Pixels), rng)
	if cfg.contrasts() {
		project(scope, cfg, o, b, rng)
		positives := positivePairs(b, o.TextFeat)
		contrast(scope, cfg, o, positives)
		if cfg.ITMWeight > 0 {
			mine(cfg, o, b, positives, rng)
			match(scope, cfg, o, b, image.cross, rng)
		}
	}
	if cfg.ITGWeight > 0 {
		generateText(scope, cfg, o, b, image.selfKV, rng)
	}
	o.Replicas.Sum = cfg.total(o.Replicas.ITC, o.Replicas.ITM, o.Replicas.LM)
	o.Loss = ReduceAllMean(o.Replicas.Sum)
	return o
}

// noLosses is where all losses are 0.
func noLosses(cfg Config, g *Graph) *Outputs {
	zero := ScalarZero(g, dtypes.Float32)
	zeros := Zeros(g, shapes.Make(dtypes.Float32, cfg.replicas()))
	return &Outputs{LossITC: zero, LossITM: zero, LossLM: zero, Replicas: Losses{ITC: zeros, ITM: zeros, LM: zeros}}
}

// terms are the losses in the order in which a step reports them.
func (o *Outputs) terms() []*Node { return []*Node{o.LossITC, o.LossITM, o.LossLM} }

// total is the weighted sum of the losses, of any equal shape.
func (c Config) total(itc, itm, lm *Node) *Node {
	return Add(Add(MulScalar(itc, c.ITCWeight), MulScalar(itm, c.ITMWeight)), MulScalar(lm, c.ITGWeight))
}

// contrasts says whether pictures and texts are compared: for ITC, or to draw ITM's negatives.
func (c Config) contrasts() bool { return c.ITCWeight > 0 || c.ITMWeight > 0 }

// pictures is what the passes of a step share of the pictures.
type pictures struct {
	cross  *qformer.Cross
	selfKV []qformer.KV
}

// readPictures runs features [B, N, W], as encode gives them, through ln_vision and the image pass.
func readPictures(scope *model.Scope, cfg Config, o *Outputs, encoded *Node, rng *nn.RNG) pictures {
	o.ImageEmbeds = nn.LayerNorm(scope.At("ln_vision"), encoded, cfg.LNVisionEps)
	cross := qformer.NewCross(scope, cfg.QFormer, o.ImageEmbeds)
	batch := encoded.Shape().Dimensions[0]
	queries := qformer.Queries(scope, cfg.QFormer, encoded.Graph(), batch, cfg.compute())
	image := qformer.Forward(scope, cfg.QFormer, qformer.Input{Queries: queries, Cross: cross}, rng)
	o.QueryHidden = image.Hidden
	return pictures{cross: cross, selfKV: image.SelfKV}
}

// project fills in the features of pictures and texts, whose pass it runs.
func project(scope *model.Scope, cfg Config, o *Outputs, b Batch, rng *nn.RNG) {
	o.ImageFeats = nn.UnitNorm(nn.Float32(nn.Linear(scope.At("vision_proj"), o.QueryHidden)))
	o.TextCLSHidden = textCLS(scope, cfg, b.TextIDs, b.TextMask, rng)
	o.TextFeat = nn.UnitNorm(nn.Float32(nn.Linear(scope.At("text_proj"), o.TextCLSHidden)))
}

// EncodeImages is ln_vision(ViT(pixels)): [B, 3, S, S] → [B, N, W] in the compute type. A frozen encoder passes no
// gradient; ln_vision is always trained.
func EncodeImages(scope *model.Scope, cfg Config, pixels *Node) *Node {
	return nn.LayerNorm(scope.At("ln_vision"), encode(scope, cfg, pixels), cfg.LNVisionEps)
}

// encode is the image encoder alone.
func encode(scope *model.Scope, cfg Config, pixels *Node) *Node {
	encoder := cfg.Vision
	encoder.Remat = encoder.Remat && !cfg.FreezeVision
	features := vit.Forward(scope.At("visual_encoder"), encoder, nn.Cast(pixels, cfg.compute()))
	if cfg.FreezeVision {
		features = StopGradient(features)
	}
	return features
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
	all := []*Node{o.ImageFeats, o.TextFeat}
	o.SimI2T, o.SimT2I = scaledSimilarities(scope, cfg, all, all)
	if cfg.ITCWeight > 0 {
		i2t, t2i := contrastRows(cfg, o.SimI2T, o.SimT2I, positives)
		o.Replicas.ITC = MulScalar(Add(ReduceMean(byReplica(i2t, cfg), -1), ReduceMean(byReplica(t2i, cfg), -1)), 0.5)
		o.LossITC = ReduceAllMean(o.Replicas.ITC)
	}
}

// scaledSimilarities compares rows of a batch with all of it: features of pictures [·, Q, E] and texts [·, E], of B own
// rows and of all G. Both results are [B, G], cosines divided by the temperature: own pictures with all texts, own
// texts with all pictures.
func scaledSimilarities(scope *model.Scope, cfg Config, own, all []*Node) (i2t, t2i *Node) {
	temp := scope.GetVariable("temp").NodeValue(own[1].Graph())
	images, texts := all[0], all[1]
	if !cfg.ITCGatherGrad {
		// In the reference's data-parallel form gathered features carry no gradient: image→text then trains the
		// pictures' side alone, text→image the texts' side.
		images, texts = StopGradient(images), StopGradient(texts)
	}
	return Div(Similarity(own[0], texts), temp), Div(Transpose(Similarity(images, own[1]), 0, 1), temp)
}

// contrastRows is the cross entropy of every row of the similarities, in both directions: [B] each.
func contrastRows(cfg Config, i2t, t2i, positives *Node) (lossI2T, lossT2I *Node) {
	target := softTarget(positives, cfg.LabelSmoothing)
	return nn.SoftCrossEntropy(i2t, target), nn.SoftCrossEntropy(t2i, target)
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

// match fills in the ITM pass over 3·B pairs and L_itm (spec/stage1.md 5), with the negatives of o.
func match(scope *model.Scope, cfg Config, o *Outputs, b Batch, cross *qformer.Cross, rng *nn.RNG) {
	negatives := InsertAxes(o.NegText, -1)
	texts := Batch{TextIDs: Gather(b.TextIDs, negatives), TextMask: Gather(b.TextMask, negatives)}
	hidden, logits, loss := matchPairs(scope, cfg, b, texts, cross.WithNegatives(o.NegImage), rng)
	o.ITMQueryHidden, o.ITMLogits = byGroup(hidden, cfg), byGroup(logits, cfg)
	o.Replicas.ITM = ReduceMean(byReplica(loss, cfg), -1)
	o.LossITM = ReduceAllMean(o.Replicas.ITM)
}

// matchPairs is the ITM pass over the own pairs, the own texts with their negative pictures, and the own pictures with
// their negative texts: hidden states [3B, Q, H], logits [3B, 2] and losses [3B]. The three pairs of a row of the batch
// stand together, so that many devices share the pairs as they share the batch, and none has to move.
func matchPairs(scope *model.Scope, cfg Config, b, negatives Batch, cross *qformer.Cross, rng *nn.RNG) (
	hidden, logits, loss *Node) {
	batch, length := b.TextIDs.Shape().Dimensions[0], b.TextIDs.Shape().Dimensions[1]
	three := func(own, negative *Node) *Node {
		return Reshape(Stack([]*Node{own, own, negative}, 1), 3*batch, length)
	}
	hidden, logits = matchPass(scope, cfg, three(b.TextIDs, negatives.TextIDs),
		three(b.TextMask, negatives.TextMask), cross, rng)
	isMatch := Equal(Iota(logits.Graph(), shapeInt32(batch, 3), 1), ScalarZero(logits.Graph(), dtypes.Int32))
	return hidden, logits, nn.SmoothedCrossEntropy(logits, Reshape(nn.Cast(isMatch, dtypes.Int32), -1), 0)
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

// generateText fills in the ITG pass and L_itg (spec/stage1.md 6).
func generateText(scope *model.Scope, cfg Config, o *Outputs, b Batch, past []qformer.KV, rng *nn.RNG) {
	loss := captionLosses(scope, cfg, o, b, past, rng)
	_, counted := captionLabels(cfg, b.TextIDs)
	o.Replicas.LM = Div(ReduceSum(byReplica(loss, cfg), -1), ReduceSum(byReplica(counted, cfg), -1))
	o.LossLM = ReduceAllMean(o.Replicas.LM)
}

// captionLosses fills in the logits of the ITG pass and returns the loss of every token that is predicted, 0 at
// padding: [B·(L−1)]. The queries' cached keys and values stand for the image pass, which the queries' rows of the full
// mask would only repeat. The last position predicts nothing and is seen by no other row: it is left out.
func captionLosses(scope *model.Scope, cfg Config, o *Outputs, b Batch, past []qformer.KV, rng *nn.RNG) *Node {
	length := b.TextIDs.Shape().Dimensions[1] - 1
	ids := SliceAxis(DecoderIDs(b.TextIDs, cfg.BOSID), 1, AxisRangeFromStart(length))
	mask := SliceAxis(b.TextMask, 1, AxisRangeFromStart(length))
	o.LMLogits = captionLogits(scope, cfg, ids, mask, past, rng)
	labels, counted := captionLabels(cfg, b.TextIDs)
	loss := nn.SmoothedCrossEntropy(Reshape(o.LMLogits, -1, cfg.QFormer.Vocab), labels, cfg.LabelSmoothing)
	return Mul(loss, counted)
}

// captionLabels are the tokens that ITG predicts, [B·(L−1)], and 1 where they are no padding, in float32.
func captionLabels(cfg Config, ids *Node) (labels, counted *Node) {
	labels = Reshape(SliceAxis(ids, 1, AxisRangeToEnd(1)), -1)
	return labels, nn.Float32(NotEqual(labels, Scalar(labels.Graph(), labels.DType(), cfg.PadID)))
}

// DecoderIDs replaces the first token of every text by [DEC]: ids [B, L] → [B, L].
func DecoderIDs(ids *Node, bos int) *Node {
	first := Equal(Iota(ids.Graph(), ids.Shape(), 1), ScalarZero(ids.Graph(), ids.DType()))
	return Where(first, BroadcastToShape(Scalar(ids.Graph(), ids.DType(), bos), ids.Shape()), ids)
}
