package model

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"math/rand/v2"
)

// initKind is the distribution of an Init.
type initKind int

const (
	initConstant initKind = iota
	initNormal
	initTruncNormal
	initUniform
)

// Init says how a tensor starts. The zero value is all zeros.
type Init struct {
	kind  initKind
	value float64 // constant, standard deviation or bound
}

// Constant starts every element at v: 0 for biases, 1 for LayerNorm weights, 0.07 for the ITC temperature.
func Constant(v float64) Init { return Init{initConstant, v} }

// Normal draws from N(0, std²): BERT's and the query tokens' initialisation (spec/model.md 5.5, std 0.02).
func Normal(std float64) Init { return Init{initNormal, std} }

// TruncNormal draws from N(0, std²) cut off at ±2 absolute, as timm's trunc_normal_ does: a ViT from scratch.
func TruncNormal(std float64) Init { return Init{initTruncNormal, std} }

// Uniform draws from U(−bound, bound). PyTorch's Linear starts both weight and bias with bound 1/√fan_in.
func Uniform(bound float64) Init { return Init{initUniform, bound} }

// LinearBound returns the bound of PyTorch's default Linear initialisation for the given fan-in.
func LinearBound(fanIn int) float64 { return 1 / math.Sqrt(float64(fanIn)) }

// values draws n elements for the tensor with the given name, keyed by (seed, name).
func (i Init) values(n int, seed int64, name string) []float32 {
	out := make([]float32, n)
	if i.kind == initConstant {
		for k := range out {
			out[k] = float32(i.value)
		}
		return out
	}
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, seed)
	h.Write([]byte(name))
	rng := rand.New(rand.NewPCG(uint64(seed), h.Sum64()))
	for k := range out {
		out[k] = float32(i.draw(rng))
	}
	return out
}

func (i Init) draw(rng *rand.Rand) float64 {
	switch i.kind {
	case initUniform:
		return (2*rng.Float64() - 1) * i.value
	case initTruncNormal:
		for {
			if v := rng.NormFloat64() * i.value; v >= -2 && v <= 2 {
				return v
			}
		}
	default:
		return rng.NormFloat64() * i.value
	}
}
