package nn

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
)

// Activation is a pointwise non-linearity, named as in checkpoints' configurations.
type Activation string

// The activations of spec/model.md; they are not interchangeable.
const (
	GELU      Activation = "gelu"       // exact: x·½(1+erf(x/√2))
	GELUNew   Activation = "gelu_new"   // tanh form, stock Flan-T5: ½x(1+tanh(√(2/π)(x+0.044715x³)))
	QuickGELU Activation = "quick_gelu" // OpenAI CLIP: x·σ(1.702x)
	ReLU      Activation = "relu"       // OPT: max(0,x)
)

// Apply computes the activation of x elementwise; any shape.
func (a Activation) Apply(x *Node) *Node {
	switch a {
	case GELU:
		cdf := MulScalar(OnePlus(Erf(MulScalar(x, 1/math.Sqrt2))), 0.5)
		return Mul(x, cdf)
	case GELUNew:
		x32 := Float32(x) // x³ leaves the range of float16
		inner := Mul(x32, OnePlus(MulScalar(Square(x32), 0.044715)))
		y := MulScalar(Mul(x32, OnePlus(Tanh(MulScalar(inner, math.Sqrt(2/math.Pi))))), 0.5)
		return Cast(y, x.DType())
	case QuickGELU:
		return Mul(x, Sigmoid(MulScalar(x, 1.702)))
	case ReLU:
		// Not Max: its gradient at 0 would be 1, PyTorch's is 0.
		return Where(GreaterThan(x, ScalarZero(x.Graph(), x.DType())), x, ZerosLike(x))
	default:
		panic(fmt.Errorf("unknown activation %q", a))
	}
}
