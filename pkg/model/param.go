// Package model describes BLIP-2's networks: which tensors they have (this package) and what they compute
// (its sub-packages nn, vit and qformer). Graph functions only: nothing here reads files, flags or clocks.
//
// Every tensor is declared once, as a Param with its LAVIS checkpoint name, shape and initialisation. The list of
// Params is what the store is filled from, what checkpoints are checked against and what parameter counts are
// computed from. Linear weights have PyTorch's layout [out, in], so no load or save ever transposes.
package model

import (
	"fmt"
	"strings"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"
)

// Param declares one tensor of a network.
type Param struct {
	// Name is the tensor's LAVIS checkpoint name, such as "Qformer.bert.encoder.layer.0.attention.self.query.weight".
	Name string
	// Shape is the tensor's shape in PyTorch order; empty for a scalar.
	Shape []int
	// Init says how the tensor starts when no checkpoint provides it.
	Init Init
}

// Size returns the number of elements of the tensor.
func (p Param) Size() int {
	n := 1
	for _, d := range p.Shape {
		n *= d
	}
	return n
}

// LayerNorm declares the affine part of a LayerNorm over width features: weight 1 and bias 0.
func LayerNorm(name string, width int) []Param {
	return []Param{
		{Name: name + ".weight", Shape: []int{width}, Init: Constant(1)},
		{Name: name + ".bias", Shape: []int{width}},
	}
}

// Prefixed returns the parameters with prefix put in front of every name.
func Prefixed(prefix string, params []Param) []Param {
	out := make([]Param, len(params))
	for i, p := range params {
		p.Name = prefix + p.Name
		out[i] = p
	}
	return out
}

// Count returns the total number of elements of the parameters.
func Count(params []Param) int {
	n := 0
	for _, p := range params {
		n += p.Size()
	}
	return n
}

// Path returns the store path of the tensor with the given checkpoint name: "a.b.weight" is at "/a/b/weight".
func Path(name string) string { return "/" + strings.ReplaceAll(name, ".", "/") }

// Name returns the checkpoint name of the tensor at the given store path; the inverse of Path.
func Name(path string) string { return strings.ReplaceAll(strings.TrimPrefix(path, "/"), "/", ".") }

// Initialize creates every parameter that the store does not hold yet, drawn by its Init from (seed, name): the
// values depend neither on the order of the parameters nor on the backend. Existing variables (loaded from a
// checkpoint) are left alone, but must have the declared shape.
func Initialize(store *mlx.Store, params []Param, seed int64) error {
	return InitializeOn(nil, store, params, seed)
}

// InitializeOn is Initialize with every tensor put on the backend's first device as soon as it is drawn, so that the
// host never holds more than one; a nil backend keeps them in host memory.
func InitializeOn(backend compute.Backend, store *mlx.Store, params []Param, seed int64) error {
	for _, p := range params {
		if v := store.GetVariable(Path(p.Name)); v != nil {
			if err := checkShape(p, v.Shape()); err != nil {
				return err
			}
			continue
		}
		t, err := NewTensor(backend, p, dtypes.Float32, rawBytes(Draw(p, seed)))
		if err != nil {
			return err
		}
		if err := Keep(store, p, t); err != nil {
			return err
		}
	}
	return nil
}

// rawBytes are the bytes of the numbers, where they lie.
func rawBytes(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values))
}

// Draw returns the numbers with which a parameter starts, row-major, drawn by its Init from (seed, name).
func Draw(p Param, seed int64) []float32 { return p.Init.values(p.Size(), seed, p.Name) }

// Set creates the float32 variable of the tensor with the given checkpoint name, or replaces its value.
func Set(store *mlx.Store, name string, shape []int, values []float32) error {
	size := 1
	for _, d := range shape {
		size *= d
	}
	if size != len(values) {
		return fmt.Errorf("tensor %s: %d values do not fill shape %v", name, len(values), shape)
	}
	t := tensors.FromFlatDataAndDimensions(values, shape...)
	if v := store.GetVariable(Path(name)); v != nil {
		if !v.Shape().Equal(shapes.Make(dtypes.Float32, shape...)) {
			return fmt.Errorf("tensor %s: shape %v does not fit the model's %s", name, shape, v.Shape())
		}
		return v.SetValue(t)
	}
	if _, err := store.CreateVariable(Path(name), t); err != nil {
		return fmt.Errorf("tensor %s: %w", name, err)
	}
	return nil
}

// NewTensor makes a tensor of a parameter's shape from its numbers, row-major and little-endian, in the given type and
// straight on the backend's first device; a nil backend keeps the numbers in host memory. data are copied.
//
// On the device the memory is the backend's own even where host and device could share it: a program can then write a
// variable's new value over the old one.
func NewTensor(backend compute.Backend, p Param, dtype dtypes.DType, data []byte) (*tensors.Tensor, error) {
	shape := shapes.Make(dtype, p.Shape...)
	if backend == nil || len(data) == 0 || int(shape.ByteSize()) != len(data) {
		t, err := tensors.FromRaw(nil, 0, shape, data)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", p.Name, err)
		}
		return t, nil
	}
	values := dtypes.UnsafeAnySliceFromBytes(unsafe.Pointer(unsafe.SliceData(data)), dtype, shape.Size())
	buffer, err := backend.BufferFromFlatData(0, values, shape)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", p.Name, err)
	}
	return tensors.FromBuffer(buffer)
}

// Keep creates the variable of a parameter with the tensor as its value, whatever its type, or replaces the variable.
func Keep(store *mlx.Store, p Param, t *tensors.Tensor) error {
	if store.GetVariable(Path(p.Name)) != nil {
		if err := store.DeleteVariable(Path(p.Name)); err != nil {
			return fmt.Errorf("tensor %s: %w", p.Name, err)
		}
	}
	if _, err := store.CreateVariable(Path(p.Name), t); err != nil {
		return fmt.Errorf("tensor %s: %w", p.Name, err)
	}
	return nil
}

// SetTrainable marks the parameters as trained or frozen. A frozen parameter gets no gradient and no optimizer slot.
func SetTrainable(store *mlx.Store, params []Param, trainable bool) error {
	for _, p := range params {
		v := store.GetVariable(Path(p.Name))
		if v == nil {
			return fmt.Errorf("tensor %s is not in the store: initialise or load the model first", p.Name)
		}
		v.SetTrainable(trainable)
	}
	return nil
}

func checkShape(p Param, got shapes.Shape) error {
	if len(got.Dimensions) != len(p.Shape) {
		return fmt.Errorf("tensor %s has shape %v, the model needs %v", p.Name, got.Dimensions, p.Shape)
	}
	for i, d := range p.Shape {
		if got.Dimensions[i] != d {
			return fmt.Errorf("tensor %s has shape %v, the model needs %v", p.Name, got.Dimensions, p.Shape)
		}
	}
	return nil
}
