package weights

import (
	"errors"
	"fmt"
	"math/big"
)

const (
	maxDepth = 500 // containers inside containers
	// A value that occurs several times is written once, so a few bytes can stand for more than fits any memory when
	// they are walked. What the file's values unfold to is limited to sharedFactor times its bytes and sharedFree.
	sharedFactor = 64
	sharedFree   = 1 << 20
)

// settle makes what a machine built from n bytes plain: lists and tuples become slices. It refuses cycles, deep
// nesting, and sharing that unfolds beyond measure, so that whoever walks the value comes to an end.
func settle(v any, n int) (any, error) {
	s := &settler{done: map[any]*settled{}, limit: sharedFree + sharedFactor*n}
	out, err := s.value(v, 0)
	if err != nil {
		return nil, err
	}
	return out.value, nil
}

// settled is a plain value with what walking it costs.
type settled struct {
	value  any
	weight int // values and characters below it, counted as often as they occur
	height int // levels of containers
}

type settler struct {
	done  map[any]*settled // by *sequence and *Dict; nil while its items are being settled
	limit int
}

// value settles v, which lies level containers deep.
func (s *settler) value(v any, level int) (settled, error) {
	switch v := v.(type) {
	case nil, bool, int64, float64, *big.Int, *TorchTensor:
		return settled{v, 1, 0}, nil
	case torchDType:
		return settled{"torch." + string(v), 1, 0}, nil
	case string:
		return settled{v, 1 + len(v), 0}, nil
	case []byte:
		return settled{v, 1 + len(v), 0}, nil
	case *sequence:
		return s.container(v, level, func(out *settled) error { return s.sequence(v, out, level) })
	case *Dict:
		return s.container(v, level, func(out *settled) error { return s.dict(v, out, level) })
	}
	return settled{}, fmt.Errorf("holds %s as a value, expected tensors and plain values", describeValue(v))
}

// container settles a list, tuple or dict, which is a pointer, the first time it occurs.
func (s *settler) container(v any, level int, fill func(*settled) error) (settled, error) {
	out, seen := s.done[v]
	switch {
	case seen && out == nil:
		return settled{}, errors.New("has a list or dict that contains itself")
	case seen:
		return *out, s.depth(level + out.height)
	}
	if err := s.depth(level + 1); err != nil {
		return settled{}, err
	}
	s.done[v] = nil
	out = &settled{weight: 1, height: 1}
	if err := fill(out); err != nil {
		return settled{}, err
	}
	s.done[v] = out
	return *out, nil
}

func (s *settler) depth(levels int) error {
	if levels > maxDepth {
		return fmt.Errorf("nests more than %d lists and dicts", maxDepth)
	}
	return nil
}

func (s *settler) sequence(q *sequence, out *settled, level int) error {
	plain := make([]any, len(q.items))
	for i, item := range q.items {
		if err := s.item(item, &plain[i], out, level); err != nil {
			return err
		}
	}
	out.value = plain
	if q.tuple {
		out.value = Tuple(plain)
	}
	return nil
}

func (s *settler) dict(d *Dict, out *settled, level int) error {
	for i := range d.keys {
		for _, at := range []*any{&d.keys[i], &d.values[i]} {
			if err := s.item(*at, at, out, level); err != nil {
				return err
			}
		}
	}
	out.value = d
	return nil
}

// item settles one item of a container, stores it and adds what it costs to the container.
func (s *settler) item(item any, to *any, out *settled, level int) error {
	v, err := s.value(item, level+1)
	if err != nil {
		return err
	}
	*to = v.value
	out.height = max(out.height, v.height+1)
	if out.weight += v.weight; out.weight > s.limit {
		return fmt.Errorf("repeats shared values until they are %d times as much as the file holds", sharedFactor)
	}
	return nil
}

// describeValue names a value for an error message.
func describeValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "None"
	case bool, int64, float64:
		return fmt.Sprint("the value ", v)
	case *big.Int:
		return "a large integer"
	case string:
		return "the string " + clip(v)
	case []byte:
		return "bytes"
	case *sequence:
		if v.tuple {
			return "a tuple"
		}
		return "a list"
	case Tuple:
		return "a tuple"
	case []any:
		return "a list"
	case *Dict:
		return "a dict"
	case *TorchTensor:
		return "a tensor"
	case storageView:
		return "a storage"
	case torchDType:
		return "torch." + string(v)
	case global:
		return v.String()
	}
	return fmt.Sprintf("a %T", v)
}
