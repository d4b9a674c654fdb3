package trainer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorder is a loop over toy batches that writes down what happens.
type recorder struct {
	loop    Loop
	events  []string
	reports []Interval
	results []Result // of the single steps: those of a second, equal step
	poison  func(step int) bool
	next    int // batches given
	failAt  int // batch that cannot be brought; −1 for none
	saveErr error
}

// newRecorder returns a loop of the given length over a fresh model. Every fourth batch begins an epoch.
func newRecorder(t *testing.T, steps, logEvery, saveEvery int) *recorder {
	t.Helper()
	optimizer := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}
	r := &recorder{failAt: -1, poison: func(int) bool { return false }}
	step, twin := newToyStep(t, toyStore(t), optimizer, 0, 1), newToyStep(t, toyStore(t), optimizer, 0, 1)
	r.loop = Loop{
		Step: step, Schedule: Schedule{Kind: ScheduleConstant, Peak: 0.01, WarmupStart: -1, StepsPerEpoch: 4},
		Steps: steps, BatchSize: 4, LogEvery: logEvery, SaveEvery: saveEvery, MaxSkipped: 3,
		Next: func(ctx context.Context) (Feed, error) {
			if err := ctx.Err(); err != nil {
				return Feed{}, err
			}
			if r.next == r.failAt {
				return Feed{}, errors.New("the shard is gone")
			}
			at := r.next
			r.next++
			b := r.batch(at)
			r.results = append(r.results, runToy(t, twin, at, 0.01, b))
			return Feed{Tensors: b.tensors(), Epoch: int64(r.next / 4), Index: int64(4 * (r.next % 4))}, nil
		},
		Save: func(at Position) error {
			r.note("save %d at %d/%d", at.Step, at.Epoch, at.Index)
			return r.saveErr
		},
		Report: func(in Interval) error {
			r.note("report %d", in.Step)
			r.reports = append(r.reports, in)
			return nil
		},
		Done: func(step int) { r.note("done %d", step) },
	}
	return r
}

func (r *recorder) note(format string, args ...any) {
	r.events = append(r.events, fmt.Sprintf(format, args...))
}

// batch is toy batch i, with a gradient that is not a number where the test asks for it.
func (r *recorder) batch(i int) toyBatch {
	b := newToyBatch(i)
	if r.poison(i) {
		b.a = 0
	}
	return b
}

// only returns the events that begin with a word.
func (r *recorder) only(word string) string {
	var out []string
	for _, e := range r.events {
		if strings.HasPrefix(e, word) {
			out = append(out, e)
		}
	}
	return strings.Join(out, ", ")
}

func (r *recorder) run(t *testing.T, ctx context.Context) Outcome {
	t.Helper()
	outcome, err := r.loop.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return outcome
}

func TestLoopRhythm(t *testing.T) {
	for name, tt := range map[string]struct {
		steps, logEvery, saveEvery int
		want                       string
	}{
		"all together": {5, 2, 2, "done 1, done 2, report 2, save 2 at 0/8, done 3, done 4, report 4, save 4 at 1/0, " +
			"done 5, report 5, save 5 at 1/4"},
		"saves at the end alone": {2, 5, 0, "done 1, done 2, report 2, save 2 at 0/8"},
		"the last checkpoint is not doubled": {4, 4, 2, "done 1, done 2, save 2 at 0/8, done 3, done 4, report 4, " +
			"save 4 at 1/0"},
	} {
		r := newRecorder(t, tt.steps, tt.logEvery, tt.saveEvery)
		outcome := r.run(t, t.Context())
		if got := strings.Join(r.events, ", "); got != tt.want {
			t.Errorf("%s:\n%s, want\n%s", name, got, tt.want)
		}
		if outcome.Status != Finished || outcome.At.Step != tt.steps || outcome.Last.Step != tt.steps {
			t.Errorf("%s: %+v", name, outcome)
		}
	}
}

// TestLoopGoesOn: a loop that starts in the middle does the rest and nothing else.
func TestLoopGoesOn(t *testing.T) {
	r := newRecorder(t, 5, 2, 2)
	r.next = 3
	r.loop.Start, r.loop.Position = 3, Position{Step: 3, Index: 12}
	r.run(t, t.Context())
	const want = "done 4, report 4, save 4 at 1/0, done 5, report 5, save 5 at 1/4"
	if got := strings.Join(r.events, ", "); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	r = newRecorder(t, 5, 2, 2)
	r.loop.Start, r.loop.Position = 5, Position{Step: 5, Epoch: 1, Index: 4}
	outcome := r.run(t, t.Context())
	if strings.Join(r.events, ", ") != "save 5 at 1/4" || outcome.Status != Finished || outcome.At != r.loop.Position {
		t.Errorf("a run that is done: %s, %+v", r.events, outcome)
	}
}

// TestIntervals: an interval holds the means of its own applied steps.
func TestIntervals(t *testing.T) {
	r := newRecorder(t, 8, 3, 0)
	r.loop.MaxSkipped = 10
	r.poison = func(step int) bool { return step == 1 || step >= 6 }
	outcome := r.run(t, t.Context())
	if len(r.reports) != 3 || outcome.Skipped != 3 {
		t.Fatalf("%d reports, %d steps skipped; want 3 and 3", len(r.reports), outcome.Skipped)
	}
	for i, steps := range [][]int{{0, 2}, {3, 4, 5}} {
		var loss, first, second float64
		for _, s := range steps {
			loss += r.results[s].Loss / float64(len(steps))
			first += r.results[s].Terms[0] / float64(len(steps))
			second += r.results[s].Terms[1] / float64(len(steps))
		}
		in := r.reports[i]
		for name, pair := range map[string][2]float64{"loss": {in.Loss, loss}, "first term": {in.Terms[0], first},
			"second term": {in.Terms[1], second}, "rate": {in.LR, 0.01},
			"norm": {in.GradNorm, r.results[3*i+2].GradNorm}, "skipped": {float64(in.Skipped), float64(3 - len(steps))},
			"epoch": {float64(in.Epoch), float64(3 * (i + 1) / 4)}} {
			if !(math.Abs(pair[0]-pair[1]) <= 1e-9) {
				t.Errorf("report %d: %s is %g, want %g", i, name, pair[0], pair[1])
			}
		}
	}
	// With a poisoned batch the loss itself is finite, only the gradient is not: it is shown, as there is no mean.
	if in := r.reports[2]; in.Skipped != 2 || in.Loss != r.results[7].Loss || !math.IsNaN(in.GradNorm) {
		t.Errorf("an interval without an applied step: %+v", in)
	}
}

// ticking is a clock that goes on by a second each time it is asked.
func ticking() func() time.Time {
	now := time.Unix(0, 0)
	return func() time.Time {
		now = now.Add(time.Second)
		return now
	}
}

func TestSpeed(t *testing.T) {
	r := newRecorder(t, 6, 2, 0)
	r.loop.Now = ticking()
	r.poison = func(step int) bool { return step == 3 } // was not applied, but took its time
	r.run(t, t.Context())
	for _, in := range r.reports[1:] { // the first one has the compilation, which took real time
		if in.ImgPerS != 2 || in.StepSeconds != 1 || in.WaitSeconds != 1 {
			t.Errorf("step %d: %g img/s, %g s of steps and %g s of waiting; want 4 pictures in a second of each", in.Step,
				in.ImgPerS, in.StepSeconds, in.WaitSeconds)
		}
	}
}

func TestTimeLimit(t *testing.T) {
	r := newRecorder(t, 100, 10, 0)
	r.loop.Now, r.loop.MaxTime = ticking(), 22*time.Second
	outcome := r.run(t, t.Context())
	// A step asks for the time five times: whether to stop, and around the batch and the step. Of the 20 seconds after
	// three steps two more are kept for the next one.
	if outcome.Status != TimeUp || outcome.At.Step != 4 || r.only("save") != "save 4 at 1/0" {
		t.Errorf("%+v, %s", outcome, r.only("save"))
	}
	r = newRecorder(t, 100, 10, 0)
	r.loop.Now, r.loop.MaxTime = ticking(), 22*time.Second
	r.loop.Ending = func() time.Duration { return 5 * time.Second }
	if outcome := r.run(t, t.Context()); outcome.Status != TimeUp || outcome.At.Step != 3 {
		t.Errorf("with time to end: %+v", outcome)
	}
	r = newRecorder(t, 100, 10, 0)
	r.loop.Now, r.loop.MaxTime, r.loop.Began = ticking(), time.Minute, time.Unix(-3600, 0)
	if outcome := r.run(t, t.Context()); outcome.Status != TimeUp || outcome.At.Step != 0 {
		t.Errorf("a process that began before its time: %+v", outcome)
	}
}

// TestEvaluate: the loop evaluates where that is due, but not after the last step, and an interrupt in it is one.
func TestEvaluate(t *testing.T) {
	r := newRecorder(t, 6, 10, 0)
	r.loop.EvalEvery = 2
	r.loop.Evaluate = func(_ context.Context, at Position) error {
		r.note("evaluate %d at %d/%d", at.Step, at.Epoch, at.Index)
		return nil
	}
	r.run(t, t.Context())
	if got := r.only("evaluate"); got != "evaluate 2 at 0/8, evaluate 4 at 1/0" {
		t.Errorf("evaluated %q", got)
	}
	r = newRecorder(t, 6, 10, 0)
	ctx, cancel := context.WithCancel(t.Context())
	r.loop.EvalEvery = 2
	r.loop.Evaluate = func(ctx context.Context, _ Position) error {
		cancel()
		return ctx.Err()
	}
	if outcome := r.run(t, ctx); outcome.Status != Interrupted || outcome.At.Step != 2 || r.only("save") != "save 2 at 0/8" {
		t.Errorf("an interrupted evaluation: %+v, %s", outcome, r.only("save"))
	}
}

func TestInterrupt(t *testing.T) {
	for name, tt := range map[string]struct {
		arrange func(r *recorder, cancel func())
		steps   int
		save    string
	}{
		"before the first step": {func(_ *recorder, cancel func()) { cancel() }, 0, "save 0 at 0/0"},
		"between two steps": {func(r *recorder, cancel func()) {
			r.loop.Done = func(step int) {
				if step == 3 {
					cancel()
				}
			}
		}, 3, "save 3 at 0/12"},
		"while a batch is waited for": {func(r *recorder, cancel func()) {
			next := r.loop.Next
			r.loop.Next = func(ctx context.Context) (Feed, error) {
				if r.next < 2 {
					return next(ctx)
				}
				cancel()
				<-ctx.Done()
				return Feed{}, ctx.Err()
			}
		}, 2, "save 2 at 0/8"},
		"just after a batch came: its step is done": {func(r *recorder, cancel func()) {
			next := r.loop.Next
			r.loop.Next = func(ctx context.Context) (Feed, error) {
				if r.next == 2 {
					defer cancel()
				}
				return next(ctx)
			}
		}, 3, "save 3 at 0/12"},
		"just after a checkpoint": {func(r *recorder, cancel func()) {
			save := r.loop.Save
			r.loop.Save = func(at Position) error {
				cancel()
				return save(at)
			}
			r.loop.SaveEvery = 2
		}, 2, "save 2 at 0/8"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		r := newRecorder(t, 6, 2, 0)
		tt.arrange(r, cancel)
		outcome := r.run(t, ctx)
		// The steps since the last report are reported, whole interval or not.
		if outcome.Last.Step != tt.steps || len(r.reports) != (tt.steps+1)/2 {
			t.Errorf("%s: reported are %+v", name, r.reports)
		}
		if outcome.Status != Interrupted || outcome.At.Step != tt.steps || r.only("save") != tt.save {
			t.Errorf("%s: %+v, %q; want %q", name, outcome, r.only("save"), tt.save)
		}
		cancel()
	}
}

func TestDivergence(t *testing.T) {
	r := newRecorder(t, 20, 100, 0)
	r.poison = func(step int) bool { return step == 1 || step >= 4 } // the one that is alone is forgiven
	_, err := r.loop.Run(t.Context())
	if !errors.Is(err, ErrDiverged) {
		t.Fatalf("error %v", err)
	}
	for _, want := range []string{"4 steps in a row up to step 8", "optim.lr", "saved", "NaN"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %q", want, err)
		}
	}
	if r.only("save") != "save 8 at 2/0" {
		t.Errorf("saved: %s", r.only("save"))
	}
	r = newRecorder(t, 20, 100, 0)
	r.poison = func(step int) bool { return step%4 != 0 }
	if outcome := r.run(t, t.Context()); outcome.Skipped != 15 {
		t.Errorf("three bad steps in a row are allowed: %+v", outcome)
	}
	r = newRecorder(t, 20, 100, 0)
	r.poison = func(int) bool { return true }
	r.saveErr = errors.New("the disk is full")
	if _, err := r.loop.Run(t.Context()); !errors.Is(err, ErrDiverged) || !errors.Is(err, r.saveErr) {
		t.Errorf("saving fails: %v", err)
	}
}

// TestDataGivesOut: what was trained until then is saved.
func TestDataGivesOut(t *testing.T) {
	for failAt, save := range map[int]string{0: "", 3: "save 3 at 0/12"} {
		r := newRecorder(t, 6, 2, 0)
		r.failAt = failAt
		_, err := r.loop.Run(t.Context())
		want := fmt.Sprintf("step %d: the shard is gone", failAt)
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "saved") != (save != "") {
			t.Errorf("error %v, want %s", err, want)
		}
		if r.only("save") != save {
			t.Errorf("saved: %q, want %q", r.only("save"), save)
		}
	}
}

// TestLoopFailures: what cannot be written down or saved ends the run, and no error is lost.
func TestLoopFailures(t *testing.T) {
	full := errors.New("the disk is full")
	for name, arrange := range map[string]func(r *recorder, cancel func()){
		"report": func(r *recorder, _ func()) { r.loop.Report = func(Interval) error { return full } },
		"save":   func(r *recorder, _ func()) { r.loop.SaveEvery, r.saveErr = 1, full },
		"save at the end": func(r *recorder, _ func()) {
			r.saveErr = full
		},
		"save after an interrupt": func(r *recorder, cancel func()) {
			r.saveErr = full
			r.loop.Done = func(int) { cancel() }
		},
		"save after bad data": func(r *recorder, _ func()) { r.saveErr, r.failAt = full, 2 },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		r := newRecorder(t, 3, 1, 0)
		arrange(r, cancel)
		if _, err := r.loop.Run(ctx); !errors.Is(err, full) {
			t.Errorf("%s: error %v", name, err)
		}
		cancel()
	}
}

// TestLoopStepFails: a step that fails ends the run without a checkpoint of what it may have left.
func TestLoopStepFails(t *testing.T) {
	r := newRecorder(t, 6, 2, 0)
	next := r.loop.Next
	r.loop.Next = func(ctx context.Context) (Feed, error) {
		feed, err := next(ctx)
		if r.next == 3 {
			feed.Tensors = slices.Concat(feed.Tensors[:1], feed.Tensors[:1], feed.Tensors[2:])
		}
		return feed, err
	}
	if _, err := r.loop.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "step 2") || r.only("save") != "" {
		t.Errorf("error %v, saved %q", err, r.only("save"))
	}
}
