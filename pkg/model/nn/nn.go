// Package nn holds the leaf operations that BLIP-2's networks share: linear layers, LayerNorm and RMSNorm, attention
// and the cache of a decoder, activations, dropout and cross entropy. Each reads its weights from the store under their
// checkpoint names.
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
	return Cast(stored(scope, name, x.Graph()), x.DType())
}

// stored returns the named variable of the scope in the dtype in which it is stored, else as Weight does.
func stored(scope *model.Scope, name string, g *Graph) *Node {
	v := scope.GetVariable(name)
	if v == nil {
		panic(fmt.Errorf("tensor %s of scope %s is missing from the model", name, scope.Scope()))
	}
	return v.NodeValue(g)
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
	y := product(flat, w)
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
func AddBias(x, bias *Node) *Node {
	return rowwise(x, func(rows *Node) *Node { return Add(rows, spread(ExpandLeftToRank(bias, rows.Rank()), rows)) })
}

// LayerNorm normalises the last axis of x [..., n] to mean 0 and variance 1 in float32, then applies weight and bias.
func LayerNorm(scope *model.Scope, x *Node, eps float64) *Node {
	return rowwise(x, func(rows *Node) *Node {
		rows32 := Float32(rows)
		y := normalize(rows32, eps)
		y = Mul(y, spread(ExpandLeftToRank(Weight(scope, "weight", rows32), y.Rank()), y))
		y = Add(y, spread(ExpandLeftToRank(Weight(scope, "bias", rows32), y.Rank()), y))
		return Cast(y, x.DType())
	})
}

// normalize is LayerNorm without its affine part: every row of x [..., n] gets mean 0 and variance 1.
func normalize(x *Node, eps float64) *Node {
	parts := func() (centred, scale *Node) {
		centred = Sub(x, spread(rowMean(x), x))
		return centred, Reciprocal(Sqrt(AddScalar(rowMean(Square(centred)), eps)))
	}
	var y *Node
	fast := func() *Node {
		y = BackendFusedLayerNorm(x, []int{x.Rank() - 1}, eps, nil, nil)
		return y
	}
	plain := func() *Node {
		centred, scale := parts()
		return Mul(centred, spread(scale, centred))
	}
	// dx = (v − mean(v) − y·mean(v·y)) / σ.
	gradient := func(_, v *Node) *Node {
		_, scale := parts()
		along := Mul(y, spread(rowMean(Mul(v, y)), y))
		return Mul(Sub(Sub(v, spread(rowMean(v), v)), along), spread(scale, v))
	}
	return fused(x, fast, plain, gradient)
}

// RMSNorm is T5's norm: the last axis of x [..., n] is divided by its root mean square, in float32, then multiplied
// with weight. There is no mean to subtract and no bias.
func RMSNorm(scope *model.Scope, x *Node, eps float64) *Node {
	return rowwise(x, func(rows *Node) *Node {
		rows32 := Float32(rows)
		scale := Reciprocal(Sqrt(AddScalar(rowMean(Square(rows32)), eps)))
		y := Mul(rows32, spread(scale, rows32))
		y = Mul(y, spread(ExpandLeftToRank(Weight(scope, "weight", rows32), y.Rank()), y))
		return Cast(y, x.DType())
	})
}

// Embed looks up ids [...] in the scope's table [rows, n]: [..., n] in the given dtype.
func Embed(scope *model.Scope, ids *Node, dtype dtypes.DType) *Node {
	return Cast(Gather(stored(scope, "weight", ids.Graph()), InsertAxes(ids, -1)), dtype)
}

// UnitNorm scales the last axis of x to unit length, dividing by max(‖x‖, 1e-12) as PyTorch's F.normalize does. The
// bound is put on the square, so that the gradient at a zero vector is finite too.
func UnitNorm(x *Node) *Node {
	square := MaxScalar(ReduceAndKeep(Square(x), ReduceSum, -1), 1e-24)
	return Div(x, spread(Sqrt(square), x))
}
