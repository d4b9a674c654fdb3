package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"blip2/pkg/checkpoint"
	"blip2/pkg/report"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// beforeFile keeps the scores of the untrained model for a run that is resumed.
const beforeFile = "scores-before.json"

// scoreBefore evaluates the untrained model, or takes the scores from the run's first start.
func (r *Run) scoreBefore(ctx context.Context) error {
	if !r.config.Eval.Before {
		return nil
	}
	file := filepath.Join(r.RunDir, beforeFile)
	if r.At.Step > 0 {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the run was started without
		}
		var scores runlog.Scores
		if err == nil {
			err = json.Unmarshal(data, &scores)
		}
		if err != nil {
			return fmt.Errorf("resume: scores of the untrained model in %s: %w; without the file the run goes on", file, err)
		}
		r.keepBefore(scores)
		return nil
	}
	scores, err := r.stage.Score(ctx, r, "evaluating before", false)
	if err != nil || scores.Empty() {
		return err
	}
	r.keepBefore(scores)
	data, err := json.MarshalIndent(scores, "", "  ")
	if err != nil {
		return err
	}
	return runlog.WriteFile(file, append(data, '\n'))
}

func (r *Run) keepBefore(s runlog.Scores) {
	r.Summary.RetrievalBefore, r.Summary.CaptionsBefore = s.Retrieval, s.Captions
}

// evaluate scores the model in the middle of the training, remembers the best checkpoint, and lets the report grow.
func (r *Run) evaluate(ctx context.Context, d *display, writer *checkpoint.Writer, at trainer.Position) error {
	r.At = at
	scores, err := r.stage.Score(ctx, r, "evaluating", true)
	d.start(at.Step)
	if err != nil || scores.Empty() {
		return err
	}
	r.Summary.Scores = scores
	fields := scores.Fields()
	attributes := []any{"step", at.Step}
	for _, f := range fields {
		attributes = append(attributes, f.Key, f.Value)
	}
	r.Log.Info("evaluated", attributes...)
	if err := r.Metrics.Record(at.Step, fields...); err != nil {
		return err
	}
	if r.best.improves(at.Step, fields) {
		// Protected before it is written, so that nothing prunes it in between.
		writer.Protect(r.best.steps()...)
		if err := r.save(writer, at); err != nil {
			return err
		}
	}
	return r.grow()
}

// grow writes the summary and the report of a run in progress, once there is something to see.
func (r *Run) grow() error {
	if r.last.Step == 0 {
		return nil
	}
	if err := r.summarise(runlog.StatusRunning, r.last); err != nil {
		return err
	}
	_, err := report.Build(r.RunDir)
	return err
}

// scoreAfter evaluates the trained model and makes the gallery, unless an interrupt or the time limit ended the
// training: then the process should end soon.
func (r *Run) scoreAfter(ctx context.Context) error {
	if r.outcome.Status != trainer.Finished {
		return nil
	}
	scores, err := r.stage.Score(ctx, r, "evaluating", true)
	if err != nil && ctx.Err() != nil {
		// The training is done and saved: what was interrupted is the evaluation alone.
		r.outcome.Status = trainer.Interrupted
		return nil
	}
	if err != nil || scores.Empty() {
		return err
	}
	r.Summary.Scores = scores
	return nil
}

// best is the evaluation with the highest value of the measurement that checkpoint.best names.
type best struct {
	key   string
	step  int // 0: none yet
	value float64
}

// steps are the checkpoints to protect.
func (b *best) steps() []int {
	if b.step == 0 {
		return nil
	}
	return []int{b.step}
}

// improves takes the fields of an evaluation and reports whether they are the best so far.
func (b *best) improves(step int, fields []runlog.Field) bool {
	for _, f := range fields {
		if b.key != "" && f.Key == b.key && (b.step == 0 || f.Value > b.value) {
			b.step, b.value = step, f.Value
			return true
		}
	}
	return false
}

// lookBack reads what a run that goes on has logged: it finds the best evaluation, and says whether the one that
// would be due where the run stands has no row, because an interrupt came before its end.
func (r *Run) lookBack() (owed bool, err error) {
	r.best = best{key: r.config.Checkpoint.Best}
	if r.At.Step == 0 {
		return false, nil
	}
	rows, err := runlog.ReadMetrics(filepath.Join(r.RunDir, runlog.MetricsFile))
	if err != nil {
		return false, err
	}
	owed = true
	for _, row := range rows {
		r.best.improves(row.Step, row.Fields)
		evaluated := slices.ContainsFunc(row.Fields, func(f runlog.Field) bool { return strings.Contains(f.Key, "/") })
		owed = owed && !(evaluated && row.Step == r.At.Step)
	}
	return owed, nil
}
