package t5

import (
	"math"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model/nn"
)

// Sizes of the tests' batch.
const (
	batch  = 2
	length = 7 // tokens of the encoder, padding included
	steps  = 5 // tokens of the decoder, padding included
)

// tiny returns a model that runs in milliseconds; its buckets of positions are so few that distances share them.
func tiny() Config {
	return Config{Vocab: 19, Hidden: 9, HeadDim: 4, Heads: 3, FFN: 16, EncoderLayers: 2, DecoderLayers: 3,
		Activation: nn.GELU, Buckets: 4, MaxDistance: 6, RMSNormEps: 1e-6}
}

var (
	encoderMask = []int32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 1, 0, 0}
	decoderMask = []int32{1, 1, 1, 1, 1, 1, 1, 1, 0, 0}
	labels      = []int32{5, 3, 7, 2, 1, 4, 11, 1, nn.IgnoredLabel, nn.IgnoredLabel}
)

func ints(values []int32, columns int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, len(values)/columns, columns)
}

func floats(values []float32, columns, width int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, len(values)/columns/width, columns, width)
}

func embeds(cfg Config, seed uint64) []float32 {
	return graphtest.Normals(seed, batch*length*cfg.Hidden, 0.5)
}

func store(t *testing.T, cfg Config) *mlx.Store { return graphtest.Store(t, Params(cfg), 1) }

// visible keeps the values [rows, columns, n] of positions where the mask is 1.
func visible[T any](x []T, mask []int32) []T {
	n := len(x) / len(mask)
	var out []T
	for i, m := range mask {
		if m == 1 {
			out = append(out, x[i*n:(i+1)*n]...)
		}
	}
	return out
}

// host computes the model on one sequence in float64 with loops.
type host struct {
	cfg     Config
	weights map[string][]float64
}

// linear is x·wᵀ.
func (h host) linear(x []float64, name string, out int) []float64 {
	w := h.weights[name+".weight"]
	in := len(w) / out
	y := make([]float64, len(x)/in*out)
	for i := range y {
		for k := range in {
			y[i] += x[i/out*in+k] * w[i%out*in+k]
		}
	}
	return y
}

func (h host) norm(x []float64, name string) []float64 {
	w := h.weights[name+".weight"]
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += len(w) {
		var square float64
		for _, v := range x[r : r+len(w)] {
			square += v * v / float64(len(w))
		}
		for i := range w {
			y[r+i] = x[r+i] / math.Sqrt(square+h.cfg.RMSNormEps) * w[i]
		}
	}
	return y
}

// attention lets rows x read columns y; score says what is added to a score, and whether the column is seen.
func (h host) attention(x, y []float64, name string, score func(head, r, c int) (float64, bool)) []float64 {
	inner, d := h.cfg.Heads*h.cfg.HeadDim, h.cfg.HeadDim
	q, k, v := h.linear(x, name+"q", inner), h.linear(y, name+"k", inner), h.linear(y, name+"v", inner)
	rows, columns := len(q)/inner, len(k)/inner
	mixed := make([]float64, len(q))
	for head := range h.cfg.Heads {
		for r := range rows {
			shares, sum := make([]float64, columns), 0.0
			for c := range shares {
				added, seen := score(head, r, c)
				if !seen {
					continue
				}
				for i := range d {
					added += q[r*inner+head*d+i] * k[c*inner+head*d+i]
				}
				shares[c] = math.Exp(added)
				sum += shares[c]
			}
			for c, share := range shares {
				for i := range d {
					mixed[r*inner+head*d+i] += share / sum * v[c*inner+head*d+i]
				}
			}
		}
	}
	return h.linear(mixed, name+"o", h.cfg.Hidden)
}

func (h host) feedForward(x []float64, name string) []float64 {
	gate, up := h.linear(x, name+"wi_0", h.cfg.FFN), h.linear(x, name+"wi_1", h.cfg.FFN)
	for i, v := range gate {
		if h.cfg.Activation == nn.GELU {
			gate[i] = v / 2 * math.Erfc(-v/math.Sqrt2) * up[i]
		} else {
			gate[i] = v / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(v+0.044715*v*v*v))) * up[i]
		}
	}
	return h.linear(gate, name+"wo", h.cfg.Hidden)
}

// sublayer is x + f(norm(x)).
func (h host) sublayer(x []float64, name string, f func([]float64) []float64) []float64 {
	y := f(h.norm(x, name+".layer_norm"))
	for i := range y {
		y[i] += x[i]
	}
	return y
}

// self is a stack's self-attention with its position biases.
func (h host) self(x []float64, stack, layer string, mask []int32, causal bool) []float64 {
	bias := h.weights[stack+".block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
	return h.attention(x, x, layer+".SelfAttention.", func(head, r, c int) (float64, bool) {
		return bias[h.cfg.bucket(c-r, !causal)*h.cfg.Heads+head], mask[c] == 1 && (!causal || c <= r)
	})
}

func (h host) encode(x []float64, mask []int32) []float64 {
	for i := range h.cfg.EncoderLayers {
		block := "encoder.block." + string(rune('0'+i)) + ".layer."
		x = h.sublayer(x, block+"0", func(y []float64) []float64 { return h.self(y, "encoder", block+"0", mask, false) })
		x = h.sublayer(x, block+"1", func(y []float64) []float64 { return h.feedForward(y, block+"1.DenseReluDense.") })
	}
	return h.norm(x, "encoder.final_layer_norm")
}

// logits are those of the decoder on one sequence of ids.
func (h host) logits(ids, mask []int32, encoded []float64, encodedMask []int32) []float64 {
	var x []float64
	for _, id := range ids {
		x = append(x, h.weights["shared.weight"][int(id)*h.cfg.Hidden:int(id+1)*h.cfg.Hidden]...)
	}
	for i := range h.cfg.DecoderLayers {
		block := "decoder.block." + string(rune('0'+i)) + ".layer."
		x = h.sublayer(x, block+"0", func(y []float64) []float64 { return h.self(y, "decoder", block+"0", mask, true) })
		x = h.sublayer(x, block+"1", func(y []float64) []float64 {
			return h.attention(y, encoded, block+"1.EncDecAttention.", func(_, _, c int) (float64, bool) {
				return 0, encodedMask[c] == 1
			})
		})
		x = h.sublayer(x, block+"2", func(y []float64) []float64 { return h.feedForward(y, block+"2.DenseReluDense.") })
	}
	return h.linear(h.norm(x, "decoder.final_layer_norm"), "lm_head", h.cfg.Vocab)
}

// forward is the whole model on a batch: encoder output, logits and loss.
func (h host) forward(x []float64) (encoded, logits []float64, loss float64) {
	var count float64
	for b := range batch {
		mask := encoderMask[b*length : (b+1)*length]
		e := h.encode(x[b*length*h.cfg.Hidden:(b+1)*length*h.cfg.Hidden], mask)
		target := labels[b*steps : (b+1)*steps]
		ids := []int32{StartID}
		for _, l := range target[:steps-1] {
			ids = append(ids, max(l, 0))
		}
		y := h.logits(ids, decoderMask[b*steps:(b+1)*steps], e, mask)
		for i, l := range target {
			if l < 0 {
				continue
			}
			var total float64
			for _, v := range y[i*h.cfg.Vocab : (i+1)*h.cfg.Vocab] {
				total += math.Exp(v)
			}
			loss += math.Log(total) - y[i*h.cfg.Vocab+int(l)]
			count++
		}
		encoded, logits = append(encoded, e...), append(logits, y...)
	}
	return encoded, logits, loss / count
}
