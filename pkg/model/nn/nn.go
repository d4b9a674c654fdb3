// Package nn holds the leaf operations that BLIP-2's networks share: linear layers, LayerNorm, attention,
// activations, dropout and cross entropy. Each reads its weights from the store under their checkpoint names.
//
// Activations set the compute type: weights are converted to the activation's dtype at use, while softmax,
// LayerNorm statistics and losses are always computed in float32 (spec/model.md 11).
package nn

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

// Weight returns the named variable of the scope in the dtype of x. It panics if the store does not hold it: every
// tensor is declared by the package of its network and created before graphs are built.
func Weight(scope *model.Scope, name string, x *Node) *Node {
	v := scope.GetVariable(name)
	if v == nil {
		panic(fmt.Errorf("tensor %s of scope %s is missing from the model", name, scope.Scope()))
	}
	return Cast(v.NodeValue(x.Graph()), x.DType())
}

// Cast converts x to the dtype; x itself if it has it.
func Cast(x *Node, dtype dtypes.DType) *Node {
	if x.DType() == dtype {
		return x
	}
	return ConvertDType(x, dtype)
}

// Float32 converts x to float32, the dtype of statistics and losses.
func Float32(x *Node) *Node { return Cast(x, dtypes.Float32) }

// Project multiplies the last axis of x [..., in] with w [out, in]: x·wᵀ, [..., out].
func Project(x, w *Node) *Node {
	dims := x.Shape().Dimensions
	in := dims[len(dims)-1]
	w.AssertDims(-1, in)
	flat := x
	if x.Rank() != 2 {
		flat = Reshape(x, -1, in)
	}
	y := Dot(flat, w).General([]int{1}, nil, []int{1}, nil)
	if x.Rank() == 2 {
		return y
	}
	out := append(append([]int{}, dims[:len(dims)-1]...), w.Shape().Dimensions[0])
	return Reshape(y, out...)
}

// Linear is x·weightᵀ + bias over the last axis of x [..., in] → [..., out].
func Linear(scope *model.Scope, x *Node) *Node {
	return AddBias(Project(x, Weight(scope, "weight", x)), Weight(scope, "bias", x))
}

// AddBias adds bias [n] to the last axis of x [..., n].
func AddBias(x, bias *Node) *Node { return Add(x, ExpandLeftToRank(bias, x.Rank())) }

// LayerNorm normalises the last axis of x [..., n] to mean 0 and variance 1 in float32, then applies weight and bias.
func LayerNorm(scope *model.Scope, x *Node, eps float64) *Node {
	x32 := Float32(x)
	y := normalize(x32, eps)
	y = Mul(y, ExpandLeftToRank(Weight(scope, "weight", x32), x.Rank()))
	y = AddBias(y, Weight(scope, "bias", x32))
	return Cast(y, x.DType())
}

// normalize is LayerNorm without its affine part: the last axis of x gets mean 0 and variance 1.
func normalize(x *Node, eps float64) *Node {
	centred := Sub(x, ReduceAndKeep(x, ReduceMean, -1))
	variance := ReduceAndKeep(Square(centred), ReduceMean, -1)
	return Mul(centred, Reciprocal(Sqrt(AddScalar(variance, eps))))
}

// UnitNorm scales the last axis of x to unit length, dividing by max(‖x‖, 1e-12) as PyTorch's F.normalize does.
func UnitNorm(x *Node) *Node {
	norm := Sqrt(ReduceAndKeep(Square(x), ReduceSum, -1))
	return Div(x, MaxScalar(norm, 1e-12))
}
