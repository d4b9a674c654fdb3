package trainer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gomlx/gomlx/core/tensors"
)

// ErrDiverged reports that too many steps in a row had a loss or gradient that was not finite.
var ErrDiverged = errors.New("the training diverged")

// Feed is one batch on its way to the device.
type Feed struct {
	Tensors []*tensors.Tensor // in the order in which Task.Loss takes them
	Epoch   int64             // data position behind this batch
	Index   int64
	Streams string // likewise, where the data has streams
}

// Status says why a loop ended.
type Status int

// The ways a loop ends without an error.
const (
	Finished    Status = iota // all steps were done
	Interrupted               // the context was cancelled; the state after the last step was saved
	TimeUp                    // MaxTime was over; likewise
)

// Interval sums up the steps since the last report. Losses are means over the steps that were applied.
type Interval struct {
	Step     int // steps done so far
	Epoch    int64
	Loss     float64
	Terms    []float64
	LR       float64 // of the last step
	GradNorm float64 // of the last step, before clipping
	ImgPerS  float64 // pictures per second, compilation left out
	Skipped  int     // steps that were not applied because something was not finite

	StepSeconds float64 // mean time of a step, compilation left out
	WaitSeconds float64 // mean time before it in which the loop waited for its batch
	LossScale   float64 // of the next step; 1 unless the task computes in float16
}

// Loop runs training steps until the end, an interrupt or the time limit.
type Loop struct {
	Step     *Step
	Schedule Schedule
	Steps    int // total number of steps of the run
	Start    int // steps that are done already

	BatchSize  int
	LogEvery   int           // steps between reports
	SaveEvery  int           // steps between checkpoints; 0 saves at the end alone
	EvalEvery  int           // steps between evaluations; 0 for none
	MaxTime    time.Duration // from Began to the end of the last save; 0 means no limit
	Began      time.Time     // zero means the start of the loop
	MaxSkipped int           // steps in a row that may be skipped before the run stops

	Position Position // data position at the start

	Next   func(ctx context.Context) (Feed, error) // brings the next batch
	Save   func(Position) error                    // saves the state after Position.Step steps
	Report func(Interval) error                    // receives an interval
	// Evaluate measures the model after Position.Step steps, but not after the last one. It may be nil without EvalEvery.
	Evaluate func(context.Context, Position) error
	Owed     bool             // the evaluation after Start steps is due as well: an interrupt came before its end
	Done     func(step int)   // is told after every step; may be nil
	Now      func() time.Time // tells the time; nil means time.Now
	// Ending is how long it takes to end the run after a step; nil means no time.
	Ending func() time.Duration
}

// Position is where a run stands: steps done, and where in the data it goes on.
type Position struct {
	Step         int
	Epoch, Index int64
	Streams      string
}

// Outcome is how a loop ended.
type Outcome struct {
	Status  Status
	At      Position
	Last    Interval // the last report
	ImgPerS float64  // over the whole loop, compilation left out
	Skipped int      // steps not applied, in total
}

// Run trains. An interrupt or the time limit lets the step in progress finish. The state is saved at the end, also when
// the data give out or the training diverges, but not after a step or a checkpoint that failed.
func (l *Loop) Run(ctx context.Context) (Outcome, error) {
	r := &runner{Loop: l, pos: l.Position, now: l.Now}
	if r.now == nil {
		r.now = time.Now
	}
	if r.began = l.Began; r.began.IsZero() {
		r.began = r.now()
	}
	r.pos.Step = l.Start
	r.interval.reset()
	if l.Owed {
		if err := r.evaluate(ctx); err != nil {
			return r.unmeasured(ctx, err)
		}
	}
	for r.pos.Step < l.Steps {
		if status, stop := r.stopping(ctx); stop {
			return r.finish(status)
		}
		asked := r.now()
		feed, err := l.Next(ctx)
		waited := r.now().Sub(asked)
		if err != nil {
			if ctx.Err() != nil {
				return r.finish(Interrupted)
			}
			return r.outcome(Finished), r.withoutData(err)
		}
		if err := r.step(feed, waited); err != nil {
			return r.outcome(Finished), err
		}
		if err := r.evaluate(ctx); err != nil {
			return r.unmeasured(ctx, err)
		}
	}
	return r.finish(Finished)
}

// runner is the state of one Run.
type runner struct {
	*Loop
	pos      Position
	saved    int // step of the last checkpoint asked for; 0 for none
	now      func() time.Time
	began    time.Time
	last     Interval
	result   Result  // of the last step
	lr       float64 // likewise
	interval meter
	total    meter
	longest  time.Duration // of a step with its batch
}

// meter adds up losses and time.
type meter struct {
	loss    float64
	terms   []float64
	applied int
	steps   int
	skipped int
	busy    time.Duration
	waited  time.Duration
}

func (m *meter) reset() { *m = meter{} }

func (m *meter) add(r Result, took, waited time.Duration) {
	m.steps++
	m.busy += took
	m.waited += waited
	if !r.Applied {
		m.skipped++
		return
	}
	m.applied++
	m.loss += r.Loss
	if m.terms == nil {
		m.terms = make([]float64, len(r.Terms))
	}
	for i, v := range r.Terms {
		m.terms[i] += v
	}
}

// rate is the speed in pictures per second, waiting for data included.
func (m *meter) rate(batch int) float64 {
	if m.busy+m.waited <= 0 {
		return 0
	}
	return float64(m.steps*batch) / (m.busy + m.waited).Seconds()
}

func (r *runner) stopping(ctx context.Context) (Status, bool) {
	if ctx.Err() != nil {
		return Interrupted, true
	}
	if r.MaxTime <= 0 {
		return Finished, false
	}
	needed := r.longest
	if r.Ending != nil {
		needed += r.Ending()
	}
	return TimeUp, r.now().Sub(r.began)+needed >= r.MaxTime
}

// step runs one step on the feed and does what is due after it.
func (r *runner) step(feed Feed, waited time.Duration) error {
	lr := r.Schedule.LR(r.pos.Step)
	compiled := r.Step.CompileTime()
	start := r.now()
	result, err := r.Step.Run(r.pos.Step, lr, feed.Tensors)
	took := r.now().Sub(start) - (r.Step.CompileTime() - compiled)
	for _, t := range feed.Tensors {
		t.MustFinalizeAll()
	}
	if err != nil {
		return err
	}
	r.pos = Position{Step: r.pos.Step + 1, Epoch: feed.Epoch, Index: feed.Index, Streams: feed.Streams}
	r.result, r.lr = result, lr
	r.longest = max(r.longest, took+waited)
	r.interval.add(result, took, waited)
	r.total.add(result, took, waited)
	if r.Done != nil {
		r.Done(r.pos.Step)
	}
	if err := r.checkFinite(result); err != nil {
		return err
	}
	if r.pos.Step%r.LogEvery == 0 || r.pos.Step == r.Steps {
		if err := r.report(); err != nil {
			return err
		}
	}
	if r.SaveEvery > 0 && r.pos.Step%r.SaveEvery == 0 && r.pos.Step < r.Steps {
		return r.save()
	}
	return nil
}

// evaluate measures the model where that is due.
func (r *runner) evaluate(ctx context.Context) error {
	if r.EvalEvery <= 0 || r.pos.Step == 0 || r.pos.Step%r.EvalEvery != 0 || r.pos.Step == r.Steps {
		return nil
	}
	return r.Evaluate(ctx, r.pos)
}

// unmeasured ends a run whose evaluation has failed or was interrupted.
func (r *runner) unmeasured(ctx context.Context, err error) (Outcome, error) {
	if ctx.Err() != nil {
		return r.finish(Interrupted)
	}
	return r.outcome(Finished), err
}

// checkFinite counts skipped steps and gives up after too many in a row.
func (r *runner) checkFinite(result Result) error {
	inARow := r.Step.Progress().SkippedInARow
	if result.Applied || inARow <= r.MaxSkipped {
		return nil
	}
	if err := r.save(); err != nil {
		return errors.Join(ErrDiverged, err)
	}
	return fmt.Errorf("%w: %d steps in a row up to step %d had a loss or gradient that was not finite "+
		"(loss %g, gradient norm %g); the state was saved; try a lower optim.lr or a longer warm-up",
		ErrDiverged, inARow, r.pos.Step, result.Loss, result.GradNorm)
}

// report closes the interval.
func (r *runner) report() error {
	m := &r.interval
	in := Interval{Step: r.pos.Step, Epoch: r.pos.Epoch, LR: r.lr, GradNorm: r.result.GradNorm,
		ImgPerS: m.rate(r.BatchSize), Skipped: m.skipped, Loss: r.result.Loss, Terms: r.result.Terms,
		LossScale: r.Step.LossScale()}
	if m.steps > 0 {
		in.StepSeconds, in.WaitSeconds = m.busy.Seconds()/float64(m.steps), m.waited.Seconds()/float64(m.steps)
	}
	if m.applied > 0 {
		in.Loss = m.loss / float64(m.applied)
		in.Terms = make([]float64, len(m.terms))
		for i, v := range m.terms {
			in.Terms[i] = v / float64(m.applied)
		}
	}
	r.last = in
	m.reset()
	return r.Report(in)
}

func (r *runner) save() error {
	if r.saved == r.pos.Step && r.saved > 0 {
		return nil
	}
	r.saved = r.pos.Step
	return r.Save(r.pos)
}

// withoutData ends a run whose data gave out: nothing is wrong with what was trained until then.
func (r *runner) withoutData(cause error) error {
	cause = fmt.Errorf("step %d: %w", r.pos.Step, cause)
	if r.pos.Step == r.Start {
		return cause
	}
	if err := r.save(); err != nil {
		return errors.Join(cause, err)
	}
	return fmt.Errorf("%w; the state after step %d was saved", cause, r.pos.Step)
}

func (r *runner) finish(status Status) (Outcome, error) {
	// Also where nothing was left to do: a process that was killed in its last save may not have tidied up after it.
	if err := r.save(); err != nil {
		return r.outcome(status), err
	}
	if r.interval.steps > 0 { // an interval that was cut short
		if err := r.report(); err != nil {
			return r.outcome(status), err
		}
	}
	return r.outcome(status), nil
}

func (r *runner) outcome(status Status) Outcome {
	return Outcome{Status: status, At: r.pos, Last: r.last, ImgPerS: r.total.rate(r.BatchSize), Skipped: r.total.skipped}
}
