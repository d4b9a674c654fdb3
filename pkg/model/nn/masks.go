package nn

import (
	"math"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
)

// Hidden is what is added to the attention score of a position that must not be seen, as BERT does. A finite number
// keeps rows without any visible position finite.
const Hidden = -10000

// AdditiveMask turns a mask of ones (visible) and zeros, of any shape, into float32 scores to add.
func AdditiveMask(visible *Node) *Node {
	return MulScalar(OneMinus(Float32(visible)), Hidden)
}

// BarringMask turns a mask of ones (visible) and zeros, of any shape, into float32 scores to add as language models do:
// what is hidden gets the least finite number, which swallows any score. A row that sees nothing mixes all values
// alike.
func BarringMask(visible *Node) *Node {
	return MulScalar(OneMinus(Float32(visible)), -math.MaxFloat32)
}

// PaddingMask lets every row see the tokens that are no padding: mask [batch, L] is 1 at tokens and 0 at padding; the
// result is [batch, 1, 1, L].
func PaddingMask(mask *Node) *Node { return InsertAxes(AdditiveMask(mask), 1, 1) }

// CausalMask lets row i of a text see all past tokens in front of it and its own tokens j ≤ i that are no padding:
// mask [batch, L] is 1 at tokens and 0 at padding; the result is [batch, 1, L, past+L].
func CausalMask(mask *Node, past int) *Node {
	g := mask.Graph()
	dims := mask.Shape().Dimensions
	batch, length := dims[0], dims[1]
	tokens := Reshape(Float32(mask), batch, 1, 1, length)
	triangle := Reshape(Float32(LowerTriangular(g, length)), 1, 1, length, length)
	text := AdditiveMask(Mul(BroadcastToDims(tokens, batch, 1, length, length),
		BroadcastToDims(triangle, batch, 1, length, length)))
	if past == 0 {
		return text
	}
	seen := BroadcastToDims(Scalar(g, dtypes.Float32, 0), batch, 1, length, past)
	return Concatenate([]*Node{seen, text}, 3)
}
