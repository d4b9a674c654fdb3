package trainer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// Task is what a training stage hands to the trainer.
type Task struct {
	// Params lists the tensors that are trained.
	Params []model.Param
	// Terms names the loss terms that Loss returns beside the total, such as "loss_itc".
	Terms []string
	// Loss builds the loss of a batch: the scalar that is minimised and the scalars to report, all float32. It is
	// called while the step's graph is built, with the nodes of the batch in the order in which they are fed.
	Loss func(scope *mlx.Scope, batch []*Node, rng *nn.RNG) (loss *Node, terms []*Node)
}

// Step is a compiled training step: forward, backward and AdamW update in one program on the device.
type Step struct {
	task      Task
	optimizer AdamW
	seed      int64
	devices   int
	exec      *mesh.Exec
	compiled  time.Duration
}

// Result holds the numbers of one step.
type Result struct {
	Loss     float64
	Terms    []float64 // in the order of Task.Terms
	GradNorm float64   // global L2 norm before clipping
	Applied  bool      // false: loss or gradient was not finite, and no parameter was changed
}

// NewStep prepares the step; the store must hold all parameters, and be on its mesh if there is to be one (see package
// mesh). Nothing is compiled before the first Run.
func NewStep(backend compute.Backend, store *mlx.Store, task Task, optimizer AdamW, seed int64) (*Step, error) {
	if err := createSlots(store, task.Params); err != nil {
		return nil, err
	}
	if err := mesh.Settle(store); err != nil {
		return nil, fmt.Errorf("optimizer slots: %w", err)
	}
	s := &Step{task: task, optimizer: optimizer, seed: seed, devices: mesh.Of(store).Devices()}
	s.exec = mesh.NewExec(backend, store, "train step", s.graph)
	return s, nil
}

// graph builds the step: inputs are the random state, the host's scalars and the batch; the output is one vector of
// loss, gradient norm, applied flag and terms, so that one transfer brings everything to the host.
func (s *Step) graph(scope *mlx.Scope, inputs []*Node) []*Node {
	rng := nn.NewRNG(inputs[0])
	loss, terms := s.task.Loss(scope, inputs[2:], rng)
	norm, applied := s.optimizer.apply(scope.Store(), s.task.Params, loss, inputs[1])
	out := append([]*Node{loss, norm, ConvertDType(applied, dtypes.Float32)}, terms...)
	for i, x := range out {
		out[i] = Reshape(x, 1)
	}
	return []*Node{Concatenate(out, 0)}
}

// Run performs the step with the given index (from 0) at the given learning rate. Everything random in it is keyed
// by (seed, step).
func (s *Step) Run(step int, lr float64, batch []*tensors.Tensor) (Result, error) {
	state, err := RNGStateFromSeed(stepSeed(s.seed, step))
	if err != nil {
		return Result{}, fmt.Errorf("step %d: random state: %w", step, err)
	}
	scalars := tensors.FromFlatDataAndDimensions(s.optimizer.hostScalars(lr, step), 3)
	args := append([]*mesh.Value{mesh.Host(state), mesh.Host(scalars)}, mesh.HostAll(batch)...)
	fed := make([]any, 0, len(batch))
	for _, t := range batch {
		fed = append(fed, t.Shape())
	}
	if s.compiled == 0 {
		if err := s.checkShares(batch); err != nil {
			return Result{}, err
		}
		if err := s.compile(args); err != nil {
			return Result{}, err
		}
	}
	out, err := s.exec.Call(args...)
	if err != nil {
		return Result{}, fmt.Errorf("step %d on a batch of %v: %w", step, fed, err)
	}
	values, err := mesh.Copy[float32](out[0])
	if err := errors.Join(err, mesh.Free(out...)); err != nil {
		return Result{}, fmt.Errorf("step %d: reading the losses: %w", step, err)
	}
	r := Result{Loss: float64(values[0]), GradNorm: float64(values[1]), Applied: values[2] == 1}
	for _, v := range values[3:] {
		r.Terms = append(r.Terms, float64(v))
	}
	return r, nil
}

// checkShares refuses a batch whose rows do not make an equal share for each device.
func (s *Step) checkShares(batch []*tensors.Tensor) error {
	for _, t := range batch {
		if shape := t.Shape(); shape.Rank() > 0 && shape.Dimensions[0]%s.devices != 0 {
			return fmt.Errorf("a batch of %d rows cannot be shared evenly by %d devices: choose a multiple of %d, or "+
				"another number of devices", shape.Dimensions[0], s.devices, s.devices)
		}
	}
	return nil
}

// compile builds and compiles the step for the arguments' shapes and takes the time.
func (s *Step) compile(args []*mesh.Value) error {
	start := time.Now()
	if err := s.exec.Compile(args...); err != nil {
		return fmt.Errorf("compiling the training step: %w", err)
	}
	s.compiled = time.Since(start)
	return nil
}

// CompileTime returns how long building and compiling the step took; 0 before the first Run.
func (s *Step) CompileTime() time.Duration { return s.compiled }

// Close frees the compiled program.
func (s *Step) Close() { s.exec.Close() }

// stepSeed mixes seed and step into the seed of the step's random numbers. It is never 0, which would ask for a
// random one.
func stepSeed(seed int64, step int) int64 {
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, [2]int64{seed, int64(step)})
	return int64(h.Sum64() | 1)
}
