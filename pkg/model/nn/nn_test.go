package nn

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"
)

// project is x·wᵀ + bias in float64, x [rows, in] and w [out, in].
func project(x, w, bias []float64, in int) []float64 {
	out := len(w) / in
	y := make([]float64, len(x)/in*out)
	for i := range y {
		row, column := i/out, i%out
		if bias != nil {
			y[i] = bias[column]
		}
		for k := range in {
			y[i] += x[row*in+k] * w[column*in+k]
		}
	}
	return y
}

func TestLinear(t *testing.T) {
	w, b := normal(1, 0, 1, 5, 4), normal(2, 0, 1, 5)
	for _, dims := range [][]int{{6, 4}, {2, 3, 4}, {1, 2, 3, 4}} {
		x := normal(3, 0, 1, dims...)
		var shapes [][]int
		got := run(t, map[string]array{"/a/weight": w, "/a/bias": b}, func(scope *model.Scope, in []*Node) []*Node {
			y := Linear(scope.At("a"), in[0])
			shapes = append(shapes, y.Shape().Dimensions)
			return []*Node{y, Project(in[0], Weight(scope.At("a"), "weight", in[0]))}
		}, x.tensor())
		if s := shapes[0]; len(s) != len(dims) || s[len(s)-1] != 5 || s[0] != dims[0] {
			t.Errorf("an input of shape %v gives %v", dims, s)
		}
		near(t, "linear", got[0], project(x.wide(), w.wide(), b.wide(), 4), 1e-6)
		near(t, "project", got[1], project(x.wide(), w.wide(), nil, 4), 1e-6)
	}
}

// TestMisfit: a tensor that is missing or does not fit is an error that names it, not a wrong number.
func TestMisfit(t *testing.T) {
	x := normal(1, 0, 1, 2, 4).tensor()
	w := map[string]array{"/a/b/weight": normal(1, 0, 1, 5, 3)}
	_, err := try(t, w, func(scope *model.Scope, in []*Node) []*Node {
		return []*Node{Linear(scope.At("a").At("c"), in[0])}
	}, x)
	if err == nil || !strings.Contains(err.Error(), "weight") || !strings.Contains(err.Error(), "/a/c") {
		t.Errorf("missing weight: error %v", err)
	}
	if _, err = try(t, w, func(scope *model.Scope, in []*Node) []*Node {
		return []*Node{Project(in[0], Weight(scope.At("a").At("b"), "weight", in[0]))}
	}, x); err == nil {
		t.Error("a weight [5, 3] was multiplied with rows of 4")
	}
}

// TestComputeType: weights follow the activations' dtype, float32 stays what it is.
func TestComputeType(t *testing.T) {
	run(t, map[string]array{"/weight": normal(1, 0, 1, 4)}, func(scope *model.Scope, in []*Node) []*Node {
		if Cast(in[0], dtypes.Float32) != in[0] || Float32(in[0]) != in[0] {
			t.Error("a cast to the same dtype adds a node")
		}
		x := Cast(in[0], dtypes.BFloat16)
		w := Weight(scope, "weight", x)
		if w.DType() != dtypes.BFloat16 {
			t.Errorf("weight used with bfloat16 has dtype %s", w.DType())
		}
		return []*Node{Float32(x), Float32(w)}
	}, normal(1, 0, 1, 4).tensor())
}

func hostLayerNorm(x, weight, bias []float64, eps float64) []float64 {
	n := len(weight)
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += n {
		var mean, variance float64
		for _, v := range x[r : r+n] {
			mean += v / float64(n)
		}
		for _, v := range x[r : r+n] {
			variance += (v - mean) * (v - mean) / float64(n)
		}
		for i, v := range x[r : r+n] {
			y[r+i] = (v-mean)/math.Sqrt(variance+eps)*weight[i] + bias[i]
		}
	}
	return y
}

func TestLayerNorm(t *testing.T) {
	const n = 7
	w, b := normal(1, 1, 0.5, n), normal(2, 0, 1, n)
	for _, c := range []struct {
		name      string
		x         array
		eps       float64
		tolerance float64
	}{
		{"plain", normal(3, 0.3, 1, 2, 3, n), 1e-12, 2e-6},
		{"far from zero", normal(4, 50, 1, 4, n), 1e-12, 2e-5},
		{"small variance", normal(5, 0, 1e-3, 4, n), 1e-6, 2e-6},
		{"variance below eps", normal(5, 0, 1e-3, 4, n), 1e-4, 2e-6},
		{"constant rows", normal(6, 3, 0, 2, n), 1e-6, 5e-4}, // √eps is 1e-3, the mean exact to 2e-7
	} {
		t.Run(c.name, func(t *testing.T) {
			vars := map[string]array{"/ln/weight": w, "/ln/bias": b}
			got := run(t, vars, func(scope *model.Scope, in []*Node) []*Node {
				y := LayerNorm(scope.At("ln"), in[0], c.eps)
				weight := scope.At("ln").GetVariable("weight").NodeValue(in[0].Graph())
				bias := scope.At("ln").GetVariable("bias").NodeValue(in[0].Graph())
				return append([]*Node{y}, Gradient(probe(y), in[0], weight, bias)...)
			}, c.x.tensor())
			x, wide, bias := c.x.wide(), w.wide(), b.wide()
			near(t, "value", got[0], hostLayerNorm(x, wide, bias, c.eps), c.tolerance)
			if c.name == "constant rows" {
				return // the derivative is that of a point, which differences do not show well
			}
			near(t, "gradient of x", got[1], slope(func(v []float64) []float64 {
				return hostLayerNorm(v, wide, bias, c.eps)
			}, x), 10*c.tolerance)
			near(t, "gradient of weight", got[2], slope(func(v []float64) []float64 {
				return hostLayerNorm(x, v, bias, c.eps)
			}, wide), 10*c.tolerance)
			near(t, "gradient of bias", got[3], slope(func(v []float64) []float64 {
				return hostLayerNorm(x, wide, v, c.eps)
			}, bias), 10*c.tolerance)
		})
	}
}

func hostRMSNorm(x, weight []float64, eps float64) []float64 {
	n := len(weight)
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += n {
		var square float64
		for _, v := range x[r : r+n] {
			square += v * v / float64(n)
		}
		for i, v := range x[r : r+n] {
			y[r+i] = v / math.Sqrt(square+eps) * weight[i]
		}
	}
	return y
}

func TestRMSNorm(t *testing.T) {
	const n = 7
	w := normal(1, 1, 0.5, n)
	for _, c := range []struct {
		name      string
		x         array
		eps       float64
		tolerance float64
	}{
		{"plain", normal(3, 0.3, 1, 2, 3, n), 1e-6, 2e-6},
		{"far from zero", normal(4, 50, 1, 4, n), 1e-6, 2e-6},
		{"below eps", normal(5, 0, 1e-3, 2, 2, 2, n), 1e-4, 2e-6},
		{"zero", normal(6, 0, 0, 2, n), 1e-6, 1e-5},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := run(t, map[string]array{"/norm/weight": w}, func(scope *model.Scope, in []*Node) []*Node {
				y := RMSNorm(scope.At("norm"), in[0], c.eps)
				weight := scope.At("norm").GetVariable("weight").NodeValue(in[0].Graph())
				return append([]*Node{y}, Gradient(probe(y), in[0], weight)...)
			}, c.x.tensor())
			x, wide := c.x.wide(), w.wide()
			near(t, "value", got[0], hostRMSNorm(x, wide, c.eps), c.tolerance)
			near(t, "gradient of x", got[1], slope(func(v []float64) []float64 {
				return hostRMSNorm(v, wide, c.eps)
			}, x), 10*c.tolerance)
			near(t, "gradient of weight", got[2], slope(func(v []float64) []float64 {
				return hostRMSNorm(x, v, c.eps)
			}, wide), 10*c.tolerance)
		})
	}
}

// TestEmbed: rows of the table, in the dtype that is asked for; gradients add up where an id repeats.
func TestEmbed(t *testing.T) {
	table := normal(1, 0, 1, 5, 3)
	ids := tensors.FromFlatDataAndDimensions([]int32{4, 0, 2, 4}, 2, 2)
	got := run(t, map[string]array{"/words/weight": table}, func(scope *model.Scope, in []*Node) []*Node {
		y := Embed(scope.At("words"), in[0], dtypes.Float32)
		y.AssertDims(2, 2, 3)
		half := Embed(scope.At("words"), in[0], dtypes.BFloat16)
		if half.DType() != dtypes.BFloat16 {
			t.Errorf("bfloat16 was asked for, %s came", half.DType())
		}
		weight := scope.At("words").GetVariable("weight").NodeValue(in[0].Graph())
		return []*Node{y, Gradient(ReduceAllSum(y), weight)[0]}
	}, ids)
	w := table.wide()
	near(t, "value", got[0], slices.Concat(w[12:15], w[0:3], w[6:9], w[12:15]), 0)
	near(t, "gradient", got[1], []float64{1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 2, 2, 2}, 0)
}

func hostUnit(x []float64, n int) []float64 {
	y := make([]float64, len(x))
	for r := 0; r < len(x); r += n {
		var sum float64
		for _, v := range x[r : r+n] {
			sum += v * v
		}
		for i, v := range x[r : r+n] {
			y[r+i] = v / max(math.Sqrt(sum), 1e-12)
		}
	}
	return y
}

func TestUnitNorm(t *testing.T) {
	x := normal(1, 0, 3, 2, 3, 5)
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		y := UnitNorm(in[0])
		return append([]*Node{y}, Gradient(probe(y), in[0])...)
	}, x.tensor())
	host := func(v []float64) []float64 { return hostUnit(v, 5) }
	near(t, "value", got[0], host(x.wide()), 1e-6)
	near(t, "gradient", got[1], slope(host, x.wide()), 1e-5)

	zero := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		y := UnitNorm(in[0])
		return append([]*Node{y}, Gradient(probe(y), in[0])...)
	}, array{[]int{1, 3}, []float32{0, 0, 0}}.tensor())
	near(t, "zero vector", zero[0], []float64{0, 0, 0}, 0)
	if g := float64(zero[1][0]); math.IsNaN(g) || math.IsInf(g, 0) {
		t.Errorf("the gradient at a zero vector is %g", g)
	}
}

func TestActivation(t *testing.T) {
	x := array{[]int{11}, []float32{-30, -8, -3, -1, -0.5, 0, 0.1, 1, 3, 8, 30}}
	for _, c := range []struct {
		kind Activation
		host func(x float64) float64
	}{
		{GELU, func(x float64) float64 { return x / 2 * math.Erfc(-x/math.Sqrt2) }},
		{QuickGELU, func(x float64) float64 { return x / (1 + math.Exp(-1.702*x)) }},
		{GELUNew, func(x float64) float64 {
			return x / 2 * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
		}},
	} {
		host := func(x []float64) []float64 {
			y := make([]float64, len(x))
			for i, v := range x {
				y[i] = c.host(v)
			}
			return y
		}
		got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
			y := c.kind.Apply(in[0])
			return append([]*Node{y}, Gradient(probe(y), in[0])...)
		}, x.tensor())
		for i, want := range host(x.wide()) {
			if d := math.Abs(float64(got[0][i]) - want); !(d <= 1e-6+1e-6*math.Abs(want)) {
				t.Errorf("%s(%g) = %g, want %g", c.kind, x.values[i], got[0][i], want)
			}
		}
		near(t, string(c.kind)+" gradient", got[1], slope(host, x.wide()), 2e-6)
	}
}

// TestReLU: at 0 the gradient is 0, as in PyTorch.
func TestReLU(t *testing.T) {
	x := array{[]int{5}, []float32{-3, -1e-30, 0, 1e-30, 7}}
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		y := ReLU.Apply(in[0])
		return append([]*Node{y}, Gradient(ReduceAllSum(MulScalar(y, 2)), in[0])...)
	}, x.tensor())
	near(t, "value", got[0], []float64{0, 0, 0, float64(x.values[3]), 7}, 0)
	near(t, "gradient", got[1], []float64{0, 0, 0, 2, 2}, 0)
}

// TestGELUNewInFloat16: the cube of 60 is out of float16's range.
func TestGELUNewInFloat16(t *testing.T) {
	x := array{[]int{4}, []float32{-60, -1, 1, 60}}
	got := run(t, nil, func(_ *model.Scope, in []*Node) []*Node {
		half := Cast(in[0], dtypes.Float16)
		y := GELUNew.Apply(half)
		if y.DType() != dtypes.Float16 {
			t.Errorf("float16 became %s", y.DType())
		}
		return []*Node{Float32(y), Gradient(ReduceAllSum(Float32(y)), in[0])[0]}
	}, x.tensor())
	near(t, "value", got[0], []float64{0, -0.1588, 0.8412, 60}, 1e-3)
	near(t, "gradient", got[1], []float64{0, -0.0830, 1.0830, 1}, 1e-3)
}

// TestUnknownActivation: graph building turns only panics of errors into errors; others leave it stuck.
func TestUnknownActivation(t *testing.T) {
	defer func() {
		r := recover()
		if err, ok := r.(error); !ok || !strings.Contains(err.Error(), "tanh") {
			t.Errorf("the panic is a %T, %v; want an error that names the activation", r, r)
		}
	}()
	Activation("tanh").Apply(nil)
}
