package stage2

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/model"
	"blip2/pkg/model/t5"
	"blip2/pkg/naming"
	"blip2/pkg/pretrained"
	"blip2/pkg/runlog"
	"blip2/pkg/tokenizer"
	"blip2/pkg/training"
	"blip2/pkg/weights"
)

// Train runs stage 2 as configured; see training.Do.
func Train(ctx context.Context, c *config.Stage2, o training.Options) (*training.Result, error) {
	return training.Do(ctx, &stage{config: c}, o)
}

// stage is stage 2 as a training.Stage.
type stage struct {
	config *config.Stage2
	cfg    Config
	stage1 string // checkpoint to start from
	tok    tokenizer.Tokenizer
	writer *Writer
	sets   []training.EvalSet
	eval   *captioner
}

func (s *stage) Command() string { return "pretrain-stage2" }

func (s *stage) Config() training.Config { return s.config }

func (s *stage) Inputs(r *training.Run) (training.Inputs, error) {
	c := s.config
	var in training.Inputs
	for key, path := range map[string]string{"stage1": c.Stage1, "vision.weights": c.Vision.Weights,
		"qformer.weights": c.QFormer.Weights} {
		if path != "" {
			if _, err := os.Stat(path); err != nil {
				return in, fmt.Errorf("%s: %w; say where it is now with --set %s=...", key, err, key)
			}
		}
	}
	var err error
	if s.stage1, err = newest(r, c.Stage1); err != nil {
		return in, fmt.Errorf("stage1: %w", err)
	}
	if s.cfg, err = FromConfig(c); err != nil {
		return in, err
	}
	s.cfg.Compute = r.Device.DTypes.Compute
	if s.tok, err = tokenizer.Load(c.LLM.Path); err != nil {
		return in, fmt.Errorf("llm.path: %w", err)
	}
	if s.writer, err = NewWriter(s.cfg, s.tok, NewTextOptions(c)); err != nil {
		return in, fmt.Errorf("llm.path: %w", err)
	}
	s.cfg.PromptLength = s.writer.PromptLength()
	return training.Inputs{Caption: s.caption(), ImageSize: c.Vision.ImageSize, Feed: s.feed}, nil
}

// feed turns a batch into what the loss takes.
func (s *stage) feed(b *dataset.Batch) ([]*tensors.Tensor, error) {
	return BatchTensors(s.cfg, b.Pixels, s.writer.Write(b.Captions, b.Epoch, b.ImageIndex)), nil
}

func (s *stage) caption() dataset.CaptionProcessor {
	return dataset.CaptionProcessor{MaxWords: s.config.Text.MaxWords}
}

func (s *stage) Prepare(r *training.Run) (err error) {
	if s.config.Eval.Captions {
		s.sets, err = r.EvalSets(nil, s.config.Eval.MaxImages, 0)
	}
	return err
}

func (s *stage) Build(r *training.Run) (training.Model, error) {
	c, b := s.config, s.config.Train.BatchSize
	length, output := c.Text.MaxLen, 0
	if s.cfg.T5 != nil {
		output = c.Text.MaxLen
	}
	m := training.Model{Params: Params(s.cfg), Task: NewTask(s.cfg), Optimizer: training.NewOptimizer(c.Optim),
		StepFLOPs: training.TotalFLOPs(StepFLOPs(s.cfg, b, length, output))}
	if err := s.initialise(r); err != nil || len(s.sets) == 0 {
		return m, err
	}
	var err error
	s.eval, err = newCaptioner(r.Device.Backend, r.Store, s.cfg, s.tok, c.Eval)
	return m, err
}

// initialise loads what the configuration names, draws every other tensor from the seed and marks the frozen ones.
func (s *stage) initialise(r *training.Run) error {
	c := s.config
	keep := pretrained.Options{Backend: r.Device.LoadTo()}
	if s.cfg.FreezeVision {
		keep.Precision = pretrained.Frozen(r.Device.DTypes.Frozen)
	}
	if err := s.loadVision(r, keep); err != nil {
		return err
	}
	for key, path := range map[string]string{"stage1": s.stage1, "qformer.weights": c.QFormer.Weights} {
		if path == "" {
			continue
		}
		coverage, err := pretrained.LoadBridge(r.Store, s.trainedBridge(), s.cfg.llmName(), path, c.Seed,
			pretrained.Options{})
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		report(r, "Q-Former loaded", coverage)
	}
	if err := s.loadLLM(r); err != nil {
		return err
	}
	if err := model.InitializeOn(r.Device.LoadTo(), r.Store, Params(s.cfg), c.Seed); err != nil {
		return err
	}
	if s.cfg.FreezeVision {
		if err := model.StoreFrozen(r.Store, VisionParams(s.cfg), r.Device.DTypes.Frozen); err != nil {
			return err
		}
	}
	return model.SetTrainable(r.Store, FrozenParams(s.cfg), false)
}

// trainedBridge lists what stage 2 trains beside the image encoder.
func (s *stage) trainedBridge() []model.Param {
	cfg := s.cfg
	cfg.FreezeVision = true
	return TrainableParams(cfg)
}

// loadVision loads the image encoder from its own file or, without one, from stage 1 if that has trained it.
func (s *stage) loadVision(r *training.Run, keep pretrained.Options) error {
	c := s.config
	key, path := "vision.weights", c.Vision.Weights
	if path == "" && s.stage1 != "" {
		holds, err := holdsVision(s.stage1)
		if err != nil {
			return fmt.Errorf("stage1: %w", err)
		}
		if !holds {
			r.Log.Warn("the image encoder keeps its random weights: stage1 has none and vision.weights is empty")
			return nil
		}
		key, path = "stage1", s.stage1
	}
	if path == "" {
		return nil
	}
	coverage, err := pretrained.LoadVision(r.Store, s.cfg.Vision, path, keep)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	report(r, "image encoder loaded", coverage)
	return nil
}

// newest returns the newest good checkpoint where path is a run folder, else path.
func newest(r *training.Run, path string) (string, error) {
	if info, err := os.Stat(filepath.Join(path, checkpoint.Folder)); path == "" || err != nil || !info.IsDir() {
		return path, nil
	}
	dir, skipped, err := checkpoint.Latest(path)
	for _, damage := range skipped {
		r.Log.Warn("checkpoint skipped", "reason", damage)
	}
	return dir, err // which names the run
}

// holdsVision says whether a checkpoint has an image encoder in it.
func holdsVision(path string) (bool, error) {
	src, err := weights.OpenAny(path)
	if err != nil {
		return false, err
	}
	defer src.Close() // read only: nothing can be lost
	for _, name := range src.Names() {
		if naming.Matches(naming.VisionPrefix+"**", name) || naming.Matches("vision_model.embeddings.**", name) {
			return true, nil
		}
	}
	return false, nil
}

// loadLLM loads the language model in the type in which it stays.
func (s *stage) loadLLM(r *training.Run) error {
	network := naming.OPT
	if s.cfg.T5 != nil {
		network = naming.T5
	}
	stored := StoredType(s.config.LLM, r.Device.DTypes.Frozen)
	coverage, err := pretrained.LoadLLM(r.Store, network, s.cfg.llmPrefix(), LLMParams(s.cfg), s.config.LLM.Path,
		pretrained.Options{Backend: r.Device.LoadTo(), Precision: llmPrecision(s.cfg, stored)})
	if err != nil {
		return fmt.Errorf("llm.path: %w", err)
	}
	report(r, "language model loaded", coverage)
	return nil
}

// llmPrecision keeps matrices in the given type, except those of T5 that leave float16's range.
func llmPrecision(cfg Config, stored dtypes.DType) pretrained.Precision {
	frozen := pretrained.Frozen(stored)
	return func(p model.Param, file weights.DType) weights.DType {
		if cfg.T5 != nil && stored == dtypes.Float16 && t5.KeepsFloat32(p.Name) {
			return weights.F32
		}
		return frozen(p, file)
	}
}

// report logs what became of a checkpoint's tensors: what was loaded, dropped and why, and what is new; at the level of
// debugging also the names of those that were dropped.
func report(r *training.Run, what string, coverage *pretrained.Coverage) {
	r.Log.Info(what, "coverage", coverage.String())
	for _, line := range coverage.Gaps() {
		r.Log.Info(line)
	}
	for _, line := range naming.NoteLines("dropped", coverage.Ignored) {
		r.Log.Debug(line)
	}
}

// Measures is empty: stage 2 has one loss and no learned scalars.
func (s *stage) Measures(*training.Run) ([]runlog.Field, error) { return nil, nil }

func (s *stage) Close() {
	if s.eval != nil {
		s.eval.Close()
	}
}
