package trainer

import (
	"runtime/debug"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/internal/measure"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// TestStepWritesInPlace: on XLA a step's new parameters and moments take the places of the old ones. A second copy of
// them would be seen in the process's memory.
func TestStepWritesInPlace(t *testing.T) {
	backend := graphtest.OpenXLA(t)
	const side, steps = 2048, 4
	const size = 4 * side * side // bytes of the parameter, as of each moment
	task := Task{Params: []model.Param{{Name: "weight", Shape: []int{side, side}, Init: model.Normal(1)}},
		Loss: func(scope *mlx.Scope, in []*Node, _ *nn.RNG) (*Node, []*Node) {
			weight := scope.GetVariable("weight").NodeValue(in[0].Graph())
			return ReduceAllMean(Square(Mul(weight, in[0]))), nil
		}}
	store := mlx.NewStore()
	defer store.Finalize()
	if err := model.InitializeOn(backend, store, task.Params, 1); err != nil {
		t.Fatal(err)
	}
	step, err := NewStep(backend, store, task, AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer step.Close()
	for s := range steps {
		debug.FreeOSMemory()
		if err := measure.ResetPeakMemory(); err != nil {
			t.Skip("the peak of memory cannot be measured: ", err)
		}
		before := measure.MemoryNow().Total
		r, err := step.Run(s, 0.1, []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]float32{2}, 1, 1)})
		if err != nil || !r.Applied {
			t.Fatal(r, err)
		}
		// The first step compiles, too. The gradient and what it is made of may need as much as two variables; the new
		// values would need as much as three.
		if grown := int64(measure.PeakMemory()) - int64(before); s > 0 && grown > 5*size/2 {
			t.Errorf("step %d needs %d MiB beside its variables of 3 × %d MiB", s, grown>>20, size>>20)
		}
	}
}
