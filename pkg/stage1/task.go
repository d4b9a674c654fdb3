package stage1

import (
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/trainer"
)

// lossTerms names the three losses in logs, in the order in which a step reports them.
func lossTerms() []string { return []string{"loss_itc", "loss_itm", "loss_itg"} }

// NewTask returns stage 1 as the trainer sees it: what is trained, and the loss of a batch, which is fed as pixels,
// text ids and text mask (see BatchTensors) and brings dropout and hard negatives from the step's random numbers.
func NewTask(cfg Config) trainer.Task {
	return trainer.Task{
		Params: TrainableParams(cfg),
		Terms:  lossTerms(),
		Depth:  func(rule, name string) int { return Depth(cfg, rule, name) },
		Loss: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			o := Forward(scope, cfg, Batch{Pixels: in[0], TextIDs: in[1], TextMask: in[2]}, rng)
			return o.Loss, []*Node{o.LossITC, o.LossITM, o.LossLM}
		},
	}
}

// Depth returns how many times the layer-wise learning-rate decay applies to a parameter (spec/training.md 6): as
// vit.Config.Depth says to the image encoder's, by trainer.DecayLAVIS as released code does, and never to others.
func Depth(cfg Config, rule, name string) int {
	encoder, ok := strings.CutPrefix(name, VisionPrefix)
	switch {
	case !ok:
		return 0
	case rule == trainer.DecayLAVIS:
		return cfg.Vision.DepthLAVIS(encoder)
	}
	return cfg.Vision.Depth(encoder)
}

// BatchTensors puts a batch on the host into tensors, in the order in which NewTask's loss takes them: pixels
// [batch, 3, S, S] normalised, ids and mask [batch, L]. The slices are copied.
func BatchTensors(cfg Config, batch int, pixels []float32, ids, mask []int32) []*tensors.Tensor {
	size := cfg.Vision.ImageSize
	return []*tensors.Tensor{
		tensors.FromFlatDataAndDimensions(pixels, batch, 3, size, size),
		tensors.FromFlatDataAndDimensions(ids, batch, cfg.MaxTextLen),
		tensors.FromFlatDataAndDimensions(mask, batch, cfg.MaxTextLen),
	}
}
