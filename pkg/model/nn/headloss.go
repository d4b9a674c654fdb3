package nn

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
)

// HeadLoss is TokenLoss(x·wᵀ, labels) without holding all logits at once: x [batch, L, n], the head w [V, n] in the
// type of x, labels [batch, L] integers, IgnoredLabel where a position does not count. The result is a float32 scalar.
//
// positions is how many positions of every row have their logits in memory at the same time, batch·positions·V numbers
// of float32; 0 means all of them, by the plain form. The last stretch may be shorter.
//
// In stretches the gradient of x is computed by its closed form (softmax − one-hot)·w together with the loss, so that
// nothing of a stretch is kept and nothing is computed twice. The head gets no gradient then: it must be frozen.
func HeadLoss(x, w, labels *Node, positions int) *Node {
	dims := x.Shape().Dimensions
	w.AssertDims(-1, dims[2])
	labels.AssertDims(dims[0], dims[1])
	switch {
	case positions < 0:
		panic(fmt.Errorf("a loss in stretches of %d positions: want 1 or more, or 0 for all at once", positions))
	case positions == 0 || positions >= dims[1]:
		return TokenLoss(Project(x, w), labels)
	}
	count := MaxScalar(ReduceAllSum(counted(labels)), 1)
	var sum *Node
	var grads []*Node
	for at := 0; at < dims[1]; at += positions {
		window := AxisRange(at, min(at+positions, dims[1]))
		part := StopGradient(SliceAxis(x, 1, window))
		if sum != nil {
			// Without an order, XLA may work on all stretches at once, and hold the logits of all.
			part = SchedulingBarrier(part, sum, grads[len(grads)-1])
		}
		loss, grad := stretchLoss(part, w, SliceAxis(labels, 1, window))
		if sum == nil {
			sum = loss
		} else {
			sum = Add(sum, loss)
		}
		grads = append(grads, grad)
	}
	mean := StopGradient(Div(sum, count))
	slope := StopGradient(Div(Concatenate(grads, 1), BroadcastToDims(count, dims...)))
	// A number that is always 0 and whose gradient is the slope.
	through := ReduceAllSum(Mul(Float32(x), slope))
	return Add(mean, Sub(through, StopGradient(through)))
}

// stretchLoss is the sum of the cross entropies of x [batch, l, n] and its gradient with respect to x, in float32.
func stretchLoss(x, w, labels *Node) (loss, grad *Node) {
	dims := x.Shape().Dimensions
	flat := Reshape(x, -1, dims[2])
	logits := Float32(Project(flat, w))
	rows, vocab := logits.Shape().Dimensions[0], logits.Shape().Dimensions[1]
	labels = Reshape(labels, rows)
	use := counted(labels)
	hot := OneHot(labels, vocab, logits.DType())
	lse := LogSumExp(logits)
	loss = ReduceAllSum(Mul(Sub(lse, ReduceSum(Mul(logits, hot), -1)), use))
	probs := Exp(Sub(logits, spread(InsertAxes(lse, -1), logits)))
	slope := Mul(Sub(probs, hot), spread(InsertAxes(use, -1), logits))
	return loss, Reshape(Float32(Dot(Cast(slope, x.DType()), w).Product()), dims...)
}

// counted is 1 at labels that count and 0 at others, in float32.
func counted(labels *Node) *Node {
	return Float32(NotEqual(labels, Scalar(labels.Graph(), labels.DType(), IgnoredLabel)))
}
