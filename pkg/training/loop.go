package training

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/dataset/configured"
	"blip2/pkg/internal/measure"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// train runs the step loop.
func (r *Run) train(ctx context.Context) error {
	c := r.config
	loader, err := r.newLoader()
	if err != nil {
		return err
	}
	defer loader.Close()
	schedule, err := newSchedule(c, loader.BatchesPerEpoch())
	if err != nil {
		return err
	}
	if r.Metrics, err = runlog.Open(r.RunDir, runlog.Options{ResumeStep: r.At.Step}); err != nil {
		return err
	}
	r.onClose(r.Metrics.Close)
	owed, err := r.lookBack()
	if err != nil {
		return err
	}
	// The save in flight outlives the first interrupt.
	writer := checkpoint.StartWriter(context.WithoutCancel(ctx), r.RunDir, checkpoint.WriterOptions{
		Policy:  checkpoint.Policy{KeepLast: c.Checkpoint.KeepLast, KeepEvery: c.Checkpoint.KeepEvery.Int()},
		OnSaved: r.saved})
	writer.Protect(r.best.steps()...)
	display := &display{progress: r.Progress, steps: c.Train.Steps.Int()}
	display.start(r.At.Step)
	loop := trainer.Loop{
		Step: r.step, Schedule: schedule, Steps: c.Train.Steps.Int(), Start: r.At.Step, Position: r.At,
		BatchSize: c.Train.BatchSize, LogEvery: c.Train.LogEvery, SaveEvery: c.Checkpoint.Every.Int(),
		EvalEvery: c.Eval.Every.Int(), Owed: owed, MaxSkipped: c.Train.MaxSkipped,
		MaxTime: c.Train.MaxTime.Std(), Began: r.started, Ending: r.ending,
		Next: func(ctx context.Context) (trainer.Feed, error) { return r.next(ctx, loader) },
		Save: func(at trainer.Position) error {
			r.At = at
			return errors.Join(r.save(writer, at), r.grow())
		},
		Evaluate: func(ctx context.Context, at trainer.Position) error { return r.evaluate(ctx, display, writer, at) },
		Report:   func(in trainer.Interval) error { return r.record(display, in) },
		Done:     func(step int) { display.phase.Advance(step) },
	}
	r.outcome, err = loop.Run(ctx)
	display.phase.Done()
	err = errors.Join(err, writer.Wait())
	r.At = r.outcome.At
	r.reportBad(loader)
	return err
}

// display is the progress of the step loop, which an evaluation interrupts.
type display struct {
	progress *runlog.Progress
	steps    int
	phase    *runlog.Phase
}

func (d *display) start(done int) { d.phase = d.progress.Start("step", done, d.steps) }

func (r *Run) newLoader() (*dataset.Loader, error) {
	c, in := r.config, r.inputs
	o := configured.LoaderOptions(c.Data)
	o.BatchSize, o.ImageSize, o.MaxTextLen, o.Caption, o.Seed = c.Train.BatchSize, in.ImageSize, in.MaxTextLen, in.Caption,
		c.Seed
	o.Start = dataset.Position{Epoch: r.At.Epoch, Index: r.At.Index, Streams: r.At.Streams}
	return dataset.NewMixtureLoader(r.mixture, in.Tokenizer, o)
}

func newSchedule(c config.Common, batchesPerEpoch int64) (trainer.Schedule, error) {
	steps, perEpoch := c.Train.Steps.Int(), max(int(batchesPerEpoch), 1)
	s := trainer.Schedule{Kind: trainer.ScheduleKind(c.Optim.Schedule), Peak: c.Optim.LR, Min: c.Optim.MinLR,
		WarmupStart: c.Optim.WarmupLR, WarmupSteps: c.Optim.WarmupSteps.Int(), TotalSteps: steps,
		StepsPerEpoch: perEpoch, Epochs: max(1, (steps+perEpoch-1)/perEpoch)}
	return s, s.Validate()
}

func (r *Run) next(ctx context.Context, loader *dataset.Loader) (trainer.Feed, error) {
	batch, err := loader.Next(ctx)
	if err != nil {
		return trainer.Feed{}, err
	}
	defer batch.Release()
	at := batch.Position()
	fed, err := r.inputs.Feed(batch)
	return trainer.Feed{Epoch: at.Epoch, Index: at.Index, Streams: at.Streams, Tensors: fed}, err
}

func (r *Run) save(writer *checkpoint.Writer, at trainer.Position) error {
	r.asked = time.Now()
	snapshot, err := trainer.TakeSnapshot(r.Store, r.model.Task.Params, at.Step, trainer.State{
		Seed: r.config.Seed, Epoch: at.Epoch, Index: at.Index, Streams: at.Streams,
		DataRows: r.dataRows(), ConfigHash: r.stage.Config().Hash(), Command: r.stage.Command(),
		Progress: r.step.Progress()})
	if err != nil {
		return err
	}
	return writer.Enqueue(snapshot)
}

// dataRows are the rows of every data set, as trainer.State has them.
func (r *Run) dataRows() string {
	var rows []string
	for _, share := range r.mixture.Shares() {
		rows = append(rows, strconv.FormatInt(share.Rows, 10))
	}
	return strings.Join(rows, " ")
}

// checkData refuses data sets of other sizes than those that a checkpoint was made with: what stands at a position
// would be another row. Checkpoints that do not say the sizes are taken as they are.
func (r *Run) checkData(had string) error {
	if had == "" || had == r.dataRows() {
		return nil
	}
	const remedy = "the order would be another one; bring the data back as they were, or start a new run"
	now, then := strings.Fields(r.dataRows()), strings.Fields(had)
	if len(now) != len(then) {
		return fmt.Errorf("there are %d data sets and there were %d: %s", len(now), len(then), remedy)
	}
	i := 0
	for now[i] == then[i] && i < len(now)-1 {
		i++
	}
	return fmt.Errorf("data.train[%d] (%s) has %s rows and had %s: %s", i, r.mixture.Shares()[i].Name, now[i], then[i],
		remedy)
}

// slowDisk is what a disk is taken to write in bytes per second before the first checkpoint has shown it.
const slowDisk = 200e6

// ending is how long the last checkpoint and the report will take.
func (r *Run) ending() time.Duration {
	if took := time.Duration(r.saving.Load()); took > 0 {
		return took + time.Second
	}
	bytes := 3 * 4 * float64(r.Summary.TrainableParameters) // values and both moments
	return time.Duration(bytes/slowDisk*float64(time.Second)) + time.Second
}

func (r *Run) saved(s checkpoint.Saved) {
	r.saving.Store(max(r.saving.Load(), int64(time.Since(r.asked))))
	r.Summary.Checkpoint = filepath.ToSlash(filepath.Join(checkpoint.Folder, filepath.Base(s.Dir)))
}

// record writes an interval to the log, metrics.jsonl, TensorBoard and the progress display.
func (r *Run) record(d *display, in trainer.Interval) error {
	r.last = in
	fields := []runlog.Field{runlog.F("loss", in.Loss)}
	for i, name := range r.model.Task.Terms {
		fields = append(fields, runlog.F(name, in.Terms[i]))
	}
	fields = append(fields, runlog.F("lr", in.LR), runlog.F("img_per_s", in.ImgPerS))
	if mfu := r.mfu(in.ImgPerS); mfu > 0 {
		fields = append(fields, runlog.F("mfu", mfu))
	}
	d.phase.Report(fields...)
	measures, err := r.stage.Measures(r)
	if err != nil {
		return err
	}
	fields = append(fields, runlog.F("grad_norm", in.GradNorm))
	fields = append(fields, measures...)
	fields = append(fields, runlog.F("epoch", float64(in.Epoch)), runlog.F("step_s", in.StepSeconds),
		runlog.F("data_wait_s", in.WaitSeconds))
	if m := measure.MemoryNow(); m.Total > 0 {
		fields = append(fields, runlog.F("memory_gb", float64(m.Total)/1e9))
	}
	if in.LossScale != 1 {
		fields = append(fields, runlog.F("loss_scale", in.LossScale))
	}
	if in.Skipped > 0 {
		fields = append(fields, runlog.F("skipped", float64(in.Skipped)))
		r.Log.Warn("steps skipped: loss or gradient not finite", "step", in.Step, "skipped", in.Skipped)
	}
	if starved(in) {
		r.Log.Info("the training waits for data: more data.workers may help", "step", in.Step,
			"data_wait_s", in.WaitSeconds, "step_s", in.StepSeconds)
	}
	r.watchCompilations(in.Step)
	r.logInterval(in.Step, fields)
	return r.Metrics.Record(in.Step, fields...)
}

// logInterval writes an interval as one line of log.txt. The terminal shows it as progress.
func (r *Run) logInterval(step int, fields []runlog.Field) {
	attributes := []any{"step", step}
	for _, f := range fields {
		attributes = append(attributes, f.Key, f.Value)
	}
	r.logFile.Info("interval", attributes...)
}

// watchCompilations says what was compiled, and warns where it happens again: shapes that vary cost a compilation each.
func (r *Run) watchCompilations(step int) {
	n := r.step.Compilations()
	switch {
	case n == r.compiled:
		return
	case r.compiled == 0:
		r.Log.Info("compiled", "programs", n, "seconds", r.step.CompileTime().Seconds())
	default:
		r.Log.Warn("compiled again: batches have new shapes", "step", step, "programs", n,
			"seconds", r.step.CompileTime().Seconds())
	}
	r.compiled = n
}

// starved reports whether waiting for data took more than a tenth of the time.
func starved(in trainer.Interval) bool {
	return in.WaitSeconds > 0.1*(in.WaitSeconds+in.StepSeconds)
}

func (r *Run) reportBad(loader *dataset.Loader) {
	bad := loader.BadSamples()
	r.Summary.BadSamples = len(bad)
	for _, b := range bad {
		r.Log.Warn("bad sample replaced", "source", b.Source, "key", b.Key, "reason", b.Reason)
	}
}
