package nn_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// TestProject compares products, and the gradients of both factors, with sums in float64, on both backends and for
// sizes that are computed in different ways on XLA.
func TestProject(t *testing.T) {
	t.Run("go", func(t *testing.T) {
		for _, rows := range []int{1, 5, 70} {
			testProject(t, "go", dtypes.Float32, rows, 48)
		}
	})
	t.Run("xla", func(t *testing.T) {
		graphtest.OpenXLA(t)
		for _, dtype := range []dtypes.DType{dtypes.Float32, dtypes.BFloat16, dtypes.Float16} {
			for _, rows := range []int{1, 2, 5, 33, 64, 65} {
				testProject(t, "xla", dtype, rows, 48)
			}
			for _, rows := range []int{5, 32, 40} {
				testProject(t, "xla", dtype, rows, 2048)
			}
		}
	})
}

func testProject(t *testing.T, backend string, dtype dtypes.DType, rows, in int) {
	t.Helper()
	const out = 33
	x, w := graphtest.Normals(1, rows*in, 1), graphtest.Normals(2, out*in, 1)
	for _, list := range [][]float32{x, w} { // numbers that all types have, so that only results are rounded
		for i, v := range list {
			list[i] = float32(math.Round(float64(v)*16) / 16)
		}
	}
	store := mlx.NewStore()
	if err := model.Set(store, "w", []int{out, in}, w); err != nil {
		t.Fatal(err)
	}
	open := graphtest.Open(t, "go")
	if backend != "go" {
		open = graphtest.OpenXLA(t)
	}
	got := graphtest.Run(t, open, store, func(scope *mlx.Scope, nodes []*Node) []*Node {
		x, w := nn.Cast(nodes[0], dtype), scope.GetVariable("w").NodeValue(nodes[0].Graph())
		y := nn.Project(x, nn.Cast(w, dtype))
		y.AssertDims(rows, out)
		if y.DType() != dtype {
			t.Errorf("the product of %s is %s", dtype, y.DType())
		}
		// Adjoints of 1 are exact in every type, so the gradients are sums of the other factor.
		gradients := Gradient(ReduceAllSum(nn.Float32(y)), nodes[0], w)
		return append([]*Node{y}, gradients...)
	}, tensors.FromFlatDataAndDimensions(x, rows, in))

	y, dx, dw := make([]float64, rows*out), make([]float64, rows*in), make([]float64, out*in)
	for r := range rows {
		for o := range out {
			for i := range in {
				y[r*out+o] += float64(x[r*in+i]) * float64(w[o*in+i])
				dx[r*in+i] += float64(w[o*in+i])
				dw[o*in+i] += float64(x[r*in+i])
			}
		}
	}
	tolerance := map[dtypes.DType]float64{dtypes.Float32: 1e-6, dtypes.BFloat16: 0x1p-8, dtypes.Float16: 0x1p-11}[dtype]
	name := fmt.Sprintf("%s, %s, %d rows of %d: ", backend, dtype, rows, in)
	graphtest.Near(t, name+"product", got[0], y, tolerance)
	graphtest.Near(t, name+"gradient of x", got[1], dx, tolerance)
	graphtest.Near(t, name+"gradient of w", got[2], dw, tolerance)
}
