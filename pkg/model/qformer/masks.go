package qformer

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"

	"blip2/pkg/model/nn"
)

// MultimodalMask is the mask of an ITM pass: every row sees all queries and the non-pad tokens,
// [batch, 1, 1, queries+L].
func MultimodalMask(textMask *Node, queries int) *Node {
	batch := textMask.Shape().Dimensions[0]
	ones := BroadcastToDims(Scalar(textMask.Graph(), textMask.DType(), 1), batch, queries)
	return nn.PaddingMask(Concatenate([]*Node{ones, textMask}, 1))
}

// FullCausalMask is the ITG mask over queries and text in one sequence: queries see queries only, text row i sees
// all queries and the non-pad tokens j ≤ i. It is the plain form of nn.CausalMask with cached queries. The result is
// [batch, 1, queries+L, queries+L].
func FullCausalMask(textMask *Node, queries int) *Node {
	g := textMask.Graph()
	dims := textMask.Shape().Dimensions
	batch, length := dims[0], dims[1]
	bottom := nn.CausalMask(textMask, queries)
	seen := BroadcastToDims(Scalar(g, dtypes.Float32, 0), batch, 1, queries, queries)
	unseen := BroadcastToDims(Scalar(g, dtypes.Float32, nn.Hidden), batch, 1, queries, length)
	return Concatenate([]*Node{Concatenate([]*Node{seen, unseen}, 3), bottom}, 2)
}
