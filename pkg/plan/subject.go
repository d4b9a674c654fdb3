package plan

import (
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"blip2/pkg/config"
	"blip2/pkg/stage1"
	"blip2/pkg/stage2"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
)

// Stage1 is the training that a configuration of stage 1 describes, for texts of the given vocabulary, computed in a
// type in which frozen weights are stored, too.
func Stage1(c *config.Stage1, vocab stage1.Vocabulary, dtype dtypes.DType) (Subject, error) {
	cfg := stage1.NewConfig(c, vocab)
	cfg.Compute = dtype
	s := subject(c.Common(), dtype)
	s.Task, s.Optimizer, s.Smallest = stage1.NewTask(cfg), training.NewOptimizer(c.Optim), 2
	if cfg.FreezeVision {
		s.Frozen = []trainer.Frozen{{Params: stage1.VisionParams(cfg), DType: dtype}}
	}
	s.FLOPs = func(rows int) []training.FLOPs { return stage1.StepFLOPs(cfg, rows) }
	s.Inputs = func(rows int) []shapes.Shape {
		text := shapes.Make(dtypes.Int32, rows, cfg.MaxTextLen)
		in := []shapes.Shape{pixels(rows, cfg.Vision.ImageSize), text, text}
		if cfg.ImageIDs {
			in = append(in, shapes.Make(dtypes.Int32, rows))
		}
		return in
	}
	return s, cfg.Validate()
}

// Stage2 is Stage1 for stage 2; cfg is the model that the configuration describes.
func Stage2(c *config.Stage2, cfg stage2.Config, dtype, llm dtypes.DType) (Subject, error) {
	cfg.Compute = dtype
	s := subject(c.Common(), dtype)
	s.Task, s.Optimizer, s.Smallest = stage2.NewTask(cfg), training.NewOptimizer(c.Optim), 1
	s.Frozen = []trainer.Frozen{{Params: stage2.LLMParams(cfg), DType: llm}}
	if cfg.FreezeVision {
		s.Frozen = append(s.Frozen, trainer.Frozen{Params: stage2.VisionParams(cfg), DType: dtype})
	}
	length, output := c.Text.MaxLen, 0
	if cfg.T5 != nil {
		// A prefix has half of the words at most.
		length, output = max(c.Text.MaxLen/2, 2), c.Text.MaxLen
	}
	s.FLOPs = func(rows int) []training.FLOPs { return stage2.StepFLOPs(cfg, rows, length, output) }
	s.Inputs = func(rows int) []shapes.Shape {
		text := shapes.Make(dtypes.Int32, rows, length)
		in := []shapes.Shape{pixels(rows, cfg.Vision.ImageSize), text, text}
		if cfg.T5 != nil {
			written := shapes.Make(dtypes.Int32, rows, output)
			in = append(in, written, written)
		}
		return in
	}
	return s, cfg.Validate()
}

// subject is what the common sections say.
func subject(c config.Common, dtype dtypes.DType) Subject {
	return Subject{Compute: dtype, Batch: c.Train.BatchSize, Steps: c.Train.Steps.Int(), Spread: c.Mesh.ShardFrozen}
}

func pixels(rows, size int) shapes.Shape { return shapes.Make(dtypes.Float32, rows, 3, size, size) }
