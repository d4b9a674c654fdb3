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
	QuickGELU Activation = "quick_gelu" // OpenAI CLIP: x·σ(1.702x)
)

// Apply computes the activation of x elementwise; any shape.
func (a Activation) Apply(x *Node) *Node {
	switch a {
	case GELU:
		cdf := MulScalar(OnePlus(Erf(MulScalar(x, 1/math.Sqrt2))), 0.5)
		return Mul(x, cdf)
	case QuickGELU:
		return Mul(x, Sigmoid(MulScalar(x, 1.702)))
	default:
		panic(fmt.Errorf("unknown activation %q", a))
	}
}
