package stage1

import (
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/device"
	"blip2/pkg/internal/graphtest"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/model/vit"
	"blip2/pkg/trainer"
)

// meshBatch is a batch that 1, 2 and 4 devices can share.
const meshBatch = 8

// meshConfig is a model with dropout whose frozen matrices are large enough to be spread.
func meshConfig() Config {
	cfg := tinyConfig()
	cfg.Vision = vit.Config{Arch: vit.EVA, ImageSize: 8, PatchSize: 2, Width: 64, Layers: 1, Heads: 2, MLPRatio: 2,
		LayerNormEps: 1e-6}
	cfg.QFormer.EncoderWidth, cfg.QFormer.Dropout, cfg.QFormer.Layers = 64, 0.1, 2
	return cfg
}

// meshCase is a run on a number of devices.
type meshCase struct {
	devices int
	spread  bool
}

func (c meshCase) String() string { return fmt.Sprintf("%d devices, spread %v", c.devices, c.spread) }

// place draws the model's weights and puts them on the case's devices.
func (c meshCase) place(t *testing.T, backend compute.Backend, cfg Config) *mlx.Store {
	t.Helper()
	store := randomStore(t, cfg)
	t.Cleanup(store.Finalize)
	if err := model.SetTrainable(store, VisionParams(cfg), !cfg.FreezeVision); err != nil {
		t.Fatal(err)
	}
	m, err := mesh.New(backend, c.devices)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Place(store, c.spread); err != nil {
		t.Fatal(err)
	}
	return store
}

// meshOptimizer is the paper's.
func meshOptimizer() trainer.AdamW {
	return trainer.AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.05, DecayRule: trainer.DecayDefault}
}

// stepBatch is the batch of a step: the same on any number of devices.
func stepBatch(cfg Config, step int) []*tensors.Tensor {
	s := cfg.Vision.ImageSize
	pixels := normals(uint64(100+step), meshBatch*3*s*s)
	var ids, mask []int32
	for b := range meshBatch {
		tokens := 3 + (b+step)%(tinyLength-2)
		for i := range tinyLength {
			switch {
			case i == 0:
				ids, mask = append(ids, int32(cfg.CLSID)), append(mask, 1)
			case i < tokens-1:
				ids, mask = append(ids, int32(3+(5*b+7*i+step)%20)), append(mask, 1)
			case i == tokens-1:
				ids, mask = append(ids, int32(cfg.SEPID)), append(mask, 1)
			default:
				ids, mask = append(ids, int32(cfg.PadID)), append(mask, 0)
			}
		}
	}
	return BatchTensors(cfg, meshBatch, pixels, ids, mask)
}

// trainOn trains from step lo to hi and returns the losses of all steps, totals and terms.
func trainOn(t *testing.T, backend compute.Backend, store *mlx.Store, cfg Config, lo, hi int) []float32 {
	t.Helper()
	step, err := trainer.NewStep(backend, store, NewTask(cfg), meshOptimizer(), 3)
	if err != nil {
		t.Fatal(err)
	}
	defer step.Close()
	var losses []float32
	for i := lo; i < hi; i++ {
		batch := stepBatch(cfg, i)
		r, err := step.Run(i, 1e-4, batch)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range batch {
			b.MustFinalizeAll()
		}
		if !r.Applied {
			t.Fatalf("step %d was not applied", i)
		}
		losses = append(losses, float32(r.Loss), float32(r.GradNorm))
		for _, term := range r.Terms {
			losses = append(losses, float32(term))
		}
	}
	return losses
}

// weightsOf returns the trained tensors by name, but for key biases: their gradient is rounding noise, which Adam
// scales up to full steps.
func weightsOf(t *testing.T, store *mlx.Store, cfg Config) map[string][]float32 {
	t.Helper()
	all := map[string][]float32{}
	for _, p := range TrainableParams(cfg) {
		if strings.HasSuffix(p.Name, "self.key.bias") {
			continue
		}
		values, err := mesh.Read[float32](store, store.GetVariable(model.Path(p.Name)))
		if err != nil {
			t.Fatal(err)
		}
		all[p.Name] = values
	}
	return all
}

func onlyWithXLA(t *testing.T) {
	t.Helper()
	if !strings.HasPrefix(os.Getenv("BLIP2_TEST_BACKEND"), "xla") {
		t.Skip("compiles for a minute: set BLIP2_TEST_BACKEND=xla:cpu")
	}
}

// TestDevicesEqualOne: 2 and 4 devices train as one does on the same batches, dropout and hard negatives included, with
// the frozen encoder on each of them or spread over them.
func TestDevicesEqualOne(t *testing.T) {
	onlyWithXLA(t)
	backend := graphtest.OpenDevices(t, 4)
	const steps = 3
	for _, tt := range []struct {
		name   string
		change func(*Config)
		cases  []meshCase
	}{
		{"frozen encoder", func(*Config) {}, []meshCase{{2, false}, {4, true}}},
		{"trained encoder, gradient through the gather, replicas", func(c *Config) {
			c.FreezeVision, c.ITCGatherGrad, c.Replicas = false, true, 2
		}, []meshCase{{4, false}}},
		{"micro-batches with a contrast over the batch", func(c *Config) {
			c.MicroBatches, c.Coupled = 2, true
		}, []meshCase{{2, true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := meshConfig()
			tt.change(&cfg)
			one := meshCase{1, false}.place(t, backend, cfg)
			wantLosses := trainOn(t, backend, one, cfg, 0, steps)
			want := weightsOf(t, one, cfg)
			for _, c := range tt.cases {
				store := c.place(t, backend, cfg)
				graphtest.Same(t, c.String()+": losses", trainOn(t, backend, store, cfg, 0, steps), wantLosses, 1e-5)
				for name, values := range weightsOf(t, store, cfg) {
					graphtest.Same(t, c.String()+": "+name, values, want[name], 1e-5)
				}
			}
		})
	}
}

// TestEvaluationOnDevices: features, ranks and captions are those of one device, whether the devices share the rows or
// cannot.
func TestEvaluationOnDevices(t *testing.T) {
	onlyWithXLA(t)
	e := newEvalToy(t)
	e.dev = &device.Device{Backend: graphtest.OpenDevices(t, 2)}
	kept := e.store
	defer kept.Finalize()
	evaluate := func(devices, batch int) (*Ranking, [][]int32) {
		e.store = randomStore(t, e.cfg)
		defer e.store.Finalize()
		m, err := mesh.New(e.dev.Backend, devices)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Place(e.store, true); err != nil {
			t.Fatal(err)
		}
		ranking := e.rank(t, batch, 3)
		captions, err := e.evaluator(t, batch, 3).Captions(t.Context(), ranking, []int{0, 1, 2, 3, 4})
		if err != nil {
			t.Fatal(err)
		}
		return ranking, captions
	}
	want, wantCaptions := evaluate(1, 4)
	for _, batch := range []int{4, 3} {
		got, captions := evaluate(2, batch)
		name := fmt.Sprintf("batches of %d: ", batch)
		graphtest.Same(t, name+"pictures", got.Images, want.Images, 1e-5)
		graphtest.Same(t, name+"texts", got.Texts, want.Texts, 1e-5)
		for i := range want.I2T {
			graphtest.Same(t, name+"ranks", got.I2T[i], want.I2T[i], 1e-4)
		}
		if !reflect.DeepEqual(captions, wantCaptions) {
			t.Errorf("%scaptions %v, want %v", name, captions, wantCaptions)
		}
	}
}

// TestOtherDevices: a run that changes the number of its devices twice reads the same data and makes the same steps.
func TestOtherDevices(t *testing.T) {
	onlyWithXLA(t)
	y := newToy(t)
	open := func(n int) {
		t.Helper()
		dev, err := device.Open(t.Context(), device.Options{Backend: "xla:cpu", Devices: n})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := dev.Close(); err != nil {
				t.Error(err)
			}
		})
		y.dev = dev
	}
	set := func(more ...string) []string {
		return append(more, quick, "optim.lr=1e-4", "optim.min_lr=1e-5", "optim.warmup_lr=1e-5")
	}
	open(1)
	whole := y.mustTrain(t, start{run: "one", set: set()})
	open(3)
	y.mustTrain(t, start{run: "many", set: set("devices=3", "mesh.shard_frozen=true"), stopAt: "step 4/10"})
	open(2)
	resumed := y.mustTrain(t, start{run: "many", set: set("devices=2"), resume: true})
	want, got := whole.series(t), resumed.series(t)
	if len(got) != len(want) {
		t.Fatalf("%d steps, want %d", len(got), len(want))
	}
	for i, row := range want {
		for _, key := range []string{"loss", "loss_itc", "loss_itm", "loss_itg", "lr", "epoch"} {
			w, _ := row.Value(key)
			if g, ok := got[i].Value(key); !ok || math.Abs(g-w) > 1e-5*max(1, math.Abs(w)) {
				t.Errorf("step %d: %s is %.8g, want %.8g", i+1, key, g, w)
			}
		}
	}
	if !strings.Contains(resumed.log, "model placed") || !strings.Contains(resumed.log, "devices=2") {
		t.Errorf("the log does not tell of the devices:\n%s", resumed.log)
	}
}
