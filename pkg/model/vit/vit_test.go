package vit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
)

// arches are all architectures.
func arches() []string { return []string{CLIP, EVA, BLIP} }

// tiny returns an encoder that runs in milliseconds.
func tiny(arch string) Config {
	return Config{Arch: arch, ImageSize: 6, PatchSize: 2, Width: 8, Layers: 2, Heads: 2, MLPRatio: 2.3, LayerNormEps: 1e-5}
}

// draw returns n numbers from N(0, 1), the same for the same seed.
func draw(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 2))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

// storeOf returns a store with the encoder's tensors at random, LayerNorms and biases included.
func storeOf(t *testing.T, cfg Config) *mlx.Store {
	t.Helper()
	store := mlx.NewStore()
	for i, p := range Params(cfg) {
		values := draw(uint64(i), p.Size())
		if err := model.Set(store, p.Name, p.Shape, values); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// run evaluates a graph of the pixels with the store's tensors.
func run(t *testing.T, store *mlx.Store, pixels *tensors.Tensor, build func(*mlx.Scope, *Node) []*Node) [][]float32 {
	t.Helper()
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	outputs, err := mlx.CallOnceN(backend, store, build, pixels)
	if err != nil {
		t.Fatal(err)
	}
	values := make([][]float32, len(outputs))
	for i, o := range outputs {
		values[i] = tensors.MustCopyFlatData[float32](o)
	}
	return values
}

// TestPublishedSizes compares parameter totals with the published encoders (spec/model.md 2, 3 and 10).
func TestPublishedSizes(t *testing.T) {
	for _, c := range []struct {
		preset string
		size   int // 0: the preset's
		layers int // 0: the preset's
		tokens int
		block  int
		total  int
	}{
		{"clip-vit-l14", 0, 0, 257, 12_596_224, 290_581_504},
		{"clip-vit-l14", 364, 0, 677, 12_596_224, 291_011_584},
		{"clip-vit-l14", 0, 24, 257, 12_596_224, 303_177_728},
		{"eva-vit-g14", 0, 0, 257, 25_248_768, 985_894_528},
		{"eva-vit-g14", 364, 0, 677, 25_248_768, 986_485_888},
		{"eva-vit-g14", 490, 0, 1226, 25_248_768, 987_258_880},
		{"eva-vit-g14", 0, 40, 257, 25_248_768, 1_011_143_296},
		{"blip-vit-l16", 0, 0, 577, 12_596_224, 303_690_752},
		{"blip-vit-l16", 224, 0, 197, 12_596_224, 303_301_632},
	} {
		cfg, err := Preset(c.preset)
		if err != nil {
			t.Fatal(err)
		}
		if c.size > 0 {
			cfg.ImageSize = c.size
		}
		if c.layers > 0 {
			cfg.Layers = c.layers
		}
		name := fmt.Sprintf("%s, %d blocks at %d", c.preset, cfg.Layers, cfg.ImageSize)
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := cfg.Tokens(); got != c.tokens {
			t.Errorf("%s: %d tokens, want %d", name, got, c.tokens)
		}
		if got := model.Count(Params(cfg)); got != c.total {
			t.Errorf("%s: %d parameters, want %d", name, got, c.total)
		}
		one := cfg
		one.Layers--
		if got := model.Count(Params(cfg)) - model.Count(Params(one)); got != c.block {
			t.Errorf("%s: a block of %d parameters, want %d", name, got, c.block)
		}
		if want := map[string]int{EVA: 6144}[cfg.Arch]; want > 0 && cfg.MLPWidth() != want {
			t.Errorf("%s: the MLP is %d wide, want %d", name, cfg.MLPWidth(), want)
		}
	}
	if _, err := Preset("vgg"); err == nil || !strings.Contains(err.Error(), "blip-vit-l16, clip-vit-l14") {
		t.Errorf("an unknown preset: error %v does not name the known ones", err)
	}
}

// TestMLPWidth: a ratio is rounded down, and that of a width gives the width.
func TestMLPWidth(t *testing.T) {
	if got := tiny(CLIP).MLPWidth(); got != 18 {
		t.Errorf("8 × 2.3 gives %d, want 18", got)
	}
	for width := 1; width < 300; width += 7 {
		for mlp := 1; mlp < 2000; mlp += 13 {
			if got := (Config{Width: width, MLPRatio: RatioOf(mlp, width)}).MLPWidth(); got != mlp {
				t.Fatalf("the ratio of %d to %d gives %d", mlp, width, got)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	for says, change := range map[string]func(*Config){
		"resnet": func(c *Config) { c.Arch = "resnet" },
		"7":      func(c *Config) { c.ImageSize = 7 },
		"patch":  func(c *Config) { c.PatchSize = 0 },
		"heads":  func(c *Config) { c.Heads = 3 },
		"0 head": func(c *Config) { c.Heads = 0 },
	} {
		cfg := tiny(CLIP)
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: error %v, want one that says %q", cfg, err, says)
		}
	}
}

// TestStem compares the encoder without blocks with a convolution written out as loops.
func TestStem(t *testing.T) {
	for _, arch := range arches() {
		cfg := tiny(arch)
		cfg.Layers = 0
		const batch = 2
		s, p, w, n := cfg.ImageSize, cfg.PatchSize, cfg.Width, cfg.Tokens()
		pixels := draw(99, batch*3*s*s)
		store := storeOf(t, cfg)
		get := func(name string) []float32 {
			return tensors.MustCopyFlatData[float32](store.GetVariable(model.Path(name)).MustValue())
		}
		kernel, class, bias := "conv1.weight", "class_embedding", []float32(nil)
		if arch != CLIP {
			kernel, class, bias = "patch_embed.proj.weight", "cls_token", get("patch_embed.proj.bias")
		}
		conv, first, positions := get(kernel), get(class), get(cfg.PositionName())
		want := make([]float64, batch*n*w)
		for i := range want {
			b, token, c := i/(n*w), i/w%n, i%w
			want[i] = float64(positions[token*w+c])
			if token == 0 {
				want[i] += float64(first[c])
				continue
			}
			y0, x0 := (token-1)/cfg.Grid()*p, (token-1)%cfg.Grid()*p
			for k := range 3 * p * p {
				channel, y, x := k/(p*p), k/p%p, k%p
				want[i] += float64(conv[c*3*p*p+k]) * float64(pixels[((b*3+channel)*s+y0+y)*s+x0+x])
			}
			if bias != nil {
				want[i] += float64(bias[c])
			}
		}
		if norm := map[string]string{CLIP: "ln_pre", BLIP: "norm"}[arch]; norm != "" {
			weight, shift := get(norm+".weight"), get(norm+".bias")
			for r := 0; r < len(want); r += w {
				layerNorm(want[r:r+w], weight, shift, cfg.LayerNormEps)
			}
		}
		got := run(t, store, tensors.FromFlatDataAndDimensions(pixels, batch, 3, s, s),
			func(scope *mlx.Scope, x *Node) []*Node { return []*Node{Forward(scope, cfg, x)} })[0]
		for i := range want {
			if d := math.Abs(float64(got[i]) - want[i]); !(d <= 1e-5*max(1, math.Abs(want[i]))) {
				t.Fatalf("%s: batch %d, token %d, feature %d is %g, want %g", arch, i/(n*w), i/w%n, i%w, got[i], want[i])
			}
		}
	}
}

func layerNorm(x []float64, weight, bias []float32, eps float64) {
	var mean, variance float64
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x))
	}
	for i, v := range x {
		x[i] = (v-mean)/math.Sqrt(variance+eps)*float64(weight[i]) + float64(bias[i])
	}
}

// TestEveryTensorWorks: names are unique, the graph reads exactly the declared tensors, and each has a gradient.
func TestEveryTensorWorks(t *testing.T) {
	for _, arch := range arches() {
		cfg := tiny(arch)
		params := Params(cfg)
		seen := map[string]bool{}
		for _, p := range params {
			if seen[p.Name] || model.Name(model.Path(p.Name)) != p.Name {
				t.Errorf("%s: name %q is declared twice or does not survive its path", arch, p.Name)
			}
			seen[p.Name] = true
		}
		s := cfg.ImageSize
		pixels := tensors.FromFlatDataAndDimensions(draw(7, 2*3*s*s), 2, 3, s, s)
		grads := run(t, storeOf(t, cfg), pixels, func(scope *mlx.Scope, x *Node) []*Node {
			y := Forward(scope, cfg, x)
			var vars []*Node
			for _, p := range params {
				v := scope.Store().GetVariable(model.Path(p.Name))
				if !v.InUseByGraph(x.Graph()) {
					t.Errorf("%s: the graph does not read %s", arch, p.Name)
				}
				vars = append(vars, v.NodeValue(x.Graph()))
			}
			flat := Reshape(y, -1)
			return Gradient(ReduceAllSum(Mul(flat, Cos(Iota(x.Graph(), flat.Shape(), 0)))), vars...)
		})
		for i, p := range params {
			if !(largest(grads[i]) > 0) {
				t.Errorf("%s: %s has no gradient", arch, p.Name)
			}
		}
	}
}

// TestFLOPs counts again from the declared matrices: every token passes every weight once, plus attention.
func TestFLOPs(t *testing.T) {
	for _, arch := range arches() {
		cfg := tiny(arch)
		n := float64(cfg.Tokens())
		want := float64(cfg.Layers) * 2 * 2 * n * n * float64(cfg.Width)
		for _, p := range Params(cfg) {
			switch {
			case len(p.Shape) == 4:
				want += 2 * (n - 1) * float64(p.Size())
			case len(p.Shape) == 2 && p.Name != cfg.PositionName():
				want += 2 * n * float64(p.Size())
			}
		}
		if got := cfg.FLOPs(); math.Abs(got-want) > 1e-9*want {
			t.Errorf("%s: %g operations, want %g", arch, got, want)
		}
	}
}

// largest is the largest magnitude; NaN if there is one.
func largest(x []float32) float64 {
	var size float64
	for _, v := range x {
		size = max(size, math.Abs(float64(v)))
	}
	return size
}

// initOf is how spec/model.md 5.5 starts a tensor of an encoder from scratch, at the given spread; EVA shrinks what
// feeds the residual stream of block l by √(2(l+1)).
func initOf(arch string, p model.Param, std float64) model.Init {
	switch {
	case strings.HasPrefix(p.Name, "conv1"), strings.HasPrefix(p.Name, "patch_embed"):
		return model.Uniform(1 / math.Sqrt(12))
	case len(p.Shape) == 1 && strings.Contains(p.Name, "weight"):
		return model.Constant(1)
	case strings.HasSuffix(p.Name, "bias"):
		return model.Constant(0)
	case arch == EVA && (strings.Contains(p.Name, "attn.proj") || strings.Contains(p.Name, "fc2")):
		block := float64(p.Name[len("blocks.")] - '0')
		return model.TruncNormal(std / math.Sqrt(2*(block+1)))
	}
	return model.TruncNormal(std)
}

func TestInit(t *testing.T) {
	for spread, std := range map[float64]float64{0: 0.02, 0.1: 0.1} {
		for _, arch := range arches() {
			cfg := tiny(arch)
			cfg.InitializerRange = spread
			for _, p := range Params(cfg) {
				// Multiplied or divided, the spread may differ in the last digit.
				got, want := fmt.Sprintf("%.12v", p.Init), fmt.Sprintf("%.12v", initOf(arch, p, std))
				if got != want {
					t.Errorf("%s, spread %g: %s starts as %s, want %s", arch, spread, p.Name, got, want)
				}
			}
		}
	}
}
