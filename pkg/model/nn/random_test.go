package nn

import (
	"math"
	"slices"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
)

// TestNoDropout: evaluation must not even add nodes.
func TestNoDropout(t *testing.T) {
	run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		var none *RNG
		if none.Dropout(in[0], 0.5) != in[0] || NewRNG(in[1]).Dropout(in[0], 0) != in[0] {
			t.Error("without generator or rate, dropout is not the identity")
		}
		return []*Node{OnePlus(in[0])}
	}, normal(1, 0, 1, 3).tensor(), randomState(t, 1))
}

func TestDropout(t *testing.T) {
	const n, rate = 20000, 0.2
	x := normal(1, 5, 1, 10, n/10) // never 0
	draw := func(seed int64) [][]float32 {
		return run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
			rng := NewRNG(in[1])
			first, second := rng.Dropout(in[0], rate), rng.Dropout(in[0], rate)
			return append([]*Node{first, second}, Gradient(ReduceAllSum(first), in[0])...)
		}, x.tensor(), randomState(t, seed))
	}
	got := draw(7)
	kept, both := 0, 0
	for i, v := range x.values {
		first, second, grad := got[0][i], got[1][i], got[2][i]
		if first != 0 {
			kept++
			if second != 0 {
				both++
			}
			if math.Abs(float64(first/v-1/(1-rate))) > 1e-6 || math.Abs(float64(grad-1/(1-rate))) > 1e-6 {
				t.Fatalf("%g is kept as %g with gradient %g, want it scaled by %g", v, first, grad, 1/(1-rate))
			}
		} else if grad != 0 {
			t.Fatalf("a dropped element has gradient %g", grad)
		}
	}
	within(t, "share kept", float64(kept)/n, 1-rate, rate*(1-rate), n)
	within(t, "share kept by both of two calls", float64(both)/n, (1-rate)*(1-rate), 0.64*0.36, n)
	if slices.Equal(got[0], got[1]) {
		t.Error("two calls drop the same elements")
	}
	if again := draw(7); !slices.Equal(got[0], again[0]) || !slices.Equal(got[1], again[1]) {
		t.Error("the same state draws differently")
	}
	if other := draw(8); slices.Equal(got[0], other[0]) {
		t.Error("another state draws the same")
	}
}

// within checks a mean of n draws of the given variance, five standard errors wide.
func within(t *testing.T, name string, got, want, variance float64, n int) {
	t.Helper()
	if sd := math.Sqrt(variance / float64(n)); !(math.Abs(got-want) <= 5*sd) {
		t.Errorf("%s is %g, want %g ± %.2g", name, got, want, 5*sd)
	}
}

func TestUniformAndGumbel(t *testing.T) {
	const n = 20000
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		rng := NewRNG(in[0])
		return []*Node{rng.Uniform(in[0].Graph(), 2, n/2), rng.Gumbel(in[0].Graph(), n)}
	}, randomState(t, 3))
	var mean, square, gumbel, spread float64
	for i, u := range got[0] {
		if u < 0 || u >= 1 {
			t.Fatalf("uniform draw %g", u)
		}
		mean += float64(u) / n
		square += float64(u) * float64(u) / n
		v := float64(got[1][i])
		if math.IsNaN(v) || math.IsInf(v, 0) {
			t.Fatalf("Gumbel draw %g", v)
		}
		gumbel += v / n
		spread += v * v / n
	}
	within(t, "mean of uniform draws", mean, 0.5, 1.0/12, n)
	within(t, "mean square of uniform draws", square, 1.0/3, 4.0/45, n)
	const euler, variance = 0.5772156649, math.Pi * math.Pi / 6
	within(t, "mean of Gumbel draws", gumbel, euler, variance, n)
	// The fourth moment about 0 of the standard Gumbel distribution is 23.56.
	within(t, "mean square of Gumbel draws", spread, variance+euler*euler, 23.56-math.Pow(variance+euler*euler, 2), n)
}

// TestUniformOnXLA: the draws that XLA makes are spread evenly, neighbours and draws of other calls and states are
// independent.
func TestUniformOnXLA(t *testing.T) {
	const n, buckets = 1 << 20, 1024
	backend := graphtest.OpenXLA(t)
	draw := func(seed int64) (a, b []float32) {
		got := graphtest.Run(t, backend, model.NewStore(), func(_ *model.Scope, in []*Node) []*Node {
			rng := NewRNG(in[0])
			return []*Node{rng.Uniform(in[0].Graph(), 4, 64, n/256), rng.Uniform(in[0].Graph(), n)}
		}, randomState(t, seed))
		return got[0], got[1]
	}
	correlation := func(name string, a, b []float32) {
		sum := 0.0
		for i := range b {
			sum += (float64(a[i]) - 0.5) * (float64(b[i]) - 0.5) * 12
		}
		within(t, name, sum/float64(len(b)), 0, 1, len(b))
	}
	var before []float32
	for seed := int64(1); seed <= 4; seed++ {
		first, second := draw(seed)
		var counts [buckets]float64
		for _, u := range first {
			if u < 0 || u >= 1 {
				t.Fatalf("uniform draw %g", u)
			}
			counts[int(u*buckets)]++
		}
		chi := 0.0
		for _, c := range counts {
			chi += (c - n/buckets) * (c - n/buckets) / (n / buckets)
		}
		if limit := buckets - 1 + 5*math.Sqrt(2*(buckets-1)); chi > limit {
			t.Errorf("state %d: χ² of the distribution is %g, above %g", seed, chi, limit)
		}
		for _, lag := range []int{1, 2, 64, n / 256, n / 4} {
			correlation("correlation of neighbours", first, first[lag:])
		}
		correlation("correlation of two calls", first, second)
		if before != nil {
			correlation("correlation of two states", first, before)
		}
		before = first
	}
}

// TestCheckpointedDropout: in a checkpointed stretch, the backward pass draws the same numbers a second time.
func TestCheckpointedDropout(t *testing.T) {
	draws := func(n *Node) (count int) {
		for _, n := range graphtest.Behind(n) {
			if n.Type() == NodeTypeRNGBitGenerator {
				count++
			}
		}
		return count
	}
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		var outputs []*Node
		for _, repeat := range []bool{false, true} {
			x, rng := in[0], NewRNG(in[1])
			if repeat {
				x = x.Checkpoint()
				rng.Checkpoint()
			}
			x = rng.Dropout(Square(rng.Dropout(x, 0.5)), 0.5)
			if repeat {
				x = x.StopCheckpoint()
				rng.StopCheckpoint()
			}
			y := rng.Dropout(x, 0.2)
			grad := Gradient(ReduceAllSum(y), in[0])[0]
			if n := draws(grad); (n > 3) != repeat {
				t.Errorf("with checkpoint %t, the gradient draws %d times", repeat, n)
			}
			outputs = append(outputs, y, grad)
		}
		return outputs
	}, normal(1, 0, 1, 100).tensor(), randomState(t, 2))
	if !slices.Equal(got[0], got[2]) || !slices.Equal(got[1], got[3]) {
		t.Error("a checkpoint changes what is drawn")
	}
	var none *RNG
	none.Checkpoint()
	none.StopCheckpoint()
}
