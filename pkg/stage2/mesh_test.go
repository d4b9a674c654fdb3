package stage2

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/internal/graphtest"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/t5"
	"blip2/pkg/published"
	"blip2/pkg/trainer"
)

// wide are small models whose language model has matrices large enough to be spread.
func wide() map[string]published.Spec {
	specs := tiny()
	withOPT, withT5 := specs["OPT"], specs["T5"]
	withOPT.OPT = &opt.Config{Vocab: 80, Hidden: 64, Layers: 1, Heads: 2, FFN: 128, Positions: 24, LayerNormEps: 1e-5}
	withT5.T5 = &t5.Config{Vocab: 80, Hidden: 64, HeadDim: 32, Heads: 2, FFN: 128, EncoderLayers: 1, DecoderLayers: 1,
		Activation: nn.GELU, Buckets: 8, MaxDistance: 16, RMSNormEps: 1e-6}
	withOPT.LLMWidth, withT5.LLMWidth = 64, 64
	return map[string]published.Spec{"OPT": withOPT, "T5": withT5}
}

// meshRows is a batch that 1 and 4 devices can share.
const meshRows = 4

// textBatch is a batch of texts about pictures, the same at every call.
func textBatch(cfg Config, step int) []*tensors.Tensor {
	const length = 6
	ids, mask := make([]int32, meshRows*length), make([]int32, meshRows*length)
	for row := range meshRows {
		for i := range 3 + row {
			if i < length {
				ids[row*length+i], mask[row*length+i] = int32(3+(7*row+5*i+step)%70), 1
			}
		}
	}
	text := func() []*tensors.Tensor {
		return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(ids, meshRows, length),
			tensors.FromFlatDataAndDimensions(mask, meshRows, length)}
	}
	batch := append([]*tensors.Tensor{pictures(10*step, meshRows)}, text()...)
	if cfg.T5 != nil {
		batch = append(batch, text()...)
	}
	return batch
}

// placed returns the model's tensors on some devices, the language model spread over them, and the bytes that each
// holds.
func placed(t *testing.T, backend compute.Backend, cfg Config, spec published.Spec, devices int) (*mlx.Store, int64) {
	t.Helper()
	store := graphtest.Store(t, spec.Params(), 2)
	t.Cleanup(store.Finalize)
	if err := model.SetTrainable(store, spec.Params(), false); err != nil {
		t.Fatal(err)
	}
	if err := model.SetTrainable(store, TrainableParams(cfg), true); err != nil {
		t.Fatal(err)
	}
	m, err := mesh.New(backend, devices)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Place(store, true); err != nil {
		t.Fatal(err)
	}
	return store, mesh.Bytes(store)
}

// steps trains and returns the losses.
func steps(t *testing.T, backend compute.Backend, store *mlx.Store, cfg Config) []float32 {
	t.Helper()
	task := trainer.Task{Params: TrainableParams(cfg)}
	task.Loss = func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
		b := Batch{Pixels: in[0], IDs: in[1], Mask: in[2]}
		if cfg.T5 != nil {
			b.OutputIDs, b.OutputMask = in[3], in[4]
		}
		return Forward(scope, cfg, b, rng).Loss, nil
	}
	step, err := trainer.NewStep(backend, store, task, trainer.AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer step.Close()
	var losses []float32
	for i := range 3 {
		r, err := step.Run(i, 1e-4, textBatch(cfg, i))
		if err != nil || !r.Applied {
			t.Fatalf("step %d: %+v, %v", i, r, err)
		}
		losses = append(losses, float32(r.Loss))
	}
	return losses
}

// TestSpreadLLM: with the frozen language model spread over 4 devices, training and generation give what they give on
// one, and each device holds a quarter of it.
func TestSpreadLLM(t *testing.T) {
	if !strings.HasPrefix(os.Getenv("BLIP2_TEST_BACKEND"), "xla") {
		t.Skip("compiles for a minute: set BLIP2_TEST_BACKEND=xla:cpu")
	}
	backend := graphtest.OpenDevices(t, 4)
	for name, spec := range wide() {
		cfg, err := NewConfig(spec)
		if err != nil {
			t.Fatal(err)
		}
		cfg.QFormer.Dropout = 0.1
		one, all := placed(t, backend, cfg, spec, 1)
		many, part := placed(t, backend, cfg, spec, 4)
		var large int64
		for _, p := range spec.Params() {
			if v := one.GetVariable(model.Path(p.Name)); !v.Trainable && model.IsMatrix(p) && p.Size() >= 64*64 {
				large += int64(4 * p.Size())
			}
		}
		if large == 0 || part != all-large*3/4 {
			t.Errorf("%s: %d bytes on one device, %d on each of four; %d of them are of large frozen matrices", name, all,
				part, large)
		}
		graphtest.Same(t, name+": losses", steps(t, backend, many, cfg), steps(t, backend, one, cfg), 1e-5)
		for _, p := range TrainableParams(cfg) {
			if strings.HasSuffix(p.Name, "self.key.bias") {
				continue // its gradient is rounding noise, which Adam scales up to full steps
			}
			want, errWant := mesh.Read[float32](one, one.GetVariable(model.Path(p.Name)))
			got, errGot := mesh.Read[float32](many, many.GetVariable(model.Path(p.Name)))
			if errWant != nil || errGot != nil {
				t.Fatal(errWant, errGot)
			}
			graphtest.Same(t, fmt.Sprintf("%s: %s", name, p.Name), got, want, 1e-5)
		}
		o := generate.Options{MaxNewTokens: 5, EOS: 3, Beams: 2, NoRepeatNGram: 1}
		write := func(store *mlx.Store) [][]generate.Text {
			g, err := NewGenerator(backend, store, cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			asked := slices.Concat(prompts, prompts[:1])
			texts, err := g.Generate(t.Context(), pictures(0, len(asked)), cfg.NewPrompts(asked), o)
			if err != nil {
				t.Fatal(err)
			}
			return texts
		}
		sameTexts(t, name, write(many), write(one))
	}
}
