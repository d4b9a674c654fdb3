package stage1

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
	"blip2/pkg/trainer"
)

// Places of a batch's tensors, as BatchTensors and BatchInputs arrange them.
const (
	inPixels = iota
	inTextIDs
	inTextMask
	inImageIDs // only with Config.ImageIDs
)

// batchTensors is how many there are.
func (c Config) batchTensors() int {
	if c.ImageIDs {
		return inImageIDs + 1
	}
	return inImageIDs
}

// batchOf arranges the nodes of a batch.
func batchOf(cfg Config, in []*Node) Batch {
	b := Batch{Pixels: in[inPixels], TextIDs: in[inTextIDs], TextMask: in[inTextMask]}
	if cfg.ImageIDs {
		b.ImageID = in[inImageIDs]
	}
	return b
}

// Numbers of what a micro-batch picks of the whole batch.
const (
	pickImage = iota
	pickText
)

// Places of what the last pass is given: a micro-batch's own rows and, with ITM, its negatives.
const (
	ownPicture = iota
	ownIDs
	ownMask
	otherPicture
	otherIDs
	otherMask
)

// coupled is the three losses in the form of gradient caching (trainer.Coupled): ITC and the draw of hard negatives see
// the whole batch, the device a micro-batch and its negatives. Losses and gradients are those of Forward on the whole
// batch.
//
// A frozen encoder runs once: its features are kept, and those of the negatives taken from them. A trained one runs
// again in the last pass, on the own and the negative pictures.
func coupled(cfg Config) *trainer.Coupled {
	picture := inPixels
	if cfg.FreezeVision {
		picture = cfg.batchTensors() // the first tensor that is kept
	}
	c := &trainer.Coupled{
		Gathered: cfg.ITCGatherGrad && cfg.ITCWeight > 0,
		Whole:    []int{inTextIDs},
		Inputs: []trainer.Source{{Tensor: picture, Pick: trainer.OwnRows},
			{Tensor: inTextIDs, Pick: trainer.OwnRows}, {Tensor: inTextMask, Pick: trainer.OwnRows}},
		Features: func(scope *model.Scope, batch []*Node, rng *nn.RNG) (features, kept []*Node) {
			o, b := &Outputs{}, batchOf(cfg, batch)
			encoded := encode(scope, cfg, b.Pixels)
			readPictures(scope, cfg, o, encoded, rng)
			project(scope, cfg, o, b, rng)
			if cfg.FreezeVision {
				kept = []*Node{encoded}
			}
			return []*Node{o.ImageFeats, o.TextFeat}, kept
		},
		Couple: func(scope *model.Scope, in trainer.Coupling, rng *nn.RNG) (*Node, []*Node, []*Node) {
			return couple(scope, cfg, in, rng)
		},
		Loss: func(scope *model.Scope, rows *Node, in, whole []*Node, rng *nn.RNG) ([]*Node, *Node, []*Node) {
			return coupledRest(scope, cfg, rows, in, whole[0], rng)
		},
	}
	if cfg.ITMWeight > 0 {
		c.Inputs = append(c.Inputs, trainer.Source{Tensor: picture, Pick: pickImage},
			trainer.Source{Tensor: inTextIDs, Pick: pickText}, trainer.Source{Tensor: inTextMask, Pick: pickText})
	}
	if cfg.ImageIDs {
		c.Whole = append(c.Whole, inImageIDs)
	}
	return c
}

// couple is the micro-batch's share of L_itc, and its negatives [B] among the whole batch of G: pictures, then texts.
func couple(scope *model.Scope, cfg Config, in trainer.Coupling, rng *nn.RNG) (loss *Node, terms, picks []*Node) {
	i2t, t2i := scaledSimilarities(scope, cfg, in.Own, in.All)
	positives := positiveRows(cfg, in)
	o := noLosses(cfg, in.Rows.Graph())
	o.SimI2T, o.SimT2I = i2t, t2i
	if cfg.ITCWeight > 0 {
		lossI2T, lossT2I := contrastRows(cfg, i2t, t2i, positives)
		all := float64(in.All[0].Shape().Dimensions[0])
		o.LossITC = MulScalar(Add(ReduceAllSum(lossI2T), ReduceAllSum(lossT2I)), 0.5/all)
	}
	if cfg.ITMWeight > 0 {
		mine(cfg, o, Batch{}, positives, rng)
		picks = []*Node{o.NegImage, o.NegText}
	}
	return cfg.total(o.LossITC, o.LossITM, o.LossLM), o.terms(), picks
}

// positiveRows marks the pairs that belong together of the own rows with all, [B, G] float32.
func positiveRows(cfg Config, in trainer.Coupling) *Node {
	g, rows, all := in.Rows.Graph(), in.Rows.Shape().Dimensions[0], in.All[0].Shape().Dimensions[0]
	ids := Iota(g, shapeInt32(all), 0)
	if cfg.ImageIDs {
		ids = in.Whole[1]
	}
	own := BroadcastToDims(Reshape(Gather(ids, InsertAxes(in.Rows, -1)), rows, 1), rows, all)
	return nn.Float32(Equal(own, BroadcastToDims(Reshape(ids, 1, all), rows, all)))
}

// coupledRest reads a micro-batch again and adds its share of L_itm and L_itg: ITM is a mean over all 3·G pairs, ITG
// one over the tokens of all texts [G, L].
func coupledRest(scope *model.Scope, cfg Config, rows *Node, in []*Node, allIDs *Node, rng *nn.RNG) (
	features []*Node, loss *Node, terms []*Node) {
	o, b := noLosses(cfg, allIDs.Graph()), Batch{TextIDs: in[ownIDs], TextMask: in[ownMask]}
	sources := []*Node{in[ownPicture]}
	if cfg.ITMWeight > 0 {
		sources = append(sources, in[otherPicture])
	}
	if !cfg.FreezeVision {
		encoded := encode(scope, cfg, Concatenate(sources, 0))
		sources = Split(encoded, 0, len(sources))
	}
	image := readPictures(scope, cfg, o, sources[0], rng)
	if cfg.ITCWeight > 0 {
		project(scope, cfg, o, b, rng)
		features = []*Node{o.ImageFeats, o.TextFeat}
	}
	if cfg.ITMWeight > 0 {
		negatives := nn.LayerNorm(scope.At("ln_vision"), sources[1], cfg.LNVisionEps)
		cross := image.cross.Beside(qformer.NewCross(scope, cfg.QFormer, negatives))
		texts := Batch{TextIDs: in[otherIDs], TextMask: in[otherMask]}
		_, _, losses := matchPairs(scope, cfg, b, texts, cross, rng)
		o.LossITM = MulScalar(ReduceAllSum(losses), 1/float64(3*allIDs.Shape().Dimensions[0]))
	}
	if cfg.ITGWeight > 0 {
		losses := captionLosses(scope, cfg, o, b, image.selfKV, rng)
		byRow := ReduceSum(Reshape(losses, rows.Shape().Dimensions[0], -1), -1)
		o.LossLM = ReduceAllSum(Mul(byRow, captionShares(cfg, rows, allIDs)))
	}
	return features, cfg.total(o.LossITC, o.LossITM, o.LossLM), o.terms()
}

// captionShares is what a token of each of the rows counts in L_itg: one of all tokens of its replica, and that one of
// R.
func captionShares(cfg Config, rows, allIDs *Node) *Node {
	_, counted := captionLabels(cfg, allIDs)
	tokens := MulScalar(ReduceSum(byReplica(counted, cfg), -1), float64(cfg.replicas())) // [R]
	all, parts := allIDs.Shape().Dimensions[0], cfg.replicas()
	shares := BroadcastToDims(Reshape(Reciprocal(tokens), parts, 1), parts, all/parts)
	return Gather(Reshape(shares, all), InsertAxes(rows, -1))
}
