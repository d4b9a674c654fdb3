package trainer

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// halfTask is a toy that counts as float16, cut into parts.
func halfTask(parts int) Task {
	task := partsTask(parts, 0)
	task.Compute = dtypes.Float16
	return task
}

// TestLossScale: gradients are divided by the scale before norm and clipping, so that nothing but the range of numbers
// depends on it; powers of two change no bit. Without float16 there is no scale.
func TestLossScale(t *testing.T) {
	train := func(task Task, scale LossScale) (map[string][]float32, Result) {
		a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.1, GradClip: 0.4, LossScale: scale}
		store := toyStore(t)
		s := newStep(t, store, task, a, 1)
		var r Result
		for step := range 3 {
			r = runToy(t, s, step, 0.05, newToyBatch(step))
		}
		return bits(t, store), r
	}
	for _, parts := range []int{1, 2} {
		want, result := train(partsTask(parts, 0), LossScale{Dynamic: true})
		for name, scale := range map[string]LossScale{"none": {}, "1024": {Value: 1024}, "dynamic": {Dynamic: true},
			"dynamic from 4": {Dynamic: true, Value: 4}} {
			got, r := train(halfTask(parts), scale)
			sameBits(t, name, got, want)
			if r.Loss != result.Loss || r.GradNorm != result.GradNorm {
				t.Errorf("%s: %+v, without a scale %+v", name, r, result)
			}
		}
	}
}

// overflowing is a task in float16 whose gradient is x times the scale, in float16.
func overflowing() Task {
	return Task{Params: []model.Param{{Name: "w", Shape: []int{2}, Init: model.Constant(1)}}, Compute: dtypes.Float16,
		Loss: func(scope *mlx.Scope, in []*Node, _ *nn.RNG) (*Node, []*Node) {
			w := nn.Cast(scope.GetVariable("w").NodeValue(in[0].Graph()), dtypes.Float16)
			return ReduceAllSum(nn.Float32(Mul(w, nn.Cast(in[0], dtypes.Float16)))), nil
		}}
}

// TestDynamicLossScale: gradients that leave the range of float16 skip the step and halve the scale until they fit.
func TestDynamicLossScale(t *testing.T) {
	store := mlx.NewStore()
	if err := model.Initialize(store, overflowing().Params, 1); err != nil {
		t.Fatal(err)
	}
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, LossScale: LossScale{Dynamic: true}}
	s := newStep(t, store, overflowing(), a, 1)
	x := tensors.FromFlatDataAndDimensions([]float32{3, 4}, 2) // 4·16384 is more than 65504
	for step, want := range []struct {
		scale   float64
		applied bool
	}{{65536, false}, {32768, false}, {16384, false}, {8192, true}, {8192, true}} {
		if s.LossScale() != want.scale {
			t.Errorf("step %d: scale %g, want %g", step, s.LossScale(), want.scale)
		}
		r, err := s.Run(step, 0.1, []*tensors.Tensor{x})
		if err != nil {
			t.Fatal(err)
		}
		if r.Applied != want.applied || r.Applied && r.GradNorm != 5 {
			t.Errorf("step %d: %+v, want applied %v and norm 5", step, r, want.applied)
		}
	}
	if got, want := s.Progress(), (Progress{Skipped: 3, LossScale: 8192, GoodSteps: 2}); got != want {
		t.Errorf("progress %+v, want %+v", got, want)
	}
	// The first update that is applied is Adam's first: |Δw| = lr, whatever was skipped before.
	if w := bits(t, store)["/w"][0]; math.Abs(float64(w)-0.8) > 1e-6 {
		t.Errorf("w is %g after two updates, want 0.8", w)
	}
}

// TestScaleGrows: 2000 good steps in a row double it; a skipped one starts the count again.
func TestScaleGrows(t *testing.T) {
	scale := LossScale{Dynamic: true}
	var p Progress
	for range growthInterval - 1 {
		p.count(true, scale, true)
	}
	if p.scale(scale) != firstScale {
		t.Errorf("scale %g after 1999 steps", p.scale(scale))
	}
	p.count(true, scale, true)
	if p.scale(scale) != 2*firstScale || p.GoodSteps != 0 {
		t.Errorf("%+v after 2000 steps", p)
	}
	p.count(true, scale, true)
	p.count(false, scale, true)
	if want := (Progress{Skipped: 1, SkippedInARow: 1, LossScale: firstScale}); p != want {
		t.Errorf("%+v, want %+v", p, want)
	}
	p = Progress{LossScale: math.MaxFloat32, GoodSteps: growthInterval - 1}
	if p.count(true, scale, true); p.LossScale != math.MaxFloat32 {
		t.Errorf("the scale grew to %g, which is not in float32", p.LossScale)
	}
	for name, fixed := range map[string]LossScale{"fixed": {Value: 8}, "none": {}} {
		p = Progress{}
		p.count(false, fixed, true)
		if p.LossScale != 0 || p.scale(fixed) != max(fixed.Value, 1) {
			t.Errorf("%s: %+v", name, p)
		}
	}
	for _, bad := range []float64{-1, math.NaN(), math.Inf(1), 1e39} {
		if (LossScale{Value: bad}).Validate() == nil {
			t.Errorf("a scale of %g is accepted", bad)
		}
	}
}

// TestProgressIsKept: what a step remembers survives the way through a checkpoint, a run that skipped nothing writes
// nothing of it, and older checkpoints read as such a run.
func TestProgressIsKept(t *testing.T) {
	plain, err := json.Marshal(toyState())
	if err != nil || strings.Contains(string(plain), "progress") {
		t.Errorf("%s, error %v", plain, err)
	}
	var older State
	if err := json.Unmarshal(plain, &older); err != nil || older != toyState() {
		t.Errorf("%+v, error %v", older, err)
	}
	state := toyState()
	state.Progress = Progress{Skipped: 5, SkippedInARow: 2, LossScale: 0.1, GoodSteps: 7}
	text, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	var again State
	if err := json.Unmarshal(text, &again); err != nil || again != state {
		t.Errorf("%+v, want %+v, error %v", again, state, err)
	}
	s := newStep(t, toyStore(t), halfTask(1), AdamW{LossScale: LossScale{Dynamic: true}}, 1)
	if err := s.Resume(again.Progress); err != nil || s.Progress() != again.Progress || s.LossScale() != 0.1 {
		t.Errorf("%+v, scale %g, error %v", s.Progress(), s.LossScale(), err)
	}
	if s.Resume(Progress{Skipped: -1}) == nil || s.Resume(Progress{LossScale: math.NaN()}) == nil {
		t.Error("a damaged state was accepted")
	}
}

// TestResumeOfScale: a run that is broken off while its scale moves goes on bit for bit.
func TestResumeOfScale(t *testing.T) {
	a := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, LossScale: LossScale{Dynamic: true}}
	batch := func(step int) toyBatch {
		b := newToyBatch(step)
		if step%3 == 1 {
			b.a = 0 // the gradient is not a number
		}
		return b
	}
	run := func(s *Step, from, to int) {
		for step := from; step < to; step++ {
			runToy(t, s, step, 0.01, batch(step))
		}
	}
	whole := toyStore(t)
	once := newStep(t, whole, halfTask(1), a, 1)
	run(once, 0, 8)
	broken, backend := toyStore(t), openGo(t)
	half := func() *Step {
		s, err := NewStep(backend, broken, halfTask(1), a, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	first := half()
	run(first, 0, 5)
	second := half()
	if err := second.Resume(first.Progress()); err != nil {
		t.Fatal(err)
	}
	run(second, 5, 8)
	sameBits(t, "after the break", bits(t, broken), bits(t, whole))
	if once.Progress() != second.Progress() {
		t.Errorf("progress %+v, without a break %+v", second.Progress(), once.Progress())
	}
}

// TestSkippedInARowIsKept: a resumed run counts on where the one before it was.
func TestSkippedInARowIsKept(t *testing.T) {
	r := newRecorder(t, 5, 1, 0)
	r.poison = func(int) bool { return true }
	if err := r.loop.Step.Resume(Progress{Skipped: 3, SkippedInARow: 3}); err != nil {
		t.Fatal(err)
	}
	_, err := r.loop.Run(t.Context())
	if !errors.Is(err, ErrDiverged) || !strings.Contains(err.Error(), "4 steps in a row") {
		t.Errorf("error %v, want one after the fourth step in a row", err)
	}
	if len(r.results) != 1 {
		t.Errorf("%d steps were made, want 1", len(r.results))
	}
}
