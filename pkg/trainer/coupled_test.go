package trainer

import (
	"fmt"
	"math"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// pairParams are a matrix and a factor that the coupled loss alone reads.
func pairParams() []model.Param {
	return []model.Param{{Name: "dense.weight", Shape: []int{2, 3}, Init: model.Normal(1)},
		{Name: "dense.bias", Shape: []int{2}, Init: model.Normal(1)}, {Name: "temp", Init: model.Constant(0.7)}}
}

// pairFeatures are the features of rows x [n, 3]: [n, 2].
func pairFeatures(scope *mlx.Scope, x *Node, rng *nn.RNG) *Node {
	return Tanh(nn.Linear(scope.At("dense"), rng.Dropout(x, 0)))
}

// pairLoss compares own rows with all: Σ (own·all)²/temp, over the square of all rows.
func pairLoss(scope *mlx.Scope, own, all *Node) *Node {
	temp := scope.GetVariable("temp").NodeValue(own.Graph())
	sum := ReduceAllSum(Square(Einsum("bf,af->ba", own, all)))
	n := float64(all.Shape().Dimensions[0])
	return MulScalar(Div(sum, temp), 1/(n*n))
}

// restLoss lets the features of rows see the pictures of other rows, each twice as large.
func restLoss(features, others *Node, all int) *Node {
	return MulScalar(ReduceAllSum(Mul(Sin(features), SliceAxis(others, 1, AxisRangeFromStart(2)))), 1/float64(all))
}

// pairTask is a loss whose rows see each other: as one batch, or in parts. Row b picks row 3·b+1 of n.
func pairTask(parts int, gathered bool) Task {
	stop := func(x *Node) *Node {
		if gathered {
			return x
		}
		return StopGradient(x)
	}
	picks := func(rows *Node, n int) *Node { return ModScalar(AddScalar(MulScalar(rows, 3), 1), int32(n)) }
	return Task{Params: pairParams(), Terms: []string{"pairs", "rest"}, MicroBatches: parts,
		Loss: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			f, n := pairFeatures(scope, in[0], rng), in[0].Shape().Dimensions[0]
			rows := Iota(in[0].Graph(), in[1].Shape(), 0)
			others := MulScalar(Gather(in[0], InsertAxes(picks(rows, n), -1)), 2)
			pairs, rest := pairLoss(scope, f, stop(f)), restLoss(f, others, n)
			return Add(pairs, rest), []*Node{pairs, rest}
		},
		Coupled: &Coupled{
			Gathered: gathered, Whole: []int{1},
			Inputs: []Source{{Tensor: 2, Pick: 0}, {Tensor: 0, Pick: OwnRows}},
			Features: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (features, kept []*Node) {
				return []*Node{pairFeatures(scope, in[0], rng)}, []*Node{MulScalar(in[0], 2)}
			},
			Couple: func(scope *mlx.Scope, c Coupling, _ *nn.RNG) (*Node, []*Node, []*Node) {
				loss := pairLoss(scope, c.Own[0], stop(c.All[0]))
				numbers := Gather(c.Whole[0], InsertAxes(c.Rows, -1)) // of the rows, as the batch has them
				return loss, []*Node{loss, ZerosLike(loss)}, []*Node{picks(numbers, c.Whole[0].Shape().Size())}
			},
			Loss: func(scope *mlx.Scope, _ *Node, in, whole []*Node, rng *nn.RNG) ([]*Node, *Node, []*Node) {
				f := pairFeatures(scope, in[1], rng)
				loss := restLoss(f, in[0], whole[0].Shape().Size())
				return []*Node{f}, loss, []*Node{ZerosLike(loss), loss}
			},
		}}
}

// pairBatch is a batch of 8 rows with their numbers.
func pairBatch(step int) []*tensors.Tensor {
	a, b := newToyBatch(step), newToyBatch(step+100)
	return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(append(a.x, b.x...), 8, 3),
		tensors.FromFlatDataAndDimensions([]int32{0, 1, 2, 3, 4, 5, 6, 7}, 8)}
}

// TestCoupled: steps by gradient caching are those of the whole batch, whether or not gradient flows into the gathered
// features.
func TestCoupled(t *testing.T) {
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-3, WeightDecay: 0.1, GradClip: 0.3}
	train := func(parts int, gathered bool) ([]Result, map[string][]float32, int) {
		store := mlx.NewStore()
		if err := model.Initialize(store, pairParams(), 1); err != nil {
			t.Fatal(err)
		}
		s := newStep(t, store, pairTask(parts, gathered), a, 1)
		var results []Result
		for step := range 4 {
			r, err := s.Run(step, 0.05, pairBatch(step))
			if err != nil {
				t.Fatal(err)
			}
			results = append(results, r)
		}
		return results, bits(t, store), s.Compilations()
	}
	near := func(name string, got, want float64) {
		t.Helper()
		if !(math.Abs(got-want) <= 1e-5*max(1, math.Abs(want))) {
			t.Errorf("%s is %.8g, want %.8g", name, got, want)
		}
	}
	var losses [2]float64
	for i, gathered := range []bool{false, true} {
		want, weights, _ := train(1, gathered)
		losses[i] = want[3].Loss
		for _, parts := range []int{2, 4, 8} {
			name := fmt.Sprintf("gathered %v, %d parts: ", gathered, parts)
			got, trained, programs := train(parts, gathered)
			if programs != 4 {
				t.Errorf("%s%d compiled programs, want 4", name, programs)
			}
			for step, r := range got {
				near(name+"loss", r.Loss, want[step].Loss)
				near(name+"norm", r.GradNorm, want[step].GradNorm)
				near(name+"pairs", r.Terms[0], want[step].Terms[0])
				near(name+"rest", r.Terms[1], want[step].Terms[1])
			}
			for path, values := range weights {
				for k, v := range values {
					near(name+path, float64(trained[path][k]), float64(v))
				}
			}
		}
	}
	if losses[0] == losses[1] {
		t.Error("gradient through the gathered features changes nothing")
	}
}

// TestCoupledNotFinite: features that are not numbers skip the step, and the next one is as if it had not been.
func TestCoupledNotFinite(t *testing.T) {
	store := mlx.NewStore()
	if err := model.Initialize(store, pairParams(), 1); err != nil {
		t.Fatal(err)
	}
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}
	s := newStep(t, store, pairTask(4, true), a, 1)
	before := bits(t, store)
	bad := pairBatch(0)
	tensors.MustMutableFlatData(bad[0], func(x []float32) { x[7] = float32(math.Inf(1)); x[8] = float32(math.NaN()) })
	if r, err := s.Run(0, 0.1, bad); err != nil || r.Applied {
		t.Errorf("%+v, error %v: the step was applied", r, err)
	}
	sameBits(t, "after the bad step", bits(t, store), before)
	if r, err := s.Run(1, 0.1, pairBatch(1)); err != nil || !r.Applied {
		t.Errorf("the step behind it: %+v, error %v", r, err)
	}
}
