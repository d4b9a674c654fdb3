package bert

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// Sizes of the tests' tokens.
const (
	length   = 5
	pictures = 4 // tokens that cross-attention reads
	width    = 6 // features of those
	vocab    = 11
)

func tiny() Config { return Config{Hidden: 8, Heads: 2, Intermediate: 12, LayerNormEps: 1e-12} }

// params are the tensors of one layer, of the embeddings and of the head.
func params(c Config) []model.Param {
	out := c.AttentionParams("layer.", SelfAttention, c.Hidden)
	out = append(out, c.AttentionParams("layer.", CrossAttention, width)...)
	out = append(out, c.FeedForwardParams("layer.", "")...)
	out = append(out, c.FeedForwardParams("layer.", "_query")...)
	out = append(out, c.EmbeddingParams("embeddings.", vocab, 7)...)
	out = append(out, model.LayerNorm("embeddings.LayerNorm", c.Hidden)...)
	return append(out, c.HeadParams("cls.predictions.", vocab)...)
}

// draw returns n numbers from N(0, 1), the same for the same seed.
func draw(seed uint64, n int) []float32 {
	rng := rand.New(rand.NewPCG(seed, 8))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(rng.NormFloat64())
	}
	return out
}

// host computes the parts in float64 with loops.
type host struct {
	Config
	values map[string][]float32
}

func (h host) linear(x []float64, name string) []float64 {
	w, bias := h.values[name+".weight"], h.values[name+".bias"]
	in := len(w) / len(bias)
	y := make([]float64, len(x)/in*len(bias))
	for i := range y {
		y[i] = float64(bias[i%len(bias)])
		for k := range in {
			y[i] += x[i/len(bias)*in+k] * float64(w[i%len(bias)*in+k])
		}
	}
	return y
}

func (h host) norm(x []float64, name string) []float64 {
	y := make([]float64, len(x))
	n := h.Hidden
	for r := 0; r < len(x); r += n {
		var mean, variance float64
		for _, v := range x[r : r+n] {
			mean += v / float64(n)
		}
		for _, v := range x[r : r+n] {
			variance += (v - mean) * (v - mean) / float64(n)
		}
		for i, v := range x[r : r+n] {
			y[r+i] = (v-mean)/math.Sqrt(variance+h.LayerNormEps)*float64(h.values[name+".weight"][i]) +
				float64(h.values[name+".bias"][i])
		}
	}
	return y
}

func gelu(x []float64) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / 2 * math.Erfc(-v/math.Sqrt2)
	}
	return y
}

// finish is LN(rows + dense(x)).
func (h host) finish(x, rows []float64, name string) []float64 {
	y := h.linear(x, name+".dense")
	for i := range y {
		y[i] += rows[i]
	}
	return h.norm(y, name+".LayerNorm")
}

// attend is the named attention of rows over tokens; row i sees token j where seen says so.
func (h host) attend(name string, rows, tokens []float64, seen func(i, j int) bool) []float64 {
	q := h.linear(rows, name+".self.query")
	k, v := h.linear(tokens, name+".self.key"), h.linear(tokens, name+".self.value")
	n, d := h.Hidden, h.Hidden/h.Heads
	mixed := make([]float64, len(q))
	for i := range len(q) / n {
		for head := range h.Heads {
			shares, sum := make([]float64, len(k)/n), 0.0
			for j := range shares {
				if !seen(i, j) {
					continue
				}
				var score float64
				for c := head * d; c < (head+1)*d; c++ {
					score += q[i*n+c] * k[j*n+c]
				}
				shares[j] = math.Exp(score / math.Sqrt(float64(d)))
				sum += shares[j]
			}
			for j, share := range shares {
				for c := head * d; c < (head+1)*d; c++ {
					mixed[i*n+c] += share / sum * v[j*n+c]
				}
			}
		}
	}
	return h.finish(mixed, rows, name+".output")
}

func (h host) feedForward(x []float64, suffix string) []float64 {
	return h.finish(gelu(h.linear(x, "layer.intermediate"+suffix+".dense")), x, "layer.output"+suffix)
}

// embed is the embedding of the ids, normalised.
func (h host) embed(ids []int32) []float64 {
	x := make([]float64, len(ids)*h.Hidden)
	for i := range x {
		token, c := i/h.Hidden, i%h.Hidden
		x[i] = float64(h.values["embeddings.word_embeddings.weight"][int(ids[token])*h.Hidden+c]) +
			float64(h.values["embeddings.position_embeddings.weight"][token%length*h.Hidden+c])
	}
	return h.norm(x, "embeddings.LayerNorm")
}

func (h host) logits(x []float64) []float64 {
	const head = "cls.predictions."
	y := h.norm(gelu(h.linear(x, head+"transform.dense")), head+"transform.LayerNorm")
	h.values["decoder.weight"] = h.values["embeddings.word_embeddings.weight"]
	h.values["decoder.bias"] = h.values[head+"bias"]
	return h.linear(y, "decoder")
}

// TestParts compares every part of a layer, the embeddings and the head with loops, one feeding the next.
func TestParts(t *testing.T) {
	cfg := tiny()
	store, h := mlx.NewStore(), host{cfg, map[string][]float32{}}
	for i, p := range params(cfg) {
		h.values[p.Name] = draw(uint64(i), p.Size())
		if err := model.Set(store, p.Name, p.Shape, h.values[p.Name]); err != nil {
			t.Fatal(err)
		}
	}
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	ids := []int32{3, 1, 10, 0, 3}
	picture := draw(77, pictures*width)
	outputs, err := mlx.CallOnceN(backend, store, func(scope *mlx.Scope, in []*Node) []*Node {
		embeddings := scope.At("embeddings")
		layer := Layer{Config: cfg, Scope: scope.At("layer")}
		embedded := cfg.Embed(embeddings, TextEmbeddings(embeddings, in[0]), nil)
		ones := BroadcastToDims(Scalar(in[0].Graph(), in[0].DType(), 1), 1, length)
		self := layer.Attend(SelfAttention, embedded, layer.KeysValues(SelfAttention, embedded), nn.CausalMask(ones, 0))
		cross := layer.Attend(CrossAttention, self, layer.KeysValues(CrossAttention, in[1]), nil)
		text, query := layer.FeedForward("", cross), layer.FeedForward("_query", cross)
		return []*Node{embedded, self, cross, text, query, cfg.LMLogits(scope.At("cls").At("predictions"), embeddings, text)}
	}, tensors.FromFlatDataAndDimensions(ids, 1, length), tensors.FromFlatDataAndDimensions(picture, 1, pictures, width))
	if err != nil {
		t.Fatal(err)
	}
	tokens := make([]float64, len(picture))
	for i, v := range picture {
		tokens[i] = float64(v)
	}
	embedded := h.embed(ids)
	self := h.attend("layer.attention", embedded, embedded, func(i, j int) bool { return j <= i })
	cross := h.attend("layer.crossattention", self, tokens, func(int, int) bool { return true })
	text := h.feedForward(cross, "")
	want := [][]float64{embedded, self, cross, text, h.feedForward(cross, "_query"), h.logits(text)}
	for i, name := range []string{"embeddings", "self-attention", "cross-attention", "text", "query", "logits"} {
		got := tensors.MustCopyFlatData[float32](outputs[i])
		if len(got) != len(want[i]) {
			t.Fatalf("%s: %d values, want %d", name, len(got), len(want[i]))
		}
		for k, w := range want[i] {
			if d := math.Abs(float64(got[k]) - w); !(d <= 2e-5*max(1, math.Abs(w))) {
				t.Errorf("%s[%d] = %g, want %g", name, k, got[k], w)
				break
			}
		}
	}
}

// TestInit: normal matrices, biases 0, LayerNorms (1, 0) (spec/model.md 5.5), at BERT's spread or another.
func TestInit(t *testing.T) {
	for spread, std := range map[float64]float64{0: 0.02, 0.1: 0.1} {
		cfg := tiny()
		cfg.InitializerRange = spread
		for _, p := range params(cfg) {
			want := model.Normal(std)
			switch {
			case strings.HasSuffix(p.Name, "LayerNorm.weight"):
				want = model.Constant(1)
			case strings.HasSuffix(p.Name, "bias"):
				want = model.Constant(0)
			}
			if p.Init != want {
				t.Errorf("spread %g: %s starts as %v, want %v", spread, p.Name, p.Init, want)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	for heads, ok := range map[int]bool{2: true, 8: true, 3: false, 0: false, -2: false} {
		cfg := tiny()
		cfg.Heads = heads
		if err := cfg.Validate(); (err == nil) != ok {
			t.Errorf("%d heads: error %v", heads, err)
		}
	}
}
