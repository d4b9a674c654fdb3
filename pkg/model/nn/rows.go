package nn

import (
	"slices"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
)

// The Go backend runs every operation by itself and is bound by memory: broadcasting inside an operation costs it three
// times as much as an explicit broadcast, more axes cost more than two, and its fused operations have no backward pass
// of their own. The helpers below put operations into the form that is cheap there. XLA fuses explicit broadcasts
// away; but flattening to a matrix would keep its CPU compiler from spreading the fused loops over cores, which made a
// ViT-L layer a tenth slower: that is left to backends that do not fuse.

// rowwise applies f to x [..., n] and keeps the shape; f sees x, or x as a matrix [rows, n] where that is faster.
func rowwise(x *Node, f func(rows *Node) *Node) *Node {
	if x.Rank() == 2 || !runsOpByOp(x) {
		return f(x)
	}
	dims := x.Shape().Dimensions
	return Reshape(f(Reshape(x, -1, dims[len(dims)-1])), dims...)
}

// runsOpByOp reports whether the backend of x's graph has fused operations of its own, because it fuses none by itself.
func runsOpByOp(x *Node) bool {
	return x.Graph().Backend().Capabilities().Operations[compute.OpTypeFusedLayerNorm]
}

// spread broadcasts x, of like's rank, to like's dimensions, before an elementwise operation with it.
func spread(x, like *Node) *Node {
	if slices.Equal(x.Shape().Dimensions, like.Shape().Dimensions) {
		return x
	}
	return BroadcastToDims(x, like.Shape().Dimensions...)
}

// rowMean is the mean of every row of x [..., n]: [..., 1].
func rowMean(x *Node) *Node { return ReduceAndKeep(x, ReduceMean, -1) }

// fused computes a function of x that keeps its shape: by the backend's fused operation (fast) with the given
// gradient where the backend has one, else by plain operations and their automatic gradient. gradient(x, v) returns
// the adjoint of x for the adjoint v of the result.
func fused(x *Node, fast, plain func() *Node, gradient func(x, v *Node) *Node) *Node {
	isFused := false
	y, _ := InternalFusedOpCaller(
		func() *Node {
			y := fast()
			isFused = true
			return y
		},
		func() *Node {
			if !isFused {
				return plain()
			}
			// Only its gradient is used: the caller differentiates this node in place of the fused one.
			return IdentityWithCustomGradient(x, gradient)
		},
		true)
	return y
}

// softmax is softmax over the last axis of x [..., n], float32.
func softmax(x *Node) *Node {
	return rowwise(x, func(rows *Node) *Node {
		var y *Node
		fast := func() *Node {
			y = BackendFusedSoftmax(rows, rows.Rank()-1)
			return y
		}
		plain := func() *Node { return Softmax(rows, -1) }
		// dx = y·(v − Σ v·y).
		gradient := func(_, v *Node) *Node {
			sum := ReduceAndKeep(Mul(v, y), ReduceSum, -1)
			return Mul(y, Sub(v, spread(sum, v)))
		}
		return fused(rows, fast, plain, gradient)
	})
}
