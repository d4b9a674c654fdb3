package nn

import (
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
)

// hostLogSumExp is log Σ exp(x) of every row of n.
func hostLogSumExp(x []float64, n int) []float64 {
	out := make([]float64, len(x)/n)
	for r := range out {
		row := x[r*n : (r+1)*n]
		highest := math.Inf(-1)
		for _, v := range row {
			highest = max(highest, v)
		}
		var sum float64
		for _, v := range row {
			sum += math.Exp(v - highest)
		}
		out[r] = highest + math.Log(sum)
	}
	return out
}

// hostCrossEntropy is −Σ target·log softmax of every row of n.
func hostCrossEntropy(logits, target []float64, n int) []float64 {
	lse := hostLogSumExp(logits, n)
	out := make([]float64, len(lse))
	for i, v := range logits {
		out[i/n] -= target[i] * (v - lse[i/n])
	}
	return out
}

// smoothTarget is PyTorch's smoothed target distribution.
func smoothTarget(labels []int32, n int, smoothing float64) []float64 {
	out := make([]float64, len(labels)*n)
	for i := range out {
		out[i] = smoothing / float64(n)
		if i%n == int(labels[i/n]) {
			out[i] += 1 - smoothing
		}
	}
	return out
}

const classes = 5

// extremeLogits are rows of classes that a careless logarithm or exponential breaks on, and ordinary ones.
func extremeLogits() array {
	return array{[]int{7, classes}, []float32{
		0.3, -1.2, 0.7, 2.5, -0.4,
		0, 0, 0, 0, 0,
		1e4, -1e4, 0, 1, 2,
		-1e4, -1e4, -1e4, -1e4, -9999,
		300, 200, 299, 301, 0,
		-500, 40, -500, 40, -500,
		1e4, 1e4, 1e4, 1e4, 1e4,
	}}
}

func TestLogSumExp(t *testing.T) {
	x := extremeLogits()
	host := func(v []float64) []float64 { return hostLogSumExp(v, classes) }
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		y := LogSumExp(in[0])
		return append([]*Node{y, LogSumExp(Reshape(in[0], 1, 7, classes))}, Gradient(probe(y), in[0])...)
	}, x.tensor())
	for i, want := range host(x.wide()) {
		if d := math.Abs(float64(got[0][i]) - want); !(d <= 1e-6*max(1, math.Abs(want))) || got[0][i] != got[1][i] {
			t.Errorf("row %d: %g, with an axis more %g, want %g", i, got[0][i], got[1][i], want)
		}
	}
	near(t, "gradient", got[2], slope(host, x.wide()), 1e-5)
}

func TestSmoothedCrossEntropy(t *testing.T) {
	x, labels := extremeLogits(), []int32{3, 0, 1, 4, 0, 2, 2}
	for _, smoothing := range []float64{0, 0.1, 1} {
		got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
			y := SmoothedCrossEntropy(in[0], in[1], smoothing)
			return append([]*Node{y}, Gradient(probe(y), in[0])...)
		}, x.tensor(), int32s(labels...))
		host := func(v []float64) []float64 {
			return hostCrossEntropy(v, smoothTarget(labels, classes, smoothing), classes)
		}
		for i, want := range host(x.wide()) {
			// Differences of logits of size 1e4 are exact to 1e-3 in float32.
			size := 1.0
			for _, v := range x.values[i*classes : (i+1)*classes] {
				size = max(size, math.Abs(float64(v)))
			}
			if d := math.Abs(float64(got[0][i]) - want); !(d <= 1e-6*size) {
				t.Errorf("smoothing %g, row %d: %g, want %g", smoothing, i, got[0][i], want)
			}
		}
		near(t, "gradient", got[1], slope(host, x.wide()), 1e-5)
	}
}

func TestSoftCrossEntropy(t *testing.T) {
	x := extremeLogits()
	target := array{x.dims, make([]float32, len(x.values))}
	for r := range x.dims[0] {
		row := normal(uint64(r), 0, 1, classes)
		var sum float32
		for i, v := range row.values {
			row.values[i] = v * v
			sum += v * v
		}
		for i, v := range row.values {
			target.values[r*classes+i] = v / sum
		}
	}
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		y := SoftCrossEntropy(in[0], in[1])
		return append([]*Node{y}, Gradient(probe(y), in[0])...)
	}, x.tensor(), target.tensor())
	host := func(v []float64) []float64 { return hostCrossEntropy(v, target.wide(), classes) }
	near(t, "value", got[0], host(x.wide()), 1e-6)
	near(t, "gradient", got[1], slope(host, x.wide()), 1e-5)
}

// TestCrossEntropiesAgree: a smoothed label is a soft target, and a perfect prediction costs the target's entropy.
func TestCrossEntropiesAgree(t *testing.T) {
	const rows, n, smoothing = 4, 9, 0.1
	x, labels := normal(1, 0, 3, rows, n), []int32{8, 0, 3, 3}
	target := smoothTarget(labels, n, smoothing)
	soft := array{x.dims, make([]float32, len(target))}
	perfect := array{x.dims, make([]float32, len(target))}
	var entropy float64
	for i, p := range target {
		soft.values[i], perfect.values[i] = float32(p), float32(math.Log(p))
		entropy -= p * math.Log(p) / rows
	}
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		return []*Node{
			SmoothedCrossEntropy(in[0], in[2], smoothing), SoftCrossEntropy(in[0], in[1]),
			SmoothedCrossEntropy(in[3], in[2], smoothing),
		}
	}, x.tensor(), soft.tensor(), int32s(labels...), perfect.tensor())
	for i := range got[0] {
		if d := math.Abs(float64(got[0][i] - got[1][i])); d > 1e-5 {
			t.Errorf("row %d: smoothed %g, soft %g", i, got[0][i], got[1][i])
		}
		if d := math.Abs(float64(got[2][i]) - entropy); d > 1e-6 {
			t.Errorf("row %d: a perfect prediction costs %g, want the entropy %g", i, got[2][i], entropy)
		}
	}
}

// TestTokenLoss: the mean counts rows with a label only, and is 0 without any.
func TestTokenLoss(t *testing.T) {
	x := normal(1, 0, 2, 2, 3, classes)
	for _, labels := range [][]int32{
		{3, 0, 1, 4, 0, 2}, {-100, 0, -100, 4, 0, -100}, {-100, -100, -100, -100, 2, -100},
		{-100, -100, -100, -100, -100, -100},
	} {
		got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
			y := TokenLoss(in[0], Reshape(in[1], 2, 3))
			return []*Node{y, Gradient(y, in[0])[0]}
		}, x.tensor(), int32s(labels...))
		host := func(v []float64) []float64 {
			var sum, count float64
			for i, label := range labels {
				if label >= 0 {
					target := smoothTarget([]int32{label}, classes, 0)
					sum += hostCrossEntropy(v[i*classes:(i+1)*classes], target, classes)[0]
					count++
				}
			}
			return []float64{sum / max(count, 1)}
		}
		near(t, "loss", got[0], host(x.wide()), 1e-6)
		near(t, "gradient", got[1], slope(host, x.wide()), 1e-6)
	}
}

func TestNextLabels(t *testing.T) {
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		return []*Node{Float32(NextLabels(Reshape(in[0], 2, 3)))}
	}, int32s(5, 6, -100, 1, 2, 3))
	near(t, "labels", got[0], []float64{6, -100, -100, 2, 3, -100}, 0)
}
