package naming

import (
	"fmt"
	"slices"

	"blip2/pkg/weights"
)

// Output is a tensor of a file to be written, made when it is asked for.
type Output struct {
	Name  string
	DType weights.DType
	Shape []int
	// Ours are the tensors of the model that it is made from.
	Ours []string
	// Data computes the numbers, row-major.
	Data func() ([]byte, error)
}

// Getter returns a tensor of the model.
type Getter func(name string) (weights.Tensor, error)

// Export names the model's tensors as the table does, in the order of names. info returns a tensor of the model without
// its data, tensor the whole of it when its turn comes. Names that the table has no place for are dropped for the
// reason that it gives; any other is an error.
func (t Table) Export(names []string, info, tensor Getter) ([]Output, []Note, error) {
	var out []Output
	var dropped []Note
	done := map[string]bool{}
	for _, name := range names {
		if reason, ok := find(t.Dropped, name); ok {
			dropped = append(dropped, Note{name, reason})
			continue
		}
		r, wild, ok := t.reverse(name)
		if !ok {
			return nil, nil, fmt.Errorf("%s: %s has no name for it", name, t.Name)
		}
		for slot, pattern := range r.Theirs {
			theirs := expand(pattern, wild)
			if done[theirs] {
				continue // the second of two tensors that are one in the file
			}
			done[theirs] = true
			o, err := r.output(theirs, slot, wild, info, tensor)
			if err != nil {
				return nil, nil, err
			}
			out = append(out, o)
		}
	}
	return out, dropped, nil
}

// reverse finds the rule that gives the model's tensor its name in the file.
func (t Table) reverse(name string) (Rule, []string, bool) {
	for _, r := range t.Rules {
		for _, pattern := range r.Ours {
			if wild, ok := match(pattern, name); ok {
				return r, wild, true
			}
		}
	}
	return Rule{}, nil, false
}

// output describes one tensor of the file.
func (r Rule) output(name string, slot int, wild []string, info, tensor Getter) (Output, error) {
	names := make([]string, len(r.Ours))
	for i, pattern := range r.Ours {
		names[i] = expand(pattern, wild)
	}
	ours, err := all(names, info)
	if err != nil {
		return Output{}, err
	}
	shape, err := r.theirShape(ours)
	if err != nil {
		return Output{}, err
	}
	data := func() ([]byte, error) {
		ours, err := all(names, tensor)
		if err != nil {
			return nil, err
		}
		t, err := r.their(ours, slot)
		return t.Data, err
	}
	return Output{name, ours[0].DType, slices.Clone(shape), names, data}, nil
}

// all gets several tensors.
func all(names []string, get Getter) ([]weights.Tensor, error) {
	out := make([]weights.Tensor, len(names))
	for i, name := range names {
		t, err := get(name)
		if err != nil {
			return nil, err
		}
		out[i] = t
	}
	return out, nil
}
