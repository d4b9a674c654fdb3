package vit

import (
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
)

// hostBlock is one block on the tokens of one picture [n, width], in float64 with loops, by the names of one
// architecture.
type hostBlock struct {
	cfg    Config
	weight func(name string) []float32 // a tensor of the block
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
			shares, sum := make([]float64, n), 0.0
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
	if h.cfg.Arch == EVA {
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
	if h.cfg.Arch == CLIP {
		return h.linear(x, h.weight("attn.in_proj_weight"), h.weight("attn.in_proj_bias"))
	}
	bias := append([]float32{}, h.weight("attn.q_bias")...)
	bias = append(bias, make([]float32, h.cfg.Width)...)
	return h.linear(x, h.weight("attn.qkv.weight"), append(bias, h.weight("attn.v_bias")...))
}

// TestBlocks compares what the blocks make of the stem's tokens with loops.
func TestBlocks(t *testing.T) {
	for arch, folder := range map[string]string{CLIP: "transformer.resblocks.", EVA: "blocks."} {
		cfg := tiny(arch)
		store := mlx.NewStore()
		for i, p := range Params(cfg) {
			values := draw(uint64(i), p.Size())
			for k := range values {
				values[k] *= 0.5
			}
			if err := model.Set(store, p.Name, p.Shape, values); err != nil {
				t.Fatal(err)
			}
		}
		stem := cfg
		stem.Layers = 0
		const batch = 2
		s := cfg.ImageSize
		pixels := tensors.FromFlatDataAndDimensions(draw(7, batch*3*s*s), batch, 3, s, s)
		got := run(t, store, pixels, func(scope *mlx.Scope, x *Node) []*Node {
			return []*Node{Forward(scope, stem, x), Forward(scope, cfg, x)}
		})
		size := cfg.Tokens() * cfg.Width
		for b := range batch {
			x := make([]float64, size)
			for i := range x {
				x[i] = float64(got[0][b*size+i])
			}
			for layer := range cfg.Layers {
				prefix := folder + string(rune('0'+layer)) + "."
				x = hostBlock{cfg, func(name string) []float32 {
					v := store.GetVariable(model.Path(prefix + name))
					return tensors.MustCopyFlatData[float32](v.MustValue())
				}}.forward(x)
			}
			for i, want := range x {
				if d := math.Abs(float64(got[1][b*size+i]) - want); !(d <= 2e-5*max(1, math.Abs(want))) {
					t.Fatalf("%s: picture %d, element %d is %g, want %g", arch, b, i, got[1][b*size+i], want)
				}
			}
		}
	}
}
