package qformer

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"blip2/pkg/model/nn"
)

// hidden is what the reference adds to the score of a position that must not be seen. A finite number keeps rows
// without any visible position finite.
const hidden = -10000

// additive turns a mask of ones (visible) and zeros into scores to add.
func additive(visible *Node) *Node {
	return MulScalar(OneMinus(nn.Cast(visible, dtypes.Float32)), hidden)
}

// PaddingMask is the mask of a text-only pass: every row sees the non-pad tokens. textMask [batch, L] is 1 at tokens
// and 0 at padding; the result is [batch, 1, 1, L].
func PaddingMask(textMask *Node) *Node {
	return InsertAxes(additive(textMask), 1, 1)
}

// MultimodalMask is the mask of an ITM pass: every row sees all queries and the non-pad tokens,
// [batch, 1, 1, queries+L].
func MultimodalMask(textMask *Node, queries int) *Node {
	batch := textMask.Shape().Dimensions[0]
	ones := BroadcastToDims(Scalar(textMask.Graph(), textMask.DType(), 1), batch, queries)
	return PaddingMask(Concatenate([]*Node{ones, textMask}, 1))
}

// CausalMask is the mask of an ITG pass with cached queries: text row i sees all past tokens (the queries) and the
// non-pad tokens j ≤ i. The result is [batch, 1, L, past+L].
func CausalMask(textMask *Node, past int) *Node {
	g := textMask.Graph()
	dims := textMask.Shape().Dimensions
	batch, length := dims[0], dims[1]
	tokens := Reshape(nn.Cast(textMask, dtypes.Float32), batch, 1, 1, length)
	triangle := Reshape(nn.Cast(LowerTriangular(g, length), dtypes.Float32), 1, 1, length, length)
	text := additive(Mul(BroadcastToDims(tokens, batch, 1, length, length),
		BroadcastToDims(triangle, batch, 1, length, length)))
	if past == 0 {
		return text
	}
	seen := BroadcastToDims(Scalar(g, dtypes.Float32, 0), batch, 1, length, past)
	return Concatenate([]*Node{seen, text}, 3)
}

// FullCausalMask is the ITG mask over queries and text in one sequence: queries see queries only, text row i sees
// all queries and the non-pad tokens j ≤ i. It is the plain form of CausalMask with cached queries. The result is
// [batch, 1, queries+L, queries+L].
func FullCausalMask(textMask *Node, queries int) *Node {
	g := textMask.Graph()
	dims := textMask.Shape().Dimensions
	batch, length := dims[0], dims[1]
	bottom := CausalMask(textMask, queries)
	seen := BroadcastToDims(Scalar(g, dtypes.Float32, 0), batch, 1, queries, queries)
	unseen := BroadcastToDims(Scalar(g, dtypes.Float32, hidden), batch, 1, queries, length)
	return Concatenate([]*Node{Concatenate([]*Node{seen, unseen}, 3), bottom}, 2)
}
