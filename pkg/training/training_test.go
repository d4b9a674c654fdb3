package training

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/gofrs/flock"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/device"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// brightness is a stage that fits a linear function of pixels to 1. What it was asked for is in calls.
type brightness struct {
	config *config.Stage1
	calls  []string
	sets   []EvalSet
	scores map[int]float64 // held-out recall after so many steps
	weak   string          // method that fails
	onMean func()          // is called whenever Measures is
}

func (s *brightness) called(what string) error {
	s.calls = append(s.calls, what)
	if s.weak == what {
		return errors.New(what + " has failed")
	}
	return nil
}

func (s *brightness) Command() string { return "fit-brightness" }
func (s *brightness) Config() Config  { return s.config }
func (s *brightness) Close()          { _ = s.called("Close") }

const side = 16 // of a picture

func (s *brightness) Inputs(*Run) (Inputs, error) {
	return Inputs{Tokenizer: noTokens{}, ImageSize: side, MaxTextLen: noLength,
		Caption: dataset.CaptionProcessor{MaxWords: 50}, Feed: func(b *dataset.Batch) ([]*tensors.Tensor, error) {
			rows := len(b.ImageIndex)
			return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(slices.Clone(b.Pixels), rows, 3*side*side)}, nil
		}}, s.called("Inputs")
}

func (s *brightness) Prepare(r *Run) (err error) {
	if s.sets, err = r.EvalSets(nil, 3, 0); err != nil {
		return err
	}
	return s.called("Prepare")
}

func (s *brightness) Build(r *Run) (Model, error) {
	m := brightnessModel()
	if err := model.Initialize(r.Store, m.Params, 1); err != nil {
		return m, err
	}
	return m, s.called("Build")
}

func brightnessModel() Model {
	params := []model.Param{{Name: "slope", Shape: []int{3 * side * side, 1}, Init: model.Normal(0.01)},
		{Name: "still", Shape: []int{2}, Init: model.Constant(3)}}
	return Model{Params: params, Optimizer: trainer.AdamW{Betas: [2]float64{0.9, 0.99}, Eps: 1e-8}, StepFLOPs: 1e6,
		Task: trainer.Task{Params: params[:1], Terms: []string{"loss_itc"},
			Loss: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
				slope := scope.Store().GetVariable(model.Path("slope")).NodeValue(in[0].Graph())
				loss := ReduceAllMean(Square(AddScalar(MatMul(in[0], slope), -1)))
				return loss, []*Node{MulScalar(loss, 2)}
			}}}
}

func (s *brightness) Score(_ context.Context, r *Run, phase string, gallery bool) (runlog.Scores, error) {
	scores := runlog.Scores{Retrieval: map[string]runlog.RetrievalScores{
		runlog.SplitHeldout: {I2TR1: runlog.Float(s.scores[r.At.Step])}}}
	return scores, s.called(fmt.Sprintf("Score %d %s %t", r.At.Step, phase, gallery))
}

func (s *brightness) Measures(*Run) ([]runlog.Field, error) {
	if s.onMean != nil {
		s.onMean()
	}
	return []runlog.Field{runlog.F("temp", 0.5)}, nil
}

// lab is a folder with data in which trainings run.
type lab struct {
	t   *testing.T
	dir string
	dev *device.Device
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir()}
	if err := toydata.Write(l.dir); err != nil {
		t.Fatal(err)
	}
	var err error
	o := device.Options{Backend: "go", Logger: slog.New(slog.DiscardHandler)}
	if l.dev, err = device.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.dev.Close() })
	return l
}

// stage is a stage of 10 steps with a checkpoint every 4, with settings over these.
func (l *lab) stage(set ...string) *brightness {
	l.t.Helper()
	c, _, err := config.LoadStage1(config.LoadOptions{Path: filepath.Join(l.dir, toydata.ConfigFile), Set: set})
	if err != nil {
		l.t.Fatal(err)
	}
	return &brightness{config: c}
}

func (l *lab) run(name string) string { return filepath.Join(l.dir, "runs", name) }

// do runs a stage in the run folder of the given name and returns the log beside the result.
func (l *lab) do(ctx context.Context, s *brightness, name string, resume bool) (*Result, string, error) {
	l.t.Helper()
	var log bytes.Buffer
	s.calls = nil
	r, err := Do(ctx, s, Options{RunDir: l.run(name), Resume: resume, Device: l.dev, CommandLine: "blip2 test",
		Log: slog.New(slog.NewTextHandler(&log, nil)), Progress: runlog.NewProgress(runlog.ProgressOptions{Out: &log})})
	if n := strings.Count(strings.Join(s.calls, ","), "Close"); n != 1 {
		l.t.Errorf("the stage was closed %d times", n)
	}
	return r, log.String(), err
}

// done is do of a training that must not fail.
func (l *lab) done(s *brightness, name string, resume bool) *Result {
	l.t.Helper()
	r, log, err := l.do(l.t.Context(), s, name, resume)
	if err != nil {
		l.t.Fatalf("%v\n%s", err, log)
	}
	return r
}

// final are the files of the last checkpoint.
func (l *lab) final(name string) map[string]string {
	l.t.Helper()
	out := map[string]string{}
	for _, file := range []string{checkpoint.ModelFile, checkpoint.OptimizerFile, checkpoint.StateFile} {
		data, err := os.ReadFile(filepath.Join(l.run(name), checkpoint.Folder, checkpoint.DirName(10), file))
		if err != nil {
			l.t.Fatal(err)
		}
		out[file] = string(data)
	}
	return out
}

// checkpoints are the names of those that a run has.
func (l *lab) checkpoints(name string) []string {
	l.t.Helper()
	entries, err := filepath.Glob(filepath.Join(l.run(name), checkpoint.Folder, "step-*"))
	if err != nil {
		l.t.Fatal(err)
	}
	for i, e := range entries {
		entries[i] = filepath.Base(e)
	}
	return entries
}

// TestDo: the stage is asked in the promised order, and the run leaves a folder that tells what was done.
func TestDo(t *testing.T) {
	l := newLab(t)
	s := l.stage("eval.every=4")
	s.scores = map[int]float64{0: 10, 10: 60}
	r := l.done(s, "a", false)
	want := []string{"Inputs", "Prepare", "Build", "Score 0 evaluating before false", "Score 4 evaluating true",
		"Score 8 evaluating true", "Score 10 evaluating true", "Close"}
	if !slices.Equal(s.calls, want) {
		t.Errorf("calls %q, want %q", s.calls, want)
	}
	sum := r.Summary
	if r.Status != trainer.Finished || sum.Status != runlog.StatusFinished || sum.Steps != 10 || sum.BatchSize != 6 ||
		sum.Parameters != 3*side*side+2 || sum.TrainableParameters != 3*side*side || sum.Command != "blip2 test" ||
		sum.TrainImages != toydata.TrainImages || sum.TrainTexts != 2*toydata.TrainImages || sum.Epochs != 2.5 ||
		sum.Checkpoint != checkpoint.Folder+"/"+checkpoint.DirName(10) {
		t.Errorf("status %v, summary %+v", r.Status, sum)
	}
	if sum.RetrievalBefore[runlog.SplitHeldout].I2TR1 != 10 || sum.Retrieval[runlog.SplitHeldout].I2TR1 != 60 {
		t.Errorf("scores %+v before, %+v after", sum.RetrievalBefore, sum.Retrieval)
	}
	if read, err := runlog.ReadSummary(l.run("a")); err != nil || read.Loss != sum.Loss || read.Loss != sum.LossITC/2 {
		t.Errorf("summary.json has loss %g, error %v; want %g", read.Loss, err, sum.Loss)
	}
	for _, name := range []string{runlog.ConfigFile, runlog.LogFile} {
		if _, err := os.Stat(filepath.Join(l.run("a"), name)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(r.Report); err != nil {
		t.Error(err)
	}
	if got, want := l.checkpoints("a"), []string{"step-00000004", "step-00000008", "step-00000010"}; !slices.Equal(got,
		want) {
		t.Errorf("checkpoints %q, want %q", got, want)
	}
	rows, err := runlog.ReadMetrics(filepath.Join(l.run("a"), runlog.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	var first, last, measured float64
	for _, row := range rows {
		if loss, ok := row.Value("loss"); ok {
			if last = loss; row.Step == 1 {
				first = loss
			}
		}
		if v, _ := row.Value("temp"); v == 0.5 {
			measured++
		}
	}
	if !(last < first) || measured != 10 {
		t.Errorf("loss %g after %g, measured %g times", last, first, measured)
	}
}

// TestDoResumes: a training that was interrupted, or out of time, and resumed ends with the same bytes; the scores of
// the untrained model are those of the first start.
func TestDoResumes(t *testing.T) {
	l := newLab(t)
	l.done(l.stage(), "whole", false)
	want := l.final("whole")

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s, steps := l.stage(), 0
	s.scores = map[int]float64{0: 10}
	s.onMean = func() {
		if steps++; steps == 3 {
			stop()
		}
	}
	r, _, err := l.do(ctx, s, "parts", false)
	if err != nil || r.Status != trainer.Interrupted || r.Summary.Status != runlog.StatusInterrupted ||
		r.Summary.Steps != 3 {
		t.Fatalf("%+v, error %v", r, err)
	}
	if slices.Contains(s.calls, "Score 3 evaluating true") {
		t.Error("an interrupt does not end the training at once: it is evaluated")
	}
	timed := l.stage("train.max_time=1ms")
	if r := l.done(timed, "parts", true); r.Status != trainer.TimeUp || r.Summary.Steps < 3 || r.Summary.Steps == 10 {
		t.Errorf("with a millisecond to go: %+v", r)
	}
	again := l.stage()
	again.scores = map[int]float64{3: 99}
	r = l.done(again, "parts", true)
	if before := r.Summary.RetrievalBefore[runlog.SplitHeldout].I2TR1; before != 10 || r.Status != trainer.Finished {
		t.Errorf("status %v, recall %g before", r.Status, before)
	}
	for name, data := range l.final("parts") {
		if data != want[name] {
			t.Errorf("%s is not that of the training without interruption", name)
		}
	}
	r = l.done(l.stage(), "parts", true)
	if r.Status != trainer.Finished || r.Summary.Steps != 10 || !(r.Summary.Loss > 0) {
		t.Errorf("a run that was done: %+v", r)
	}
}

// TestDoRefuses: what cannot go on is said, and a start that fails leaves nothing.
func TestDoRefuses(t *testing.T) {
	l := newLab(t)
	l.done(l.stage(), "done", false)
	other := l.stage()
	if _, err := os.Stat(l.run("none")); err == nil {
		t.Fatal("there is a run already")
	}
	cancelled, stop := context.WithCancel(t.Context())
	stop()
	for _, tt := range []struct {
		name   string
		ctx    context.Context
		stage  *brightness
		run    string
		resume bool
		want   string
	}{
		{"a run is there", t.Context(), other, "done", false, "add --resume"},
		{"no run is there", t.Context(), other, "none", true, "leave out --resume"},
		{"other settings", t.Context(), l.stage("optim.lr=2e-3"), "done", true,
			"made with other settings (optim.lr was 0.003 and is 0.002): go on"},
		{"a setting that was not there", t.Context(), l.stage("data.answers=all"), "done", true,
			`data.answers is "all" and was not set`},
		{"many other settings", t.Context(), l.stage("seed=9", "optim.lr=1e-1", "optim.eps=1e-3", "train.steps=11",
			"text.max_words=3", "loss.itm=2"), "done", true, "optim.lr was 0.003 and is 0.1, seed was 3 and is 9, and 2 more)"},
		{"a batch of too many", t.Context(), l.stage("train.batch_size=30"), "none", false, "train.batch_size"},
		{"inputs", t.Context(), &brightness{config: other.config, weak: "Inputs"}, "none", false, "Inputs has failed"},
		{"model", t.Context(), &brightness{config: other.config, weak: "Build"}, "none", false, "Build has failed"},
		{"score", t.Context(), &brightness{config: other.config, weak: "Score 0 evaluating before false"}, "none", false,
			"Score 0"},
		{"interrupt", cancelled, other, "none", false, "nothing was saved"},
	} {
		_, _, err := l.do(tt.ctx, tt.stage, tt.run, tt.resume)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
		if _, err := os.Stat(l.run("none")); err == nil {
			t.Fatalf("%s: a folder is left", tt.name)
		}
	}
	if r := l.done(other, "done", true); r.Status != trainer.Finished {
		t.Errorf("refusals have changed the run: %+v", r)
	}
}

// TestOneAtATime: while a training goes on in a folder, no other begins or goes on there, and it takes no notice.
func TestOneAtATime(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a locked file cannot be written there")
	}
	l := newLab(t)
	l.done(l.stage(), "alone", false)
	s, errs := l.stage(), []error{}
	s.onMean = func() {
		_, _, err := l.do(t.Context(), l.stage(), "shared", true)
		errs = append(errs, err)
	}
	l.done(s, "shared", false)
	for _, err := range errs {
		if err == nil || !strings.Contains(err.Error(), "in use by a training that goes on") {
			t.Errorf("a second training: %v", err)
		}
	}
	if want := l.final("alone"); len(errs) == 0 || !maps.Equal(l.final("shared"), want) {
		t.Errorf("%d others; the training was not left alone", len(errs))
	}

	// Of two that begin at the same moment, the second finds no configuration yet.
	if err := os.Mkdir(l.run("race"), 0o777); err != nil {
		t.Fatal(err)
	}
	first := flock.New(filepath.Join(l.run("race"), runlog.LogFile))
	if got, err := first.TryLock(); !got || err != nil {
		t.Fatal(got, err)
	}
	if _, _, err := l.do(t.Context(), l.stage(), "race", false); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the second of two: %v", err)
	}
	if left, err := os.ReadDir(l.run("race")); err != nil || len(left) != 1 {
		t.Errorf("left by the second: %v, %v", left, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	l.done(l.stage(), "race", false)
}

// TestBestNames: checkpoint.best may name every score that is recorded.
func TestBestNames(t *testing.T) {
	scores := runlog.Scores{Retrieval: map[string]runlog.RetrievalScores{runlog.SplitTrain: {}, runlog.SplitHeldout: {}},
		Captions: map[string]runlog.CaptionScores{runlog.SplitTrain: {}, runlog.SplitHeldout: {}}}
	for _, f := range scores.Fields() {
		o := config.LoadOptions{Set: []string{"checkpoint.best=" + f.Key}, Partial: true}
		_, _, one := config.LoadStage1(o)
		_, _, two := config.LoadStage2(o)
		if (one == nil) == (two == nil) {
			t.Errorf("%s: stage 1 says %v, stage 2 %v", f.Key, one, two)
		}
	}
}

// TestFailed: an error in the middle of a training is in its log, its summary and its report.
func TestFailed(t *testing.T) {
	l := newLab(t)
	s := l.stage("eval.every=4")
	s.weak = "Score 4 evaluating true"
	if _, _, err := l.do(t.Context(), s, "a", false); err == nil {
		t.Fatal("no error")
	}
	summary, err := runlog.ReadSummary(l.run("a"))
	if err != nil || summary.Status != runlog.StatusFailed || summary.Steps != 4 {
		t.Errorf("summary %+v, error %v", summary, err)
	}
	for file, want := range map[string]string{runlog.LogFile: "Score 4 evaluating true has failed",
		runlog.ReportFile: "failed"} {
		if text, err := os.ReadFile(filepath.Join(l.run("a"), file)); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("no %q in %s, error %v", want, file, err)
		}
	}
	if r := l.done(l.stage("eval.every=4"), "a", true); r.Status != trainer.Finished {
		t.Errorf("gone on: %+v", r)
	}
}

// TestBest: the checkpoint with the highest score is kept, also by a run that goes on.
func TestBest(t *testing.T) {
	l := newLab(t)
	set := []string{"eval.every=1", "checkpoint.best=heldout/i2t_r1", "checkpoint.keep_last=1", "checkpoint.every=1"}
	s := l.stage(set...)
	s.scores = map[int]float64{2: 30, 3: 80, 5: 70, 8: 80}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	steps := 0
	s.onMean = func() {
		if steps++; steps == 5 {
			stop()
		}
	}
	if _, _, err := l.do(ctx, s, "a", false); err != nil {
		t.Fatal(err)
	}
	again := l.stage(set...)
	again.scores = s.scores
	l.done(again, "a", true)
	if got, want := l.checkpoints("a"), []string{"step-00000003", "step-00000010"}; !slices.Equal(got, want) {
		t.Errorf("checkpoints %q, want %q", got, want)
	}
}

// TestInterruptedOnTheWay: an evaluation that an interrupt cut short is made up for, and the best checkpoint with it.
func TestInterruptedOnTheWay(t *testing.T) {
	l := newLab(t)
	set := []string{"eval.every=4", "eval.before=false", "checkpoint.best=heldout/i2t_r1", "checkpoint.keep_last=1"}
	scores := map[int]float64{4: 30, 8: 20, 10: 10}
	s := l.stage(set...)
	s.scores = scores
	l.done(s, "whole", false)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	s, steps := l.stage(set...), 0
	s.weak = "Score 4 evaluating true"
	s.onMean = func() {
		if steps++; steps == 4 {
			stop()
		}
	}
	if r, _, err := l.do(ctx, s, "a", false); err != nil || r.Status != trainer.Interrupted || r.Summary.Steps != 4 {
		t.Fatalf("%+v, error %v", r, err)
	}
	for i, want := range [][]string{
		{"Score 4 evaluating true", "Score 8 evaluating true", "Score 10 evaluating true"}, {"Score 10 evaluating true"},
	} {
		again := l.stage(set...)
		again.scores = scores
		l.done(again, "a", true)
		made := slices.DeleteFunc(again.calls, func(call string) bool { return !strings.HasPrefix(call, "Score") })
		if !slices.Equal(made, want) {
			t.Errorf("start %d: evaluations %q, want %q", i, made, want)
		}
	}
	if got, want := l.checkpoints("a"), l.checkpoints("whole"); !slices.Equal(got, want) {
		t.Errorf("checkpoints %q, want %q", got, want)
	}
}
