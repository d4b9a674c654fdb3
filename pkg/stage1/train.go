package stage1

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/pretrained"
	"blip2/pkg/runlog"
	"blip2/pkg/tokenizer"
	"blip2/pkg/training"
)

// Train runs stage 1 as configured; see training.Do.
func Train(ctx context.Context, c *config.Stage1, o training.Options) (*training.Result, error) {
	return training.Do(ctx, &stage{config: c}, o)
}

// stage is stage 1 as a training.Stage.
type stage struct {
	config *config.Stage1
	cfg    Config
	tok    *tokenizer.WordPiece
	sets   []training.EvalSet
	eval   *Evaluator
}

func (s *stage) Command() string { return "pretrain-stage1" }

func (s *stage) Config() training.Config { return s.config }

func (s *stage) Inputs(r *training.Run) (training.Inputs, error) {
	c := s.config
	tok, err := tokenizer.LoadWordPiece(c.Text.Vocab)
	if err != nil {
		return training.Inputs{}, fmt.Errorf("text.vocab: %w", err)
	}
	s.tok = tok
	s.cfg = NewConfig(c, VocabularyOf(tok))
	s.cfg.Compute = r.Device.DTypes.Compute
	return training.Inputs{Tokenizer: tok, Caption: s.caption(), ImageSize: c.Vision.ImageSize, MaxTextLen: c.Text.MaxLen,
		Feed: func(b *dataset.Batch) ([]*tensors.Tensor, error) {
			return BatchInputs(s.cfg, b), nil
		}}, s.cfg.Validate()
}

func (s *stage) caption() dataset.CaptionProcessor {
	return dataset.CaptionProcessor{MaxWords: s.config.Text.MaxWords, Prompt: s.config.Text.Prompt}
}

func (s *stage) Prepare(r *training.Run) (err error) {
	if s.config.Eval.Retrieval {
		s.sets, err = r.EvalSets(s.tok, s.config.Eval.MaxImages, s.config.Eval.MaxLen)
	}
	return err
}

func (s *stage) Build(r *training.Run) (training.Model, error) {
	m := training.Model{Params: Params(s.cfg), Task: NewTask(s.cfg), Optimizer: training.NewOptimizer(s.config.Optim),
		StepFLOPs: TotalFLOPs(StepFLOPs(s.cfg, s.config.Train.BatchSize))}
	if err := s.initialise(r); err != nil || len(s.sets) == 0 {
		return m, err
	}
	evalConfig := s.cfg
	evalConfig.MaxTextLen = s.config.Eval.MaxLen
	var err error
	s.eval, err = NewEvaluator(r.Device.Backend, r.Store, evalConfig, s.config.Eval.BatchSize, s.config.Eval.KTest)
	return m, err
}

// initialise loads what the configuration names, draws every other tensor from the seed and marks the frozen ones.
func (s *stage) initialise(r *training.Run) error {
	c := s.config
	if path := c.Vision.Weights; path != "" {
		keep := pretrained.Options{Backend: r.Device.LoadTo()}
		if s.cfg.FreezeVision {
			keep.Precision = pretrained.Frozen(r.Device.DTypes.Frozen)
		}
		coverage, err := pretrained.LoadVision(r.Store, s.cfg.Vision, path, keep)
		if err != nil {
			return fmt.Errorf("vision.weights: %w", err)
		}
		r.Log.Info("image encoder loaded", "coverage", coverage.String())
	}
	if path := c.QFormer.Weights; path != "" {
		coverage, err := pretrained.LoadQFormer(r.Store, QFormerParams(s.cfg), path, c.Seed,
			pretrained.Options{Backend: r.Device.LoadTo()})
		if err != nil {
			return fmt.Errorf("qformer.weights: %w", err)
		}
		r.Log.Info("Q-Former loaded", "coverage", coverage.String())
	}
	if err := model.InitializeOn(r.Device.LoadTo(), r.Store, Params(s.cfg), c.Seed); err != nil {
		return err
	}
	vision := VisionParams(s.cfg)
	if err := model.SetTrainable(r.Store, vision, !s.cfg.FreezeVision); err != nil || !s.cfg.FreezeVision {
		return err
	}
	return model.StoreFrozen(r.Store, vision, r.Device.DTypes.Frozen)
}

// Measures is the learned temperature of ITC.
func (s *stage) Measures(r *training.Run) ([]runlog.Field, error) {
	t, err := mesh.Read[float32](r.Store, r.Store.GetVariable(model.Path("temp")))
	if err != nil {
		return nil, fmt.Errorf("reading the temperature: %w", err)
	}
	return []runlog.Field{runlog.F("temp", float64(t[0]))}, nil
}

func (s *stage) Close() {
	if s.eval != nil {
		s.eval.Close()
	}
}
