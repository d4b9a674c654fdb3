// Package graphtest helps to test graph functions: it fills stores, runs graphs on a backend and compares the results
// with numbers computed otherwise.
package graphtest

import (
	"math"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/device"
	"blip2/pkg/model"
)

// Open opens a backend for the test: go, xla:cpu and so on.
func Open(t *testing.T, name string) compute.Backend {
	t.Helper()
	backend, err := open(t, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	return backend
}

// OpenXLA opens the backend that BLIP2_TEST_BACKEND names, else XLA on the processor; without the plugin the test is
// skipped.
func OpenXLA(t *testing.T) compute.Backend {
	t.Helper()
	if name := os.Getenv("BLIP2_TEST_BACKEND"); name != "" && name != "go" {
		return Open(t, name)
	}
	backend, err := open(t, "xla:cpu", 0)
	if err != nil {
		t.Skipf("needs XLA on the processor: %v", err)
	}
	return backend
}

// OpenDevices opens XLA on the processor with n virtual devices; without the plugin the test is skipped.
func OpenDevices(t *testing.T, n int) compute.Backend {
	t.Helper()
	backend, err := open(t, "xla:cpu", n)
	if err != nil {
		t.Skipf("needs XLA on the processor: %v", err)
	}
	return backend
}

func open(t *testing.T, name string, devices int) (compute.Backend, error) {
	exact := false
	d, err := device.Open(t.Context(), device.Options{Backend: name, Devices: devices, TF32: &exact})
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d.Backend, nil
}

// Normals returns n numbers from N(0, std²), the same for the same seed.
func Normals(seed uint64, n int, std float64) []float32 {
	rng := rand.New(rand.NewPCG(seed, 8))
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(std * rng.NormFloat64())
	}
	return out
}

// Store returns a store with the parameters at random: vectors from N(0, 0.3²), those of norms around 1, and matrices
// as wide as keeps what they multiply at its size, times spread.
func Store(t *testing.T, params []model.Param, spread float64) *mlx.Store {
	t.Helper()
	store := mlx.NewStore()
	for i, p := range params {
		std := 0.3
		if n := len(p.Shape); n > 1 {
			std = spread / math.Sqrt(float64(p.Shape[n-1]))
		}
		values := Normals(uint64(i), p.Size(), std)
		if strings.HasSuffix(p.Name, "norm.weight") {
			for k := range values {
				values[k]++
			}
		}
		if err := model.Set(store, p.Name, p.Shape, values); err != nil {
			t.Fatal(err)
		}
	}
	return store
}

// Values returns a store's tensors in float64 by name, for computations on the host.
func Values(t *testing.T, store *mlx.Store, params []model.Param) map[string][]float64 {
	t.Helper()
	values := map[string][]float64{}
	for _, p := range params {
		tensor, err := store.GetVariable(model.Path(p.Name)).Value()
		if err != nil {
			t.Fatal(err)
		}
		values[p.Name] = Wide(tensors.MustCopyFlatData[float32](tensor))
	}
	return values
}

// Wide converts to float64.
func Wide(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// Build makes outputs of the nodes of a graph's inputs; the scope is the root.
type Build = func(scope *mlx.Scope, in []*Node) []*Node

// Run evaluates a graph with the store's tensors. Outputs become float32.
func Run(t *testing.T, backend compute.Backend, store *mlx.Store, build Build, inputs ...any) [][]float32 {
	t.Helper()
	outputs := Tensors(t, backend, store, func(scope *mlx.Scope, in []*Node) []*Node {
		nodes := build(scope, in)
		for i, n := range nodes {
			nodes[i] = ConvertDType(n, dtypes.Float32)
		}
		return nodes
	}, inputs...)
	values := make([][]float32, len(outputs))
	for i, o := range outputs {
		values[i] = tensors.MustCopyFlatData[float32](o)
	}
	return values
}

// Tensors evaluates a graph with the store's tensors.
func Tensors(t *testing.T, backend compute.Backend, store *mlx.Store, build Build, inputs ...any) []*tensors.Tensor {
	t.Helper()
	outputs, err := mlx.CallOnceN(backend, store, build, inputs...)
	if err != nil {
		t.Fatal(err)
	}
	return outputs
}

// Near compares to the given part of the largest magnitude of want (at least of 1).
func Near(t *testing.T, name string, got []float32, want []float64, tolerance float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d values, want %d", name, len(got), len(want))
		return
	}
	unit := 1.0
	for _, w := range want {
		unit = max(unit, math.Abs(w))
	}
	for i, w := range want {
		if d := math.Abs(float64(got[i]) - w); !(d <= tolerance*unit) {
			t.Errorf("%s[%d] = %g, want %g (difference %.2g)", name, i, got[i], w, d)
			return
		}
	}
}

// Same compares two results of graphs as Near does.
func Same(t *testing.T, name string, got, want []float32, tolerance float64) {
	t.Helper()
	Near(t, name, got, Wide(want), tolerance)
}

// Probe weights the elements of all nodes unevenly and sums them, so that the gradient of the sum shows every element.
func Probe(nodes ...*Node) *Node {
	var flat []*Node
	for _, n := range nodes {
		flat = append(flat, Reshape(ConvertDType(n, dtypes.Float32), -1))
	}
	all := Concatenate(flat, 0)
	return ReduceAllSum(Mul(all, Cos(Iota(all.Graph(), all.Shape(), 0))))
}

// Behind returns all nodes that the given ones depend on, themselves included.
func Behind(nodes ...*Node) []*Node {
	seen := map[*Node]bool{}
	var all []*Node
	for len(nodes) > 0 {
		n := nodes[len(nodes)-1]
		nodes = nodes[:len(nodes)-1]
		if !seen[n] {
			seen[n] = true
			all = append(all, n)
			nodes = append(nodes, n.Inputs()...)
		}
	}
	return all
}

// FLOPs adds up the work of all matrix products that the nodes depend on, two operations per multiply-add.
func FLOPs(t *testing.T, nodes ...*Node) float64 {
	t.Helper()
	total := 0.0
	for _, n := range Behind(nodes...) {
		if n.Type() == NodeTypeDotGeneral {
			inner := 1
			for _, axis := range contractingAxes(t, n) {
				inner *= n.Inputs()[0].Shape().Dimensions[axis]
			}
			total += 2 * float64(n.Shape().Size()) * float64(inner)
		}
	}
	return total
}

var lhsContracting = regexp.MustCompile(`lhsContractingAxes=\[([0-9 ]*)\]`)

// contractingAxes are the axes of a product's first factor that are summed over; GoMLX tells them in text only.
func contractingAxes(t *testing.T, n *Node) []int {
	t.Helper()
	match := lhsContracting.FindStringSubmatch(n.String())
	if match == nil {
		t.Fatalf("no contracting axes in %s", n)
	}
	var axes []int
	for _, text := range strings.Fields(match[1]) {
		axis, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		axes = append(axes, axis)
	}
	return axes
}
