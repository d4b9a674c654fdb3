package t5

import (
	"math"
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

// TestPresets asserts the sizes of the published models (spec/model.md 7).
func TestPresets(t *testing.T) {
	totals := map[string]int{
		"flan-t5-small": 76_961_152, "flan-t5-base": 247_577_856, "flan-t5-large": 783_150_080,
		"flan-t5-xl": 2_849_757_184, "flan-t5-xxl": 11_135_332_352,
	}
	if len(totals) != len(Presets()) {
		t.Errorf("presets %v, totals of %d", Presets(), len(totals))
	}
	for name, want := range totals {
		cfg, err := Preset("google/" + name)
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
	if _, err := Preset("t5-xl"); err == nil || !strings.Contains(err.Error(), "flan-t5-xl") {
		t.Errorf("an unknown model: error %v", err)
	}
}

// TestParams checks names and shapes against the published checkpoints.
func TestParams(t *testing.T) {
	cfg, err := Preset("flan-t5-small")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string][]int{}
	for _, p := range Params(cfg) {
		named[p.Name] = p.Shape
	}
	if n := len(Params(cfg)); len(named) != n || n != 4+8*9+8*14+2 {
		t.Errorf("%d tensors of %d names", n, len(named))
	}
	for name, want := range map[string][]int{
		"shared.weight": {32128, 512}, "lm_head.weight": {32128, 512}, "decoder.final_layer_norm.weight": {512},
		"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": {32, 6},
		"decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": {32, 6},
		"encoder.block.7.layer.0.SelfAttention.q.weight":                       {384, 512},
		"decoder.block.7.layer.1.EncDecAttention.o.weight":                     {512, 384},
		"decoder.block.3.layer.1.layer_norm.weight":                            {512},
		"encoder.block.2.layer.1.DenseReluDense.wi_1.weight":                   {1024, 512},
		"decoder.block.2.layer.2.DenseReluDense.wo.weight":                     {512, 1024},
	} {
		if got := named[name]; !slices.Equal(got, want) {
			t.Errorf("%s has shape %v, want %v", name, got, want)
		}
	}
	if !KeepsFloat32("decoder.block.2.layer.2.DenseReluDense.wo.weight") || KeepsFloat32("shared.weight") {
		t.Error("wo, and only wo, stays in float32 beside float16")
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"vocab":          func(c *Config) { c.Vocab = 0 },
		"hidden":         func(c *Config) { c.Hidden = 0 },
		"head dim":       func(c *Config) { c.HeadDim = 0 },
		"heads":          func(c *Config) { c.Heads = -1 },
		"ffn":            func(c *Config) { c.FFN = 0 },
		"encoder layers": func(c *Config) { c.EncoderLayers = 0 },
		"decoder layers": func(c *Config) { c.DecoderLayers = 0 },
		"activation":     func(c *Config) { c.Activation = nn.ReLU },
		"no activation":  func(c *Config) { c.Activation = "" },
		"buckets":        func(c *Config) { c.Buckets = 3 },
		"distance":       func(c *Config) { c.MaxDistance = c.Buckets / 2 },
		"eps":            func(c *Config) { c.RMSNormEps = math.NaN() },
	} {
		cfg := tiny()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		if change(&cfg); cfg.Validate() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestInit: from scratch, tensors have the spread of Hugging Face's T5.
func TestInit(t *testing.T) {
	cfg := tiny()
	cfg.InitFactor = 0.5
	weights := mlx.NewStore()
	if err := model.Initialize(weights, Params(cfg), 3); err != nil {
		t.Fatal(err)
	}
	values := graphtest.Values(t, weights, Params(cfg))
	for name, want := range map[string]float64{
		"shared": 1, "lm_head": 1, "encoder.block.1.layer.1.DenseReluDense.wi_0": 1. / 9,
		"encoder.block.1.layer.1.DenseReluDense.wo": 1. / 16, "encoder.block.0.layer.0.SelfAttention.q": 1. / 36,
		"encoder.block.0.layer.0.SelfAttention.k": 1. / 9, "encoder.block.0.layer.0.SelfAttention.o": 1. / 12,
		"decoder.block.0.layer.0.SelfAttention.relative_attention_bias": 1. / 9, "decoder.final_layer_norm": 1,
	} {
		var square float64
		all := values[name+".weight"]
		for _, v := range all {
			square += v * v / float64(len(all))
		}
		if ratio := square / want / 0.25; !(ratio > 0.4 && ratio < 2) {
			t.Errorf("the mean square of %s is %g, want about %g", name, square, want*0.25)
		}
	}
}

// TestFLOPs compares the formulas with the products that graphs contain.
func TestFLOPs(t *testing.T) {
	const capacity = 8
	cfg := tiny()
	graphtest.Run(t, graphtest.Open(t, "go"), store(t, cfg), func(scope *mlx.Scope, in []*Node) []*Node {
		g := in[0].Graph()
		encoded := Encode(scope, cfg, in[0], in[1], nil)
		cross := NewCross(scope, cfg, encoded, in[1])
		embeds := Embed(scope, DecoderIDs(in[2]), dtypes.Float32)
		all := Decode(scope, cfg, Input{Embeds: embeds, Mask: in[3], Cross: cross}, nil).Hidden
		logits := Logits(scope, cfg, all)
		const texts = 2
		kv := Zeros(g, shapes.Make(dtypes.Float32, batch, cfg.Heads, capacity, cfg.HeadDim))
		past := &nn.Cache{Visible: Zeros(g, shapes.Make(dtypes.Int32, batch, texts, capacity)),
			Position: Zeros(g, shapes.Make(dtypes.Int32, capacity)), Length: Scalar(g, dtypes.Int32, 0),
			KV: slices.Repeat([]nn.KV{{K: kv, V: kv}}, cfg.DecoderLayers)}
		step := Decode(scope, cfg, Input{Embeds: SliceAxis(embeds, 1, AxisRangeFromStart(texts)), Cross: cross,
			Cache: past}, nil).Hidden
		sofar := 0.0
		for _, part := range []struct {
			name  string
			nodes []*Node
			want  float64
		}{
			{"encoder", []*Node{encoded}, cfg.EncodeFLOPs(length)},
			{"cross-attention source", cross.Nodes(), cfg.CrossFLOPs(length)},
			{"decoder", []*Node{all}, cfg.DecodeFLOPs(steps, steps, length)},
			{"head", []*Node{logits}, cfg.HeadFLOPs(steps)},
			{"step", []*Node{logits, step}, cfg.DecodeFLOPs(texts, capacity, length)},
		} {
			work := graphtest.FLOPs(t, part.nodes...)
			if work-sofar != batch*part.want {
				t.Errorf("%s takes %g FLOPs, the formula says %g", part.name, work-sofar, batch*part.want)
			}
			sofar = work
		}
		return []*Node{logits, step}
	}, inputs(cfg)...)
}
