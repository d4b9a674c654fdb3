package blip

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
)

// tiny returns a captioner that runs in milliseconds.
func tiny() Config {
	return Config{
		Vision: vit.Config{Arch: vit.BLIP, ImageSize: 6, PatchSize: 2, Width: 6, Layers: 1, Heads: 2, MLPRatio: 1.7,
			LayerNormEps: 1e-6},
		Hidden: 8, Layers: 2, Heads: 2, Intermediate: 12, Vocab: 20, MaxPositions: 9, LayerNormEps: 1e-12,
	}
}

// draw returns n numbers from N(0, 1), the same for the same seed.
func draw(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 6))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

// Sizes of the tests' batch.
const (
	batch  = 3
	length = 5
)

// texts are ids and mask of a full text, one with padding and one of a single token.
func texts() (ids, mask []int32) {
	return []int32{18, 3, 4, 5, 6, 18, 7, 8, 0, 0, 18, 0, 0, 0, 0}, []int32{1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0}
}

// run evaluates a graph of pixels, ids and mask with the model's tensors at random, LayerNorms and biases included.
func run(t *testing.T, cfg Config, build func(scope *mlx.Scope, pixels, ids, mask *Node) []*Node) [][]float32 {
	t.Helper()
	store := mlx.NewStore()
	for i, p := range Params(cfg) {
		if err := model.Set(store, p.Name, p.Shape, draw(uint64(i), p.Size())); err != nil {
			t.Fatal(err)
		}
	}
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	s := cfg.Vision.ImageSize
	ids, mask := texts()
	outputs, err := mlx.CallOnceN(backend, store, func(scope *mlx.Scope, in []*Node) []*Node {
		return build(scope, in[0], in[1], in[2])
	}, tensors.FromFlatDataAndDimensions(draw(99, batch*3*s*s), batch, 3, s, s),
		tensors.FromFlatDataAndDimensions(ids, batch, length), tensors.FromFlatDataAndDimensions(mask, batch, length))
	if err != nil {
		t.Fatal(err)
	}
	values := make([][]float32, len(outputs))
	for i, o := range outputs {
		values[i] = tensors.MustCopyFlatData[float32](o)
	}
	return values
}

// same compares to 1e-5 of the largest value (at least of 1).
func same(t *testing.T, name string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	largest := 1.0
	for _, w := range want {
		largest = max(largest, math.Abs(float64(w)))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - float64(w)); !(d <= 1e-5*largest) {
			t.Errorf("%s[%d] = %g, want %g", name, i, got[i], w)
			return
		}
	}
}

// crossOf encodes the pictures and projects them for the decoder.
func crossOf(scope *mlx.Scope, cfg Config, pixels *Node) []nn.KV {
	return NewCross(scope, cfg, EncodeImage(scope, cfg, pixels))
}

// whole are the logits [batch, L, vocab] of whole texts.
func whole(scope *mlx.Scope, cfg Config, cross []nn.KV, ids, mask *Node) *Node {
	return Logits(scope, cfg, Decode(scope, cfg, cross, bert.Text{IDs: ids, Mask: mask}).Hidden)
}

// TestPublishedSizes compares parameter totals with the published captioner (spec/model.md 10).
func TestPublishedSizes(t *testing.T) {
	cfg, err := Preset("blip-large")
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	vision, decoder := model.Count(vit.Params(cfg.Vision)), model.Count(DecoderParams(cfg))
	if vision != 303_690_752 || decoder != 142_599_740 || model.Count(Params(cfg)) != 446_290_492 {
		t.Errorf("image encoder of %d, decoder of %d, together %d parameters", vision, decoder, model.Count(Params(cfg)))
	}
	if _, err := Preset("blip-base"); err == nil || !strings.Contains(err.Error(), "blip-base") {
		t.Errorf("an unknown preset: error %v", err)
	}
}

func TestValidate(t *testing.T) {
	for says, change := range map[string]func(*Config){
		"clip":       func(c *Config) { c.Vision.Arch = vit.CLIP },
		"patch size": func(c *Config) { c.Vision.PatchSize = 4 },
		"3 heads":    func(c *Config) { c.Heads = 3 },
		"0 layers":   func(c *Config) { c.Layers = 0 },
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

// TestEveryTensorWorks: the captioner reads exactly the declared tensors and each has a gradient; only key biases of
// the decoder have none: they shift a row's scores alike.
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
	grads := run(t, cfg, func(scope *mlx.Scope, pixels, ids, mask *Node) []*Node {
		y := whole(scope, cfg, crossOf(scope, cfg, pixels), ids, mask)
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
	})
	for i, p := range params {
		size := max(slices.Max(grads[i]), -slices.Min(grads[i]))
		if strings.HasSuffix(p.Name, "key.bias") {
			if size > 1e-3 {
				t.Errorf("%s has gradient %g, want 0 up to rounding", p.Name, size)
			}
		} else if !(size > 1e-4) {
			t.Errorf("%s has gradient %g", p.Name, size)
		}
	}
}

// TestFLOPs counts again from the declared matrices: every token passes every weight once, plus attention.
func TestFLOPs(t *testing.T) {
	cfg := tiny()
	const predicted = 2
	n := float64(cfg.Vision.Tokens())
	image := cfg.Vision.FLOPs()
	text := float64(cfg.Layers) * 2 * 2 * length * float64(cfg.Hidden) * (length + n)
	for _, p := range DecoderParams(cfg) {
		size := 2 * float64(p.Size())
		switch {
		case len(p.Shape) != 2 || strings.Contains(p.Name, "position_embeddings"):
		case strings.Contains(p.Name, "crossattention.self.key"), strings.Contains(p.Name, "crossattention.self.value"):
			image += n * size
		case strings.Contains(p.Name, "word_embeddings"), strings.Contains(p.Name, "predictions"):
			text += predicted * size
		default:
			text += length * size
		}
	}
	if got := cfg.ImageFLOPs(); math.Abs(got-image) > 1e-9*image {
		t.Errorf("%g operations for a picture, want %g", got, image)
	}
	if got := cfg.TextFLOPs(length, predicted); math.Abs(got-text) > 1e-9*text {
		t.Errorf("%g operations for a text, want %g", got, text)
	}
}
