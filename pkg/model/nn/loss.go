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

// IgnoredLabel marks the positions that no loss counts, as PyTorch's ignore_index does.
const IgnoredLabel = -100

// TokenLoss is the mean cross entropy of the rows that have a label: logits [..., n] of any float dtype, labels [...]
// integers, IgnoredLabel where a row does not count. The result is a float32 scalar, 0 if no row counts, where PyTorch
// has 0/0.
func TokenLoss(logits, labels *Node) *Node {
	dims := logits.Shape().Dimensions
	rows := Reshape(Float32(logits), -1, dims[len(dims)-1])
	labels = Reshape(labels, rows.Shape().Dimensions[0])
	use := counted(labels)
	sum := ReduceAllSum(Mul(SmoothedCrossEntropy(rows, labels, 0), use))
	return Div(sum, MaxScalar(ReduceAllSum(use), 1))
}

// NextLabels turns labels [batch, L] into those of a model that predicts the next token: every row moves one position
// to the left and ends with IgnoredLabel.
func NextLabels(labels *Node) *Node {
	batch := labels.Shape().Dimensions[0]
	end := BroadcastToDims(Scalar(labels.Graph(), labels.DType(), IgnoredLabel), batch, 1)
	return Concatenate([]*Node{SliceAxis(labels, 1, AxisRangeToEnd(1)), end}, 1)
}
