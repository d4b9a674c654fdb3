package weights

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// hostIsLittleEndian is true where memory has the byte order of the file, so that whole arrays can be moved at once.
var hostIsLittleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// Float32s returns the elements of an F32, F16, BF16 or F64 tensor as a new slice, row-major.
// The first three are exact: subnormals, infinities, signed zeros and NaN with its payload. F64 is rounded to nearest
// even; a finite value beyond the range of float32 is an error. So is any other dtype.
func (t Tensor) Float32s() ([]float32, error) {
	n, err := t.check()
	if err != nil {
		return nil, err
	}
	if !t.DType.isFloat() {
		return nil, fmt.Errorf("tensor %s: dtype is %s, expected a floating-point type (F32, F16, BF16 or F64)",
			clip(t.Name), t.DType)
	}
	out := make([]float32, n)
	if i := widen(out, t.Data, t.DType); i >= 0 {
		return nil, t.beyond(i, F32)
	}
	return out, nil
}

// widen decodes len(dst) values of a floating-point dtype. It returns the first finite one that float32 cannot hold,
// which only F64 has, and −1 if there is none.
func widen(dst []float32, data []byte, dtype DType) (overflow int) {
	switch dtype {
	case F32:
		copyFloat32(dst, data)
	case F16:
		for i := range dst {
			dst[i] = float32FromHalf(uint16(data[2*i]) | uint16(data[2*i+1])<<8)
		}
	case BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(data[2*i])<<16 | uint32(data[2*i+1])<<24)
		}
	case F64:
		for i := range dst {
			v := math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:]))
			dst[i] = float32(v)
			if math.IsInf(float64(dst[i]), 0) && !math.IsInf(v, 0) {
				return i
			}
		}
	}
	return -1
}

// beyond is the error for element i of a floating-point tensor, which does not fit dtype.
func (t Tensor) beyond(i int, dtype DType) error {
	var v float64
	if t.DType == F64 {
		v = math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:]))
	} else {
		var one [1]float32
		widen(one[:], t.Data[i*t.DType.Size():], t.DType)
		v = float64(one[0])
	}
	return fmt.Errorf("tensor %s: element %d is %g, beyond the range of %s", clip(t.Name), i, v, rangeNames[dtype])
}

// rangeNames are the dtypes that values can be too large for.
var rangeNames = map[DType]string{F32: "float32", F16: "float16", BF16: "bfloat16"}

// Float32View returns the elements of an F32 tensor without copying them: the slice aliases Data, must not be written
// to and must not be used after the file it came from is closed. ok is false if the tensor is not F32, its data do not
// lie on a 4-byte boundary, or the machine is big-endian; Float32s works then.
func (t Tensor) Float32View() (v []float32, ok bool) {
	n, err := t.check()
	if err != nil || t.DType != F32 || !hostIsLittleEndian {
		return nil, false
	}
	if n == 0 {
		return []float32{}, true
	}
	p := unsafe.Pointer(unsafe.SliceData(t.Data))
	if uintptr(p)%4 != 0 {
		return nil, false
	}
	return unsafe.Slice((*float32)(p), n), true
}

// Int64s returns the elements of an integer or BOOL tensor (0 and 1) as a new slice, row-major.
// A U64 above the range of int64, a BOOL byte other than 0 and 1, and any floating-point type are errors.
func (t Tensor) Int64s() ([]int64, error) {
	n, err := t.check()
	if err != nil {
		return nil, err
	}
	if t.DType.isFloat() {
		return nil, fmt.Errorf("tensor %s: dtype is %s, expected an integer type or BOOL", clip(t.Name), t.DType)
	}
	out := make([]int64, n)
	le, data := binary.LittleEndian, t.Data
	for i := range out {
		switch t.DType {
		case I64:
			out[i] = int64(le.Uint64(data[8*i:]))
		case I32:
			out[i] = int64(int32(le.Uint32(data[4*i:])))
		case I16:
			out[i] = int64(int16(le.Uint16(data[2*i:])))
		case I8:
			out[i] = int64(int8(data[i]))
		case U32:
			out[i] = int64(le.Uint32(data[4*i:]))
		case U16:
			out[i] = int64(le.Uint16(data[2*i:]))
		case U8:
			out[i] = int64(data[i])
		case U64:
			v := le.Uint64(data[8*i:])
			if v > math.MaxInt64 {
				return nil, fmt.Errorf("tensor %s: element %d is %d, beyond the range of int64", clip(t.Name), i, v)
			}
			out[i] = int64(v)
		case BOOL:
			if data[i] > 1 {
				return nil, fmt.Errorf("tensor %s: element %d has the byte %d, expected 0 or 1", clip(t.Name), i, data[i])
			}
			out[i] = int64(data[i])
		}
	}
	return out, nil
}

func (d DType) isFloat() bool { return d == F64 || d == F32 || d == F16 || d == BF16 }

// float32FromHalf widens a binary16. Its exponent is moved from bias 15 to bias 127 by a multiplication with 2^112,
// which also normalises subnormals and is exact; infinity and NaN keep all exponent bits set instead.
func float32FromHalf(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	magnitude := uint32(h&0x7fff) << 13
	if h&0x7c00 == 0x7c00 {
		return math.Float32frombits(sign | magnitude | 0x7f800000)
	}
	const rebias = 0x1p112
	return math.Float32frombits(sign | math.Float32bits(math.Float32frombits(magnitude)*rebias))
}

// copyFloat32 decodes little-endian float32 data of 4·len(dst) bytes.
func copyFloat32(dst []float32, src []byte) {
	if len(dst) == 0 {
		return
	}
	if hostIsLittleEndian {
		copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(dst))), 4*len(dst)), src)
		return
	}
	for i := range dst {
		dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
	}
}

// float32Bytes encodes v as little-endian bytes in new memory.
func float32Bytes(v []float32) []byte {
	out := make([]byte, 4*len(v))
	if len(v) == 0 {
		return out
	}
	if hostIsLittleEndian {
		copy(out, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), len(out)))
		return out
	}
	for i, x := range v {
		binary.LittleEndian.PutUint32(out[4*i:], math.Float32bits(x))
	}
	return out
}

// int64Bytes encodes v as little-endian bytes in new memory.
func int64Bytes(v []int64) []byte {
	out := make([]byte, 8*len(v))
	for i, x := range v {
		binary.LittleEndian.PutUint64(out[8*i:], uint64(x))
	}
	return out
}
