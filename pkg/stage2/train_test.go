package stage2

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/model"
	"blip2/pkg/model/qformer"
	"blip2/pkg/naming"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
	"blip2/pkg/weights"
)

// toy is a folder with the toy data set and toy language models, in which trainings run.
type toy struct {
	dir string
	dev *device.Device
}

func newToy(t *testing.T) *toy {
	t.Helper()
	y := &toy{dir: t.TempDir()}
	for _, write := range []func(string) error{toydata.Write, toydata.WriteStage2} {
		if err := write(y.dir); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	o := device.Options{Backend: "go", Logger: slog.New(slog.DiscardHandler)}
	if y.dev, err = device.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := y.dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return y
}

// start is one start of a training.
type start struct {
	file   string   // configuration
	run    string   // name of the run folder
	set    []string // key=value over it
	resume bool
	stopAt string // interrupt as soon as the progress says this
}

// finished is a training that has ended.
type finished struct {
	*training.Result
	dir, log string
	err      error
}

// stopper cancels a context when a text is written.
type stopper struct {
	bytes.Buffer
	text string
	stop context.CancelFunc
}

func (s *stopper) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	if s.text != "" && strings.Contains(s.String(), s.text) {
		s.stop()
	}
	return n, err
}

func (y *toy) train(t *testing.T, s start) finished {
	t.Helper()
	c, _, err := config.LoadStage2(config.LoadOptions{Path: filepath.Join(y.dir, s.file), Set: s.set})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out := &stopper{text: s.stopAt, stop: stop}
	f := finished{dir: filepath.Join(y.dir, "runs", s.run)}
	f.Result, f.err = Train(ctx, c, training.Options{RunDir: f.dir, Resume: s.resume, Device: y.dev,
		Log: slog.New(slog.NewTextHandler(out, nil)), Progress: runlog.NewProgress(runlog.ProgressOptions{Out: out}),
		CommandLine: "blip2 pretrain-stage2"})
	f.log = out.String()
	return f
}

func (y *toy) mustTrain(t *testing.T, s start) finished {
	t.Helper()
	f := y.train(t, s)
	if f.err != nil {
		t.Fatalf("%s: %v\n%s", s.run, f.err, f.log)
	}
	return f
}

func readFile(t *testing.T, elements ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

const quick = "eval.captions=false"

// TestOneTraining: interrupted and resumed, with other workers, with the loss in stretches and with layers computed
// again, ten steps are ten steps; what does not change the arithmetic gives the same bits. There is dropout in Q-Former
// and language model, augmentation, and with T5 a drawn cut of every caption.
func TestOneTraining(t *testing.T) {
	y := newToy(t)
	for _, file := range []string{toydata.OPTFile, toydata.T5File} {
		whole := y.mustTrain(t, start{file: file, run: file + "-whole", set: []string{quick}})
		if s := whole.Summary; s.Steps != 10 || s.Epochs != 2.5 || s.Captions != nil || !(s.Loss > 0) {
			t.Fatalf("summary %+v", s)
		}
		stopped := y.mustTrain(t, start{file: file, run: file + "-stopped", set: []string{quick}, stopAt: "step 6/10"})
		if stopped.Status != trainer.Interrupted || stopped.Summary.Checkpoint != "checkpoints/step-00000006" {
			t.Fatalf("interrupted: %v, %+v", stopped.Status, stopped.Summary)
		}
		resumed := y.mustTrain(t, start{file: file, run: file + "-stopped", set: []string{quick, "data.workers=5"},
			resume: true})
		again := y.mustTrain(t, start{file: file, run: file + "-again", set: []string{quick, "llm.remat=true"}})
		for name, other := range map[string]finished{"resumed": resumed, "computed again": again} {
			for _, part := range []string{checkpoint.ModelFile, checkpoint.OptimizerFile, checkpoint.StateFile} {
				at := filepath.Join(checkpoint.Folder, checkpoint.DirName(10), part)
				if !bytes.Equal(readFile(t, whole.dir, at), readFile(t, other.dir, at)) {
					t.Errorf("%s: %s differs where it was %s", file, part, name)
				}
			}
		}
		wrong := y.train(t, start{file: file, run: file + "-stopped", set: []string{quick, "text.max_len=12"}, resume: true})
		if wrong.err == nil || !strings.Contains(wrong.err.Error(), "other settings") {
			t.Errorf("resumed with other settings: %v", wrong.err)
		}
	}
}

// TestRun: a whole run leaves scores before and after, a gallery with captions, and a checkpoint of what was trained,
// under LAVIS names.
func TestRun(t *testing.T) {
	y := newToy(t)
	for file, llm := range map[string]string{toydata.OPTFile: "opt", toydata.T5File: "t5"} {
		f := y.mustTrain(t, start{file: file, run: llm, set: []string{"eval.every=5"}})
		for _, scores := range []map[string]runlog.CaptionScores{f.Summary.CaptionsBefore, f.Summary.Captions} {
			for split, images := range map[string]int{runlog.SplitTrain: toydata.TrainImages,
				runlog.SplitHeldout: toydata.HeldoutImages} {
				if s := scores[split]; s.Images != images || !(s.ROUGEL >= 0) {
					t.Errorf("%s: %s scores %+v", file, split, s)
				}
			}
		}
		var gallery runlog.Gallery
		if err := json.Unmarshal(readFile(t, f.dir, runlog.GalleryFile), &gallery); err != nil || len(gallery.Items) != 4 {
			t.Errorf("%s: gallery of %d, error %v", file, len(gallery.Items), err)
		}
		w, err := weights.Open(filepath.Join(f.dir, checkpoint.Folder, checkpoint.DirName(10), checkpoint.ModelFile))
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		names := w.Names()
		for _, name := range []string{llm + "_proj.weight", "query_tokens", "ln_vision.bias",
			"Qformer.bert.encoder.layer.1.output_query.dense.weight"} {
			if !slices.Contains(names, name) {
				t.Errorf("%s: the checkpoint lacks %s", file, name)
			}
		}
		for _, name := range names {
			if strings.HasPrefix(name, llm+"_model.") || strings.HasPrefix(name, naming.VisionPrefix) {
				t.Errorf("%s: the checkpoint holds the frozen %s", file, name)
			}
		}
	}
}

// TestStartFromStage1: the run's query side and its image encoder are those of the stage-1 checkpoint, which the log
// says, with what is dropped and new.
func TestStartFromStage1(t *testing.T) {
	y := newToy(t)
	c, _, err := config.LoadStage2(config.LoadOptions{Path: filepath.Join(y.dir, toydata.OPTFile)})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := FromConfig(c)
	if err != nil {
		t.Fatal(err)
	}
	first := cfg.QFormer
	first.Vocab, first.MaxPositions = 30, 16
	params := slices.Concat(VisionParams(cfg), qformer.Params(first, true), model.LayerNorm("ln_vision", cfg.Vision.Width),
		qformer.HeadParams(first, 8, 0.07))
	var file []weights.Tensor
	for _, p := range params {
		file = append(file, weights.FromFloat32(p.Name, p.Shape, model.Draw(p, 77)))
	}
	run := filepath.Join(y.dir, "runs", "one")
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := checkpoint.Save(t.Context(), run, checkpoint.Snapshot{Step: 3, Model: file}); err != nil {
		t.Fatal(err)
	}
	f := y.mustTrain(t, start{file: toydata.OPTFile, run: "two", set: []string{quick, "stage1=" + run,
		"train.steps=1", "optim.lr=1e-12", "optim.min_lr=0", "optim.warmup_lr=0", "optim.warmup_steps=0"}})
	for _, want := range []string{"image encoder loaded", "text side of the Q-Former", "head of stage 1",
		"opt_proj.bias, opt_proj.weight: new", "language model loaded"} {
		if !strings.Contains(f.log, want) {
			t.Errorf("the log does not say %q:\n%s", want, f.log)
		}
	}
	w, err := weights.Open(filepath.Join(f.dir, checkpoint.Folder, checkpoint.DirName(1), checkpoint.ModelFile))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, p := range params {
		tensor, err := w.Tensor(p.Name)
		if err != nil {
			continue // frozen, or of the text side
		}
		got, _ := tensor.Float32s()
		for i, want := range model.Draw(p, 77) {
			if d := got[i] - want; d > 1e-6 || d < -1e-6 {
				t.Fatalf("%s starts at %g, stage 1 has %g", p.Name, got[i], want)
			}
		}
	}
	f = y.train(t, start{file: toydata.OPTFile, run: "three", set: []string{"stage1=" + run, "qformer.hidden=16"}})
	if f.err == nil || !strings.Contains(f.err.Error(), "stage1: ") || !strings.Contains(f.err.Error(), "query_tokens") {
		t.Errorf("another Q-Former: %v", f.err)
	}
}

// TestLanguageModelInHalf: in bf16 and f16 the language model's matrices stay in that type, T5's wo apart, and a step
// works on a device that computes in float32.
func TestLanguageModelInHalf(t *testing.T) {
	y := newToy(t)
	for _, file := range []string{toydata.OPTFile, toydata.T5File} {
		for name, want := range map[string]dtypes.DType{"bf16": dtypes.BFloat16, "f16": dtypes.Float16,
			"auto": dtypes.Float32} {
			y.mustTrain(t, start{file: file, run: file + name, set: []string{quick, "train.steps=1",
				"optim.warmup_steps=0", "llm.dtype=" + name}})
			c, _, err := config.LoadStage2(config.LoadOptions{Path: filepath.Join(y.dir, file),
				Set: []string{"llm.dtype=" + name}})
			if err != nil {
				t.Fatal(err)
			}
			s := &stage{config: c}
			r := &training.Run{Options: training.Options{Device: y.dev, Log: slog.New(slog.DiscardHandler)},
				Store: mlx.NewStore()}
			if _, err := s.Inputs(r); err != nil {
				t.Fatal(err)
			}
			if err := s.initialise(r); err != nil {
				t.Fatal(err)
			}
			for _, p := range LLMParams(s.cfg) {
				expected := dtypes.Float32
				if model.IsMatrix(p) && !(name == "f16" && strings.HasSuffix(p.Name, ".wo.weight")) {
					expected = want
				}
				v := r.Store.GetVariable(model.Path(p.Name))
				if v.DType() != expected || v.Trainable {
					t.Errorf("%s, %s: %s is %s (want %s), trainable %v", file, name, p.Name, v.DType(), expected, v.Trainable)
				}
			}
			s.Close()
			r.Store.Finalize()
		}
	}
}

// TestWrongSettings are refused before anything is loaded, with the key.
func TestWrongSettings(t *testing.T) {
	y := newToy(t)
	for want, set := range map[string]string{
		"llm.path: ":           "llm.path=" + filepath.Join(y.dir, "images"),
		"with --set stage1=":   "stage1=nowhere",
		"text.max_len: ":       "text.max_len=38",
		"eval.max_tokens: ":    "eval.max_tokens=40",
		"eval: length penalty": "eval.length_penalty=99",
		"qformer.weights: ":    "qformer.weights=nowhere",
		"train.batch_size":     "train.batch_size=1000",
		"llm.path: the tokeni": "llm.path=" + mixed(t, y),
	} {
		f := y.train(t, start{file: toydata.OPTFile, run: "wrong", set: []string{set}})
		if f.err == nil || !strings.Contains(f.err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", set, f.err, want)
		}
		if _, err := os.Stat(filepath.Join(y.dir, "runs", "wrong")); err == nil {
			t.Errorf("%s: a run folder was left", set)
			os.RemoveAll(filepath.Join(y.dir, "runs", "wrong"))
		}
	}
}

// mixed is the T5 of the toy with the larger tokenizer of the OPT.
func mixed(t *testing.T, y *toy) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mixed")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(y.dir, toydata.OPTDir))); err != nil {
		t.Fatal(err)
	}
	config := readFile(t, y.dir, toydata.T5Dir, "config.json")
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
