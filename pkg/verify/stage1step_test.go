package verify

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/stage1"
	"blip2/pkg/trainer"
)

// recordedStep is what a step of the trainer makes of a recorded case, and what is recorded.
type recordedStep struct {
	losses, wantLosses []float64 // total, ITC, ITM, ITG
	grads, wantGrads   map[string][]float64
	skipped            int
}

// stepOfCase runs a case of kind stage1-forward through the trainer, with changed settings: gradients are those from
// which AdamW makes its first moment.
func stepOfCase(t *testing.T, dir string, backend compute.Backend, change func(*stage1.Config)) recordedStep {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", dir, err)
		}
	}
	c, err := loadCase(dir, ".")
	must(err)
	t.Cleanup(c.close)
	var config stage1Config
	must(c.config(&config))
	cfg, err := config.model()
	must(err)
	batch, err := c.stage1Batch()
	must(err)
	cfg.ImageIDs = batch.imageIDs
	change(&cfg)
	set, err := c.weights(nil)
	must(err)
	store, err := set.store(stage1.Params(cfg))
	must(err)
	defer store.Finalize()
	must(model.SetTrainable(store, stage1.VisionParams(cfg), !cfg.FreezeVision))
	task := recordedTask(cfg, batch)
	step, err := trainer.NewStep(backend, store, task, trainer.AdamW{Betas: [2]float64{0.5, 0.5}, Eps: 1e-8,
		LossScale: trainer.LossScale{Dynamic: true}}, 1)
	must(err)
	defer step.Close()
	// As BatchInputs has them: pixels, ids, mask, image ids.
	in := append(append([]*tensors.Tensor{}, batch.inputs[:3]...), batch.inputs[5:]...)
	var r trainer.Result
	for i := 0; i < 10 && !r.Applied; i++ { // a loss scale may have to come down first
		r, err = step.Run(i, 0, in)
		must(err)
	}
	outputs, err := c.tensors(outputsFile)
	must(err)
	read := func(name string) []float64 {
		tensor, err := outputs.Tensor(name)
		must(err)
		values, err := tensor.Float32s()
		must(err)
		return graphtest.Wide(values)
	}
	s := recordedStep{losses: append([]float64{r.Loss}, r.Terms...), grads: map[string][]float64{},
		wantGrads: map[string][]float64{}, skipped: step.Progress().Skipped}
	for _, name := range []string{"loss", "loss_itc", "loss_itm", "loss_lm"} {
		s.wantLosses = append(s.wantLosses, read(name)...)
	}
	for _, p := range task.Params {
		moment := tensors.MustCopyFlatData[float32](store.GetVariable("/opt/adamw/m" + model.Path(p.Name)).MustValue())
		s.grads[p.Name], s.wantGrads[p.Name] = graphtest.Wide(moment), read("grad/"+p.Name)
		for i := range moment {
			s.grads[p.Name][i] *= 2
		}
	}
	return s
}

// recordedTask is stage 1 with the negatives of the case in place of those it would draw.
func recordedTask(cfg stage1.Config, batch *stage1Batch) trainer.Task {
	task := stage1.NewTask(cfg)
	negative := func(g *Graph, i int) *Node { return Const(g, batch.inputs[3+i]) }
	if task.Coupled == nil {
		task.Loss = func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			b := stage1.Batch{Pixels: in[0], TextIDs: in[1], TextMask: in[2], NegImage: negative(in[0].Graph(), 0),
				NegText: negative(in[0].Graph(), 1)}
			if cfg.ImageIDs {
				b.ImageID = in[3]
			}
			o := stage1.Forward(scope, cfg, b, rng)
			return o.Loss, []*Node{o.LossITC, o.LossITM, o.LossLM}
		}
		return task
	}
	couple := task.Coupled.Couple
	task.Coupled.Couple = func(scope *mlx.Scope, c trainer.Coupling, rng *nn.RNG) (*Node, []*Node, []*Node) {
		loss, terms, picks := couple(scope, c, rng)
		for i := range picks {
			picks[i] = Gather(negative(c.Rows.Graph(), i), InsertAxes(c.Rows, -1))
		}
		return loss, terms, picks
	}
	return task
}

// recordedSteps calls f with every recorded case of kind stage1-forward, or the embedded one where there are none.
func recordedSteps(t *testing.T, f func(t *testing.T, dir string)) {
	t.Helper()
	dirs := []string{copyCase(t, "stage1-forward-eva-a")}
	if golden, err := filepath.Abs("../../../shared/golden"); err == nil {
		if found, _ := filepath.Glob(filepath.Join(golden, "stage1-forward-*")); len(found) > 0 {
			dirs = found
		}
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) { f(t, dir) })
	}
}

// TestRecordedGradientCaching: in micro-batches with gradient caching too, losses and gradients are those recorded,
// within the case's tolerance.
func TestRecordedGradientCaching(t *testing.T) {
	backend := testBackend(t)
	recordedSteps(t, func(t *testing.T, dir string) {
		c, err := loadCase(dir, ".")
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		tol, err := c.tolerance()
		if err != nil {
			t.Fatal(err)
		}
		s := stepOfCase(t, dir, backend, func(c *stage1.Config) { c.MicroBatches, c.Coupled = 3, true })
		near := func(name string, got, want []float64) {
			for i, w := range want {
				if d := math.Abs(got[i] - w); !(d <= tol.atol+tol.rtol*math.Abs(w)) {
					t.Errorf("%s[%d] is %g, recorded %g", name, i, got[i], w)
					return
				}
			}
		}
		near("losses", s.losses, s.wantLosses)
		for name, want := range s.wantGrads {
			near("gradient of "+name, s.grads[name], want)
		}
	})
}

// testBackend opens the backend of BLIP2_TEST_BACKEND, or the Go backend.
func testBackend(t *testing.T) compute.Backend {
	t.Helper()
	name := os.Getenv("BLIP2_TEST_BACKEND")
	if name == "" {
		name = "go"
	}
	return graphtest.Open(t, name)
}

// halfTolerance is what stage 1 may lose in a 16-bit compute type, against the recorded float32 numbers.
//
// u is the type's unit roundoff: a stored value is off by at most u, about u/√3 on average. Weights, losses, softmax,
// norms' statistics and sums are float32, so that only stored activations and their gradients are rounded. A gradient
// has been through R of them on the way: about 10 per layer of the encoder and 20 per layer of the Q-Former, forwards
// and back, which is R ≈ 200 for the recorded models. Independent roundings add up by their squares, to u/√3·√R ≈ 8·u
// of its length. ITC has temperature 0.07, which makes 14 times as much of an error in its cosines: half of the length
// of the gradient comes from it. So
//
//   - a loss is off by 8·u plus, for ITC, 2·14·u of a cosine (absolutely, as losses are of the size of 1): 32·u;
//   - the gradient of all tensors together is off by 8·u·(1+14)/2 ≈ 64·u of its length;
//   - that of one tensor, whose share may pass a query's or a feature's maximum to another one, by twice that of its
//     own length, or by 4·u of the length of all where it is next to nothing.
func halfTolerance(dtype dtypes.DType) (loss, all, one, nothing float64) {
	u := map[dtypes.DType]float64{dtypes.BFloat16: 1.0 / 512, dtypes.Float16: 1.0 / 4096}[dtype]
	return 32 * u, 64 * u, 128 * u, 4 * u
}

// TestHalfPrecision runs the recorded cases in bfloat16, and with XLA in float16 with a dynamic loss scale, and
// compares losses and every gradient within halfTolerance.
func TestHalfPrecision(t *testing.T) {
	backend := testBackend(t)
	types := []dtypes.DType{dtypes.BFloat16}
	if os.Getenv("BLIP2_TEST_BACKEND") != "" && os.Getenv("BLIP2_TEST_BACKEND") != "go" {
		types = append(types, dtypes.Float16) // of which the Go backend lacks operations
	}
	for _, dtype := range types {
		t.Run(dtype.String(), func(t *testing.T) {
			recordedSteps(t, func(t *testing.T, dir string) {
				s := stepOfCase(t, dir, backend, func(c *stage1.Config) { c.Compute = dtype })
				s.checkHalf(t, dtype)
			})
		})
	}
}

func (s recordedStep) checkHalf(t *testing.T, dtype dtypes.DType) {
	t.Helper()
	loss, all, one, nothing := halfTolerance(dtype)
	for i, want := range s.wantLosses[1:] {
		if d := math.Abs(s.losses[1+i] - want); !(d <= loss*max(1, want)) {
			t.Errorf("loss %d is %g, recorded %g", i, s.losses[1+i], want)
		}
	}
	var length, off float64
	for name, want := range s.wantGrads {
		d := distance(s.grads[name], want)
		length, off = length+square(want), off+d*d
	}
	length, off = math.Sqrt(length), math.Sqrt(off)
	t.Logf("%s: gradient off by %.4f of its length, losses %.5v, recorded %.5v, %d steps skipped", dtype, off/length,
		s.losses, s.wantLosses, s.skipped)
	if !(off <= all*length) {
		t.Errorf("the gradient is off by %.4f of its length, allowed %.4f", off/length, all)
	}
	for name, want := range s.wantGrads {
		d, size := distance(s.grads[name], want), math.Sqrt(square(want))
		if !(d <= max(one*size, nothing*length)) {
			t.Errorf("gradient of %s is off by %.3f of its length, which is %.2g of all", name, d/size, size/length)
		}
	}
}

func square(x []float64) float64 {
	sum := 0.0
	for _, v := range x {
		sum += v * v
	}
	return sum
}

// distance is the length of x − y.
func distance(x, y []float64) float64 {
	sum := 0.0
	for i := range x {
		sum += (x[i] - y[i]) * (x[i] - y[i])
	}
	return math.Sqrt(sum)
}
