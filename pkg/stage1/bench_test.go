package stage1

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/device"
	"blip2/pkg/internal/graphtest"
	"blip2/pkg/trainer"
)

// benchTiny are options for a network that trains in milliseconds.
func benchTiny() BenchOptions {
	return BenchOptions{
		Config: oddConfig(),
		Optimizer: trainer.AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.05,
			DecayRule: trainer.DecayDefault},
		LR: 1e-3, Batch: 4, Warmup: 1, Steps: 3, Seed: 1,
	}
}

func openGo(tb testing.TB) *device.Device {
	tb.Helper()
	dev, err := device.Open(tb.Context(), device.Options{Backend: "go"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { dev.Close() })
	return dev
}

// TestBenchMicroBatches: a batch that is cut is measured as such, with image ids too.
func TestBenchMicroBatches(t *testing.T) {
	o := benchTiny()
	o.Config.MicroBatches, o.Config.Coupled, o.Config.ImageIDs, o.Steps = 2, true, true, 1
	r, err := Bench(t.Context(), openGo(t).Backend, o)
	if err != nil {
		t.Fatal(err)
	}
	if want := TotalFLOPs(RepeatedFLOPs(o.Config, 4)); r.MicroBatches != 2 || !r.Coupled || r.RepeatedFLOPs != want {
		t.Errorf("%+v, want %g FLOPs more", r, want)
	}
	o.Config.MicroBatches = 3
	if _, err := Bench(t.Context(), openGo(t).Backend, o); err == nil || !strings.Contains(err.Error(), "3 equal") {
		t.Errorf("4 pairs in 3 parts: error %v", err)
	}
}

func TestBench(t *testing.T) {
	o := benchTiny()
	var steps []int
	var losses []float64
	o.OnStep = func(step int, took time.Duration, r trainer.Result) {
		steps, losses = append(steps, step), append(losses, r.Loss)
		if took <= 0 {
			t.Errorf("step %d took %v", step, took)
		}
	}
	r, err := Bench(t.Context(), openGo(t).Backend, o)
	if err != nil {
		t.Fatal(err)
	}
	if want := []int{0, 1, 2, 3}; !slices.Equal(steps, want) {
		t.Errorf("steps %v, want %v", steps, want)
	}
	if r.Loss != losses[3] || losses[1] == losses[3] {
		t.Errorf("losses %v, result %g; want the last one, and no two steps alike", losses, r.Loss)
	}
	if s := r.StepSeconds; s.Min <= 0 || s.Min > s.Median || s.Median > s.Max {
		t.Errorf("step seconds %+v", s)
	}
	if want := 4 / r.StepSeconds.Median; r.ImgPerS != want {
		t.Errorf("%g img/s, want %g", r.ImgPerS, want)
	}
	if want := TotalFLOPs(StepFLOPs(o.Config, 4)); r.StepFLOPs != want || r.GFLOPPerS <= 0 {
		t.Errorf("%g FLOPs per step at %g GFLOP/s, want %g", r.StepFLOPs, r.GFLOPPerS, want)
	}
	if r.TrainableParameters == 0 || r.TrainableParameters >= r.Parameters {
		t.Errorf("%d of %d parameters trained, want some but not the frozen encoder's", r.TrainableParameters,
			r.Parameters)
	}
	if r.PeakMemory < r.PeakMemorySteps || r.PeakMemory < r.PeakMemoryInit {
		t.Errorf("peak %d is below that of a phase: %d, %d", r.PeakMemory, r.PeakMemoryInit, r.PeakMemorySteps)
	}
}

// TestBenchParts: the parts that are measured are those that StepFLOPs counts, each with its work, and the optimizer.
func TestBenchParts(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"frozen":      func(*Config) {},
		"trained":     func(c *Config) { c.FreezeVision = false },
		"without ITG": func(c *Config) { c.ITGWeight = 0 },
		"ITG alone":   func(c *Config) { c.ITCWeight, c.ITMWeight = 0, 0 },
	} {
		o := benchTiny()
		o.ByParts = true
		change(&o.Config)
		r, err := Bench(t.Context(), openGo(t).Backend, o)
		if err != nil {
			t.Fatal(err)
		}
		work, seconds := 0.0, 0.0
		for _, p := range r.Time.Parts {
			work, seconds = work+p.FLOPs, seconds+p.Whole.Median
			if p.Whole.Median <= 0 || (p.Part != partOptimizer) != (p.FLOPs > 0 && p.Share > 0 && p.Forward.Median > 0) {
				t.Errorf("%s: part %+v", name, p)
			}
		}
		if work != r.StepFLOPs {
			t.Errorf("%s: parts make %g FLOPs, a step %g", name, work, r.StepFLOPs)
		}
		if seconds != r.Time.Seconds || r.Time.Product.Min <= 0 || r.Time.Overhead.Min <= 0 {
			t.Errorf("%s: %+v", name, r.Time)
		}
	}
}

// TestPartsGraphs: the products of the parts' graphs are those that StepFLOPs counts.
func TestPartsGraphs(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"frozen":          func(*Config) {},
		"trained":         func(c *Config) { c.FreezeVision = false },
		"gather gradient": func(c *Config) { c.ITCGatherGrad = true },
		"ITM and ITG":     func(c *Config) { c.ITCWeight = 0 },
		"ITG alone":       func(c *Config) { c.ITCWeight, c.ITMWeight = 0, 0 },
	} {
		o := benchTiny()
		change(&o.Config)
		backend := openGo(t).Backend
		store, err := newBenchStore(nil, o)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Finalize()
		m := newPartsBench(o, backend, store)
		work := map[string]FLOPs{}
		for _, f := range StepFLOPs(o.Config, o.Batch) {
			work[f.Part] = f
		}
		for _, p := range m.parts() {
			if got, want := partFLOPs(t, m, p, false), work[p.name].Forward; got != want {
				t.Errorf("%s: %s: the graph's products make %.0f FLOPs, the formula says %.0f", name, p.name, got, want)
			}
			if p.frozen {
				continue
			}
			if got, want := partFLOPs(t, m, p, true), work[p.name].Total(); got != want {
				t.Errorf("%s: %s with gradients: the graph's products make %.0f FLOPs, the formula says %.0f", name,
					p.name, got, want)
			}
		}
	}
}

// partFLOPs counts the products of a part's graph.
func partFLOPs(t *testing.T, m *partsBench, p part, gradients bool) (flops float64) {
	t.Helper()
	exec, err := mlx.NewExec(m.backend, m.store, func(scope *mlx.Scope, in []*graph.Node) []*graph.Node {
		out := m.outputs(p, gradients, scope, in)
		flops = graphtest.FLOPs(t, slices.Clone(out)...)
		return []*graph.Node{lengths(out)}
	})
	if err != nil {
		t.Fatal(err)
	}
	in := []shapes.Shape{graph.RNGStateShape}
	for _, x := range p.inputs {
		in = append(in, x.Shape())
	}
	if _, err := exec.Compile(in...); err != nil {
		t.Fatalf("%s, gradients %t: %v", p.name, gradients, err)
	}
	return flops
}

func TestBenchRefuses(t *testing.T) {
	for _, tt := range []struct {
		change func(*BenchOptions)
		want   string
	}{
		{func(o *BenchOptions) { o.Batch = 1 }, "at least 2"},
		{func(o *BenchOptions) { o.Steps = 0 }, "at least 1"},
		{func(o *BenchOptions) { o.Warmup = -1 }, "0 or more"},
		{func(o *BenchOptions) { o.Config.MaxTextLen = 2 }, "no room for a word"},
		{func(o *BenchOptions) { o.Config.QFormer.EncoderWidth = 3 }, "vision width"},
		{func(o *BenchOptions) { o.LR = 1e30 }, "not finite"},
	} {
		o := benchTiny()
		tt.change(&o)
		if _, err := Bench(t.Context(), openGo(t).Backend, o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got error %v, want one with %q", err, tt.want)
		}
	}
}

func TestBenchStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := benchTiny()
	done := 0
	o.OnStep = func(int, time.Duration, trainer.Result) { done++; cancel() }
	if _, err := Bench(ctx, openGo(t).Backend, o); !errors.Is(err, context.Canceled) || done != 1 {
		t.Errorf("error %v after %d steps, want a cancellation after 1", err, done)
	}
}

func TestRandomBatch(t *testing.T) {
	cfg := oddConfig()
	const batch = 50
	pixels, ids, mask := randomBatch(cfg, batch, rand.New(rand.NewPCG(1, 2)))
	if want := batch * 3 * cfg.Vision.ImageSize * cfg.Vision.ImageSize; len(pixels) != want {
		t.Fatalf("%d pixels, want %d", len(pixels), want)
	}
	lengths := map[int]bool{}
	for b := range batch {
		row, seen := ids[b*cfg.MaxTextLen:][:cfg.MaxTextLen], mask[b*cfg.MaxTextLen:][:cfg.MaxTextLen]
		end := slices.Index(row, int32(cfg.SEPID))
		if row[0] != int32(cfg.CLSID) || end < 2 {
			t.Fatalf("text %v does not go from [CLS] over a word to [SEP]", row)
		}
		lengths[end] = true
		for i, id := range row {
			if (seen[i] == 1) != (i <= end) || (id == int32(cfg.PadID)) != (i > end) || id >= int32(cfg.QFormer.Vocab) {
				t.Fatalf("text %v with mask %v", row, seen)
			}
		}
	}
	if len(lengths) < 3 {
		t.Errorf("texts have only %d different lengths", len(lengths))
	}
}

// BenchmarkStep is a training step of a tiny network on the Go backend: what is lost around the arithmetic.
func BenchmarkStep(b *testing.B) {
	o := benchTiny()
	store, err := newBenchStore(nil, o)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Finalize()
	step, err := trainer.NewStep(openGo(b).Backend, store, NewTask(o.Config), o.Optimizer, o.Seed)
	if err != nil {
		b.Fatal(err)
	}
	defer step.Close()
	pixels, ids, mask := randomBatch(o.Config, o.Batch, rand.New(rand.NewPCG(1, 2)))
	for i := 0; b.Loop(); i++ {
		batch := BatchTensors(o.Config, o.Batch, pixels, ids, mask)
		if _, err := step.Run(i, o.LR, batch); err != nil {
			b.Fatal(err)
		}
		for _, t := range batch {
			t.MustFinalizeAll()
		}
	}
}

// BenchmarkRandomBatch is the cost of a synthetic batch of 8 at 224 pixels, which Bench does not time.
func BenchmarkRandomBatch(b *testing.B) {
	cfg := vitL()
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		randomBatch(cfg, 8, rng)
	}
}
