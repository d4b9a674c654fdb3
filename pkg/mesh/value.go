package mesh

import (
	"errors"
	"fmt"

	"github.com/gomlx/compute/dtypes/gotype"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/core/tensors/dtensor"
	mlx "github.com/gomlx/gomlx/ml/model"
)

// Value is an argument or a result of a program: a whole tensor, or one that lies in parts on the devices of a mesh.
type Value struct {
	whole *tensors.Tensor
	parts *dtensor.Tensor
}

// Host makes an argument of a tensor. It remains the caller's; Free frees it.
func Host(t *tensors.Tensor) *Value { return &Value{whole: t} }

// HostAll makes arguments of tensors.
func HostAll(list []*tensors.Tensor) []*Value {
	values := make([]*Value, len(list))
	for i, t := range list {
		values[i] = Host(t)
	}
	return values
}

// Shape is the shape of the whole.
func (v *Value) Shape() shapes.Shape {
	if v.parts != nil {
		return v.parts.Shape()
	}
	return v.whole.Shape()
}

// Free frees the memory, on the host and on the devices. Freeing twice is harmless.
func (v *Value) Free() error {
	if v.parts != nil {
		return v.parts.Finalize()
	}
	return v.whole.FinalizeAll()
}

// Free frees values and returns the first error.
func Free(values ...*Value) error {
	var first error
	for _, v := range values {
		if err := v.Free(); first == nil {
			first = err
		}
	}
	return first
}

// Copy brings the numbers of a value to the host, row-major.
func Copy[T gotype.Supported](v *Value) ([]T, error) {
	if v.parts == nil {
		return tensors.CopyFlatData[T](v.whole)
	}
	place := v.parts.ShardingSpec()
	if place == nil {
		return nil, errors.New("the value was freed")
	}
	if place.IsReplicated() {
		return tensors.CopyFlatData[T](v.parts.Shards()[0])
	}
	whole, err := v.parts.Merge()
	if err != nil {
		return nil, err
	}
	values, err := tensors.CopyFlatData[T](whole)
	if freeErr := whole.FinalizeAll(); err == nil {
		err = freeErr
	}
	return values, err
}

// Whole turns results into tensors of their own that hold all of it: those of one device stay there, parts on several
// are brought to the host and freed.
func Whole(values []*Value) ([]*tensors.Tensor, error) {
	list := make([]*tensors.Tensor, len(values))
	for i, v := range values {
		if v.parts == nil {
			list[i] = v.whole
			continue
		}
		var err error
		if list[i], err = v.parts.Merge(); err != nil {
			return nil, errors.Join(err, Free(values...))
		}
		if err := v.parts.Finalize(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Read brings a variable's numbers to the host, row-major, from wherever it lies. It leaves no copy behind, which
// Variable.Value would do for one that lies on several devices.
func Read[T gotype.Supported](store *mlx.Store, v *mlx.Variable) ([]T, error) {
	if Of(store) == nil {
		whole, err := v.Value()
		if err != nil {
			return nil, err
		}
		return tensors.CopyFlatData[T](whole)
	}
	if !v.HasValue() {
		return nil, fmt.Errorf("tensor %s has no value", v.Path())
	}
	parts, err := v.DistributedValue()
	if err != nil {
		return nil, err
	}
	return Copy[T](&Value{parts: parts})
}
