package published

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// Difference says how a tensor differs between two checkpoints.
type Difference struct {
	Name   string        `json:"name"` // the model's
	Shape  []int         `json:"shape"`
	A      weights.DType `json:"dtype_a"`
	B      weights.DType `json:"dtype_b"`
	MaxAbs float64       `json:"max_abs"` // the greatest float64 where only one is NaN, or they are infinitely apart
	Bits   bool          `json:"bit_equal"`
	Reason string        `json:"reason,omitempty"` // why the numbers cannot be compared
}

// Comparison is what two checkpoints have in common.
type Comparison struct {
	ModelA  string        `json:"model_a"`
	ModelB  string        `json:"model_b"`
	FormatA string        `json:"format_a"`
	FormatB string        `json:"format_b"`
	Tensors []Difference  `json:"tensors"` // in both, largest difference first, then by name
	OnlyA   []naming.Note `json:"only_a"`  // with the reason why B cannot have it, if there is one
	OnlyB   []naming.Note `json:"only_b"`
	MaxAbs  float64       `json:"max_abs"`
}

// Same reports whether both are the same network with numbers that differ by at most tolerance. Tensors that the other
// format has no place for do not count.
func (c Comparison) Same(tolerance float64) bool {
	unexplained := func(n naming.Note) bool { return n.Reason == "" }
	if c.ModelA != c.ModelB || slices.ContainsFunc(c.OnlyA, unexplained) || slices.ContainsFunc(c.OnlyB, unexplained) {
		return false
	}
	return !slices.ContainsFunc(c.Tensors, func(d Difference) bool { return d.Reason != "" || !(d.MaxAbs <= tolerance) })
}

// Compare compares the tensors of two checkpoints under the model's names, whatever names, containers and types they
// have, a tensor at a time. Numbers are compared as float32, which holds all of theirs but those of float64 exactly.
// Tensors that are not known stand among those that only one has.
func Compare(ctx context.Context, a, b *Checkpoint) (*Comparison, error) {
	c := &Comparison{ModelA: a.Model, ModelB: b.Model, FormatA: a.Table.Name, FormatB: b.Table.Name}
	ra, err := newView(a)
	if err != nil {
		return nil, err
	}
	rb, err := newView(b)
	if err != nil {
		return nil, err
	}
	for _, name := range ra.names {
		if !rb.has(name) {
			c.OnlyA = append(c.OnlyA, naming.Note{Name: name, Reason: b.Table.WhyDropped(name)})
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		d, err := compareTensor(name, ra, rb)
		if err != nil {
			return nil, err
		}
		c.MaxAbs = max(c.MaxAbs, d.MaxAbs)
		c.Tensors = append(c.Tensors, d)
	}
	for _, name := range rb.names {
		if !ra.has(name) {
			c.OnlyB = append(c.OnlyB, naming.Note{Name: name, Reason: a.Table.WhyDropped(name)})
		}
	}
	c.OnlyA, c.OnlyB = append(c.OnlyA, ra.unknown()...), append(c.OnlyB, rb.unknown()...)
	slices.SortStableFunc(c.Tensors, func(x, y Difference) int {
		switch {
		case x.MaxAbs > y.MaxAbs:
			return -1
		case x.MaxAbs < y.MaxAbs:
			return 1
		}
		return 0
	})
	return c, nil
}

// view is a checkpoint's tensors under the model's names.
type view struct {
	c     *Checkpoint
	plan  *naming.Plan
	names []string
}

func newView(c *Checkpoint) (*view, error) {
	plan, err := c.Plan(true, true)
	if err != nil {
		return nil, err
	}
	return &view{c, plan, plan.Coverage().Filled}, nil
}

// unknown lists tensors of the file that the model does not know.
func (v *view) unknown() []naming.Note {
	var notes []naming.Note
	for _, name := range v.plan.Coverage().Unexpected {
		notes = append(notes, naming.Note{Name: name})
	}
	return notes
}

func (v *view) has(name string) bool {
	_, found := slices.BinarySearch(v.names, name)
	return found
}

func (v *view) tensor(name string) (weights.Tensor, error) {
	t, ok, err := v.plan.Tensor(name)
	if err == nil && !ok {
		err = fmt.Errorf("%s: has no tensor %s", v.c.Path(), name)
	}
	return t, err
}

func (v *view) drop(name string) { naming.Drop(v.c, v.plan.Sources(name)...) }

func compareTensor(name string, a, b *view) (Difference, error) {
	x, err := a.tensor(name)
	if err != nil {
		return Difference{}, err
	}
	y, err := b.tensor(name)
	if err != nil {
		return Difference{}, err
	}
	defer a.drop(name)
	defer b.drop(name)
	d := Difference{Name: name, Shape: x.Shape, A: x.DType, B: y.DType}
	if !slices.Equal(x.Shape, y.Shape) {
		d.Reason = fmt.Sprintf("shapes %v and %v", x.Shape, y.Shape)
		return d, nil
	}
	if x.DType == y.DType && slices.Equal(x.Data, y.Data) {
		d.Bits = true
		return d, nil
	}
	u, errA := x.Float32s()
	w, errB := y.Float32s()
	if err := errors.Join(errA, errB); err != nil {
		d.Reason = err.Error()
		return d, nil
	}
	for i := range u {
		diff := math.Abs(float64(u[i]) - float64(w[i]))
		if math.IsNaN(diff) && !(math.IsNaN(float64(u[i])) && math.IsNaN(float64(w[i]))) && u[i] != w[i] {
			diff = math.MaxFloat64
		}
		if diff > d.MaxAbs {
			d.MaxAbs = min(diff, math.MaxFloat64)
		}
	}
	return d, nil
}
