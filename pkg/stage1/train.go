package stage1

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/dataset/configured"
	"blip2/pkg/device"
	"blip2/pkg/model"
	"blip2/pkg/pretrained"
	"blip2/pkg/report"
	"blip2/pkg/runlog"
	"blip2/pkg/tokenizer"
	"blip2/pkg/trainer"
)

// command is the name of this training in run folders and checkpoints.
const command = "pretrain-stage1"

// maxSkipped is how many steps in a row may be skipped before a training counts as diverged.
const maxSkipped = 20

// TrainOptions are what a training needs beside its configuration.
type TrainOptions struct {
	Config   *config.Stage1
	RunDir   string // the run folder; it must not hold a run yet, unless Resume is set
	Resume   bool   // go on from the newest good checkpoint of RunDir
	Device   *device.Device
	Log      *slog.Logger
	Progress *runlog.Progress

	CommandLine     string // for summary.json
	Version, Commit string // of the program
}

// TrainResult is what a training leaves behind.
type TrainResult struct {
	Summary runlog.Summary
	Report  string // path of report.html
	Status  trainer.Status
}

// Train runs stage 1 as configured: data, model, evaluation before, training, evaluation after, report. When ctx is
// cancelled the step in progress is finished and saved; Status then says so.
func Train(ctx context.Context, o TrainOptions) (*TrainResult, error) {
	r := &run{TrainOptions: o, started: time.Now()}
	defer func() {
		r.close()
		r.undo()
	}()
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
			return nil, err
		}
	}
	return r.finish()
}

// run is one training in progress.
type run struct {
	TrainOptions
	started time.Time
	fresh   bool // the run folder was made by this start, and nothing in it is worth keeping yet

	tok     *tokenizer.WordPiece
	mixture *dataset.Mixture
	sets    []evalSet // training pictures first, then held-out ones
	cfg     Config
	store   *mlx.Store
	step    *trainer.Step
	eval    *Evaluator
	metrics *runlog.Log
	at      trainer.Position
	outcome trainer.Outcome
	summary runlog.Summary
	cleanup []func() error
}

// evalSet is a named set of pictures to evaluate on.
type evalSet struct {
	split string
	set   *dataset.EvalSet
	after *Ranking
}

func (r *run) onClose(f func() error) { r.cleanup = append(r.cleanup, f) }

// close undoes what was opened, last first.
func (r *run) close() {
	for i := len(r.cleanup) - 1; i >= 0; i-- {
		if err := r.cleanup[i](); err != nil {
			r.Log.Warn("closing", "error", err)
		}
	}
	r.cleanup = nil
}

// openData reads vocabulary and annotations: mistakes in them show before anything is compiled.
func (r *run) openData(ctx context.Context) error {
	c := r.Config
	tok, err := tokenizer.LoadWordPiece(c.Text.Vocab)
	if err != nil {
		return fmt.Errorf("text.vocab: %w", err)
	}
	r.tok = tok
	data, err := configured.Open(ctx, c.Data, configured.Shards(r.Log))
	if err != nil {
		return err
	}
	r.mixture = data.Mixture
	for _, share := range r.mixture.Shares() {
		r.summary.TrainImages += int(share.Pictures)
		r.summary.TrainTexts += int(share.Texts)
		r.Log.Info("training data", "source", share.Name, "images", share.Pictures, "captions", share.Texts,
			"rows_per_epoch", share.Quota)
	}
	if err := r.mixture.CheckBatch(c.Train.BatchSize); err != nil {
		return fmt.Errorf("%w (train.batch_size)", err)
	}
	if !c.Eval.Retrieval {
		return nil
	}
	if data.Source != nil {
		if err := r.addEvalSet(runlog.SplitTrain, data.Source); err != nil {
			return err
		}
	}
	if len(c.Data.Heldout) == 0 {
		return nil
	}
	heldout, err := configured.Evaluation(ctx, "data.heldout", c.Data.Heldout, configured.Shards(r.Log))
	if err != nil {
		return err
	}
	return r.addEvalSet(runlog.SplitHeldout, heldout)
}

func (r *run) addEvalSet(split string, src dataset.Source) error {
	c := r.Config
	set, err := dataset.NewEvalSet(dataset.First(src, c.Eval.MaxImages), r.tok, dataset.EvalOptions{
		ImageSize: c.Vision.ImageSize, MaxTextLen: c.Eval.MaxLen, Caption: r.processor(),
		EXIF: c.Data.EXIF, Workers: c.Data.Workers, MaxBadShare: c.Data.MaxBadShare.Float()})
	if err != nil {
		return err
	}
	r.sets = append(r.sets, evalSet{split: split, set: set})
	return nil
}

func (r *run) processor() dataset.CaptionProcessor {
	return dataset.CaptionProcessor{MaxWords: r.Config.Text.MaxWords, Prompt: r.Config.Text.Prompt}
}

// buildModel creates the model's tensors and the training step. Nothing is compiled yet.
func (r *run) buildModel(context.Context) error {
	r.cfg = NewConfig(r.Config, VocabularyOf(r.tok))
	r.cfg.Compute = r.Device.DTypes.Compute
	if err := r.cfg.Validate(); err != nil {
		return err
	}
	r.store = mlx.NewStore()
	r.onClose(func() error { r.store.Finalize(); return nil })
	if err := r.initialise(); err != nil {
		return err
	}
	all, trained := Params(r.cfg), TrainableParams(r.cfg)
	r.summary.Parameters, r.summary.TrainableParameters = int64(model.Count(all)), int64(model.Count(trained))
	r.Log.Info("model", "parameters", r.summary.Parameters, "trained", r.summary.TrainableParameters,
		"compute", r.cfg.Compute.String())
	step, err := trainer.NewStep(r.Device.Backend, r.store, NewTask(r.cfg), NewOptimizer(r.Config.Optim), r.Config.Seed)
	if err != nil {
		return err
	}
	r.step = step
	r.onClose(func() error { step.Close(); return nil })
	if !r.Config.Eval.Retrieval {
		return nil
	}
	evalConfig := r.cfg
	evalConfig.MaxTextLen = r.Config.Eval.MaxLen
	r.eval, err = NewEvaluator(r.Device.Backend, r.store, evalConfig, r.Config.Eval.BatchSize, r.Config.Eval.KTest)
	if err != nil {
		return err
	}
	r.onClose(func() error { r.eval.Close(); return nil })
	return nil
}

// initialise loads what the configuration names, draws every other tensor from the seed and marks the frozen ones.
func (r *run) initialise() error {
	if path := r.Config.Vision.Weights; path != "" {
		keep := pretrained.Options{Backend: r.Device.Backend}
		if r.cfg.FreezeVision {
			keep.Precision = pretrained.Frozen(r.Device.DTypes.Frozen)
		}
		coverage, err := pretrained.LoadVision(r.store, r.cfg.Vision, path, keep)
		if err != nil {
			return fmt.Errorf("vision.weights: %w", err)
		}
		r.Log.Info("image encoder loaded", "coverage", coverage.String())
	}
	if path := r.Config.QFormer.Weights; path != "" {
		coverage, err := pretrained.LoadQFormer(r.store, QFormerParams(r.cfg), path, r.Config.Seed,
			pretrained.Options{})
		if err != nil {
			return fmt.Errorf("qformer.weights: %w", err)
		}
		r.Log.Info("Q-Former loaded", "coverage", coverage.String())
	}
	if err := model.Initialize(r.store, Params(r.cfg), r.Config.Seed); err != nil {
		return err
	}
	vision := VisionParams(r.cfg)
	if err := model.SetTrainable(r.store, vision, !r.cfg.FreezeVision); err != nil || !r.cfg.FreezeVision {
		return err
	}
	return model.StoreFrozen(r.store, vision, r.Device.DTypes.Frozen)
}

// train runs the step loop.
func (r *run) train(ctx context.Context) error {
	c := r.Config
	loader, err := r.newLoader()
	if err != nil {
		return err
	}
	defer loader.Close()
	schedule, err := newSchedule(c, loader.BatchesPerEpoch())
	if err != nil {
		return err
	}
	if r.metrics, err = runlog.Open(r.RunDir, runlog.Options{ResumeStep: r.at.Step}); err != nil {
		return err
	}
	r.onClose(r.metrics.Close)
	// The save in flight outlives the first interrupt.
	writer := checkpoint.StartWriter(context.WithoutCancel(ctx), r.RunDir,
		checkpoint.WriterOptions{Policy: checkpoint.Policy{KeepLast: c.Checkpoint.KeepLast}, OnSaved: r.saved})
	phase := r.Progress.Start("step", r.at.Step, c.Train.Steps.Int())
	loop := trainer.Loop{
		Step: r.step, Schedule: schedule, Steps: c.Train.Steps.Int(), Start: r.at.Step, Position: r.at,
		BatchSize: c.Train.BatchSize, LogEvery: c.Train.LogEvery, SaveEvery: c.Checkpoint.Every.Int(),
		MaxTime: c.Train.MaxTime.Std(), MaxSkipped: maxSkipped,
		Next:   func(ctx context.Context) (trainer.Feed, error) { return r.next(ctx, loader) },
		Save:   func(at trainer.Position) error { return r.save(writer, at) },
		Report: func(in trainer.Interval) error { return r.record(phase, in) },
		Done:   phase.Advance,
	}
	r.outcome, err = loop.Run(ctx)
	phase.Done()
	err = errors.Join(err, writer.Wait())
	r.reportBad(loader)
	return err
}

func (r *run) newLoader() (*dataset.Loader, error) {
	c := r.Config
	a := c.Data.Augment
	return dataset.NewMixtureLoader(r.mixture, r.tok, dataset.LoaderOptions{
		BatchSize: c.Train.BatchSize, ImageSize: c.Vision.ImageSize, MaxTextLen: c.Text.MaxLen, Seed: c.Seed,
		Answers: dataset.AnswerMode(c.Data.Answers), Caption: r.processor(), Flip: a.Flip.Float(), EXIF: c.Data.EXIF,
		Crop:    dataset.Crop{Scale: a.CropScale, Ratio: a.CropRatio},
		Workers: c.Data.Workers, Prefetch: c.Data.Prefetch, MaxBadShare: c.Data.MaxBadShare.Float(),
		Start: dataset.Position{Epoch: r.at.Epoch, Index: r.at.Index, Streams: r.at.Streams},
	})
}

func newSchedule(c *config.Stage1, batchesPerEpoch int64) (trainer.Schedule, error) {
	steps, perEpoch := c.Train.Steps.Int(), max(int(batchesPerEpoch), 1)
	s := trainer.Schedule{Kind: trainer.ScheduleKind(c.Optim.Schedule), Peak: c.Optim.LR, Min: c.Optim.MinLR,
		WarmupStart: c.Optim.WarmupLR, WarmupSteps: c.Optim.WarmupSteps.Int(), TotalSteps: steps,
		StepsPerEpoch: perEpoch, Epochs: max(1, (steps+perEpoch-1)/perEpoch)}
	return s, s.Validate()
}

func (r *run) next(ctx context.Context, loader *dataset.Loader) (trainer.Feed, error) {
	batch, err := loader.Next(ctx)
	if err != nil {
		return trainer.Feed{}, err
	}
	defer batch.Release()
	at := batch.Position()
	return trainer.Feed{Epoch: at.Epoch, Index: at.Index, Streams: at.Streams,
		Tensors: BatchTensors(r.cfg, r.Config.Train.BatchSize, batch.Pixels, batch.TextIDs, batch.TextMask)}, nil
}

func (r *run) save(writer *checkpoint.Writer, at trainer.Position) error {
	snapshot, err := trainer.TakeSnapshot(r.store, TrainableParams(r.cfg), at.Step, trainer.State{
		Seed: r.Config.Seed, Epoch: at.Epoch, Index: at.Index, Streams: at.Streams, ConfigHash: r.Config.Hash(), Command: command})
	if err != nil {
		return err
	}
	return writer.Enqueue(snapshot)
}

func (r *run) saved(s checkpoint.Saved) {
	r.summary.Checkpoint = filepath.ToSlash(filepath.Join(checkpoint.Folder, filepath.Base(s.Dir)))
}

// record writes an interval to metrics.jsonl, TensorBoard and the progress display.
func (r *run) record(phase *runlog.Phase, in trainer.Interval) error {
	fields := []runlog.Field{runlog.F("loss", in.Loss)}
	for i, name := range lossTerms() {
		fields = append(fields, runlog.F(name, in.Terms[i]))
	}
	fields = append(fields, runlog.F("lr", in.LR), runlog.F("img_per_s", in.ImgPerS))
	phase.Report(fields...)
	temp, err := r.temperature()
	if err != nil {
		return err
	}
	fields = append(fields, runlog.F("grad_norm", in.GradNorm), runlog.F("temp", temp),
		runlog.F("epoch", float64(in.Epoch)))
	if in.Skipped > 0 {
		fields = append(fields, runlog.F("skipped", float64(in.Skipped)))
		r.Log.Warn("steps skipped: loss or gradient not finite", "step", in.Step, "skipped", in.Skipped)
	}
	return r.metrics.Record(in.Step, fields...)
}

func (r *run) reportBad(loader *dataset.Loader) {
	bad := loader.BadSamples()
	r.summary.BadSamples = len(bad)
	for _, b := range bad {
		r.Log.Warn("bad sample replaced", "source", b.Source, "key", b.Key, "reason", b.Reason)
	}
}

// finish writes the summary and the report.
func (r *run) finish() (*TrainResult, error) {
	c, s := r.Config, &r.summary
	last, err := r.lastInterval()
	if err != nil {
		return nil, err
	}
	s.Status = map[trainer.Status]string{trainer.Finished: runlog.StatusFinished, trainer.TimeUp: runlog.StatusTimeLimit,
		trainer.Interrupted: runlog.StatusInterrupted}[r.outcome.Status]
	s.Command, s.Version, s.Commit = r.CommandLine, r.Version, r.Commit
	s.Backend, s.Device, s.DType = r.Device.Name, r.Device.Description, r.Device.DTypes.String()
	s.Started, s.Seconds = r.started.UTC(), runlog.Float(time.Since(r.started).Seconds())
	s.CompileSeconds = runlog.Float(r.step.CompileTime().Seconds())
	s.Steps, s.BatchSize, s.ImgPerS = r.outcome.At.Step, c.Train.BatchSize, runlog.Float(r.outcome.ImgPerS)
	if r.outcome.ImgPerS == 0 {
		s.ImgPerS = runlog.Float(last.ImgPerS)
	}
	s.Epochs = runlog.Float(float64(s.Steps) * float64(s.BatchSize) / float64(r.rows()))
	s.Loss = runlog.Float(last.Loss)
	if len(last.Terms) == 3 {
		s.LossITC, s.LossITM = runlog.Float(last.Terms[0]), runlog.Float(last.Terms[1])
		s.LossITG = runlog.Float(last.Terms[2])
	}
	if err := runlog.WriteSummary(r.RunDir, *s); err != nil {
		return nil, err
	}
	page, err := report.Build(r.RunDir)
	if err != nil {
		return nil, err
	}
	return &TrainResult{Summary: *s, Report: page, Status: r.outcome.Status}, nil
}

// rows is the number of rows of an epoch.
func (r *run) rows() int { return int(r.mixture.Rows()) }
