package trainer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

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

	// MicroBatches is in how many equal parts a batch is cut, along the first axis of all its tensors; the device holds
	// one at a time. The loss is the mean of Loss over the parts, or that of Coupled. 0 means 1.
	MicroBatches int
	// Coupled, if not nil, is the form of the loss for more than one part in which the parts see each other.
	Coupled *Coupled
	// Depth is how many times AdamW.LayerDecay applies to a parameter by the given decay rule; nil means to none.
	Depth func(rule, name string) int
	// Compute is the type of activations. In float16 the loss is scaled by AdamW.LossScale.
	Compute dtypes.DType
}

// parts is the number of micro-batches.
func (t Task) parts() int { return max(t.MicroBatches, 1) }

func (t Task) depth(rule string, p model.Param) int {
	if t.Depth == nil {
		return 0
	}
	return t.Depth(rule, p.Name)
}

// scaling says whether the loss is scaled.
func (t Task) scaling() bool { return t.Compute == dtypes.Float16 }

// Step is a compiled training step: forward, backward and AdamW update on the device. Of a batch that is not cut it is
// one program; else gradients add up in float32 variables on the device, one micro-batch after the other, and a last
// program makes the update.
type Step struct {
	task      Task
	optimizer AdamW
	seed      int64
	backend   compute.Backend
	store     *mlx.Store
	progress  Progress
	programs  []*program

	whole    *program // forward, backward and update of a batch that is not cut
	part     *program // adds a micro-batch's gradients
	update   *program // makes the update by what was added
	features *program // of the micro-batch
	couple   *program // the coupled loss of the micro-batch's rows
	kept     hostRows // what the passes over micro-batches leave for the following ones
	summed   []bool   // by parameter: a program over micro-batches adds up its gradients
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
	if err := optimizer.LossScale.Validate(); err != nil {
		return nil, err
	}
	if err := createSlots(backend, store, task.Params, firstMoment, secondMoment); err != nil {
		return nil, err
	}
	s := &Step{task: task, optimizer: optimizer, seed: seed, backend: backend, store: store}
	if err := s.build(); err != nil {
		return nil, err
	}
	return s, nil
}

// build makes the programs that the task needs.
func (s *Step) build() error {
	if s.task.parts() == 1 {
		s.whole = s.newProgram("train step", s.wholeGraph)
		return nil
	}
	if err := createAccumulators(s.backend, s.store, s.task); err != nil {
		return err
	}
	s.update = s.newProgram("optimizer update", s.updateGraph)
	if s.task.Coupled == nil {
		s.part = s.newProgram("gradients of a micro-batch", s.partGraph)
		return nil
	}
	s.features = s.newProgram("features of a micro-batch", s.featuresGraph)
	s.couple = s.newProgram("loss over the batch", s.coupleGraph)
	s.part = s.newProgram("gradients of a micro-batch", s.coupledPartGraph)
	return nil
}

// wholeGraph builds the step of a batch that is not cut: inputs are the random state, the host's numbers and the batch;
// the output is the vector that Run reads, so that one transfer brings everything to the host.
func (s *Step) wholeGraph(scope *mlx.Scope, inputs []*Node) []*Node {
	host := inputs[1]
	loss, terms := s.task.Loss(scope, inputs[2:], nn.NewRNG(inputs[0]))
	learned := s.learned(loss)
	grads := make([]*Node, len(s.task.Params))
	for i, grad := range Gradient(s.scaleUp(loss, host), s.values(loss.Graph(), learned)...) {
		grads[learned[i]] = s.scaleDown(grad, host)
	}
	norm, applied := s.optimizer.update(scope.Store(), s.task, loss, grads, host)
	return []*Node{report(loss, norm, applied, terms)}
}

// learned lists the parameters, by their number, of which the loss is a differentiable function. PyTorch's optimizers
// pass over all others, whose gradient is None; so does AdamW.update.
func (s *Step) learned(loss *Node) []int {
	g := loss.Graph()
	seen, stack := make([]bool, len(g.Nodes())), []*Node{loss}
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[n.Id()] || n.StopGradient() || n.NumOutputs() != 1 || !n.DType().IsFloat() {
			continue
		}
		seen[n.Id()] = true
		stack = append(stack, n.Inputs()...)
	}
	var numbers []int
	for i, p := range s.task.Params {
		if v := s.store.GetVariable(model.Path(p.Name)); v.InUseByGraph(g) && seen[v.NodeValue(g).Id()] {
			numbers = append(numbers, i)
		}
	}
	return numbers
}

// values are the nodes of parameters, given by their numbers.
func (s *Step) values(g *Graph, numbers []int) []*Node {
	nodes := make([]*Node, len(numbers))
	for i, n := range numbers {
		nodes[i] = s.store.GetVariable(model.Path(s.task.Params[n].Name)).NodeValue(g)
	}
	return nodes
}

// scaleUp multiplies by the loss scale, if there is one.
func (s *Step) scaleUp(x, host *Node) *Node {
	if !s.task.scaling() {
		return x
	}
	return Mul(x, element(host, hostScale))
}

// scaleDown divides by it.
func (s *Step) scaleDown(x, host *Node) *Node {
	if !s.task.scaling() {
		return x
	}
	return Mul(x, Reciprocal(element(host, hostScale)))
}

// report puts a step's numbers into one vector.
func report(loss, norm, applied *Node, terms []*Node) *Node {
	return vector(append([]*Node{loss, norm, ConvertDType(applied, dtypes.Float32)}, terms...))
}

// vector joins scalars.
func vector(scalars []*Node) *Node {
	parts := make([]*Node, len(scalars))
	for i, x := range scalars {
		parts[i] = Reshape(x, 1)
	}
	return Concatenate(parts, 0)
}

// Run performs the step with the given index (from 0) at the given learning rate. Everything random in it is keyed
// by (seed, step) and the micro-batch. The batch is neither changed nor freed.
func (s *Step) Run(step int, lr float64, batch []*tensors.Tensor) (Result, error) {
	r, err := s.run(step, lr, batch)
	if err != nil {
		var fed []string
		for _, t := range batch {
			fed = append(fed, t.Shape().String())
		}
		return Result{}, fmt.Errorf("step %d on a batch of %v: %w", step, fed, err)
	}
	s.progress.count(r.Applied, s.optimizer.LossScale, s.task.scaling())
	return r, nil
}

func (s *Step) run(step int, lr float64, batch []*tensors.Tensor) (Result, error) {
	if err := s.checkShares(batch); err != nil {
		return Result{}, err
	}
	// Adam's bias correction counts the updates that were made, as PyTorch does where a loss scale skips steps.
	update := max(step+1-s.progress.Skipped, 1)
	host := s.optimizer.hostValues(lr, update, s.LossScale())
	defer host.MustFinalizeAll()
	var out []*tensors.Tensor
	var err error
	switch {
	case s.whole != nil:
		out, err = s.call(s.whole, step, 0, host, batch)
	case s.task.Coupled != nil:
		out, err = s.runCoupled(step, host, batch)
	default:
		out, err = s.runParts(step, host, batch)
	}
	if err != nil {
		return Result{}, err
	}
	values, err := tensors.CopyFlatData[float32](out[0])
	if err != nil {
		return Result{}, fmt.Errorf("reading the losses: %w", err)
	}
	finalize(out)
	r := Result{Loss: float64(values[0]), GradNorm: float64(values[1]), Applied: values[2] == 1}
	for _, v := range values[3:] {
		r.Terms = append(r.Terms, float64(v))
	}
	return r, nil
}

// call runs a program whose first inputs are the random state of the step's micro-batch and the host's numbers.
func (s *Step) call(p *program, step, micro int, host *tensors.Tensor, inputs []*tensors.Tensor) (
	[]*tensors.Tensor, error) {
	state, err := RNGStateFromSeed(microSeed(s.seed, step, micro))
	if err != nil {
		return nil, fmt.Errorf("random state: %w", err)
	}
	defer state.MustFinalizeAll()
	return p.call(append([]*tensors.Tensor{state, host}, inputs...))
}

// LossScale is the scale of the next step's loss: 1 where nothing is scaled.
func (s *Step) LossScale() float64 {
	if !s.task.scaling() {
		return 1
	}
	return s.progress.scale(s.optimizer.LossScale)
}

// Progress returns what the steps so far have left behind, for a checkpoint.
func (s *Step) Progress() Progress { return s.progress }

// Resume goes on with what a checkpoint has kept.
func (s *Step) Resume(p Progress) error {
	if p.Skipped < 0 || p.SkippedInARow < 0 || p.GoodSteps < 0 || !(p.LossScale >= 0) {
		return errors.New("the checkpoint's count of skipped steps or its loss scale is damaged")
	}
	s.progress = p
	return nil
}

// finalize frees tensors.
func finalize(list []*tensors.Tensor) {
	for _, t := range list {
		t.MustFinalizeAll()
	}
}

// microSeed mixes seed, step and micro-batch into the seed of its random numbers. It is never 0, which would ask for a
// random one.
func microSeed(seed int64, step, micro int) int64 {
	h := fnv.New64a()
	numbers := []int64{seed, int64(step)}
	if micro > 0 {
		numbers = append(numbers, int64(micro))
	}
	_ = binary.Write(h, binary.LittleEndian, numbers)
	return int64(h.Sum64() | 1)
}
