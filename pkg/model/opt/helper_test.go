package opt

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
)

// Sizes of the tests' batch.
const (
	batch  = 3
	length = 6 // tokens per sequence, padding included
)

// tiny returns a model that runs in milliseconds; postNorm makes it as opt-350m is.
func tiny(postNorm bool) Config {
	cfg := Config{Vocab: 23, Hidden: 12, Layers: 2, Heads: 3, FFN: 20, Positions: 9, LayerNormEps: 1e-5}
	if postNorm {
		cfg.PostNorm, cfg.EmbedDim = true, 8
	}
	return cfg
}

// masks have their padding behind the text, in front of it, inside, and nowhere in the first sequence.
var masks = map[string][]int32{
	"right": {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0},
	"left":  {1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1},
	"hole":  {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 0, 0, 1},
}

func maskTensor(mask []int32) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(mask, len(mask)/length, length)
}

// embeds returns the embeddings of a batch.
func embeds(cfg Config, seed uint64) []float32 {
	return graphtest.Normals(seed, batch*length*cfg.EmbedWidth(), 0.5)
}

func embedsTensor(cfg Config, values []float32) *tensors.Tensor {
	e := cfg.EmbedWidth()
	return tensors.FromFlatDataAndDimensions(values, len(values)/e/length, length, e)
}

// visible keeps the values [batch, length, n] of positions where the mask is 1.
func visible(x []float32, mask []int32) []float32 {
	n := len(x) / len(mask)
	var out []float32
	for i, m := range mask {
		if m == 1 {
			out = append(out, x[i*n:(i+1)*n]...)
		}
	}
	return out
}

func store(t *testing.T, cfg Config) *mlx.Store {
	return graphtest.Store(t, Params(cfg), 1)
}

// host computes the model on one sequence in float64 with loops.
type host struct {
	cfg     Config
	weights map[string][]float64
}

// linear is x·wᵀ + bias for rows of the weight's columns; no bias if there is none of the name.
func (h host) linear(x []float64, name string, out int) []float64 {
	w, bias := h.weights[name+".weight"], h.weights[name+".bias"]
	in := len(w) / out
	y := make([]float64, len(x)/in*out)
	for i := range y {
		if bias != nil {
			y[i] = bias[i%out]
		}
		for k := range in {
			y[i] += x[i/out*in+k] * w[i%out*in+k]
		}
	}
	return y
}

func (h host) norm(x []float64, name string) []float64 {
	w, b, d := h.weights[name+".weight"], h.weights[name+".bias"], h.cfg.Hidden
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += d {
		var mean, variance float64
		for _, v := range x[r : r+d] {
			mean += v / float64(d)
		}
		for _, v := range x[r : r+d] {
			variance += (v - mean) * (v - mean) / float64(d)
		}
		for i, v := range x[r : r+d] {
			y[r+i] = (v-mean)/math.Sqrt(variance+h.cfg.LayerNormEps)*w[i] + b[i]
		}
	}
	return y
}

// attention mixes what every row may see; rows that see nothing stay 0.
func (h host) attention(x []float64, layer string, mask []int32) []float64 {
	d, head := h.cfg.Hidden, h.cfg.Hidden/h.cfg.Heads
	q, k, v := h.linear(x, layer+"q_proj", d), h.linear(x, layer+"k_proj", d), h.linear(x, layer+"v_proj", d)
	mixed := make([]float64, len(x))
	for r := range mask {
		for at := 0; at < d; at += head {
			shares, sum := make([]float64, r+1), 0.0
			for c := range shares {
				if mask[c] == 1 {
					var score float64
					for i := range head {
						score += q[r*d+at+i] * k[c*d+at+i]
					}
					shares[c] = math.Exp(score / math.Sqrt(float64(head)))
					sum += shares[c]
				}
			}
			for c, share := range shares {
				for i := range head {
					if sum > 0 {
						mixed[r*d+at+i] += share / sum * v[c*d+at+i]
					}
				}
			}
		}
	}
	return h.linear(mixed, layer+"out_proj", d)
}

// logits are those of one sequence with embeddings [L, EmbedWidth], [L, Vocab].
func (h host) logits(x []float64, mask []int32) []float64 {
	const root = "model.decoder."
	d, e := h.cfg.Hidden, h.cfg.EmbedWidth()
	if e != d {
		x = h.linear(x, root+"project_in", d)
	}
	x = append([]float64{}, x...)
	seen := 0
	for r, m := range mask {
		seen += int(m)
		row := 1
		if m == 1 {
			row += seen
		}
		for i := range d {
			x[r*d+i] += h.weights[root+"embed_positions.weight"][row*d+i]
		}
	}
	for l := range h.cfg.Layers {
		layer := root + "layers." + string(rune('0'+l)) + "."
		x = h.sublayer(x, layer+"self_attn_layer_norm", func(y []float64) []float64 {
			return h.attention(y, layer+"self_attn.", mask)
		})
		x = h.sublayer(x, layer+"final_layer_norm", func(y []float64) []float64 {
			y = h.linear(y, layer+"fc1", h.cfg.FFN)
			for i, v := range y {
				y[i] = max(v, 0)
			}
			return h.linear(y, layer+"fc2", d)
		})
	}
	if !h.cfg.PostNorm {
		x = h.norm(x, root+"final_layer_norm")
	}
	if e != d {
		x = h.linear(x, root+"project_out", e)
	}
	return h.linear(x, root+"embed_tokens", h.cfg.Vocab)
}

func (h host) sublayer(x []float64, norm string, f func([]float64) []float64) []float64 {
	y := x
	if !h.cfg.PostNorm {
		y = h.norm(x, norm)
	}
	y = f(y)
	for i := range y {
		y[i] += x[i]
	}
	if h.cfg.PostNorm {
		return h.norm(y, norm)
	}
	return y
}

// loss is the mean cross entropy of the next labels over a batch of logits.
func (h host) loss(logits []float64, labels []int32) float64 {
	var sum, count float64
	v := h.cfg.Vocab
	for i := range len(labels) - 1 {
		label := labels[i+1]
		if (i+1)%length == 0 || label < 0 {
			continue
		}
		var total float64
		for _, x := range logits[i*v : (i+1)*v] {
			total += math.Exp(x)
		}
		sum += math.Log(total) - logits[i*v+int(label)]
		count++
	}
	return sum / count
}

// batch runs logits on every sequence of a batch.
func (h host) batch(x []float64, mask []int32) []float64 {
	var out []float64
	n := length * h.cfg.EmbedWidth()
	for b := range len(mask) / length {
		out = append(out, h.logits(x[b*n:(b+1)*n], mask[b*length:(b+1)*length])...)
	}
	return out
}
