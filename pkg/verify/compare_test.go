package verify

import (
	"math"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/weights"
)

// outputsChecker expects the tensors x [2,3] of 0…5, n [2] int64 and s, a scalar.
func outputsChecker(t *testing.T) *checker {
	t.Helper()
	path := filepath.Join(t.TempDir(), outputsFile)
	err := weights.Write(path, []weights.Tensor{
		weights.FromFloat32("x", []int{2, 3}, []float32{0, 1, 2, 3, 4, 5}),
		weights.FromFloat32("s", nil, []float32{7}),
		weights.FromInt64("n", []int{2}, []int64{8, 9}),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	k := &checker{tol: tolerance{atol: 1e-3, rtol: 1e-2}}
	k.expect(f)
	return k
}

func TestChecker(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	good := func(k *checker) {
		k.tensor("x", tensors.FromFlatDataAndDimensions([]float32{0.0009, 1, 2, 3, 4, 5.05}, 2, 3))
		k.tensor("s", tensors.FromScalar(float32(7)))
		k.ints("n", []int{2}, []int64{8, 9})
	}
	x := func(shape []int, v ...float32) func(*checker) {
		return func(k *checker) { k.floats("x", shape, v) }
	}
	for _, c := range []struct {
		name string
		do   func(k *checker) // before the good results, in place of x where it gives one
		says string           // part of the error; empty: the case passes
	}{
		{"within tolerance", func(*checker) {}, ""},
		{"wrong value", x([]int{2, 3}, 0, 1, 2, 3.04, 4, 5), "x[1 0]"},
		{"wrong near zero", x([]int{2, 3}, 0.0011, 1, 2, 3, 4, 5), "x[0 0]"},
		{"not a number", x([]int{2, 3}, 0, 1, 2, 3, nan, 5), "x[1 1]"},
		{"infinite", x([]int{2, 3}, 0, 1, inf, 3, 4, 5), "x[0 2]"},
		{"wrong shape", x([]int{3, 2}, 0, 1, 2, 3, 4, 5), "shape [3 2]"},
		{"wrong rank", x([]int{6}, 0, 1, 2, 3, 4, 5), "shape [6]"},
		{"too few values", x([]int{2, 3}, 0, 1, 2), "3 values"},
		{"wrong dtype", func(k *checker) { k.tensor("x", tensors.FromScalar(int64(1))) }, "expected float32"},
		{"not recorded", func(k *checker) { k.floats("y", nil, []float32{1}) }, "y: there is no recorded output"},
		{"twice", func(k *checker) { k.floats("s", nil, []float32{7}) }, "compared twice"},
		{"wrong integer", func(k *checker) { k.ints("n", []int{2}, []int64{8, 10}) }, "n[1]"},
		{"floats for integers", func(k *checker) { k.floats("n", []int{2}, []float32{8, 9}) }, "dtype"},
		{"integers for floats", func(k *checker) { k.ints("s", nil, []int64{7}) }, "dtype"},
	} {
		k := outputsChecker(t)
		c.do(k)
		good(k)
		err := k.finish()
		if c.says == "" {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v does not say %q", c.name, err, c.says)
		}
	}
}

func TestCheckerWantsEveryOutput(t *testing.T) {
	k := outputsChecker(t)
	k.floats("s", nil, []float32{7})
	if err := k.finish(); err == nil || !strings.Contains(err.Error(), "x: recorded, but not compared") ||
		!strings.Contains(err.Error(), "n: recorded, but not compared") {
		t.Errorf("error %v does not name the outputs left over", err)
	}
	if err := (&checker{}).finish(); err == nil {
		t.Error("a case that compares nothing passes")
	}
}

func TestCheckerStatistics(t *testing.T) {
	k := &checker{tol: tolerance{atol: 1, rtol: 0.1}}
	compareFloats(k, "a", []int{2, 2}, []float32{0.5, 100, 10, -10}, []float32{0, 104, 10, -10})
	compareFloats(k, "b", nil, []float64{3}, []float64{3})
	if k.worstAbs != 4 || k.worstRel != 0.5 || k.share != 0.5 || k.worst != "a[0 0]" || k.compared != 2 {
		t.Errorf("got %+v", k)
	}
	if err := k.finish(); err != nil {
		t.Error(err)
	}
	exact := &checker{}
	compareFloats(exact, "c", []int{1}, []float64{0.3}, []float64{math.Nextafter(0.3, 1)})
	if err := exact.finish(); err == nil || exact.share <= 1 {
		t.Errorf("a tolerance of 0 lets a difference pass: %+v", exact)
	}
	both := &checker{}
	compareFloats(both, "d", []int{1}, []float64{math.NaN()}, []float64{math.NaN()})
	if both.finish() == nil || !math.IsInf(both.worstAbs, 1) {
		t.Error("NaN passes")
	}
}

func TestCheckerLimitsProblems(t *testing.T) {
	k := &checker{}
	for range 20 {
		k.problem("wrong")
	}
	if text := k.failure().Error(); strings.Count(text, "wrong") != maxProblems || !strings.Contains(text, "15 more") {
		t.Errorf("error %q", text)
	}
}
