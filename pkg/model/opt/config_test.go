package opt

import (
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// TestPresets asserts the sizes of the published models (spec/model.md 6).
func TestPresets(t *testing.T) {
	totals := map[string]int{
		"opt-125m": 125_239_296, "opt-350m": 331_196_416, "opt-1.3b": 1_315_758_080, "opt-2.7b": 2_651_596_800,
		"opt-6.7b": 6_658_473_984, "opt-13b": 12_853_473_280, "opt-30b": 29_974_540_288, "opt-66b": 65_719_701_504,
	}
	if len(totals) != len(Presets()) {
		t.Errorf("presets %v, totals of %d", Presets(), len(totals))
	}
	for name, want := range totals {
		cfg, err := Preset("facebook/" + name)
		if err != nil {
			t.Error(err)
			continue
		}
		if err := cfg.Validate(); err != nil {
			t.Error(err)
		}
		if got := model.Count(Params(cfg)); got != want {
			t.Errorf("%s has %d parameters, want %d", name, got, want)
		}
	}
	if _, err := Preset("opt-3b"); err == nil || !strings.Contains(err.Error(), "opt-2.7b") {
		t.Errorf("an unknown model: error %v", err)
	}
}

// TestParams checks names and shapes against the published checkpoints.
func TestParams(t *testing.T) {
	cfg, err := Preset("opt-350m")
	if err != nil {
		t.Fatal(err)
	}
	shapes := map[string][]int{}
	for _, p := range Params(cfg) {
		shapes[p.Name] = p.Shape
	}
	if n := len(Params(cfg)); len(shapes) != n || n != 4+24*16 {
		t.Errorf("%d tensors of %d names", n, len(shapes))
	}
	for name, want := range map[string][2]int{
		"model.decoder.embed_tokens.weight": {50272, 512}, "model.decoder.embed_positions.weight": {2050, 1024},
		"model.decoder.project_in.weight": {1024, 512}, "model.decoder.project_out.weight": {512, 1024},
		"model.decoder.layers.23.self_attn.k_proj.weight": {1024, 1024}, "model.decoder.layers.0.fc1.weight": {4096, 1024},
		"model.decoder.layers.0.fc2.weight": {1024, 4096},
	} {
		if got := shapes[name]; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
			t.Errorf("%s has shape %v, want %v", name, got, want)
		}
	}
	if _, ok := shapes["model.decoder.final_layer_norm.weight"]; ok {
		t.Error("opt-350m has no norm at the end")
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"heads":     func(c *Config) { c.Heads = 5 },
		"no heads":  func(c *Config) { c.Heads = 0 },
		"layers":    func(c *Config) { c.Layers = -1 },
		"positions": func(c *Config) { c.Positions = 0 },
		"vocab":     func(c *Config) { c.Vocab = 0 },
		"ffn":       func(c *Config) { c.FFN = 0 },
		"hidden":    func(c *Config) { c.Hidden = 0 },
		"embedding": func(c *Config) { c.EmbedDim = -1 },
		"eps":       func(c *Config) { c.LayerNormEps = 0 },
	} {
		cfg := tiny(false)
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		if change(&cfg); cfg.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestInit: from scratch, matrices have OPT's spread and biases are 0.
func TestInit(t *testing.T) {
	cfg := tiny(true)
	weights := mlx.NewStore()
	if err := model.Initialize(weights, Params(cfg), 3); err != nil {
		t.Fatal(err)
	}
	for name, values := range graphtest.Values(t, weights, Params(cfg)) {
		var square float64
		for _, v := range values {
			square += v * v / float64(len(values))
		}
		low, high := 0.012*0.012, 0.028*0.028
		switch {
		case strings.HasSuffix(name, "bias"):
			low, high = 0, 0
		case strings.HasSuffix(name, "norm.weight"):
			low, high = 1, 1
		}
		if square < low || square > high {
			t.Errorf("the mean square of %s is %g", name, square)
		}
	}
}

// TestFLOPs compares the formulas with the products that graphs contain.
func TestFLOPs(t *testing.T) {
	const capacity = 8
	for _, postNorm := range []bool{false, true} {
		cfg := tiny(postNorm)
		graphtest.Run(t, graphtest.Open(t, "go"), store(t, cfg), func(scope *mlx.Scope, in []*Node) []*Node {
			whole := Forward(scope, cfg, Input{Embeds: in[0], Mask: in[1]}, nil).Hidden
			work := graphtest.FLOPs(t, whole)
			if want := batch * cfg.FLOPs(length, length); work != want {
				t.Errorf("a sequence takes %g FLOPs, the formula says %g", work, want)
			}
			head := Logits(scope, cfg, whole)
			if got, want := graphtest.FLOPs(t, head)-work, cfg.HeadFLOPs(batch*length); got != want {
				t.Errorf("the head takes %g FLOPs, the formula says %g", got, want)
			}
			const texts = 2
			step := Forward(scope, cfg, Input{Embeds: SliceAxis(in[0], 1, AxisRangeFromStart(texts)),
				Cache: empty(in[0].Graph(), cfg, texts, capacity)}, nil)
			if got, want := graphtest.FLOPs(t, step.Hidden), batch*cfg.FLOPs(texts, capacity); got != want {
				t.Errorf("a step takes %g FLOPs, the formula says %g", got, want)
			}
			return []*Node{head, step.Hidden}
		}, embedsTensor(cfg, embeds(cfg, 5)), maskTensor(masks["right"]))
	}
}

// empty is a cache without tokens.
func empty(g *Graph, cfg Config, texts, columns int) *nn.Cache {
	zeros := func(dtype dtypes.DType, dims ...int) *Node { return Zeros(g, shapes.Make(dtype, dims...)) }
	kv := zeros(dtypes.Float32, batch, cfg.Heads, columns, cfg.Hidden/cfg.Heads)
	return &nn.Cache{Visible: zeros(dtypes.Int32, batch, texts, columns), Position: zeros(dtypes.Int32, columns),
		Length: zeros(dtypes.Int32), KV: slices.Repeat([]nn.KV{{K: kv, V: kv}}, cfg.Layers)}
}
