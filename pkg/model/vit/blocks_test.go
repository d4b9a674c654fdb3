package vit

import (
	"math"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// hostBlock is one block on the tokens of one picture [n, width], in float64 with loops, by the names of one
// architecture.
type hostBlock struct {
	cfg    Config
	weight func(name string) []float32 // a tensor of the block
	causal bool                        // a token sees itself and those in front of it
}

// linear is x·wᵀ + bias for every row of x.
func (h hostBlock) linear(x []float64, w, bias []float32) []float64 {
	out := len(bias)
	in := len(w) / out
	y := make([]float64, len(x)/in*out)
	for i := range y {
		y[i] = float64(bias[i%out])
		for k := range in {
			y[i] += x[i/out*in+k] * float64(w[i%out*in+k])
		}
	}
	return y
}

func (h hostBlock) norm(x []float64, name string) []float64 {
	y := append([]float64{}, x...)
	for r := 0; r < len(y); r += h.cfg.Width {
		layerNorm(y[r:r+h.cfg.Width], h.weight(name+".weight"), h.weight(name+".bias"), h.cfg.LayerNormEps)
	}
	return y
}

// attention mixes values; qkv is [n, 3·width] with q, k and v one after the other, each head by head.
func (h hostBlock) attention(qkv []float64) []float64 {
	w, d := h.cfg.Width, h.cfg.Width/h.cfg.Heads
	n := len(qkv) / (3 * w)
	out := make([]float64, n*w)
	for head := range h.cfg.Heads {
		at := func(part, token, i int) float64 { return qkv[token*3*w+part*w+head*d+i] }
		for row := range n {
			seen := n
			if h.causal {
				seen = row + 1
			}
			shares, sum := make([]float64, seen), 0.0
			for column := range shares {
				var score float64
				for i := range d {
					score += at(0, row, i) * at(1, column, i)
				}
				shares[column] = math.Exp(score / math.Sqrt(float64(d)))
				sum += shares[column]
			}
			for column, share := range shares {
				for i := range d {
					out[row*w+head*d+i] += share / sum * at(2, column, i)
				}
			}
		}
	}
	return out
}

// forward is the block: attention, then MLP, each behind a LayerNorm and with a residual.
func (h hostBlock) forward(x []float64) []float64 {
	norms, projection, mlp := [2]string{"ln_1", "ln_2"}, "attn.out_proj", [2]string{"mlp.c_fc", "mlp.c_proj"}
	act := func(v float64) float64 { return v / (1 + math.Exp(-1.702*v)) }
	if h.cfg.Arch != CLIP {
		norms, projection, mlp = [2]string{"norm1", "norm2"}, "attn.proj", [2]string{"mlp.fc1", "mlp.fc2"}
		act = func(v float64) float64 { return v / 2 * math.Erfc(-v/math.Sqrt2) }
	}
	dense := func(x []float64, name string) []float64 {
		return h.linear(x, h.weight(name+".weight"), h.weight(name+".bias"))
	}
	add := func(x, y []float64) []float64 {
		for i := range y {
			y[i] += x[i]
		}
		return y
	}
	x = add(x, dense(h.attention(h.qkv(h.norm(x, norms[0]))), projection))
	hidden := dense(h.norm(x, norms[1]), mlp[0])
	for i, v := range hidden {
		hidden[i] = act(v)
	}
	return add(x, dense(hidden, mlp[1]))
}

// qkv projects to queries, keys and values; EVA's keys have no bias.
func (h hostBlock) qkv(x []float64) []float64 {
	switch h.cfg.Arch {
	case CLIP:
		return h.linear(x, h.weight("attn.in_proj_weight"), h.weight("attn.in_proj_bias"))
	case BLIP:
		return h.linear(x, h.weight("attn.qkv.weight"), h.weight("attn.qkv.bias"))
	}
	bias := append([]float32{}, h.weight("attn.q_bias")...)
	bias = append(bias, make([]float32, h.cfg.Width)...)
	return h.linear(x, h.weight("attn.qkv.weight"), append(bias, h.weight("attn.v_bias")...))
}

// TestBlocks compares the blocks with loops, on tokens that see all others and on tokens that see what precedes them.
func TestBlocks(t *testing.T) {
	folders := map[string]string{CLIP: "transformer.resblocks.", EVA: "blocks.", BLIP: "blocks."}
	for arch, folder := range folders {
		cfg := tiny(arch)
		store := mlx.NewStore()
		for i, p := range cfg.blocks().Params() {
			values := draw(uint64(i), p.Size())
			for k := range values {
				values[k] *= 0.5
			}
			if err := model.Set(store, p.Name, p.Shape, values); err != nil {
				t.Fatal(err)
			}
		}
		const batch, length = 2, 5
		size := length * cfg.Width
		tokens := draw(7, batch*size)
		got := run(t, store, tensors.FromFlatDataAndDimensions(tokens, batch, length, cfg.Width),
			func(scope *mlx.Scope, x *Node) []*Node {
				mask := nn.CausalMask(BroadcastToDims(Scalar(x.Graph(), x.DType(), 1), 1, length), 0)
				return []*Node{cfg.blocks().Forward(scope, x, nil), cfg.blocks().Forward(scope, x, mask)}
			})
		for i, causal := range []bool{false, true} {
			for b := range batch {
				x := make([]float64, size)
				for k := range x {
					x[k] = float64(tokens[b*size+k])
				}
				for layer := range cfg.Layers {
					prefix := folder + string(rune('0'+layer)) + "."
					x = hostBlock{cfg: cfg, causal: causal, weight: func(name string) []float32 {
						v := store.GetVariable(model.Path(prefix + name))
						return tensors.MustCopyFlatData[float32](v.MustValue())
					}}.forward(x)
				}
				for k, want := range x {
					if d := math.Abs(float64(got[i][b*size+k]) - want); !(d <= 2e-5*max(1, math.Abs(want))) {
						t.Fatalf("%s, causal %v: sequence %d, element %d is %g, want %g", arch, causal, b, k,
							got[i][b*size+k], want)
					}
				}
			}
		}
	}
}

// TestForward: the encoder is its stem, its blocks and BLIP's norm.
func TestForward(t *testing.T) {
	for _, arch := range arches() {
		cfg := tiny(arch)
		stem := cfg
		stem.Layers = 0
		s := cfg.ImageSize
		pixels := tensors.FromFlatDataAndDimensions(draw(7, 2*3*s*s), 2, 3, s, s)
		got := run(t, storeOf(t, cfg), pixels, func(scope *mlx.Scope, x *Node) []*Node {
			patches := patchify(x, cfg.PatchSize)
			var y *Node
			if arch == CLIP {
				y = clipStem(scope, cfg, patches)
			} else {
				y = timmStem(scope, cfg, patches)
			}
			y = cfg.blocks().Forward(scope, y, nil)
			if arch == BLIP {
				y = nn.LayerNorm(scope.At("norm"), y, cfg.LayerNormEps)
			}
			return []*Node{Forward(scope, cfg, x), y, Forward(scope, stem, x)}
		})
		if !slices.Equal(got[0], got[1]) {
			t.Errorf("%s: the encoder is not stem and blocks one after the other", arch)
		}
		if slices.Equal(got[0], got[2]) {
			t.Errorf("%s: the blocks change nothing", arch)
		}
	}
}
