package weights

import (
	"encoding/binary"
	"fmt"
	"math"
)

// castBlock is how many values are converted at once, few enough to stay in cache.
const castBlock = 4096

// CastFloat returns a floating-point tensor in another floating-point dtype. Integer and BOOL tensors, and tensors that
// have the dtype already, are returned as they are and alias Data.
//
// Values are rounded to nearest, ties to even; infinities stay what they are, and NaN keeps its sign and the upper part
// of its payload. A finite value that would become infinite is an error that names it. F64 goes through float32, as in
// PyTorch.
func (t Tensor) CastFloat(to DType) (Tensor, error) {
	if !to.isFloat() {
		return Tensor{}, fmt.Errorf("tensor %s: %s is no floating-point type (F32, F16, BF16 or F64)",
			clip(t.Name), clip(string(to)))
	}
	n, err := t.check()
	if err != nil {
		return Tensor{}, err
	}
	if t.DType == to || !t.DType.isFloat() {
		return t, nil
	}
	out := t
	out.DType, out.Data = to, make([]byte, n*to.Size())
	values := make([]float32, min(n, castBlock))
	for begin := 0; begin < n; begin += castBlock {
		values = values[:min(castBlock, n-begin)]
		if i := widen(values, t.Data[begin*t.DType.Size():], t.DType); i >= 0 {
			return Tensor{}, t.beyond(begin+i, F32)
		}
		if i := narrow(out.Data[begin*to.Size():], values, to); i >= 0 {
			return Tensor{}, t.beyond(begin+i, to)
		}
	}
	return out, nil
}

// narrow encodes values in a floating-point dtype. It returns the first finite one that would become infinite, −1 if
// there is none.
func narrow(dst []byte, src []float32, dtype DType) (overflow int) {
	le := binary.LittleEndian
	switch dtype {
	case F64:
		for i, v := range src {
			le.PutUint64(dst[8*i:], math.Float64bits(float64(v)))
		}
	case F32:
		for i, v := range src {
			le.PutUint32(dst[4*i:], math.Float32bits(v))
		}
	case F16:
		for i, v := range src {
			h := halfFromFloat32(v)
			if h&0x7fff == 0x7c00 && !isInf(v) {
				return i
			}
			le.PutUint16(dst[2*i:], h)
		}
	case BF16:
		for i, v := range src {
			b := bfloat16FromFloat32(v)
			if b&0x7fff == 0x7f80 && !isInf(v) {
				return i
			}
			le.PutUint16(dst[2*i:], b)
		}
	}
	return -1
}

func isInf(v float32) bool { return math.Float32bits(v)&0x7fffffff == 0x7f800000 }

// halfFromFloat32 rounds to a binary16.
func halfFromFloat32(v float32) uint16 {
	bits := math.Float32bits(v)
	sign := uint16(bits>>16) & 0x8000
	bits &= 0x7fffffff
	switch {
	case bits > 0x7f800000: // NaN, made quiet so that it does not become an infinity
		return sign | 0x7e00 | uint16(bits>>13)&0x3ff
	case bits >= 0x477ff000: // from 65520 on
		return sign | 0x7c00
	case bits < 0x38800000:
		// Below 2^-14 halves have steps of 2^-24, which is the step of float32 at 0.5: the sum is rounded to it.
		return sign | uint16(math.Float32bits(math.Float32frombits(bits)+0.5)-math.Float32bits(0.5))
	}
	// The exponent's bias goes from 127 to 15, 13 bits of the fraction are rounded off; a carry goes into the exponent.
	return sign | uint16((bits-112<<23+0xfff+bits>>13&1)>>13)
}

// bfloat16FromFloat32 rounds to the upper half of a float32.
func bfloat16FromFloat32(v float32) uint16 {
	bits := math.Float32bits(v)
	if bits&0x7fffffff > 0x7f800000 { // NaN, made quiet so that it does not become an infinity
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
