package nn

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// Attention is ScaledAttention with scores divided by √d.
func Attention(q, k, v, mask *Node, rng *RNG, dropout float64) *Node {
	d := q.Shape().Dimensions[q.Rank()-1]
	return ScaledAttention(q, k, v, 1/math.Sqrt(float64(d)), mask, rng, dropout)
}

// ScaledAttention is softmax(scale·q·kᵀ + mask)·v for every head.
//
//   - q is [batch, heads, rows, d], k and v are [batch, heads, columns, d]: with the heads in front, every product
//     of the forward and backward pass is a plain batched one.
//   - mask is added to the scores: [1|batch, 1|heads, 1|rows, columns] in float32 with 0 = visible, or nil when all is
//     visible. T5's position bias is part of it.
//   - dropout is the rate on the attention probabilities (rng nil: none).
//
// It returns [batch, rows, heads·d]. The softmax is computed in float32.
func ScaledAttention(q, k, v *Node, scale float64, mask *Node, rng *RNG, dropout float64) *Node {
	dims := q.Shape().Dimensions
	batch, heads, rows, d := dims[0], dims[1], dims[2], dims[3]
	k.AssertDims(batch, heads, -1, d)
	v.AssertDims(batch, heads, k.Shape().Dimensions[2], d)
	if scale != 1 {
		q = MulScalar(q, scale)
	}
	scores := Float32(Einsum("bhqd,bhkd->bhqk", q, k))
	if mask != nil {
		scores = Add(scores, spread(mask, scores))
	}
	probs := rng.Dropout(softmax(scores), dropout)
	mixed := Einsum("bhqk,bhkd->bhqd", Cast(probs, v.DType()), v)
	return Reshape(TransposeAllAxes(mixed, 0, 2, 1, 3), batch, rows, heads*d)
}

// AttentionProbs are the probabilities with which Attention mixes values where all is visible: q
// [batch, heads, rows, d] and k [batch, heads, columns, d] give [batch, heads, rows, columns] in float32.
func AttentionProbs(q, k *Node) *Node {
	scale := 1 / math.Sqrt(float64(q.Shape().Dimensions[q.Rank()-1]))
	return softmax(Float32(Einsum("bhqd,bhkd->bhqk", MulScalar(q, scale), k)))
}

// SplitHeads turns x [batch, rows, heads·d] into [batch, heads, rows, d].
func SplitHeads(x *Node, heads int) *Node {
	dims := x.Shape().Dimensions
	return TransposeAllAxes(Reshape(x, dims[0], dims[1], heads, dims[2]/heads), 0, 2, 1, 3)
}
