package naming

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"blip2/pkg/weights"
)

// A pattern is a tensor name in which the component "*" stands for any one component (a layer number, "weight"), and
// "**" as the last component for one or more. Two names of the same tensor are two patterns with the same wildcards in
// the same order.

// match returns what the pattern's wildcards stand for in the name.
func match(pattern, name string) (wild []string, ok bool) {
	for {
		want, restOfPattern, more := strings.Cut(pattern, ".")
		if want == "**" {
			return append(wild, name), name != ""
		}
		got, rest, moreName := strings.Cut(name, ".")
		switch {
		case want == "*" && got != "":
			wild = append(wild, got)
		case want != got:
			return nil, false
		}
		if more != moreName {
			return nil, false
		}
		if !more {
			return wild, true
		}
		pattern, name = restOfPattern, rest
	}
}

// Matches reports whether the name is one that the pattern describes.
func Matches(pattern, name string) bool {
	_, ok := match(pattern, name)
	return ok
}

// expand puts the wildcards' values into the pattern.
func expand(pattern string, wild []string) string {
	parts := strings.Split(pattern, ".")
	for i, p := range parts {
		if p == "*" || p == "**" {
			parts[i], wild = wild[0], wild[1:]
		}
	}
	return strings.Join(parts, ".")
}

// Op says how the numbers of the file's tensors and those of the model's correspond.
type Op int

// The correspondences.
const (
	// Copy: one tensor on either side, the same numbers.
	Copy Op = iota
	// Rows: the file's tensors, of equal height, one below the other are the model's.
	Rows
	// QKVBias: the file's tensor is the model's first, then as many zeros, then the model's second.
	QKVBias
	// Transpose: one matrix on either side, rows and columns exchanged.
	Transpose
)

// Rule says that tensors of the file and tensors of the model are the same. One of Theirs and Ours has one pattern;
// all have the same wildcards. Rules are read in both directions.
type Rule struct {
	Op           Op
	Theirs, Ours []string
}

// same is the rule that a tensor of the file is a tensor of the model.
func same(theirs, ours string) Rule { return Rule{Copy, []string{theirs}, []string{ours}} }

// rows is the rule that a tensor of the model is cut into several by its rows.
func rows(ours string, theirs ...string) Rule { return Rule{Rows, theirs, []string{ours}} }

// qkvBias is the rule for an attention whose file has one bias for queries, keys and values, but whose keys have none.
func qkvBias(theirs, q, v string) Rule { return Rule{QKVBias, []string{theirs}, []string{q, v}} }

// transposed is the rule that a matrix of the file is one of the model with rows and columns exchanged.
func transposed(theirs, ours string) Rule { return Rule{Transpose, []string{theirs}, []string{ours}} }

// target is a tensor of the model that a tensor of the file contributes to.
type target struct {
	name  string
	rule  Rule
	wild  []string
	slot  int // which of rule.Theirs the file's tensor is
	piece int // which of rule.Ours the target is
}

// targets returns what the file's tensor of that name contributes to.
func (r Rule) targets(name string) []target {
	for slot, pattern := range r.Theirs {
		wild, ok := match(pattern, name)
		if !ok {
			continue
		}
		var out []target
		for piece, ours := range r.Ours {
			out = append(out, target{expand(ours, wild), r, wild, slot, piece})
		}
		return out
	}
	return nil
}

// ourShape returns the shape of the model's tensor, given those of all the file's.
func (r Rule) ourShape(theirs []weights.Tensor) ([]int, error) {
	first := theirs[0]
	switch r.Op {
	case QKVBias:
		if len(first.Shape) != 1 || first.Shape[0]%3 != 0 {
			return nil, fmt.Errorf("%s has shape %v, which is no bias of queries, keys and values", first.Name, first.Shape)
		}
		return []int{first.Shape[0] / 3}, nil
	case Transpose:
		if len(first.Shape) != 2 {
			return nil, fmt.Errorf("%s has shape %v, expected a matrix", first.Name, first.Shape)
		}
		return []int{first.Shape[1], first.Shape[0]}, nil
	case Rows:
		return stackedShape(theirs)
	}
	return first.Shape, nil
}

// stackedShape is the shape of tensors one below the other.
func stackedShape(parts []weights.Tensor) ([]int, error) {
	first := parts[0]
	if len(first.Shape) == 0 {
		return nil, fmt.Errorf("%s is a scalar", first.Name)
	}
	for _, t := range parts[1:] {
		if !slices.Equal(t.Shape, first.Shape) || t.DType != first.DType {
			return nil, fmt.Errorf("%s is %s %v, which does not fit below %s, which is %s %v", t.Name, t.DType, t.Shape,
				first.Name, first.DType, first.Shape)
		}
	}
	shape := slices.Clone(first.Shape)
	shape[0] *= len(parts)
	return shape, nil
}

// our computes the model's tensor with the given place in r.Ours from all the file's, in their dtype.
func (r Rule) our(theirs []weights.Tensor, piece int) (weights.Tensor, error) {
	shape, err := r.ourShape(theirs)
	if err != nil {
		return weights.Tensor{}, err
	}
	first := theirs[0]
	out := weights.Tensor{Name: first.Name, DType: first.DType, Shape: shape, Data: first.Data}
	switch r.Op {
	case QKVBias:
		third := len(first.Data) / 3
		if err := checkZero(first, third); err != nil {
			return weights.Tensor{}, err
		}
		out.Data = first.Data[2*piece*third:][:third]
	case Transpose:
		out.Data = exchange(first)
	case Rows:
		out.Data = stack(theirs)
	}
	return out, nil
}

// their computes the file's tensor with the given place in r.Theirs from all the model's, in their dtype.
func (r Rule) their(ours []weights.Tensor, slot int) (weights.Tensor, error) {
	shape, err := r.theirShape(ours)
	if err != nil {
		return weights.Tensor{}, err
	}
	first := ours[0]
	out := weights.Tensor{Name: first.Name, DType: first.DType, Shape: shape, Data: first.Data}
	switch r.Op {
	case QKVBias:
		zeros := weights.Tensor{Data: make([]byte, len(first.Data))}
		out.Data = stack([]weights.Tensor{first, zeros, ours[1]})
	case Transpose:
		out.Data = exchange(first)
	case Rows:
		n := len(first.Data) / len(r.Theirs)
		out.Data = first.Data[slot*n:][:n]
	}
	return out, nil
}

// theirShape returns the shape of each of the file's tensors, given those of all the model's.
func (r Rule) theirShape(ours []weights.Tensor) ([]int, error) {
	first := ours[0]
	shape := slices.Clone(first.Shape)
	switch r.Op {
	case QKVBias:
		if len(first.Shape) != 1 || !slices.Equal(ours[1].Shape, first.Shape) || ours[1].DType != first.DType {
			return nil, fmt.Errorf("%s is %s %v and %s is %s %v: no biases of the same attention", first.Name, first.DType,
				first.Shape, ours[1].Name, ours[1].DType, ours[1].Shape)
		}
		shape[0] *= 3
	case Transpose:
		if len(shape) != 2 {
			return nil, fmt.Errorf("%s has shape %v, expected a matrix", first.Name, first.Shape)
		}
		slices.Reverse(shape)
	case Rows:
		if len(shape) == 0 || shape[0]%len(r.Theirs) != 0 {
			return nil, fmt.Errorf("%s has shape %v, whose rows cannot be shared out among %d", first.Name, first.Shape,
				len(r.Theirs))
		}
		shape[0] /= len(r.Theirs)
	}
	return shape, nil
}

// checkZero makes sure that the middle third of a bias, which is that of the keys, is zero.
func checkZero(t weights.Tensor, third int) error {
	size := t.DType.Size()
	keys, err := weights.Tensor{Name: t.Name, DType: t.DType, Shape: []int{third / size},
		Data: t.Data[third : 2*third]}.Float32s()
	if err != nil {
		return err
	}
	for i, v := range keys {
		if v != 0 {
			return fmt.Errorf("%s: the bias of key %d is %g, but the model's keys have no bias", t.Name, i, v)
		}
	}
	return nil
}

// stack puts the data of tensors one below the other.
func stack(parts []weights.Tensor) []byte {
	n := 0
	for _, t := range parts {
		n += len(t.Data)
	}
	out := make([]byte, 0, n)
	for _, t := range parts {
		out = append(out, t.Data...)
	}
	return out
}

// exchange returns the data of a matrix with rows and columns exchanged.
func exchange(t weights.Tensor) []byte {
	size, height, width := t.DType.Size(), t.Shape[0], t.Shape[1]
	out := make([]byte, len(t.Data))
	for i := range height {
		for j := range width {
			copy(out[(j*height+i)*size:][:size], t.Data[(i*width+j)*size:])
		}
	}
	return out
}

// number reads a layer's number.
func number(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil
}
