package weights

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

const (
	maxDims = 64 // as many as PyTorch has
	// A tensor may repeat elements of its storage (stride 0) and so be larger than the file, but not by more than this
	// number of elements: what reading it takes would not be bounded.
	maxRepeated = 1 << 16
)

// TorchTensor is a tensor of a PyTorch file as it is stored: a view of a storage by offset and strides.
type TorchTensor struct {
	storage       *storage
	base          int // bytes from the begin of the storage to the offset 0
	dtype         DType
	offset        int // elements
	shape, stride []int
	elements      int
	last          int // elements from the offset to the last one used
}

// newTorchTensor checks that the tensor lies within its part of the storage.
func newTorchTensor(view storageView, dtype DType, offset int, shape, stride []int) (*TorchTensor, error) {
	fail := func(format string, args ...any) (*TorchTensor, error) {
		return nil, fmt.Errorf("a tensor of shape %v, strides %v and offset %d in storage %s: %w",
			shape, stride, offset, clip(view.storage.key), fmt.Errorf(format, args...))
	}
	size := dtype.Size()
	if size == 0 {
		return fail("has no element type")
	}
	if len(shape) != len(stride) {
		return fail("%d strides for %d dimensions", len(stride), len(shape))
	}
	n, err := elements(shape)
	if err != nil {
		return fail("%w", err)
	}
	t := &TorchTensor{storage: view.storage, base: view.begin, dtype: dtype, offset: offset, shape: shape, stride: stride,
		elements: n}
	have := view.size / size
	if n > max(have, maxRepeated) {
		return fail("has %d elements, the storage %d", n, have)
	}
	if n == 0 { // PyTorch lets those begin anywhere
		return t, nil
	}
	for i, d := range shape {
		if d > 1 && stride[i] > (math.MaxInt-t.last)/(d-1) {
			return fail("goes beyond the %d elements of the storage", have)
		}
		t.last += (d - 1) * stride[i]
	}
	if offset >= have || t.last >= have-offset {
		return fail("goes beyond the %d elements of the storage", have)
	}
	return t, nil
}

// DType returns the element type.
func (t *TorchTensor) DType() DType { return t.dtype }

// Shape returns the dimensions, empty for a scalar.
func (t *TorchTensor) Shape() []int { return slices.Clone(t.shape) }

// Stride returns how many elements of the storage lie between neighbours along each dimension.
func (t *TorchTensor) Stride() []int { return slices.Clone(t.stride) }

// Offset returns the first element's position in the storage, in elements.
func (t *TorchTensor) Offset() int { return t.base/t.dtype.Size() + t.offset }

// Storage returns the storage's name in the file: tensors with equal names share it.
func (t *TorchTensor) Storage() string { return t.storage.key }

// Contiguous reports whether the elements lie in row-major order without gaps.
func (t *TorchTensor) Contiguous() bool {
	want := 1
	for i := len(t.shape) - 1; i >= 0 && t.elements > 0; i-- {
		if t.shape[i] != 1 && t.stride[i] != want {
			return false
		}
		want *= t.shape[i]
	}
	return true
}

// Read returns the tensor without a name. What Torch.Tensor says of Data holds here.
func (t *TorchTensor) Read() (Tensor, error) {
	data, err := t.read()
	if err != nil {
		return Tensor{}, fmt.Errorf("%s: storage %s: %w", t.storage.contents.path, clip(t.storage.key), err)
	}
	return Tensor{DType: t.dtype, Shape: t.Shape(), Data: data}, nil
}

// span returns the bytes of the file from the first to the last element.
func (t *TorchTensor) span() (begin, end int) {
	if t.elements == 0 {
		return t.storage.begin, t.storage.begin
	}
	size := t.dtype.Size()
	begin = t.storage.begin + t.base + size*t.offset
	return begin, begin + size*(t.last+1)
}

// read returns the elements in row-major order.
func (t *TorchTensor) read() ([]byte, error) {
	data, err := t.storage.contents.bytes(t.span())
	if err != nil || t.Contiguous() {
		return data, err
	}
	out := make([]byte, 0, t.elements*t.dtype.Size())
	return gather(out, data, t.dtype.Size(), t.shape, t.stride), nil
}

// gather appends the elements of a view to out in row-major order; data begins with the view's first element, and
// strides count elements of size bytes.
func gather(out, data []byte, size int, shape, stride []int) []byte {
	if len(shape) == 0 {
		return append(out, data[:size]...)
	}
	step := size * stride[0]
	if len(shape) > 1 {
		for i := range shape[0] {
			out = gather(out, data[i*step:], size, shape[1:], stride[1:])
		}
		return out
	}
	if stride[0] == 1 {
		return append(out, data[:size*shape[0]]...)
	}
	for i := range shape[0] {
		out = append(out, data[i*step:i*step+size]...)
	}
	return out
}

var errTorchScript = errors.New("a TorchScript program, not a state dict: " +
	"save the weights with torch.save(model.state_dict(), path)")
