package trainer

import (
	"errors"
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// Coupled is a loss in which all rows of a batch see each other, such as a contrastive one, in the form that gradient
// caching needs (Gao et al., 2021): the device holds one micro-batch at a time, and loss and gradients are those of the
// whole batch.
//
// A step makes three passes over the micro-batches. The first computes what rows see of each other, their features, and
// keeps no gradient. The second computes from the features of all rows the coupled part of the loss, its gradient with
// respect to the features, and which rows a micro-batch wants to see of others. The third computes the features again,
// with the same random numbers, hands the gradient on to them and adds the rest of the loss.
//
// Every loss and term is a micro-batch's share: those of all micro-batches add up to the step's.
type Coupled struct {
	// Features computes a micro-batch's features, float32 with one row per row of the batch, and what else the third pass
	// is to have without computing it again. Both are kept on the host.
	Features func(scope *mlx.Scope, batch []*Node, rng *nn.RNG) (features, kept []*Node)
	// Couple computes the micro-batch's share of the coupled loss, and picks: int32 [rows], numbers of rows in the batch.
	Couple func(scope *mlx.Scope, c Coupling, rng *nn.RNG) (loss *Node, terms, picks []*Node)
	// Gathered says that the coupled loss has a gradient with respect to Coupling.All too.
	Gathered bool
	// Whole are the numbers of the batch's tensors that the second and third pass see with all their rows; small ones.
	Whole []int
	// Inputs are what Loss is given as in.
	Inputs []Source
	// Loss computes the features again, drawing the same random numbers in the same order before it draws others, and
	// the share of what is left of the loss; rows are Coupling.Rows. Without a gradient of the coupled loss it returns no
	// features.
	Loss func(scope *mlx.Scope, rows *Node, in, whole []*Node, rng *nn.RNG) (
		features []*Node, loss *Node, terms []*Node)
}

// Coupling is what the coupled loss of a micro-batch is made of.
type Coupling struct {
	Rows  *Node   // int32 [rows], the numbers of its rows in the batch
	Own   []*Node // features of its rows
	All   []*Node // features of all rows
	Whole []*Node // Coupled.Whole
}

// Source says where rows of an input of Coupled.Loss come from.
type Source struct {
	// Tensor counts the tensors of the batch, and behind them what Coupled.Features wants to have kept.
	Tensor int
	// Pick is which of Coupled.Couple's picks chooses the rows; OwnRows are the micro-batch's own.
	Pick int
}

// OwnRows is the Source.Pick of a micro-batch's own rows.
const OwnRows = -1

// featuresGraph is the first pass: its outputs are the features and what is kept.
func (s *Step) featuresGraph(scope *mlx.Scope, inputs []*Node) []*Node {
	features, kept := s.task.Coupled.Features(scope, inputs[2:], nn.NewRNG(inputs[0]))
	s.kept.features = len(features)
	return append(features, kept...)
}

// coupleGraph is the second pass. Behind the random state and the host's numbers its inputs are the numbers of the own
// rows, their features, all features, sums of gradients with respect to these if there are any, and the whole tensors.
// The outputs are the gradients with respect to the own features, the new sums, and the picks.
func (s *Step) coupleGraph(scope *mlx.Scope, inputs []*Node) []*Node {
	n, host, in := s.kept.features, inputs[1], inputs[2:]
	c := Coupling{Rows: in[0], Own: in[1 : 1+n], All: in[1+n : 1+2*n]}
	in = in[1+2*n:]
	var sums []*Node
	if s.task.Coupled.Gathered {
		sums, in = in[:n], in[n:]
	}
	c.Whole = in
	loss, terms, picks := s.task.Coupled.Couple(scope, c, nn.NewRNG(inputs[0]))
	s.addLosses(loss, terms)
	s.addGradients(s.scaleUp(loss, host))
	wanted := c.Own
	if sums != nil {
		wanted = append(append([]*Node{}, c.Own...), c.All...)
	}
	grads := Gradient(loss, wanted...)
	for i, sum := range sums {
		grads[n+i] = Add(grads[n+i], sum)
	}
	return append(grads, picks...)
}

// coupledPartGraph is the third pass: behind the random state and the host's numbers its inputs are the numbers of the
// own rows, those of Coupled.Loss, the gradients with respect to the features, and the whole tensors.
func (s *Step) coupledPartGraph(scope *mlx.Scope, inputs []*Node) []*Node {
	n, rows, in := len(s.task.Coupled.Inputs), inputs[2], inputs[3:]
	in, grads, whole := in[:n], in[n:n+s.kept.features], in[n+s.kept.features:]
	features, loss, terms := s.task.Coupled.Loss(scope, rows, in, whole, nn.NewRNG(inputs[0]))
	// The gradient of ⟨features, gradient of the coupled loss⟩ is that of the coupled loss.
	total := loss
	for i, f := range features {
		total = Add(total, ReduceAllSum(Mul(f, StopGradient(grads[i]))))
	}
	s.addGradients(s.scaleUp(total, inputs[1]))
	return []*Node{s.addLosses(loss, terms)}
}

// hostRows is what the passes keep of all rows in the host's memory. It is used again by the next step.
type hostRows struct {
	features int               // how many of the tensors are features
	tensors  []*tensors.Tensor // features, then what Coupled.Features wants to have kept
	grads    []*tensors.Tensor // of the coupled loss with respect to the features
	picks    [][]int32
}

// runCoupled makes the three passes and the update.
func (s *Step) runCoupled(step int, host *tensors.Tensor, batch []*tensors.Tensor) ([]*tensors.Tensor, error) {
	rows, err := s.partRows(batch)
	if err != nil {
		return nil, err
	}
	for m := range s.task.parts() {
		if err := s.runFeatures(step, m, rows, host, batch); err != nil {
			return nil, fmt.Errorf("micro-batch %d: %w", m, err)
		}
	}
	whole := make([]*tensors.Tensor, len(s.task.Coupled.Whole))
	for i, t := range s.task.Coupled.Whole {
		whole[i] = batch[t]
	}
	if err := s.runCouple(step, rows, host, whole); err != nil {
		return nil, err
	}
	for m := range s.task.parts() {
		if err := s.runCoupledPart(step, m, rows, host, batch, whole); err != nil {
			return nil, fmt.Errorf("micro-batch %d: %w", m, err)
		}
	}
	return s.update.call([]*tensors.Tensor{host})
}

// runFeatures is the first pass over micro-batch m.
func (s *Step) runFeatures(step, m, rows int, host *tensors.Tensor, batch []*tensors.Tensor) error {
	part, err := cutRows(batch, m*rows, rows)
	if err != nil {
		return err
	}
	out, err := s.call(s.features, step, m, host, part)
	finalize(part)
	if err != nil {
		return err
	}
	defer finalize(out)
	s.kept.tensors = roomFor(s.kept.tensors, out, s.task.parts())
	return putRows(s.kept.tensors, m*rows, out)
}

// runCouple is the second pass over all micro-batches.
func (s *Step) runCouple(step, rows int, host *tensors.Tensor, whole []*tensors.Tensor) error {
	kept, n := &s.kept, s.kept.features
	all := kept.tensors[:n]
	var sums []*tensors.Tensor
	if s.task.Coupled.Gathered {
		for _, f := range all {
			sums = append(sums, tensors.FromShape(f.Shape()))
		}
	}
	kept.picks = nil
	for m := range s.task.parts() {
		own, err := cutRows(all, m*rows, rows)
		if err != nil {
			return err
		}
		own = append([]*tensors.Tensor{rowNumbers(m*rows, rows)}, own...)
		in := append(append(append(append([]*tensors.Tensor{}, own...), all...), sums...), whole...)
		// Numbers of their own, which no micro-batch draws.
		out, err := s.call(s.couple, step, s.task.parts()+m, host, in)
		finalize(own)
		finalize(sums)
		if err != nil {
			return fmt.Errorf("loss over the batch, micro-batch %d: %w", m, err)
		}
		grads, rest := out[:n], out[n:]
		if sums != nil {
			sums, rest = rest[:n], rest[n:]
		}
		kept.grads = roomFor(kept.grads, grads, s.task.parts())
		if err := putRows(kept.grads, m*rows, grads); err != nil {
			return err
		}
		finalize(grads)
		if err := kept.addPicks(rest, rows*s.task.parts()); err != nil {
			return err
		}
		finalize(rest)
	}
	defer finalize(sums)
	return addTo(kept.grads, sums)
}

// addPicks appends the picks of a micro-batch. What is no row, which only losses that are not numbers bring about, is
// taken for the nearest.
func (h *hostRows) addPicks(picks []*tensors.Tensor, rows int) error {
	if h.picks == nil {
		h.picks = make([][]int32, len(picks))
	}
	for i, t := range picks {
		values, err := tensors.CopyFlatData[int32](t)
		if err != nil {
			return err
		}
		for _, v := range values {
			h.picks[i] = append(h.picks[i], min(max(v, 0), int32(rows-1)))
		}
	}
	return nil
}

// runCoupledPart is the third pass over micro-batch m.
func (s *Step) runCoupledPart(step, m, rows int, host *tensors.Tensor, batch, whole []*tensors.Tensor) error {
	in := []*tensors.Tensor{rowNumbers(m*rows, rows)}
	defer func() { finalize(in) }()
	for _, source := range s.task.Coupled.Inputs {
		from := source.Tensor - len(batch)
		var t *tensors.Tensor
		if from < 0 {
			t = batch[source.Tensor]
		} else {
			t = s.kept.tensors[s.kept.features+from]
		}
		numbers := span(m*rows, rows)
		if source.Pick != OwnRows {
			numbers = s.kept.picks[source.Pick][m*rows:][:rows]
		}
		picked, err := pickRows(t, numbers)
		if err != nil {
			return err
		}
		in = append(in, picked)
	}
	grads, err := cutRows(s.kept.grads, m*rows, rows)
	if err != nil {
		return err
	}
	in = append(in, grads...)
	out, err := s.call(s.part, step, m, host, append(append([]*tensors.Tensor{}, in...), whole...))
	if err != nil {
		return err
	}
	finalize(out)
	return nil
}

// rowNumbers is a tensor of the numbers from start on.
func rowNumbers(start, n int) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(span(start, n), n)
}

// span lists n numbers from start on.
func span(start, n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(start + i)
	}
	return out
}

// roomFor returns tensors on the host for the rows of all parts; have, if it fits.
func roomFor(have, part []*tensors.Tensor, parts int) []*tensors.Tensor {
	out := make([]*tensors.Tensor, len(part))
	for i, t := range part {
		shape := t.Shape().Clone()
		shape.Dimensions[0] *= parts
		if len(have) == len(part) && have[i].Shape().Equal(shape) {
			out[i] = have[i]
			continue
		}
		out[i] = tensors.FromShape(shape)
	}
	return out
}

// putRows copies rows into tensors on the host, from the given row on.
func putRows(to []*tensors.Tensor, at int, rows []*tensors.Tensor) error {
	for i, t := range rows {
		var inner error
		err := t.ConstBytes(func(source []byte) {
			size := len(source) / t.Shape().Dimensions[0]
			inner = to[i].MutableBytes(func(target []byte) { copy(target[at*size:], source) })
		})
		if err = errors.Join(err, inner); err != nil {
			return fmt.Errorf("bringing features to the host: %w", err)
		}
	}
	return nil
}

// addTo adds float32 tensors on the host.
func addTo(to, more []*tensors.Tensor) error {
	for i, t := range more {
		values, err := tensors.CopyFlatData[float32](t)
		if err != nil {
			return err
		}
		err = tensors.MutableFlatData(to[i], func(sum []float32) {
			for k, v := range values {
				sum[k] += v
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// cutRows copies n rows of every tensor, from the given one on.
func cutRows(list []*tensors.Tensor, from, n int) ([]*tensors.Tensor, error) {
	out := make([]*tensors.Tensor, 0, len(list))
	for _, t := range list {
		rows, err := pickRows(t, span(from, n))
		if err != nil {
			return nil, err
		}
		out = append(out, rows)
	}
	return out, nil
}

// pickRows copies rows of a tensor into a new one on the host.
func pickRows(t *tensors.Tensor, rows []int32) (*tensors.Tensor, error) {
	shape := t.Shape().Clone()
	all := shape.Dimensions[0]
	shape.Dimensions[0] = len(rows)
	picked := tensors.FromShape(shape)
	var inner error
	err := t.ConstBytes(func(source []byte) {
		size := len(source) / all
		inner = picked.MutableBytes(func(target []byte) {
			for i, row := range rows {
				copy(target[i*size:(i+1)*size], source[int(row)*size:])
			}
		})
	})
	if err = errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("cutting the batch: %w", err)
	}
	return picked, nil
}
