package stage1

import (
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/dataset"
	"blip2/pkg/model/nn"
	"blip2/pkg/trainer"
)

// lossTerms names the three losses in logs, in the order in which a step reports them.
func lossTerms() []string { return []string{"loss_itc", "loss_itm", "loss_itg"} }

// NewTask returns stage 1 as the trainer sees it: what is trained, and the loss of a batch, which is fed as BatchInputs
// arranges it and takes dropout and hard negatives from the step's random numbers.
func NewTask(cfg Config) trainer.Task {
	task := trainer.Task{
		Params:       TrainableParams(cfg),
		Terms:        lossTerms(),
		Depth:        func(rule, name string) int { return Depth(cfg, rule, name) },
		Compute:      cfg.compute(),
		MicroBatches: cfg.MicroBatches,
		Loss: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			o := Forward(scope, cfg, batchOf(cfg, in), rng)
			return o.Loss, o.terms()
		},
	}
	if cfg.Coupled && cfg.contrasts() {
		task.Coupled = coupled(cfg)
	}
	return task
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

// BatchInputs copies a data loader's batch into the tensors that NewTask's loss takes: those of BatchTensors and, if
// equal pictures are to be positives of each other, the number of each row's picture [batch].
func BatchInputs(cfg Config, b *dataset.Batch) []*tensors.Tensor {
	rows := len(b.ImageIndex)
	list := BatchTensors(cfg, rows, b.Pixels, b.TextIDs, b.TextMask)
	if !cfg.ImageIDs {
		return list
	}
	ids := make([]int32, rows)
	for i, index := range b.ImageIndex {
		ids[i] = int32(index)
	}
	return append(list, tensors.FromFlatDataAndDimensions(ids, rows))
}
