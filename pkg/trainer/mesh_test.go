package trainer

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/checkpoint"
	"blip2/pkg/internal/graphtest"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// meshRows is a batch that 1, 2 and 4 devices can share, also in two micro-batches.
const meshRows = 16

// meshTask is toyTask with dropout and a number for every row in place of the scalar.
func meshTask(parts int) Task {
	task := toyTask(0.3)
	loss := task.Loss
	task.Loss = func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
		return loss(scope, []*Node{in[0], in[1], ReduceAllMean(in[2])}, rng)
	}
	task.MicroBatches = parts
	return task
}

func meshBatch(step int) []*tensors.Tensor {
	positive := graphtest.Normals(uint64(100+step), meshRows, 1)
	for i, v := range positive {
		positive[i] = float32(math.Abs(float64(v)))
	}
	return []*tensors.Tensor{
		tensors.FromFlatDataAndDimensions(graphtest.Normals(uint64(step), meshRows*3, 1), meshRows, 3),
		tensors.FromFlatDataAndDimensions(graphtest.Normals(uint64(50+step), meshRows*2, 1), meshRows, 2),
		tensors.FromFlatDataAndDimensions(positive, meshRows),
	}
}

// meshRun is a training on some devices.
type meshRun struct {
	store *mlx.Store
	step  *Step
}

func newMeshRun(t *testing.T, backend compute.Backend, devices, parts int) *meshRun {
	t.Helper()
	store := toyStore(t)
	t.Cleanup(store.Finalize)
	m, err := mesh.New(backend, devices)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Place(store, false); err != nil {
		t.Fatal(err)
	}
	optimizer := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.1, DecayRule: DecayDefault, GradClip: 1}
	step, err := NewStep(backend, store, meshTask(parts), optimizer, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(step.Close)
	return &meshRun{store, step}
}

// run makes the steps and returns their numbers.
func (r *meshRun) run(t *testing.T, from, to int) []float32 {
	t.Helper()
	var numbers []float32
	for i := from; i < to; i++ {
		result, err := r.step.Run(i, 0.01, meshBatch(i))
		if err != nil {
			t.Fatal(err)
		}
		if !result.Applied {
			t.Fatalf("step %d was not applied", i)
		}
		numbers = append(numbers, float32(result.Loss), float32(result.GradNorm))
		for _, term := range result.Terms {
			numbers = append(numbers, float32(term))
		}
	}
	return numbers
}

// save takes a checkpoint, writes it and reads it back.
func (r *meshRun) save(t *testing.T) *checkpoint.Loaded {
	t.Helper()
	return saved(t, takeToy(t, r.store))
}

// sameCheckpoint compares names, shapes and values.
func sameCheckpoint(t *testing.T, name string, got, want *checkpoint.Loaded) {
	t.Helper()
	if g, w := got.Model.Names(), want.Model.Names(); fmt.Sprint(g) != fmt.Sprint(w) {
		t.Errorf("%s: tensors %v, want %v", name, g, w)
	}
	for _, p := range toyParams() {
		for _, prefix := range []string{"", "m.", "v."} {
			from, to := got.Optimizer, want.Optimizer
			if prefix == "" {
				from, to = got.Model, want.Model
			}
			a, errA := from.Tensor(prefix + p.Name)
			b, errB := to.Tensor(prefix + p.Name)
			if errA != nil || errB != nil {
				t.Fatal(errA, errB)
			}
			if fmt.Sprint(a.Shape) != fmt.Sprint(p.Shape) {
				t.Errorf("%s: %s%s has shape %v", name, prefix, p.Name, a.Shape)
			}
			x, errX := a.Float32s()
			y, errY := b.Float32s()
			if errX != nil || errY != nil {
				t.Fatal(errX, errY)
			}
			graphtest.Same(t, name+": "+prefix+p.Name, x, y, 1e-5)
		}
	}
}

// TestDevicesEqualOne: 2 and 4 devices make the steps of one, dropout and micro-batches included, write the same
// checkpoints, and a run goes on with another number of devices as it would have without the change.
func TestDevicesEqualOne(t *testing.T) {
	backend := graphtest.OpenDevices(t, 4)
	const pause, end = 3, 5
	for _, parts := range []int{1, 2} {
		one := newMeshRun(t, backend, 1, parts)
		losses := one.run(t, 0, pause)
		paused := one.save(t)
		later := one.run(t, pause, end)
		last := one.save(t)
		for _, devices := range []int{2, 4} {
			name := fmt.Sprintf("%d devices, %d micro-batches", devices, parts)
			r := newMeshRun(t, backend, devices, parts)
			graphtest.Same(t, name+": losses", r.run(t, 0, pause), losses, 1e-5)
			sameCheckpoint(t, name, r.save(t), paused)

			up := newMeshRun(t, backend, devices, parts)
			if err := Restore(up.store, toyParams(), paused); err != nil {
				t.Fatal(err)
			}
			graphtest.Same(t, name+" after one: losses", up.run(t, pause, end), later, 1e-5)
			sameCheckpoint(t, name+" after one", up.save(t), last)

			down := newMeshRun(t, backend, 1, parts)
			if err := Restore(down.store, toyParams(), r.save(t)); err != nil {
				t.Fatal(err)
			}
			graphtest.Same(t, "one after "+name+": losses", down.run(t, pause, end), later, 1e-5)
		}
	}
}

// TestUnevenShares: a batch that the devices cannot share is refused before anything is compiled.
func TestUnevenShares(t *testing.T) {
	backend := graphtest.OpenDevices(t, 4)
	for _, tt := range []struct{ devices, parts int }{{3, 1}, {4, 8}} {
		r := newMeshRun(t, backend, tt.devices, tt.parts)
		_, err := r.step.Run(0, 0.01, meshBatch(0))
		want := fmt.Sprintf("16 rows in %d micro-batches cannot be shared evenly by %d devices", tt.parts, tt.devices)
		if err == nil || !strings.Contains(err.Error(), want) || r.step.Compilations() != 0 {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// TestNotFiniteOnDevices: a step with a gradient that is not a number changes nothing on any device.
func TestNotFiniteOnDevices(t *testing.T) {
	backend := graphtest.OpenDevices(t, 2)
	r := newMeshRun(t, backend, 2, 1)
	r.run(t, 0, 1)
	before := r.save(t)
	batch := meshBatch(1)
	batch[2] = tensors.FromFlatDataAndDimensions(make([]float32, meshRows), meshRows)
	result, err := r.step.Run(1, 0.01, batch)
	if err != nil || result.Applied {
		t.Fatalf("%+v, %v", result, err)
	}
	for _, p := range toyParams() {
		a, b := r.store.GetVariable(model.Path(p.Name)), before.Model
		values, err := mesh.Read[float32](r.store, a)
		if err != nil {
			t.Fatal(err)
		}
		saved, err := b.Tensor(p.Name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := saved.Float32s()
		if err != nil {
			t.Fatal(err)
		}
		graphtest.Same(t, p.Name, values, want, 0)
	}
}

// TestCoupledOnDevices: gradient caching on 2 devices makes the steps of one.
func TestCoupledOnDevices(t *testing.T) {
	backend := graphtest.OpenDevices(t, 2)
	train := func(devices int) (numbers []float32) {
		store := mlx.NewStore()
		t.Cleanup(store.Finalize)
		if err := model.Initialize(store, pairParams(), 1); err != nil {
			t.Fatal(err)
		}
		m, err := mesh.New(backend, devices)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Place(store, false); err != nil {
			t.Fatal(err)
		}
		step, err := NewStep(backend, store, pairTask(2, true), AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-3}, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(step.Close)
		for i := range 3 {
			r, err := step.Run(i, 0.05, pairBatch(i))
			if err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, float32(r.Loss), float32(r.GradNorm), float32(r.Terms[0]), float32(r.Terms[1]))
		}
		for _, p := range pairParams() {
			values, err := mesh.Read[float32](store, store.GetVariable(model.Path(p.Name)))
			if err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, values...)
		}
		return numbers
	}
	graphtest.Same(t, "on 2 devices", train(2), train(1), 1e-5)
}
