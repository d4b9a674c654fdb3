package qformer

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
)

// Cross holds what queries read of a batch of pictures: the cross-attention keys and values of every layer that has
// them. They depend on the picture alone, so one projection per picture and layer serves all passes of a step.
type Cross struct {
	kv []KV // by layer; empty where the layer has no cross-attention
	// negative, if set, makes this the source of the 3·B rows of ITM: see WithNegatives.
	negative []KV
}

// NewCross projects image features [batch, N, W] to the keys and values of every cross-attention layer. The scope is
// the model's root.
func NewCross(scope *model.Scope, cfg Config, features *Node) *Cross {
	features.AssertDims(-1, -1, cfg.EncoderWidth)
	c := &Cross{kv: make([]KV, cfg.Layers)}
	for i := range cfg.Layers {
		if cfg.HasCross(i) {
			c.kv[i] = cfg.layer(scope, i, nil).KeysValues(bert.CrossAttention, features)
		}
	}
	return c
}

// CrossOf returns the source with the given keys and values, by layer; those of a layer without cross-attention are
// empty.
func CrossOf(kv []KV) *Cross { return &Cross{kv: kv} }

// KeysValues returns the keys and values by layer; those of a layer without cross-attention are empty.
func (c *Cross) KeysValues() []KV { return c.kv }

// Pick returns the source for the pictures at the given indices [rows]; gradients flow back to the picked pictures.
func (c *Cross) Pick(indices *Node) *Cross {
	picked := &Cross{kv: make([]KV, len(c.kv))}
	for i, kv := range c.kv {
		if kv.K != nil {
			picked.kv[i] = KV{K: pick(kv.K, indices), V: pick(kv.V, indices)}
		}
	}
	return picked
}

func pick(x, indices *Node) *Node { return Gather(x, InsertAxes(indices, -1)) }

// WithNegatives returns the source for ITM's 3·B rows (spec/stage1.md 5): row 3b reads picture b, row 3b+1 the picture
// at negatives [B], row 3b+2 picture b again.
//
// The two that read their own picture attend together, as 2·Q queries per picture: no copy of its keys and values is
// made.
func (c *Cross) WithNegatives(negatives *Node) *Cross { return c.Beside(c.Pick(negatives)) }

// Beside is WithNegatives with the negative pictures themselves, where they are not among the batch's.
func (c *Cross) Beside(negatives *Cross) *Cross { return &Cross{kv: c.kv, negative: negatives.kv} }

// attend is the cross-attention of queries q [rows, heads, Q, d] in the given layer: [rows, Q, H].
func (c *Cross) attend(layer int, q *Node, rng *nn.RNG, dropout float64) *Node {
	kv := c.kv[layer]
	if c.negative == nil {
		return nn.Attention(q, kv.K, kv.V, nil, rng, dropout)
	}
	dims := q.Shape().Dimensions
	three := Reshape(q, -1, 3, dims[1], dims[2], dims[3])
	group := func(i int) *Node { return Squeeze(SliceAxis(three, 1, AxisElem(i)), 1) }
	negative := nn.Attention(group(1), c.negative[layer].K, c.negative[layer].V, nil, rng, dropout)
	own := nn.Attention(Concatenate([]*Node{group(0), group(2)}, 2), kv.K, kv.V, nil, rng, dropout)
	halves := Split(own, 1, 2)
	return Reshape(Stack([]*Node{halves[0], negative, halves[1]}, 1), dims[0], dims[2], -1)
}
