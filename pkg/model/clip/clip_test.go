package clip

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/vit"
)

// tiny returns a model that runs in milliseconds.
func tiny() Config {
	return Config{
		Image: vit.Config{Arch: vit.CLIP, ImageSize: 6, PatchSize: 2, Width: 8, Layers: 2, Heads: 2, MLPRatio: 1.5,
			LayerNormEps: 1e-5},
		Text:  Text{Vocab: 20, Context: 7, Width: 6, Layers: 2, Heads: 3, MLP: 10, LayerNormEps: 1e-5},
		Embed: 5,
	}
}

// draw returns n numbers from N(0, 1), the same for the same seed.
func draw(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 5))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

// storeOf returns a store with the model's tensors at random, LayerNorms and biases included.
func storeOf(t *testing.T, cfg Config) *mlx.Store {
	t.Helper()
	store := mlx.NewStore()
	for i, p := range Params(cfg) {
		if err := model.Set(store, p.Name, p.Shape, draw(uint64(i), p.Size())); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// tensor returns a tensor of the store.
func tensor(store *mlx.Store, name string) []float32 {
	return tensors.MustCopyFlatData[float32](store.GetVariable(model.Path(name)).MustValue())
}

// run evaluates a graph of the inputs with the store's tensors.
func run(t *testing.T, store *mlx.Store, build func(*mlx.Scope, []*Node) []*Node, in ...any) [][]float32 {
	t.Helper()
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	outputs, err := mlx.CallOnceN(backend, store, build, in...)
	if err != nil {
		t.Fatal(err)
	}
	values := make([][]float32, len(outputs))
	for i, o := range outputs {
		values[i] = tensors.MustCopyFlatData[float32](o)
	}
	return values
}

// encodeTexts returns the features of texts of equal length, row by row.
func encodeTexts(t *testing.T, store *mlx.Store, cfg Config, texts ...[]int32) [][]float32 {
	t.Helper()
	ids := tensors.FromFlatDataAndDimensions(slices.Concat(texts...), len(texts), len(texts[0]))
	flat := run(t, store, func(scope *mlx.Scope, in []*Node) []*Node {
		y := TextFeatures(scope, cfg, in[0], dtypes.Float32)
		y.AssertDims(len(texts), cfg.Embed)
		return []*Node{y}
	}, ids)[0]
	return slices.Collect(slices.Chunk(flat, cfg.Embed))
}

// near compares to 1e-5 of the largest value (at least of 1).
func near(t *testing.T, name string, got []float32, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= 1e-5*max(1, math.Abs(w))) {
			t.Errorf("%s[%d] = %g, want %g", name, i, got[i], w)
			return
		}
	}
}

// normProject is LN(x)·w for one row x, w [in, out].
func normProject(x []float64, weight, bias, w []float32, eps float64) []float64 {
	var mean, variance float64
	for _, v := range x {
		mean += v / float64(len(x))
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x))
	}
	out := make([]float64, len(w)/len(x))
	for i, v := range x {
		h := (v-mean)/math.Sqrt(variance+eps)*float64(weight[i]) + float64(bias[i])
		for k := range out {
			out[k] += h * float64(w[i*len(out)+k])
		}
	}
	return out
}

// TestPublishedSizes compares parameter totals with the published model (spec/model.md 9).
func TestPublishedSizes(t *testing.T) {
	cfg, err := Preset("clip-vit-l14")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	const projections, scale = (1024 + 768) * 768, 1
	text, total := model.Count(TextParams(cfg))-768*768-scale, model.Count(Params(cfg))
	if text != 123_060_480 || total != 427_616_513 {
		t.Errorf("text body of %d and %d parameters in all, want 123,060,480 and 427,616,513", text, total)
	}
	if image := total - text - projections - scale; image != 303_179_776 {
		t.Errorf("image body of %d parameters, want 303,179,776", image)
	}
	if _, err := Preset("ViT-B/32"); err == nil || !strings.Contains(err.Error(), "ViT-B/32") {
		t.Errorf("an unknown preset: error %v", err)
	}
}

func TestValidate(t *testing.T) {
	for says, change := range map[string]func(*Config){
		"eva":         func(c *Config) { c.Image.Arch = vit.EVA },
		"patch size":  func(c *Config) { c.Image.PatchSize = 4 },
		"4 heads":     func(c *Config) { c.Text.Heads = 4 },
		"by 0 heads":  func(c *Config) { c.Text.Heads = 0 },
		"by -1 heads": func(c *Config) { c.Text.Heads = -1 },
	} {
		cfg := tiny()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
}

// TestTextStem: without blocks, the features are those of the end token's embedding and position.
func TestTextStem(t *testing.T) {
	cfg := tiny()
	cfg.Text.Layers = 0
	store := storeOf(t, cfg)
	words, positions := tensor(store, "token_embedding.weight"), tensor(store, "positional_embedding")
	texts := [][]int32{{18, 3, 19, 19, 19}, {18, 19, 0, 0, 0}, {18, 3, 4, 5, 19}, {19, 19, 3, 4, 5}}
	got := encodeTexts(t, store, cfg, texts...)
	for i, at := range []int{2, 1, 4, 0} {
		x := make([]float64, cfg.Text.Width)
		for c := range x {
			x[c] = float64(words[19*cfg.Text.Width+c]) + float64(positions[at*cfg.Text.Width+c])
		}
		near(t, "features", got[i], normProject(x, tensor(store, "ln_final.weight"), tensor(store, "ln_final.bias"),
			tensor(store, "text_projection"), cfg.Text.LayerNormEps))
	}
}

// TestEndToken: a text's features depend on all that precedes its end token and on nothing behind it.
func TestEndToken(t *testing.T) {
	cfg := tiny()
	got := encodeTexts(t, storeOf(t, cfg), cfg, []int32{18, 3, 4, 19, 0, 0}, []int32{18, 3, 4, 19, 19, 19},
		[]int32{18, 3, 4, 19, 7, 11}, []int32{18, 3, 5, 19, 0, 0}, []int32{18, 4, 3, 19, 0, 0})
	short := encodeTexts(t, storeOf(t, cfg), cfg, []int32{18, 3, 4, 19})
	for i := range 2 {
		if !slices.Equal(got[0], got[i+1]) {
			t.Errorf("padding %d changes the features", i+1)
		}
		if slices.Equal(got[0], got[i+3]) {
			t.Errorf("text %d has the features of another", i+3)
		}
	}
	want := make([]float64, cfg.Embed)
	for i, v := range got[0] {
		want[i] = float64(v)
	}
	near(t, "text without padding", short[0], want)
}

// TestImageFeatures: the features are the class token's after all blocks, normalised and projected.
func TestImageFeatures(t *testing.T) {
	cfg := tiny()
	store := storeOf(t, cfg)
	const batch = 3
	s := cfg.Image.ImageSize
	pixels := tensors.FromFlatDataAndDimensions(draw(9, batch*3*s*s), batch, 3, s, s)
	got := run(t, store, func(scope *mlx.Scope, in []*Node) []*Node {
		y := ImageFeatures(scope, cfg, in[0])
		y.AssertDims(batch, cfg.Embed)
		return []*Node{y, vit.Forward(scope.At("visual"), cfg.Image, in[0])}
	}, pixels)
	for b := range batch {
		class := make([]float64, cfg.Image.Width)
		for c := range class {
			class[c] = float64(got[1][b*cfg.Image.Tokens()*cfg.Image.Width+c])
		}
		near(t, "features", got[0][b*cfg.Embed:][:cfg.Embed], normProject(class, tensor(store, "visual.ln_post.weight"),
			tensor(store, "visual.ln_post.bias"), tensor(store, "visual.proj"), cfg.Image.LayerNormEps))
	}
}

func TestLogits(t *testing.T) {
	store := mlx.NewStore()
	if err := model.Set(store, "logit_scale", nil, []float32{float32(math.Log(7))}); err != nil {
		t.Fatal(err)
	}
	got := run(t, store, func(scope *mlx.Scope, in []*Node) []*Node {
		return []*Node{Logits(scope, in[0], in[1])}
	}, tensors.FromFlatDataAndDimensions([]float32{3, 4, -1, 0}, 2, 2),
		tensors.FromFlatDataAndDimensions([]float32{2, 0, 0, 0.1, 5, 5}, 3, 2))
	near(t, "logits", got[0], []float64{7 * 0.6, 7 * 0.8, 7 * 1.4 / math.Sqrt2, -7, 0, -7 / math.Sqrt2})
}

// TestEveryTensorWorks: the towers read exactly the declared tensors, and each has a gradient. Key biases shift a row's
// scores alike, but share a tensor with queries and values.
func TestEveryTensorWorks(t *testing.T) {
	cfg := tiny()
	params := Params(cfg)
	seen := map[string]bool{}
	for _, p := range params {
		if seen[p.Name] || model.Name(model.Path(p.Name)) != p.Name {
			t.Errorf("name %q is declared twice or does not survive its path", p.Name)
		}
		seen[p.Name] = true
	}
	s := cfg.Image.ImageSize
	pixels := tensors.FromFlatDataAndDimensions(draw(7, 2*3*s*s), 2, 3, s, s)
	ids := tensors.FromFlatDataAndDimensions([]int32{18, 3, 4, 5, 6, 7, 19, 18, 9, 8, 19, 0, 0, 0}, 2, cfg.Text.Context)
	grads := run(t, storeOf(t, cfg), func(scope *mlx.Scope, in []*Node) []*Node {
		y := Logits(scope, ImageFeatures(scope, cfg, in[0]), TextFeatures(scope, cfg, in[1], dtypes.Float32))
		var vars []*Node
		for _, p := range params {
			v := scope.Store().GetVariable(model.Path(p.Name))
			if !v.InUseByGraph(y.Graph()) {
				t.Errorf("the graph does not read %s", p.Name)
			}
			vars = append(vars, v.NodeValue(y.Graph()))
		}
		flat := Reshape(y, -1)
		return Gradient(ReduceAllSum(Mul(flat, Cos(Iota(y.Graph(), flat.Shape(), 0)))), vars...)
	}, pixels, ids)
	for i, p := range params {
		if !slices.ContainsFunc(grads[i], func(g float32) bool { return g > 1e-5 || g < -1e-5 }) {
			t.Errorf("%s has no gradient", p.Name)
		}
	}
}

// TestFLOPs counts again from the declared matrices: every token passes every weight once, plus attention.
func TestFLOPs(t *testing.T) {
	cfg := tiny()
	const length = 5
	text := float64(cfg.Text.Layers) * 2 * 2 * length * length * float64(cfg.Text.Width)
	for _, p := range TextParams(cfg) {
		switch {
		case strings.HasPrefix(p.Name, "transformer") && len(p.Shape) == 2:
			text += 2 * length * float64(p.Size())
		case p.Name == "text_projection":
			text += 2 * float64(p.Size())
		}
	}
	if got := cfg.TextFLOPs(length); math.Abs(got-text) > 1e-9*text {
		t.Errorf("%g operations for a text, want %g", got, text)
	}
	if got, want := cfg.ImageFLOPs(), cfg.Image.FLOPs()+2*8*5; got != want {
		t.Errorf("%g operations for a picture, want %g", got, want)
	}
}
