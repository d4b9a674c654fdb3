package stage1

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"

	"blip2/pkg/model/nn"
)

// mine fills in the sampling weights of hard negatives and the negatives themselves (spec/stage1.md 5). Nothing of it
// carries a gradient.
func mine(cfg Config, o *Outputs, b Batch, positives *Node, rng *nn.RNG) {
	o.WeightsI2T = negativeWeights(cfg, o.SimI2T, positives)
	o.WeightsT2I = negativeWeights(cfg, o.SimT2I, positives)
	o.NegImage, o.NegText = b.NegImage, b.NegText
	if o.NegImage == nil {
		o.NegImage = sample(o.WeightsT2I, rng)
	}
	if o.NegText == nil {
		o.NegText = sample(o.WeightsI2T, rng)
	}
}

// negativeWeights are the weights [B, G] that a row's negative is drawn with, 0 at its positives.
func negativeWeights(cfg Config, sim, positives *Node) *Node {
	sim = StopGradient(sim)
	isPositive := GreaterThan(positives, ScalarZero(sim.Graph(), sim.DType()))
	if cfg.HardNegatives == NegativesSoftmaxEps {
		weights := AddScalar(Softmax(sim, -1), 1e-4)
		return Where(isPositive, ZerosLike(weights), weights)
	}
	masked := Where(isPositive, MulScalar(OnesLike(sim), -10000), sim)
	return Softmax(masked, -1)
}

// sample draws one column per row of weights [B, G] in proportion to them: [B] int32. Gumbel-max is a multinomial
// draw that needs no sort and no host round trip.
func sample(weights *Node, rng *nn.RNG) *Node {
	dims := weights.Shape().Dimensions
	logits := Log(MaxScalar(weights, 1e-30))
	return ArgMax(Add(logits, rng.Gumbel(weights.Graph(), dims...)), -1, dtypes.Int32)
}

func shapeInt32(dims ...int) shapes.Shape { return shapes.Make(dtypes.Int32, dims...) }
