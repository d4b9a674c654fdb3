package stage1

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
	"blip2/pkg/trainer"
)

// stepGradients makes one step with learning rate 0 and returns its numbers and the gradients, which AdamW's first
// moment shows.
func stepGradients(t *testing.T, backend compute.Backend, cfg Config, task trainer.Task, d *hostBatch) (
	trainer.Result, map[string][]float64) {
	t.Helper()
	store := randomStore(t, cfg)
	defer store.Finalize()
	if err := model.SetTrainable(store, VisionParams(cfg), !cfg.FreezeVision); err != nil {
		t.Fatal(err)
	}
	step, err := trainer.NewStep(backend, store, task, trainer.AdamW{Betas: [2]float64{0.5, 0.5}, Eps: 1e-8}, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer step.Close()
	r, err := step.Run(0, 0, d.tensors(cfg))
	if err != nil {
		t.Fatal(err)
	}
	if !r.Applied {
		t.Fatalf("the step was not applied: %+v", r)
	}
	grads := map[string][]float64{}
	for _, p := range task.Params {
		moment := store.GetVariable("/opt/adamw/m" + model.Path(p.Name)).MustValue()
		grads[p.Name] = graphtest.Wide(tensors.MustCopyFlatData[float32](moment))
		for i := range grads[p.Name] {
			grads[p.Name][i] *= 2
		}
	}
	return r, grads
}

// tensors are the batch as a step is fed.
func (d *hostBatch) tensors(cfg Config) []*tensors.Tensor {
	list := BatchTensors(cfg, len(d.ids)/tinyLength, d.pixels, d.ids, d.mask)
	if cfg.ImageIDs {
		list = append(list, idsTensor(d.imageID))
	}
	return list
}

// withNegatives is a task that uses the batch's negatives in place of those it would draw.
func withNegatives(cfg Config, d *hostBatch) trainer.Task {
	task := NewTask(cfg)
	constant := func(g *Graph, values []int32) *Node { return Const(g, idsTensor(values)) }
	task.Loss = func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
		b := batchOf(cfg, in)
		b.NegImage, b.NegText = constant(in[0].Graph(), d.negImage), constant(in[0].Graph(), d.negText)
		o := Forward(scope, cfg, b, rng)
		return o.Loss, o.terms()
	}
	if task.Coupled == nil {
		return task
	}
	couple := task.Coupled.Couple
	task.Coupled.Couple = func(scope *mlx.Scope, c trainer.Coupling, rng *nn.RNG) (*Node, []*Node, []*Node) {
		loss, terms, picks := couple(scope, c, rng)
		for i := range picks {
			all := constant(c.Rows.Graph(), [][]int32{d.negImage, d.negText}[i])
			picks[i] = Gather(all, InsertAxes(c.Rows, -1))
		}
		return loss, terms, picks
	}
	return task
}

// sameStep compares the numbers and gradients of two steps: losses to 1e-5, and every gradient to 2e-5 of its tensor's
// largest value, where that is not rounding noise.
func sameStep(t *testing.T, got, want trainer.Result, grads, wanted map[string][]float64) {
	t.Helper()
	near := func(name string, got, want float64) {
		if !(math.Abs(got-want) <= 1e-5*max(1, math.Abs(want))) {
			t.Errorf("%s is %.8g, want %.8g", name, got, want)
		}
	}
	near("loss", got.Loss, want.Loss)
	near("gradient norm", got.GradNorm, want.GradNorm)
	for i, name := range lossTerms() {
		near(name, got.Terms[i], want.Terms[i])
	}
	for name, w := range wanted {
		unit := 1e-3 * want.GradNorm
		for _, v := range w {
			unit = max(unit, math.Abs(v))
		}
		for i, v := range w {
			if d := math.Abs(grads[name][i] - v); !(d <= 2e-5*unit) {
				t.Errorf("gradient %d of %s is %.8g, want %.8g", i, name, grads[name][i], v)
				break
			}
		}
	}
}

// coupledCases are the settings that change what micro-batches must tell each other.
func coupledCases() map[string]func(*Config) {
	return map[string]func(*Config){
		"frozen":  func(*Config) {},
		"trained": func(c *Config) { c.FreezeVision = false },
		"trained EVA, remat": func(c *Config) {
			c.FreezeVision, c.Vision.Arch, c.Vision.Remat = false, vit.EVA, true
		},
		"gather gradient":            func(c *Config) { c.ITCGatherGrad = true },
		"gather gradient, trained":   func(c *Config) { c.ITCGatherGrad, c.FreezeVision = true, false },
		"image ids":                  func(c *Config) { c.ImageIDs = true },
		"image ids, gather gradient": func(c *Config) { c.ImageIDs, c.ITCGatherGrad = true, true },
		"older negatives":            func(c *Config) { c.HardNegatives = NegativesSoftmaxEps },
		"no smoothing":               func(c *Config) { c.LabelSmoothing = 0 },
		"weights":                    func(c *Config) { c.ITCWeight, c.ITMWeight, c.ITGWeight = 0.3, 2, 0.7 },
		"replicas":                   func(c *Config) { c.Replicas = 2 },
		"no ITG":                     func(c *Config) { c.ITGWeight = 0 },
		"no ITM":                     func(c *Config) { c.ITMWeight = 0 },
		"no ITC":                     func(c *Config) { c.ITCWeight = 0 },
		"no ITC, trained, ids":       func(c *Config) { c.ITCWeight, c.FreezeVision, c.ImageIDs = 0, false, true },
	}
}

// TestContrastiveAccumulation: loss and gradients of micro-batches are those of the whole batch.
func TestContrastiveAccumulation(t *testing.T) {
	backend := graphtest.Open(t, "go")
	for name, change := range coupledCases() {
		for _, parts := range []int{2, tinyBatch} {
			t.Run(fmt.Sprintf("%s in %d", name, parts), func(t *testing.T) {
				checkCoupled(t, backend, change, parts)
			})
		}
	}
}

// TestContrastiveAccumulationXLA is the same on XLA.
func TestContrastiveAccumulationXLA(t *testing.T) {
	if !strings.HasPrefix(os.Getenv("BLIP2_TEST_BACKEND"), "xla") {
		t.Skip("compiles for a minute: set BLIP2_TEST_BACKEND=xla:cpu")
	}
	backend := graphtest.OpenXLA(t)
	for _, name := range []string{"frozen", "trained EVA, remat", "image ids, gather gradient"} {
		t.Run(name, func(t *testing.T) { checkCoupled(t, backend, coupledCases()[name], 2) })
	}
}

func checkCoupled(t *testing.T, backend compute.Backend, change func(*Config), parts int) {
	t.Helper()
	cfg := tinyConfig()
	change(&cfg)
	d := newHostBatch(cfg)
	d.negImage, d.negText = []int32{3, 2, 3, 1}, []int32{1, 3, 0, 2} // across micro-batches and within
	want, wanted := stepGradients(t, backend, cfg, withNegatives(cfg, d), d)
	cfg.MicroBatches, cfg.Coupled = parts, true
	got, grads := stepGradients(t, backend, cfg, withNegatives(cfg, d), d)
	sameStep(t, got, want, grads, wanted)
}

// TestAccumulation: without coupling, loss and gradients are the means of those of the micro-batches.
func TestAccumulation(t *testing.T) {
	backend := graphtest.Open(t, "go")
	cfg := tinyConfig()
	cfg.ImageIDs = true
	d := newHostBatch(cfg)
	const parts, rows = 2, tinyBatch / 2
	// A micro-batch of two has one negative only.
	cfg.HardNegatives, d.imageID = NegativesMaskedSoftmax, []int32{7, 8, 7, 9}
	var want trainer.Result
	wanted := map[string][]float64{}
	whole := d.tensors(cfg)
	for m := range parts {
		r, grads := stepGradientsOf(t, backend, cfg, whole, m*rows, rows)
		want.Loss += r.Loss / parts
		want.Terms = append(want.Terms, make([]float64, 3-len(want.Terms))...)
		for i, v := range r.Terms {
			want.Terms[i] += v / parts
		}
		for name, g := range grads {
			wanted[name] = append(wanted[name], make([]float64, len(g)-len(wanted[name]))...)
			for i, v := range g {
				wanted[name][i] += v / parts
			}
		}
	}
	square := 0.0
	for _, g := range wanted {
		for _, v := range g {
			square += v * v
		}
	}
	want.GradNorm = math.Sqrt(square)
	cfg.MicroBatches = parts
	got, grads := stepGradients(t, backend, cfg, NewTask(cfg), d)
	sameStep(t, got, want, grads, wanted)
}

// stepGradientsOf is stepGradients on some rows of a batch, as a batch of its own.
func stepGradientsOf(t *testing.T, backend compute.Backend, cfg Config, batch []*tensors.Tensor, from, n int) (
	trainer.Result, map[string][]float64) {
	t.Helper()
	s := cfg.Vision.ImageSize
	ints := func(i, width int) []int32 { return tensors.MustCopyFlatData[int32](batch[i])[from*width:][:n*width] }
	d := &hostBatch{pixels: tensors.MustCopyFlatData[float32](batch[0])[from*3*s*s:][:n*3*s*s],
		ids: ints(1, tinyLength), mask: ints(2, tinyLength), imageID: ints(3, 1)}
	return stepGradients(t, backend, cfg, NewTask(cfg), d)
}

// TestCoupledDropout: with dropout the passes draw the same masks, so that a step is a function of seed and number, and
// its gradient that of its loss: features of another mask would give another loss on a second visit.
func TestCoupledDropout(t *testing.T) {
	backend := graphtest.Open(t, "go")
	cfg := tinyConfig()
	cfg.QFormer.Dropout, cfg.MicroBatches, cfg.Coupled = 0.3, 2, true
	d := newHostBatch(cfg)
	first, grads := stepGradients(t, backend, cfg, NewTask(cfg), d)
	again, same := stepGradients(t, backend, cfg, NewTask(cfg), d)
	if first.Loss != again.Loss || !slices.Equal(grads["query_tokens"], same["query_tokens"]) {
		t.Errorf("the same step has the losses %g and %g", first.Loss, again.Loss)
	}
	cfg.QFormer.Dropout = 0
	if plain, _ := stepGradients(t, backend, cfg, NewTask(cfg), d); plain.Loss == first.Loss {
		t.Error("dropout changes nothing")
	}
}
