package stage1

import (
	"fmt"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/device"
	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
	"blip2/pkg/trainer"
)

// oddConfig has dimensions without common factors where the network allows it, so that no two products of the
// step are mistaken for each other.
func oddConfig() Config {
	return Config{
		Vision: vit.Config{Arch: vit.CLIP, ImageSize: 15, PatchSize: 5, Width: 14, Layers: 2, Heads: 2, MLPRatio: 2.5,
			LayerNormEps: 1e-5},
		FreezeVision: true, LNVisionEps: 1e-5,
		QFormer: qformer.Config{Hidden: 22, Layers: 3, Heads: 2, Intermediate: 34, Queries: 7, CrossAttentionFreq: 2,
			EncoderWidth: 14, Vocab: 53, MaxPositions: 12, LayerNormEps: 1e-12, Dropout: 0.1},
		EmbedDim: 9, Temperature: 0.07, MaxTextLen: 11, PadID: 0, CLSID: 2, SEPID: 3, BOSID: 52,
		LabelSmoothing: 0.1, HardNegatives: NegativesMaskedSoftmax, ITCWeight: 1, ITMWeight: 1, ITGWeight: 1,
	}
}

// TestStepFLOPs compares the formula with the products that the graph of the step really contains.
func TestStepFLOPs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{
		{"frozen CLIP", func(*Config) {}},
		{"trained EVA", func(c *Config) { c.FreezeVision, c.Vision.Arch = false, vit.EVA }},
		{"gradient through the gather", func(c *Config) { c.ITCGatherGrad = true }},
		{"cross-attention in every layer", func(c *Config) { c.QFormer.CrossAttentionFreq = 1 }},
		{"one layer, no ITM", func(c *Config) { c.QFormer.Layers, c.ITMWeight = 1, 0 }},
		{"no ITC", func(c *Config) { c.ITCWeight = 0 }},
		{"no ITG", func(c *Config) { c.ITGWeight = 0 }},
		{"ITC alone", func(c *Config) { c.ITMWeight, c.ITGWeight = 0, 0 }},
		{"ITM alone", func(c *Config) { c.ITCWeight, c.ITGWeight = 0, 0 }},
		{"ITG alone", func(c *Config) { c.ITCWeight, c.ITMWeight = 0, 0 }},
		{"ITG alone, its last layer without cross-attention", func(c *Config) {
			c.ITCWeight, c.ITMWeight, c.QFormer.Layers = 0, 0, 4
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const batch = 5
			cfg := oddConfig()
			tt.change(&cfg)
			forward, both := graphFLOPs(t, cfg, batch)
			parts := StepFLOPs(cfg, batch)
			want := 0.0
			for _, p := range parts {
				want += p.Forward
			}
			if forward != want {
				t.Errorf("forward: the graph's products make %.0f FLOPs, the formula says %.0f", forward, want)
			}
			if both != TotalFLOPs(parts) {
				t.Errorf("with gradients: the graph's products make %.0f FLOPs, the formula says %.0f", both,
					TotalFLOPs(parts))
			}
		})
	}
}

// TestStepFLOPsOfPaper checks the sum for ViT-L/14 and the full Q-Former, worked out by hand from spec/model.md.
func TestStepFLOPsOfPaper(t *testing.T) {
	parts := StepFLOPs(vitL(), 1)
	// One ViT block on 257 tokens: 2·257·1024·(4·1024 + 2·4096) + 4·257²·1024 = 6.738e9; 23 of them and the patches.
	if got, want := parts[0].Forward, 23*(2*257*1024*12288.0+4*257*257*1024)+2*256*1024*588.0; got != want {
		t.Errorf("ViT-L/14 takes %.4g FLOPs, want %.4g", got, want)
	}
	// Keys and values of six layers: 6 · 2 · 2·257·1024·768.
	if got, want := parts[1].Forward, 12*2*257*1024*768.0; got != want {
		t.Errorf("cross-attention keys and values take %.4g FLOPs, want %.4g", got, want)
	}
	// LM head on 31 positions: 2·31·768·(768 + 30523).
	if got, want := parts[len(parts)-1].Forward, 2*31*768*31291.0; got != want {
		t.Errorf("the LM head takes %.4g FLOPs, want %.4g", got, want)
	}
}

// graphFLOPs builds the loss and its gradients and adds up the products that lead to the loss, and to all of them.
func graphFLOPs(t *testing.T, cfg Config, batch int) (forward, both float64) {
	t.Helper()
	dev, err := device.Open(t.Context(), device.Options{Backend: "go"})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	store := mlx.NewStore()
	if err := model.Initialize(store, Params(cfg), 1); err != nil {
		t.Fatal(err)
	}
	task := NewTask(cfg)
	exec, err := mlx.NewExec(dev.Backend, store, func(scope *mlx.Scope, in []*Node) *Node {
		loss, _ := task.Loss(scope, in[1:], nn.NewRNG(in[0]))
		var values []*Node
		for _, p := range task.Params {
			values = append(values, store.GetVariable(model.Path(p.Name)).NodeValue(loss.Graph()))
		}
		grads := Gradient(loss, values...)
		forward = graphtest.FLOPs(t, loss)
		both = graphtest.FLOPs(t, append(grads, loss)...)
		return loss
	})
	if err != nil {
		t.Fatal(err)
	}
	size, length := cfg.Vision.ImageSize, cfg.MaxTextLen
	text := shapes.Make(dtypes.Int32, batch, length)
	if _, err := exec.Compile(RNGStateShape, shapes.Make(dtypes.Float32, batch, 3, size, size), text, text); err != nil {
		t.Fatal(err)
	}
	return forward, both
}

// TestRepeatedFLOPs compares the formula with what the graphs of a step with gradient caching, or with
// rematerialisation, contain beyond those of a plain one.
func TestRepeatedFLOPs(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Config)
	}{
		{"frozen", func(*Config) {}},
		{"trained EVA", func(c *Config) { c.FreezeVision, c.Vision.Arch = false, vit.EVA }},
		{"trained, remat", func(c *Config) { c.FreezeVision, c.Vision.Remat = false, true }},
		{"no ITC", func(c *Config) { c.ITCWeight = 0 }},
		{"no ITM, trained", func(c *Config) { c.ITMWeight, c.FreezeVision = 0, false }},
		{"no ITG", func(c *Config) { c.ITGWeight = 0 }},
		{"gather gradient", func(c *Config) { c.ITCGatherGrad = true }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const batch, parts = 6, 2
			cfg := oddConfig()
			tt.change(&cfg)
			want := TotalFLOPs(StepFLOPs(cfg, batch)) + TotalFLOPs(RepeatedFLOPs(cfg, batch))
			if _, got := graphFLOPs(t, cfg, batch); got != want {
				t.Errorf("one batch: the graph's products make %.0f FLOPs, the formula says %.0f", got, want)
			}
			cfg.MicroBatches, cfg.Coupled = parts, true
			want = TotalFLOPs(StepFLOPs(cfg, batch)) + TotalFLOPs(RepeatedFLOPs(cfg, batch))
			if got := coupledFLOPs(t, cfg, batch); got != want {
				t.Errorf("gradient caching: the graphs' products make %.0f FLOPs, the formula says %.0f", got, want)
			}
		})
	}
}

// coupledFLOPs adds up the products of the passes of gradient caching.
func coupledFLOPs(t *testing.T, cfg Config, batch int) float64 {
	t.Helper()
	store := mlx.NewStore()
	if err := model.Initialize(store, Params(cfg), 1); err != nil {
		t.Fatal(err)
	}
	g, c, scope := NewGraph(openGo(t).Backend, "passes"), coupled(cfg), store.RootScope()
	rows, size, length := batch/cfg.MicroBatches, cfg.Vision.ImageSize, cfg.MaxTextLen
	float := func(dims ...int) *Node { return Parameter(g, "", shapes.Make(dtypes.Float32, dims...)) }
	ints := func(dims ...int) *Node { return Parameter(g, "", shapes.Make(dtypes.Int32, dims...)) }
	rng := nn.NewRNG(Parameter(g, "", RNGStateShape))
	var params []*Node
	for _, p := range TrainableParams(cfg) {
		params = append(params, store.GetVariable(model.Path(p.Name)).NodeValue(g))
	}
	in := []*Node{float(rows, 3, size, size), ints(rows, length), ints(rows, length)}
	features, kept := c.Features(scope, in, rng)
	flops := graphtest.FLOPs(t, append(features, kept...)...)

	own := []*Node{float(rows, cfg.QFormer.Queries, cfg.EmbedDim), float(rows, cfg.EmbedDim)}
	all := []*Node{float(batch, cfg.QFormer.Queries, cfg.EmbedDim), float(batch, cfg.EmbedDim)}
	loss, _, picks := c.Couple(scope, trainer.Coupling{Rows: ints(rows), Own: own, All: all}, rng)
	wanted := append([]*Node{loss}, picks...)
	if cfg.ITCWeight > 0 {
		sides := own
		if c.Gathered {
			sides = append(append(sides, all...), params...)
		}
		wanted = append(wanted, Gradient(loss, sides...)...)
	}
	flops += graphtest.FLOPs(t, wanted...)

	picture := in[0]
	if cfg.FreezeVision {
		picture = float(rows, cfg.Vision.Tokens(), cfg.Vision.Width)
	}
	in = []*Node{picture, in[1], in[2], picture, ints(rows, length), ints(rows, length)}
	features, loss, _ = c.Loss(scope, ints(rows), in, []*Node{ints(batch, length)}, rng)
	for _, f := range features {
		loss = Add(loss, ReduceAllSum(Mul(f, float(f.Shape().Dimensions...))))
	}
	flops += graphtest.FLOPs(t, append(Gradient(loss, params...), loss)...)
	return float64(cfg.MicroBatches) * flops
}

func ExampleStepFLOPs() {
	cfg := NewConfig(paperConfig(), BERTVocabulary())
	for _, p := range StepFLOPs(cfg, 8) {
		fmt.Printf("%-32s %6.1f + %6.1f GFLOP\n", p.Part, p.Forward/1e9, p.Backward/1e9)
	}
	// Output:
	// ViT                              1242.3 +    0.0 GFLOP
	// cross-attention keys and values    38.8 +   77.6 GFLOP
	// image pass                         48.7 +   97.5 GFLOP
	// text pass                          43.8 +   87.6 GFLOP
	// ITC similarities                    0.0 +    0.0 GFLOP
	// ITM pass                          269.8 +  539.7 GFLOP
	// ITG pass                           42.7 +   85.4 GFLOP
	// LM head                            11.9 +   23.8 GFLOP
}

// TestImageFLOPs compares the formula with the products of ImageFeatures' graph.
func TestImageFLOPs(t *testing.T) {
	const batch = 3
	cfg := oddConfig()
	store := mlx.NewStore()
	if err := model.Initialize(store, Params(cfg), 1); err != nil {
		t.Fatal(err)
	}
	g := NewGraph(openGo(t).Backend, "image")
	size := cfg.Vision.ImageSize
	pixels := Parameter(g, "pixels", shapes.Make(dtypes.Float32, batch, 3, size, size))
	_, feats := ImageFeatures(store.RootScope(), cfg, pixels)
	if got, want := graphtest.FLOPs(t, feats), batch*ImageFLOPs(cfg); got != want {
		t.Errorf("the graph's products make %.0f FLOPs, the formula says %.0f", got, want)
	}
}
