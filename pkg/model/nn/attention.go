package nn

import (
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// Attention is softmax(q·kᵀ/√d + mask)·v for every head.
//
//   - q is [batch, rows, heads, d], k and v are [batch, columns, heads, d].
//   - mask is added to the scores: [1|batch, 1, 1|rows, columns] with 0 = visible, or nil when all is visible.
//   - dropout is the rate on the attention probabilities (rng nil: none).
//
// It returns [batch, rows, heads·d]. The softmax is computed in float32.
func Attention(q, k, v, mask *Node, rng *RNG, dropout float64) *Node {
	dims := q.Shape().Dimensions
	batch, rows, heads, d := dims[0], dims[1], dims[2], dims[3]
	k.AssertDims(batch, -1, heads, d)
	v.AssertDims(batch, k.Shape().Dimensions[1], heads, d)
	q = MulScalar(q, 1/math.Sqrt(float64(d)))
	scores := Float32(Einsum("bqhd,bkhd->bhqk", q, k))
	if mask != nil {
		scores = Add(scores, mask)
	}
	probs := rng.Dropout(Softmax(scores, -1), dropout)
	mixed := Einsum("bhqk,bkhd->bqhd", Cast(probs, v.DType()), v)
	return Reshape(mixed, batch, rows, heads*d)
}

// SplitHeads reshapes x [batch, rows, heads·d] to [batch, rows, heads, d].
func SplitHeads(x *Node, heads int) *Node {
	dims := x.Shape().Dimensions
	return Reshape(x, dims[0], dims[1], heads, dims[2]/heads)
}
