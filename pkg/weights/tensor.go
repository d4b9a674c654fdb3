// Package weights reads the containers that model weights come in, safetensors files and PyTorch's (.pth, .pt, .bin),
// alone or in shards, and writes safetensors files, the container of every model file of this project.
//
// Files are memory-mapped where the system allows it, so opening costs a header and a tensor costs nothing until its
// bytes are used. A file is validated completely when it is opened: a tensor of an open Source can be read.
//
// The format of safetensors: 8 bytes little-endian header length n, n bytes of JSON
// {name: {dtype, shape, data_offsets: [begin, end]}, "__metadata__"?: {string: string}}, then the row-major
// little-endian data, to which the offsets are relative and which they must cover without gap or overlap.
package weights

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
)

// DType is an element type by its name in the safetensors format.
type DType string

// The element types that are read and written. The format's 4-, 6- and 8-bit floats and complex numbers are refused.
const (
	F64  DType = "F64"
	F32  DType = "F32"
	F16  DType = "F16"  // IEEE 754 binary16
	BF16 DType = "BF16" // upper half of a float32
	I64  DType = "I64"
	I32  DType = "I32"
	I16  DType = "I16"
	I8   DType = "I8"
	U64  DType = "U64"
	U32  DType = "U32"
	U16  DType = "U16"
	U8   DType = "U8"
	BOOL DType = "BOOL" // one byte per element, 0 or 1
)

const knownDTypes = "F64, F32, F16, BF16, I64, I32, I16, I8, U64, U32, U16, U8, BOOL"

// Size returns the bytes of one element, 0 for a type this package does not know.
func (d DType) Size() int {
	switch d {
	case F64, I64, U64:
		return 8
	case F32, I32, U32:
		return 4
	case F16, BF16, I16, U16:
		return 2
	case I8, U8, BOOL:
		return 1
	}
	return 0
}

// Tensor is one named array as it lies in a file.
type Tensor struct {
	Name  string
	DType DType
	Shape []int  // empty for a scalar
	Data  []byte // row-major, little-endian; may alias a mapped file, so it must not be written to
}

// Elements returns the number of elements that Shape says.
// A negative dimension or a product beyond the range of int is an error.
func (t Tensor) Elements() (int, error) {
	n, err := elements(t.Shape)
	if err != nil {
		return 0, fmt.Errorf("tensor %s: %w", clip(t.Name), err)
	}
	return n, nil
}

// check says whether the tensor's type is known and its data have the length that type and shape demand.
func (t Tensor) check() (elems int, err error) {
	size, err := byteSize(t.DType, t.Shape)
	if err != nil {
		return 0, fmt.Errorf("tensor %s: %w", clip(t.Name), err)
	}
	if size != len(t.Data) {
		return 0, fmt.Errorf("tensor %s: shape %v of %s needs %d bytes, the data have %d",
			clip(t.Name), t.Shape, t.DType, size, len(t.Data))
	}
	return size / t.DType.Size(), nil
}

// byteSize is the length of the data that type and shape demand.
func byteSize(dtype DType, shape []int) (int, error) {
	size := dtype.Size()
	if size == 0 {
		return 0, fmt.Errorf("unknown dtype %s; known are %s", clip(string(dtype)), knownDTypes)
	}
	n, err := elements(shape)
	if err != nil {
		return 0, err
	}
	if n > math.MaxInt/size {
		return 0, fmt.Errorf("%d elements of %s have more bytes than can be counted", n, dtype)
	}
	return n * size, nil
}

// FromFloat32 makes an F32 tensor with a copy of v. A shape that does not hold len(v) elements is reported by Write.
func FromFloat32(name string, shape []int, v []float32) Tensor {
	return Tensor{Name: name, DType: F32, Shape: append([]int{}, shape...), Data: float32Bytes(v)}
}

// FromInt64 makes an I64 tensor with a copy of v. A shape that does not hold len(v) elements is reported by Write.
func FromInt64(name string, shape []int, v []int64) Tensor {
	return Tensor{Name: name, DType: I64, Shape: append([]int{}, shape...), Data: int64Bytes(v)}
}

// elements multiplies the dimensions of a shape, refusing negative ones and overflow.
func elements(shape []int) (int, error) {
	n := uint64(1)
	for _, d := range shape {
		if d < 0 {
			return 0, fmt.Errorf("shape has the negative dimension %d", d)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 || lo > math.MaxInt {
			return 0, fmt.Errorf("a shape of %d dimensions has more elements than can be counted", len(shape))
		}
		n = lo
	}
	return int(n), nil
}

// byteCount is n·size for a message, where the product may not fit.
func byteCount(n, size int) string {
	if n > math.MaxInt/size {
		return "too many"
	}
	return strconv.Itoa(n * size)
}

// clip quotes a name for an error message; names in a hostile file can be megabytes long.
func clip(s string) string {
	const most = 160
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}
