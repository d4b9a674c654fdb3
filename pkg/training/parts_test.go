package training

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/config"
	"blip2/pkg/internal/measure"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/model"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// TestEvalSets: pictures of the training and held-out ones, no more than asked for, and those that are shown of them.
func TestEvalSets(t *testing.T) {
	l := newLab(t)
	bad := filepath.Join(l.dir, toydata.ImagesDir, "01.png") // the first of the training pictures
	if err := os.WriteFile(bad, []byte("no picture"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := l.stage("data.max_bad_share=1")
	_, log, err := l.do(t.Context(), s, "a", false)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.sets) != 2 || s.sets[0].Split != runlog.SplitTrain || s.sets[1].Split != runlog.SplitHeldout ||
		s.sets[0].NumImages() != 3 || s.sets[0].NumTexts() != 6 || s.sets[1].NumImages() != 3 {
		t.Fatalf("sets %+v", s.sets)
	}
	train := s.sets[0]
	pixels := make([]float32, 3*3*side*side)
	if err := train.Images(t.Context(), 0, 3, pixels); err != nil {
		t.Fatal(err)
	}
	var shown [][]int
	for _, n := range []int{0, 1, 2, 9} {
		shown = append(shown, train.Shown(n))
	}
	if want := [][]int{{}, {1}, {1, 2}, {1, 2}}; !reflect.DeepEqual(shown, want) {
		t.Errorf("of a bad and two good pictures are shown %v, want %v", shown, want)
	}
	var out bytes.Buffer
	(&Run{Options: Options{Log: slog.New(slog.NewTextHandler(&out, nil))}}).WarnBad(train)
	if !strings.Contains(out.String(), "picture not evaluated") || !strings.Contains(out.String(), "01.png") {
		t.Errorf("logged is %q", out.String())
	}
	if !strings.Contains(log, "bad sample replaced") {
		t.Errorf("the training does not name the bad picture:\n%s", log)
	}
}

// TestEvalSetsWithout: without held-out pictures there is one set.
func TestEvalSetsWithout(t *testing.T) {
	l := newLab(t)
	s := l.stage()
	s.config.Data.Heldout = nil
	l.done(s, "a", false)
	if len(s.sets) != 1 || s.sets[0].Split != runlog.SplitTrain {
		t.Errorf("sets %+v", s.sets)
	}
}

// galleryStage shows two pictures at the end.
type galleryStage struct {
	*brightness
	items []runlog.GalleryItem
}

func (s *galleryStage) Score(ctx context.Context, r *Run, phase string, gallery bool) (runlog.Scores, error) {
	if gallery {
		for _, set := range s.sets {
			s.items = append(s.items, runlog.GalleryItem{Split: set.Split, Generated: "a thing"})
			if err := r.ShowPicture(&s.items[len(s.items)-1], set, 1); err != nil {
				return runlog.Scores{}, err
			}
		}
	}
	return s.brightness.Score(ctx, r, phase, gallery)
}

// TestShowPicture: pictures are copied into the run folder, and their items say where they come from.
func TestShowPicture(t *testing.T) {
	l := newLab(t)
	s := &galleryStage{brightness: l.stage()}
	if _, err := Do(t.Context(), s, Options{RunDir: l.run("a"), Device: l.dev, Log: slog.New(slog.DiscardHandler),
		Progress: runlog.NewProgress(runlog.ProgressOptions{Out: &bytes.Buffer{}, Quiet: true})}); err != nil {
		t.Fatal(err)
	}
	if len(s.items) != 2 {
		t.Fatalf("%d items", len(s.items))
	}
	item := s.items[0] // 00 is held out, so that the second is 02
	if item.Key != "02.jpg" || item.Image != runlog.GalleryDir+"/train-1-02.jpg" || item.Generated != "a thing" ||
		!slices.Equal(item.Captions, []string{"A red post.", "the picture of one post is red"}) {
		t.Errorf("%+v", item)
	}
	want, err := os.ReadFile(filepath.Join(l.dir, toydata.ImagesDir, "02.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(l.run("a"), item.Image)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the picture is not copied, error %v", err)
	}
	if s.items[1].Image == item.Image {
		t.Error("both pictures have the same name")
	}
}

// benchOptions measure the fit of package tests on noise.
func benchOptions(m Model) BenchOptions {
	return BenchOptions{Model: m, Parts: []FLOPs{{"a", 1e9, 2e9}, {"b", 3e9, 0}}, Repeated: 7, LR: 1e-3, Pairs: 4,
		Warmup: 1, Steps: 3, Seed: 1,
		Store: func() (*mlx.Store, error) {
			store := mlx.NewStore()
			return store, model.Initialize(store, m.Params, 1)
		},
		Batch: func(rng *rand.Rand) []*tensors.Tensor {
			pixels := make([]float32, 4*3*side*side)
			for i := range pixels {
				pixels[i] = rng.Float32()
			}
			return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(pixels, 4, 3*side*side)}
		}}
}

// TestBench: all steps are made and told, those of the warm-up do not count, and the rates are those of the median.
func TestBench(t *testing.T) {
	l := newLab(t)
	m := brightnessModel()
	o := benchOptions(m)
	var told []int
	var losses, seconds []float64
	o.OnStep = func(step int, took time.Duration, r trainer.Result) {
		told, losses, seconds = append(told, step), append(losses, r.Loss), append(seconds, took.Seconds())
	}
	after := 0
	o.After = func(store *mlx.Store) error {
		after++
		if store.GetVariable(model.Path("slope")) == nil {
			t.Error("the store is empty")
		}
		return nil
	}
	r, err := Bench(t.Context(), l.dev.Backend, o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []int{0, 1, 2, 3}) || after != 1 || r.Loss != losses[3] || !(r.Loss < losses[0]) {
		t.Errorf("steps %v, losses %v, the last is %g", told, losses, r.Loss)
	}
	if r.Batch != 4 || r.Steps != 3 || r.Warmup != 1 || r.MicroBatches != 1 || r.Devices != 1 || r.Coupled ||
		r.Parameters != model.Count(m.Params) || r.TrainableParameters != 3*side*side || r.StepFLOPs != 6e9 ||
		r.RepeatedFLOPs != 7 || r.DeviceState < 3*4*3*side*side {
		t.Errorf("%+v", r)
	}
	s := r.StepSeconds
	if s != measure.SpreadOf(seconds[1:]) || !(s.Min > 0) ||
		math.Abs(r.ImgPerS*s.Median-4) > 1e-9 || math.Abs(r.GFLOPPerS*s.Median-6) > 1e-9 {
		t.Errorf("%+v img/s %g GFLOP/s %g", s, r.ImgPerS, r.GFLOPPerS)
	}
	o.Model.Task.MicroBatches, o.After = 2, nil
	if r, err := Bench(t.Context(), l.dev.Backend, o); err != nil || r.MicroBatches != 2 {
		t.Errorf("in two parts: %+v, error %v", r, err)
	}
}

// TestBenchRefuses: nothing to measure, steps that do not do their work, and an interrupt.
func TestBenchRefuses(t *testing.T) {
	l := newLab(t)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for want, change := range map[string]func(*BenchOptions){
		"0 steps":          func(o *BenchOptions) { o.Steps = 0 },
		"-1 warm-up steps": func(o *BenchOptions) { o.Warmup = -1 },
		"not finite": func(o *BenchOptions) {
			o.Batch = func(*rand.Rand) []*tensors.Tensor {
				pixels := slices.Repeat([]float32{float32(math.Inf(1))}, 3*side*side)
				return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(pixels, 1, 3*side*side)}
			}
		},
		"no store": func(o *BenchOptions) { o.Store = func() (*mlx.Store, error) { return nil, errors.New("no store") } },
		"nothing after": func(o *BenchOptions) {
			o.After = func(*mlx.Store) error { return errors.New("nothing after") }
		},
	} {
		o := benchOptions(brightnessModel())
		change(&o)
		if _, err := Bench(t.Context(), l.dev.Backend, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	if _, err := Bench(stopped, l.dev.Backend, benchOptions(brightnessModel())); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: error %v", err)
	}
}

// TestTotalFLOPs adds both directions of all parts.
func TestTotalFLOPs(t *testing.T) {
	parts := []FLOPs{{"a", 1, 2}, {"b", 4, 8}}
	if parts[1].Total() != 12 || TotalFLOPs(parts) != 15 || TotalFLOPs(nil) != 0 {
		t.Errorf("totals %g and %g", parts[1].Total(), TotalFLOPs(parts))
	}
}

// TestNewOptimizer: every setting of the section reaches the optimizer.
func TestNewOptimizer(t *testing.T) {
	o := NewOptimizer(config.Optim{Betas: [2]float64{1, 2}, Eps: 3, WeightDecay: 4, DecayRule: "lavis", GradClip: 5,
		LayerDecay: 0.6, LossScale: 7})
	want := trainer.AdamW{Betas: [2]float64{1, 2}, Eps: 3, WeightDecay: 4, DecayRule: "lavis", GradClip: 5,
		LayerDecay: 0.6, LossScale: trainer.LossScale{Value: 7}}
	if o != want {
		t.Errorf("optimizer %+v, want %+v", o, want)
	}
	if v := reflect.ValueOf(o); v.NumField() != 7 {
		t.Errorf("AdamW has %d fields; look whether NewOptimizer sets them all", v.NumField())
	}
	if dynamic := NewOptimizer(config.Optim{}); dynamic.LossScale != (trainer.LossScale{Dynamic: true}) {
		t.Errorf("a dynamic loss scale became %+v", dynamic.LossScale)
	}
}

// TestNewVision: every size of the section reaches the image encoder.
func TestNewVision(t *testing.T) {
	v := config.Vision{Arch: "eva", ImageSize: 1, PatchSize: 2, Width: 3, Layers: 4, Heads: 5, MLPRatio: 6,
		LayerNormEps: 7, InitStd: 8, Remat: true}
	got := NewVision(v)
	for i := range reflect.TypeOf(got).NumField() {
		if reflect.ValueOf(got).Field(i).IsZero() {
			t.Errorf("%s is not set", reflect.TypeOf(got).Field(i).Name)
		}
	}
	if got.Arch != v.Arch || got.ImageSize != 1 || got.PatchSize != 2 || got.Width != 3 || got.Layers != 4 ||
		got.Heads != 5 || got.MLPRatio != 6 || got.LayerNormEps != 7 || got.InitializerRange != 8 {
		t.Errorf("%+v", got)
	}
}
