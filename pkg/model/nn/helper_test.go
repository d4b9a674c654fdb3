package nn

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// array is a float32 tensor in host memory, which a test feeds or keeps as a variable.
type array struct {
	dims   []int
	values []float32
}

func (a array) tensor() *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(a.values, a.dims...)
}

// wide returns the values in float64, for host computations.
func (a array) wide() []float64 {
	out := make([]float64, len(a.values))
	for i, v := range a.values {
		out[i] = float64(v)
	}
	return out
}

// normal draws an array from N(mean, std²), the same one for the same seed.
func normal(seed uint64, mean, std float64, dims ...int) array {
	rng := rand.New(rand.NewPCG(seed, 1))
	n := 1
	for _, d := range dims {
		n *= d
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(mean + std*rng.NormFloat64())
	}
	return array{dims, values}
}

type buildFn = func(scope *model.Scope, in []*Node) []*Node

// try runs the graph that build makes of the inputs on the Go backend.
func try(
	t *testing.T, variables map[string]array, build buildFn, inputs ...*tensors.Tensor,
) ([]*tensors.Tensor, error) {
	t.Helper()
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	store := model.NewStore()
	for path, a := range variables {
		if _, err := store.CreateVariable(path, a.tensor()); err != nil {
			t.Fatal(err)
		}
	}
	args := make([]any, len(inputs))
	for i, in := range inputs {
		args[i] = in
	}
	return model.CallOnceN(backend, store, build, args...)
}

// run is try for a graph that must work, with float32 outputs.
func run(t *testing.T, variables map[string]array, build buildFn, inputs ...*tensors.Tensor) [][]float32 {
	t.Helper()
	outputs, err := try(t, variables, build, inputs...)
	if err != nil {
		t.Fatal(err)
	}
	values := make([][]float32, len(outputs))
	for i, o := range outputs {
		if values[i], err = tensors.CopyFlatData[float32](o); err != nil {
			t.Fatal(err)
		}
	}
	return values
}

// probe weights the elements of y unevenly and sums them, so that the gradient of the sum shows every element.
func probe(y *Node) *Node {
	flat := Reshape(y, -1)
	return ReduceAllSum(Mul(flat, Cos(Iota(y.Graph(), flat.Shape(), 0))))
}

// hostProbe is probe on the host.
func hostProbe(y []float64) float64 {
	var sum float64
	for i, v := range y {
		sum += v * math.Cos(float64(i))
	}
	return sum
}

// slope is the gradient of hostProbe(f(x)) by central differences.
func slope(f func(x []float64) []float64, x []float64) []float64 {
	const h = 1e-6
	x = append([]float64{}, x...)
	out := make([]float64, len(x))
	for i, v := range x {
		x[i] = v + h
		up := hostProbe(f(x))
		x[i] = v - h
		out[i] = (up - hostProbe(f(x))) / (2 * h)
		x[i] = v
	}
	return out
}

// near compares with the largest magnitude of want (at least 1) as the unit of the tolerance.
func near(t *testing.T, name string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", name, len(got), len(want))
	}
	unit := 1.0
	for _, w := range want {
		unit = max(unit, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tolerance*unit) {
			t.Fatalf("%s[%d] = %g, want %g (difference %.2g)", name, i, got[i], w, d)
		}
	}
}

// randomState is the input from which NewRNG draws.
func randomState(t *testing.T, seed int64) *tensors.Tensor {
	t.Helper()
	state, err := RNGStateFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// int32s is a vector of labels.
func int32s(values ...int32) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, len(values))
}
