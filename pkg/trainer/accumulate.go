package trainer

import (
	"fmt"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// Where gradients and losses of micro-batches add up in the store. They are zero between two steps, so that no
// checkpoint needs them.
const (
	gradientSums = "/opt/sum/gradient"
	lossSums     = "/opt/sum/losses" // loss and terms in one vector
)

// createAccumulators adds these variables to the store.
func createAccumulators(backend compute.Backend, store *mlx.Store, task Task) error {
	if err := createSlots(backend, store, task.Params, gradientSums); err != nil {
		return err
	}
	if store.GetVariable(lossSums) != nil {
		return nil
	}
	n := 1 + len(task.Terms)
	v, err := store.CreateVariable(lossSums, tensors.FromFlatDataAndDimensions(make([]float32, n), n))
	if err != nil {
		return fmt.Errorf("sum of losses: %w", err)
	}
	v.SetTrainable(false)
	return nil
}

// runParts works through the micro-batches one after the other and makes one update by the mean of their losses.
func (s *Step) runParts(step int, host *tensors.Tensor, batch []*tensors.Tensor) ([]*tensors.Tensor, error) {
	rows, err := s.partRows(batch)
	if err != nil {
		return nil, err
	}
	for m := range s.task.parts() {
		part, err := cutRows(batch, m*rows, rows)
		if err != nil {
			return nil, err
		}
		out, err := s.call(s.part, step, m, host, part)
		finalize(part)
		if err != nil {
			return nil, fmt.Errorf("micro-batch %d: %w", m, err)
		}
		finalize(out)
	}
	return s.update.call([]*tensors.Tensor{host})
}

// partRows is the number of rows of a micro-batch.
func (s *Step) partRows(batch []*tensors.Tensor) (int, error) {
	rows, k := -1, s.task.parts()
	for i, t := range batch {
		if t.Rank() == 0 || rows >= 0 && t.Shape().Dimensions[0] != rows {
			return 0, fmt.Errorf("tensor %d of the batch is %s: all must have the same number of rows", i, t.Shape())
		}
		rows = t.Shape().Dimensions[0]
	}
	if rows <= 0 || rows%k != 0 {
		return 0, fmt.Errorf("%d rows cannot be cut into %d equal micro-batches", rows, k)
	}
	return rows / k, nil
}

// partGraph adds a micro-batch's gradients and losses to the sums. Its output is there because a program must have one.
func (s *Step) partGraph(scope *mlx.Scope, inputs []*Node) []*Node {
	loss, terms := s.task.Loss(scope, inputs[2:], nn.NewRNG(inputs[0]))
	s.addGradients(s.scaleUp(loss, inputs[1]))
	return []*Node{s.addLosses(loss, terms)}
}

// addGradients adds the gradients of a scaled loss to their sums. It remembers which there are: the programs over
// micro-batches are built before the one that makes the update.
func (s *Step) addGradients(loss *Node) {
	g, learned := loss.Graph(), s.learned(loss)
	if s.summed == nil {
		s.summed = make([]bool, len(s.task.Params))
	}
	if len(learned) == 0 {
		return // of the coupled part of a loss, features may be all that it depends on
	}
	for i, grad := range Gradient(loss, s.values(g, learned)...) {
		sum := slot(s.store, gradientSums, s.task.Params[learned[i]])
		sum.SetNodeValue(Add(sum.NodeValue(g), nn.Float32(grad)))
		s.summed[learned[i]] = true
	}
}

// addLosses adds the loss, unscaled, and its terms to their sums and returns them.
func (s *Step) addLosses(loss *Node, terms []*Node) *Node {
	losses := vector(append([]*Node{loss}, terms...))
	sum := s.store.GetVariable(lossSums)
	sum.SetNodeValue(Add(sum.NodeValue(loss.Graph()), losses))
	return losses
}

// updateGraph makes the update by the sums and sets them to zero. The output is the vector that Run reads.
func (s *Step) updateGraph(scope *mlx.Scope, inputs []*Node) []*Node {
	host, share := inputs[0], 1/float64(s.task.parts())
	if s.task.Coupled != nil {
		share = 1 // its parts are shares of one loss
	}
	g := host.Graph()
	grads := make([]*Node, len(s.task.Params))
	for i, p := range s.task.Params {
		if !s.summed[i] {
			continue
		}
		sum := slot(s.store, gradientSums, p)
		grads[i] = scaled(s.scaleDown(sum.NodeValue(g), host), share)
		sum.SetNodeValue(ZerosLike(grads[i]))
	}
	losses := s.store.GetVariable(lossSums)
	means := scaled(losses.NodeValue(g), share)
	losses.SetNodeValue(ZerosLike(means))
	var terms []*Node
	for i := range s.task.Terms {
		terms = append(terms, element(means, 1+i))
	}
	loss := element(means, 0)
	norm, applied := s.optimizer.update(scope.Store(), s.task, loss, grads, host)
	return []*Node{report(loss, norm, applied, terms)}
}
