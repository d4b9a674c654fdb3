package nn

import (
	. "github.com/gomlx/gomlx/core/graph"
)

// LogSumExp is log Σ exp(x) over the last axis of x [..., n] → [...], stable for any finite x.
func LogSumExp(x *Node) *Node {
	highest := StopGradient(ReduceAndKeep(x, ReduceMax, -1))
	sum := ReduceSum(Exp(Sub(x, spread(highest, x))), -1)
	return Add(Log(sum), Squeeze(highest, -1))
}

// SmoothedCrossEntropy is PyTorch's cross entropy with label smoothing, per row: the target distribution is
// (1−ε) on the label plus ε/n on each of the n classes, the label included.
//
// logits are [rows, n] in float32, labels [rows] integers; the result is [rows].
func SmoothedCrossEntropy(logits, labels *Node, smoothing float64) *Node {
	n := logits.Shape().Dimensions[1]
	labels.AssertDims(logits.Shape().Dimensions[0])
	picked := ReduceSum(Mul(logits, OneHot(labels, n, logits.DType())), -1)
	loss := Sub(LogSumExp(logits), MulScalar(picked, 1-smoothing))
	if smoothing != 0 {
		loss = Sub(loss, MulScalar(ReduceMean(logits, -1), smoothing))
	}
	return loss
}

// SoftCrossEntropy is −Σ target·log softmax(logits) per row: logits and target [rows, n], the result [rows].
func SoftCrossEntropy(logits, target *Node) *Node {
	logProbs := Sub(logits, spread(InsertAxes(LogSumExp(logits), -1), logits))
	return Neg(ReduceSum(Mul(target, logProbs), -1))
}
