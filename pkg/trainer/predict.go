package trainer

import (
	"errors"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/device"
	"blip2/pkg/footprint"
	"blip2/pkg/model"
)

// Frozen are tensors that are not trained, and how they are stored.
type Frozen struct {
	Params []model.Param
	DType  dtypes.DType
}

// Memory is what a step takes on a device, in bytes.
type Memory struct {
	Weights      int64 `json:"weights"`      // trained ones, float32
	Frozen       int64 `json:"frozen"`       // weights that are not trained, as they are stored
	Optimizer    int64 `json:"optimizer"`    // both moments
	Accumulators int64 `json:"accumulators"` // sums of gradients over micro-batches; 0 without
	Gradients    int64 `json:"gradients"`    // of the micro-batch at hand
	Activations  int64 `json:"activations"`  // what else lives at the peak: activations and workspace
	Batch        int64 `json:"batch"`        // the inputs
}

// Total is all of it.
func (m Memory) Total() int64 {
	return m.Weights + m.Frozen + m.Optimizer + m.Accumulators + m.Gradients + m.Activations + m.Batch
}

// Predict says what a step takes on a batch (or micro-batch) of tensors of the given shapes, from its graph: no tensor
// is made, and nothing is compiled. All values of the graph are those of one device.
func Predict(backend compute.Backend, task Task, optimizer AdamW, frozen []Frozen, batch []shapes.Shape) (
	m Memory, err error) {
	var p footprint.Prediction
	err = withGraph(backend, task, optimizer, frozen, batch, func(results []*Node) error {
		p = footprint.Of(results)
		return nil
	})
	if err != nil {
		return m, err
	}
	m = state(task, frozen, batch)
	// At the end all gradients live; the peak of what lives may lie earlier, when few of them do.
	m.Gradients = min(m.Weights, p.Peak)
	m.Activations = p.Peak - m.Gradients
	return m, nil
}

// state is what lies in memory between two steps, and the batch.
func state(task Task, frozen []Frozen, batch []shapes.Shape) Memory {
	var m Memory
	m.Weights = 4 * int64(model.Count(task.Params))
	m.Optimizer = 2 * m.Weights
	if task.parts() > 1 {
		m.Accumulators = m.Weights
	}
	for _, f := range frozen {
		m.Frozen += int64(model.Count(f.Params)) * int64(f.DType.Size())
	}
	for _, s := range batch {
		m.Batch += int64(s.Size()) * int64(s.DType.Size())
	}
	return m
}

// ErrNoFigures says that a backend does not tell how much memory a program takes.
var ErrNoFigures = errors.New("only XLA says how much memory a compiled program takes")

// Compiled compiles the step that Predict predicts and returns XLA's own figure for what it takes, in bytes: inputs and
// temporary memory. New values are written over the old ones, as in training.
func Compiled(backend compute.Backend, task Task, optimizer AdamW, frozen []Frozen, batch []shapes.Shape) (
	total int64, err error) {
	err = withGraph(backend, task, optimizer, frozen, batch, func(results []*Node) error {
		g := results[0].Graph()
		if err := g.Compile(results...); err != nil {
			return err
		}
		m, ok := device.ProgramMemoryOf(g.Executable())
		if !ok {
			return ErrNoFigures
		}
		total = m.Inputs + m.Temporary
		return nil
	})
	return total, err
}

// withGraph builds the graph of a whole step over variables without values and hands on its results: the report and the
// new values of the variables.
func withGraph(backend compute.Backend, task Task, optimizer AdamW, frozen []Frozen, batch []shapes.Shape,
	f func(results []*Node) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("building the step's graph: %v", p)
		}
	}()
	store := mlx.NewStore()
	defer store.Finalize()
	if err := declare(store, task, frozen); err != nil {
		return err
	}
	random, err := RNGStateFromSeed(1)
	if err != nil {
		return err
	}
	defer random.MustFinalizeAll()
	g := NewGraph(backend, "plan")
	defer g.Finalize()
	inputs := []*Node{Parameter(g, "random", random.Shape()),
		Parameter(g, "host", shapes.Make(dtypes.Float32, hostScalars))}
	for i, s := range batch {
		inputs = append(inputs, Parameter(g, fmt.Sprintf("batch_%d", i), s))
	}
	s := &Step{task: task, optimizer: optimizer, backend: backend, store: store}
	results := s.wholeGraph(store.RootScope(), inputs)
	for v := range store.IterVariables() {
		if v.ChangedInGraph(g) {
			results = append(results, v.NodeValue(g))
		}
	}
	return f(results)
}

// declare makes the variables of a step, without values.
func declare(store *mlx.Store, task Task, frozen []Frozen) error {
	one := func(path string, p model.Param, dtype dtypes.DType) {
		store.VariableWithShape(path, shapes.Make(dtype, p.Shape...), nil)
	}
	for _, p := range task.Params {
		one(model.Path(p.Name), p, dtypes.Float32)
		for _, folder := range []string{firstMoment, secondMoment} {
			one(folder+model.Path(p.Name), p, dtypes.Float32)
		}
	}
	for _, f := range frozen {
		for _, p := range f.Params {
			one(model.Path(p.Name), p, f.DType)
		}
		if err := model.SetTrainable(store, f.Params, false); err != nil {
			return err
		}
	}
	return nil
}
