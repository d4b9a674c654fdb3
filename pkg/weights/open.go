package weights

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
)

// Source is one model's tensors, in one file or in the shards of a folder.
type Source interface {
	Path() string
	Names() []string // sorted
	Has(name string) bool
	Tensor(name string) (Tensor, error)
	Close() error
}

// OpenAny opens the weights at path: a safetensors file, or a folder as OpenDir takes it. The caller closes the source.
func OpenAny(path string) (Source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return OpenDir(path)
	}
	f, err := Open(path)
	if err != nil && isPickle(path) {
		return nil, fmt.Errorf("%w: this is a PyTorch file; give the same checkpoint as safetensors", err)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// isPickle tells PyTorch's containers by their first bytes: a ZIP archive, or a bare pickle of protocol 2.
func isPickle(path string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, 4)
	if _, err := io.ReadFull(file, head); err != nil {
		return false
	}
	return bytes.HasPrefix(head, []byte("PK\x03\x04")) || bytes.HasPrefix(head, []byte{0x80, 2})
}

// As returns the tensor in another floating-point type, rounded to nearest even.
func (t Tensor) As(dtype DType) (Tensor, error) {
	if t.DType == dtype {
		return t, nil
	}
	values, err := t.Float32s()
	if err != nil {
		return t, err
	}
	out := Tensor{Name: t.Name, Shape: t.Shape, DType: dtype, Data: make([]byte, 0, len(values)*dtype.Size())}
	switch dtype {
	case F32:
		out.Data = float32Bytes(values)
	case BF16:
		for _, x := range values {
			bits := bfloat16.FromFloat32(x).Bits()
			out.Data = append(out.Data, byte(bits), byte(bits>>8))
		}
	case F16:
		for _, x := range values {
			bits := float16.FromFloat32(x).Bits()
			out.Data = append(out.Data, byte(bits), byte(bits>>8))
		}
	default:
		return t, fmt.Errorf("tensor %s: %s is no type to convert to", clip(t.Name), dtype)
	}
	return out, nil
}
