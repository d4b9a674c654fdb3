// Package lm trains a small OPT or T5 from scratch on captions, with a tokenizer of its own, and leaves a folder as
// those of facebook/opt-* and google/flan-t5-* are. It stands in for a published language model where none is at hand:
// stage 2 in miniature needs one that knows how captions read, and that it can freeze.
//
// A text of OPT's training is what a picture's captions are one after the other, in any order; T5's encoder reads some
// of them, and its decoder writes another (see pairs). So the model learns to write a caption, and that what stands in
// front of one tells what it is about, which is all that the queries of stage 2 build on.
package lm

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/runlog"
	"blip2/pkg/tokenizer"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
)

// Options are what a training needs beside its configuration.
type Options struct {
	Device   *device.Device
	Log      *slog.Logger
	Progress *runlog.Progress
}

// Result is what a training leaves behind.
type Result struct {
	Dir        string  `json:"dir"`        // folder of the model
	Arch       string  `json:"arch"`       // config.LMOPT or LMT5
	Captions   int     `json:"captions"`   // trained on
	Vocab      int     `json:"vocab"`      // ids of the tokenizer
	Parameters int     `json:"parameters"` // of the model
	Loss       float64 `json:"loss"`       // over the last interval, in nats per token
	Seconds    float64 `json:"seconds"`    // of the whole training
}

// Train trains as configured and writes the folder, which must not exist or be empty. An interrupted training leaves
// nothing.
func Train(ctx context.Context, c *config.LM, o Options) (*Result, error) {
	started := time.Now()
	if err := atomicfile.TryDir(c.Out); err != nil {
		return nil, fmt.Errorf("out: %w", err)
	}
	train, build, end := tokenizer.TrainBPE, newOPT, "\n" // which ends OPT's captions
	if c.Model.Arch == config.LMT5 {
		train, build, end = tokenizer.TrainUnigram, newT5, ""
	}
	texts, err := readTexts(ctx, c, end, o.Log)
	if err != nil {
		return nil, err
	}
	tok, files, err := newTokenizer(texts, c.Model.Vocab, train)
	if err != nil {
		return nil, err
	}
	net, err := build(c, tok, texts)
	if err != nil {
		return nil, err
	}
	result := &Result{Dir: c.Out, Arch: c.Model.Arch, Vocab: net.vocab, Parameters: model.Count(net.params)}
	for _, t := range texts {
		result.Captions += len(t)
	}
	o.Log.Info("language model", "arch", result.Arch, "captions", result.Captions, "vocabulary", result.Vocab,
		"parameters", result.Parameters)
	store := mlx.NewStore()
	defer store.Finalize()
	if err := model.Initialize(store, net.params, c.Seed); err != nil {
		return nil, err
	}
	if result.Loss, err = run(ctx, c, o, net, store); err != nil {
		return nil, err
	}
	result.Seconds = time.Since(started).Seconds()
	return result, write(ctx, c.Out, store, net, files)
}

// network is the model that is trained.
type network struct {
	spec   published.Spec
	vocab  int           // rows of its tables
	params []model.Param // with what they start from
	task   trainer.Task
	batch  func(step, size int) []*tensors.Tensor // what the loss of a step is fed
}

// newOPT is an OPT.
func newOPT(c *config.LM, tok tokenizer.Tokenizer, texts [][]string) (*network, error) {
	m := c.Model
	cfg := opt.Config{Vocab: tok.VocabSize(), Hidden: m.Hidden, Layers: m.Layers, Heads: m.Heads, FFN: m.FFN,
		Positions: m.Positions, LayerNormEps: 1e-5, InitializerRange: m.InitStd, Dropout: m.Dropout}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := newRows(tok, texts, m.Positions, c.Seed)
	return &network{spec: published.Spec{Model: naming.OPT, OPT: &cfg}, vocab: cfg.Vocab, params: opt.Params(cfg),
		task: NewTask(cfg), batch: func(step, size int) []*tensors.Tensor {
			ids, mask := r.batch(step, size)
			return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(ids, size, r.length),
				tensors.FromFlatDataAndDimensions(mask, size, r.length)}
		}}, nil
}

// NewTask is an OPT as the trainer sees it: every token of ids [rows, L] is learned from those before it,
// where the mask of the same shape is 1.
func NewTask(cfg opt.Config) trainer.Task {
	return trainer.Task{Params: opt.Params(cfg),
		Loss: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			ids, mask := in[0], in[1]
			embeds := opt.Embed(scope, ids, dtypes.Float32)
			hidden := opt.Forward(scope, cfg, opt.Input{Embeds: embeds, Mask: mask}, rng).Hidden
			return opt.LMLoss(opt.Logits(scope, cfg, hidden), labelsOf(ids, mask)), nil
		}}
}

// labelsOf are the ids where the mask is 1.
func labelsOf(ids, mask *Node) *Node {
	padding := BroadcastToShape(Scalar(ids.Graph(), ids.DType(), nn.IgnoredLabel), ids.Shape())
	return Where(NotEqual(mask, ZerosLike(mask)), ids, padding)
}

// run is the step loop; it returns the loss of the last interval.
func run(ctx context.Context, c *config.LM, o Options, net *network, store *mlx.Store) (float64, error) {
	step, err := trainer.NewStep(o.Device.Backend, store, net.task, training.NewOptimizer(c.Optim), c.Seed)
	if err != nil {
		return 0, err
	}
	defer step.Close()
	steps, batch := c.Train.Steps.Int(), c.Train.BatchSize
	schedule := trainer.Schedule{Kind: trainer.ScheduleKind(c.Optim.Schedule), Peak: c.Optim.LR, Min: c.Optim.MinLR,
		WarmupStart: c.Optim.WarmupLR, WarmupSteps: c.Optim.WarmupSteps.Int(), TotalSteps: steps, StepsPerEpoch: steps,
		Epochs: 1}
	if err := schedule.Validate(); err != nil {
		return 0, err
	}
	phase := o.Progress.Start("step", 0, steps)
	defer phase.Done()
	next := 0
	loop := trainer.Loop{Step: step, Schedule: schedule, Steps: steps, BatchSize: batch, LogEvery: c.Train.LogEvery,
		MaxSkipped: maxSkipped,
		Next: func(context.Context) (trainer.Feed, error) {
			fed := net.batch(next, batch)
			next++
			return trainer.Feed{Tensors: fed}, nil
		},
		Save: func(trainer.Position) error { return nil }, // a few minutes are not worth a checkpoint
		Report: func(in trainer.Interval) error {
			phase.Report(runlog.F("loss", in.Loss), runlog.F("lr", in.LR))
			return nil
		},
		Done: phase.Advance}
	outcome, err := loop.Run(ctx)
	if err == nil && outcome.Status != trainer.Finished {
		err = fmt.Errorf("after %d of %d steps, nothing was written: %w", outcome.At.Step, steps, context.Cause(ctx))
	}
	return outcome.Last.Loss, err
}

// maxSkipped is how many steps in a row may be skipped before a training counts as diverged.
const maxSkipped = 20

// writeFiles puts files into a folder.
func writeFiles(dir string, files map[string][]byte) error {
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			return err
		}
	}
	return nil
}
