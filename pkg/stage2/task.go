package stage2

import (
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/naming"
	"blip2/pkg/trainer"
)

// NewTask returns stage 2 as the trainer sees it: what is trained, and the loss of a batch, which is fed as pixels and
// texts (see BatchTensors) and takes its dropout from the step's random numbers. There is one loss, so it has no terms.
func NewTask(cfg Config) trainer.Task {
	return trainer.Task{
		Params: TrainableParams(cfg), MicroBatches: cfg.MicroBatches, Compute: cfg.compute(),
		Depth: func(rule, name string) int { return depth(cfg, rule, name) },
		Loss: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			return Forward(scope, cfg, newBatch(cfg, in), rng).Loss, nil
		},
	}
}

// depth is how many blocks from its end a tensor of the image encoder stands, for layer-wise learning rates; 0 for
// everything else.
func depth(cfg Config, rule, name string) int {
	encoder, ok := strings.CutPrefix(name, naming.VisionPrefix)
	switch {
	case !ok:
		return 0
	case rule == trainer.DecayLAVIS:
		return cfg.Vision.DepthLAVIS(encoder)
	}
	return cfg.Vision.Depth(encoder)
}

// newBatch names the nodes of a batch, in the order of BatchTensors.
func newBatch(cfg Config, in []*Node) Batch {
	b := Batch{Pixels: in[0], IDs: in[1], Mask: in[2]}
	if cfg.T5 != nil {
		b.OutputIDs, b.OutputMask = in[3], in[4]
	}
	return b
}

// BatchTensors puts a batch on the host into tensors, in the order in which NewTask's loss takes them: pixels
// [rows, 3, S, S] normalised, and the texts of the rows. The slices are copied.
func BatchTensors(cfg Config, pixels []float32, texts Texts) []*tensors.Tensor {
	size, rows := cfg.Vision.ImageSize, texts.Rows
	out := []*tensors.Tensor{
		tensors.FromFlatDataAndDimensions(pixels, rows, 3, size, size),
		tensors.FromFlatDataAndDimensions(texts.IDs, rows, texts.Length),
		tensors.FromFlatDataAndDimensions(texts.Mask, rows, texts.Length),
	}
	if cfg.T5 != nil {
		out = append(out, tensors.FromFlatDataAndDimensions(texts.OutputIDs, rows, texts.OutputLength),
			tensors.FromFlatDataAndDimensions(texts.OutputMask, rows, texts.OutputLength))
	}
	return out
}
