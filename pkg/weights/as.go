package weights

import (
	"fmt"

	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/dtypes/float16"
)

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
