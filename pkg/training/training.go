// Package training is a training as a whole, the same for every stage: run folder, data, model, checkpoints, exact
// resume, evaluation, measurements and report. What a stage has of its own is a Stage.
package training

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/dataset/configured"
	"blip2/pkg/device"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// Stage is what one stage of training brings to a run. The methods are called in this order, once each except Score.
type Stage interface {
	// Command names the training in run folders and checkpoints, such as "pretrain-stage1".
	Command() string
	// Config is the configuration of the run.
	Config() Config
	// Inputs reads vocabularies and says how batches are made: mistakes in the files show before anything is compiled.
	Inputs(r *Run) (Inputs, error)
	// Prepare opens what Score needs of the data; the run's sources are open by then.
	Prepare(r *Run) error
	// Build creates all tensors of the model in r.Store and marks those that are not trained. Nothing is compiled yet.
	Build(r *Run) (Model, error)
	// Score evaluates the model as it is and returns nothing if there is nothing to evaluate. Phase names what is going
	// on for the progress display: "evaluating before", "evaluating". With gallery it also writes the gallery.
	Score(ctx context.Context, r *Run, phase string, gallery bool) (runlog.Scores, error)
	// Measures are values of the model to record with each interval, such as a learned temperature.
	Measures(r *Run) ([]runlog.Field, error)
	// Close frees what the stage holds. It is called once, whatever came before.
	Close()
}

// Config is a configuration of a training; those of pkg/config are.
type Config interface {
	Common() config.Common
	Hash() string                 // of the settings that decide the arithmetic
	YAML() []byte                 // the resolved configuration
	Changed(path string) []string // which of those settings are others than in the file, in words; nil if it says none
}

// Inputs say how a stage's batches are made of pictures and texts.
type Inputs struct {
	Tokenizer  dataset.Tokenizer
	Caption    dataset.CaptionProcessor
	ImageSize  int
	MaxTextLen int // tokens of a text
	// Feed turns a batch into what the task's loss takes. The slices of the batch may not be kept.
	Feed func(b *dataset.Batch) ([]*tensors.Tensor, error)
}

// Model is a stage's model as the trainer sees it.
type Model struct {
	Params    []model.Param // all tensors
	Task      trainer.Task  // whose Params are the trained ones
	Optimizer trainer.AdamW
	StepFLOPs float64 // work of one step on a whole batch; 0 if it was not counted
}

// Options are what a run needs beside its stage.
type Options struct {
	RunDir   string // the run folder; it must not hold a run yet, unless Resume is set
	Resume   bool   // go on from the newest good checkpoint of RunDir
	Device   *device.Device
	Log      *slog.Logger
	Progress *runlog.Progress

	CommandLine     string // for summary.json
	Version, Commit string // of the program
}

// Result is what a run leaves behind.
type Result struct {
	Summary runlog.Summary
	Report  string // path of report.html
	Status  trainer.Status
}

// Run is a training in progress, as its stage sees it.
type Run struct {
	Options
	Store   *mlx.Store
	Train   dataset.Source // the pictures to train on, for evaluation; nil if they come from streams alone
	Heldout dataset.Source // pictures never trained on; nil if the configuration names none
	Summary runlog.Summary
	Metrics *runlog.Log      // open once the training has begun
	At      trainer.Position // steps done, and where the data go on

	stage    Stage
	mixture  *dataset.Mixture
	config   config.Common
	inputs   Inputs
	model    Model
	step     *trainer.Step
	started  time.Time
	fresh    bool         // the run folder was made by this start, and nothing in it is worth keeping yet
	logFile  *slog.Logger // of the run folder alone
	outcome  trainer.Outcome
	last     trainer.Interval // that was recorded; its Step is 0 before the first
	best     best
	compiled int          // programs of the step that were compiled
	asked    time.Time    // when the last checkpoint was asked for
	saving   atomic.Int64 // nanoseconds that the slowest checkpoint took
	cleanup  []func() error
}

// Do runs a training as configured: data, model, evaluation before, training, evaluation after, report. When ctx is
// cancelled the step in progress is finished and saved; Status then says so.
func Do(ctx context.Context, stage Stage, o Options) (*Result, error) {
	r := &Run{Options: o, stage: stage, config: stage.Config().Common(), started: time.Now()}
	defer func() {
		r.close()
		r.undo()
	}()
	r.onClose(func() error { stage.Close(); return nil })
	for _, prepare := range []func(context.Context) error{
		r.openData, r.openFolder, r.buildModel, r.restore, r.scoreBefore,
	} {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("before the first step, nothing was saved: %w", err)
		}
		if err := prepare(ctx); err != nil {
			return nil, err
		}
	}
	r.fresh = false
	for _, phase := range []func(context.Context) error{r.train, r.scoreAfter} {
		if err := phase(ctx); err != nil {
			r.fail(err)
			return nil, err
		}
	}
	return r.finish()
}

func (r *Run) onClose(f func() error) { r.cleanup = append(r.cleanup, f) }

// close undoes what was opened, last first.
func (r *Run) close() {
	for i := len(r.cleanup) - 1; i >= 0; i-- {
		if err := r.cleanup[i](); err != nil {
			r.Log.Warn("closing", "error", err)
		}
	}
	r.cleanup = nil
}

// openData reads vocabulary and annotations.
func (r *Run) openData(ctx context.Context) (err error) {
	if r.inputs, err = r.stage.Inputs(r); err != nil {
		return err
	}
	c := r.config
	shards := configured.Shards(r.Log)
	data, err := configured.Open(ctx, c.Data, shards)
	if err != nil {
		return err
	}
	r.mixture, r.Train = data.Mixture, data.Source
	for _, share := range r.mixture.Shares() {
		r.Summary.TrainImages += int(share.Pictures)
		r.Summary.TrainTexts += int(share.Texts)
		r.Log.Info("training data", "source", share.Name, "images", share.Pictures, "captions", share.Texts,
			"rows_per_epoch", share.Quota)
	}
	if err := r.mixture.CheckBatch(c.Train.BatchSize); err != nil {
		return fmt.Errorf("%w (train.batch_size)", err)
	}
	if len(c.Data.Heldout) > 0 {
		if r.Heldout, err = configured.Evaluation(ctx, "data.heldout", c.Data.Heldout, shards); err != nil {
			return err
		}
	}
	return r.stage.Prepare(r)
}

// buildModel creates the model's tensors and the training step. Nothing is compiled yet.
func (r *Run) buildModel(context.Context) error {
	r.Store = mlx.NewStore()
	r.onClose(func() error { r.Store.Finalize(); return nil })
	var err error
	if r.model, err = r.stage.Build(r); err != nil {
		return err
	}
	if err := r.place(); err != nil {
		return err
	}
	trained := r.model.Task.Params
	r.Summary.Parameters, r.Summary.TrainableParameters =
		int64(model.Count(r.model.Params)), int64(model.Count(trained))
	r.Log.Info("model", "parameters", r.Summary.Parameters, "trained", r.Summary.TrainableParameters,
		"compute", r.Device.DTypes.Compute.String())
	step, err := trainer.NewStep(r.Device.Backend, r.Store, r.model.Task, r.model.Optimizer, r.config.Seed)
	if err != nil {
		return err
	}
	r.step = step
	r.onClose(func() error { step.Close(); return nil })
	return nil
}

// place puts the model on the devices that share the batches.
func (r *Run) place() error {
	m, err := mesh.New(r.Device.Backend, r.Device.Devices)
	if err != nil || m == nil {
		return err
	}
	if n := r.config.Train.BatchSize; n%m.Devices() != 0 {
		return fmt.Errorf("a batch of %d cannot be shared evenly by %d devices: change train.batch_size or devices",
			n, m.Devices())
	}
	if err := m.Place(r.Store, r.config.Mesh.ShardFrozen); err != nil {
		return err
	}
	r.Log.Info("model placed", "devices", m.Devices(), "spread_frozen", r.config.Mesh.ShardFrozen,
		"gb_per_device", float64(mesh.Bytes(r.Store))/1e9)
	return nil
}

// rows is the number of rows of an epoch.
func (r *Run) rows() int { return int(r.mixture.Rows()) }
