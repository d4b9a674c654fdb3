package weights

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestHalfIsExact compares all 65536 binary16 values with their definition.
func TestHalfIsExact(t *testing.T) {
	data := make([]byte, 2<<16)
	for h := range 1 << 16 {
		binary.LittleEndian.PutUint16(data[2*h:], uint16(h))
	}
	got, err := Tensor{DType: F16, Shape: []int{1 << 16}, Data: data}.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	for h, v := range got {
		if want := halfByDefinition(uint16(h)); math.Float32bits(v) != want {
			t.Fatalf("half %#04x is %#08x, want %#08x", h, math.Float32bits(v), want)
		}
	}
}

func halfByDefinition(h uint16) uint32 {
	sign, exponent, fraction := uint32(h>>15)<<31, int(h>>10)&31, uint32(h)&0x3ff
	switch exponent {
	case 31:
		return sign | 0x7f800000 | fraction<<13
	case 0:
		return sign | math.Float32bits(float32(math.Ldexp(float64(fraction), -24)))
	}
	return sign | math.Float32bits(float32(math.Ldexp(1+float64(fraction)/1024, exponent-15)))
}

func TestBFloat16IsExact(t *testing.T) {
	data := make([]byte, 2<<16)
	for b := range 1 << 16 {
		binary.LittleEndian.PutUint16(data[2*b:], uint16(b))
	}
	got, err := Tensor{DType: BF16, Shape: []int{256, 256}, Data: data}.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	for b, v := range got {
		if math.Float32bits(v) != uint32(b)<<16 {
			t.Fatalf("bfloat16 %#04x is %#08x", b, math.Float32bits(v))
		}
	}
}

func TestFloat32KeepsBits(t *testing.T) {
	bits := []uint32{0, 1 << 31, 1, 0x007fffff, 0x7f7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345}
	data := make([]byte, 4*len(bits))
	for i, b := range bits {
		binary.LittleEndian.PutUint32(data[4*i:], b)
	}
	tensor := Tensor{DType: F32, Shape: []int{len(bits)}, Data: data}
	copied, err := tensor.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	view, ok := tensor.Float32View()
	if !ok && hostIsLittleEndian {
		t.Fatal("no view of aligned float32 data")
	}
	again := FromFloat32("x", []int{len(bits)}, copied)
	for i, b := range bits {
		if math.Float32bits(copied[i]) != b || ok && math.Float32bits(view[i]) != b {
			t.Errorf("%#08x changed", b)
		}
	}
	if !slices.Equal(again.Data, data) {
		t.Error("FromFloat32 changed bits")
	}
}

func TestConversionsCopy(t *testing.T) {
	v := []float32{1, 2}
	tensor := FromFloat32("x", []int{2}, v)
	v[0] = 9
	got, err := tensor.Float32s()
	if err != nil || got[0] != 1 {
		t.Fatalf("FromFloat32 aliases its argument: %v, %v", got, err)
	}
	got[1] = 9
	if again, _ := tensor.Float32s(); again[1] != 2 {
		t.Fatal("Float32s aliases the tensor's data")
	}
}

func TestFloat64Rounds(t *testing.T) {
	f64 := func(v ...float64) Tensor {
		data := make([]byte, 0, 8*len(v))
		for _, x := range v {
			data = binary.LittleEndian.AppendUint64(data, math.Float64bits(x))
		}
		return Tensor{Name: "x", DType: F64, Shape: []int{len(v)}, Data: data}
	}
	got, err := f64(1, 1+0x1p-24, 1+0x1.8p-23, 0x1p-149, math.Inf(-1), math.NaN()).Float32s()
	if err != nil {
		t.Fatal(err)
	}
	want := []float32{1, 1, 1 + 0x1p-22, 0x1p-149, float32(math.Inf(-1))}
	if !slices.Equal(got[:5], want) || got[5] == got[5] {
		t.Errorf("got %v, want %v and NaN", got, want)
	}
	if _, err := f64(0, 1e39).Float32s(); err == nil || !strings.Contains(err.Error(), "element 1 is 1e+39") {
		t.Errorf("overflow: %v", err)
	}
}

func TestInt64s(t *testing.T) {
	for _, c := range []struct {
		dtype DType
		data  []byte
		want  []int64
	}{
		{I64, []byte{0xfe, 255, 255, 255, 255, 255, 255, 255}, []int64{-2}},
		{I32, []byte{0xfe, 255, 255, 255, 1, 0, 0, 128}, []int64{-2, -1<<31 + 1}},
		{I16, []byte{0xfe, 255, 0, 128}, []int64{-2, -1 << 15}},
		{I8, []byte{0xfe, 128}, []int64{-2, -128}},
		{U64, []byte{255, 255, 255, 255, 255, 255, 255, 127}, []int64{math.MaxInt64}},
		{U32, []byte{255, 255, 255, 255}, []int64{1<<32 - 1}},
		{U16, []byte{255, 255}, []int64{1<<16 - 1}},
		{U8, []byte{255, 3}, []int64{255, 3}},
		{BOOL, []byte{1, 0}, []int64{1, 0}},
	} {
		tensor := Tensor{Name: "x", DType: c.dtype, Shape: []int{len(c.want)}, Data: c.data}
		if got, err := tensor.Int64s(); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.dtype, got, err, c.want)
		}
		if _, err := tensor.Float32s(); err == nil {
			t.Errorf("%s passed as floating point", c.dtype)
		}
	}
	back, err := FromInt64("x", []int{2}, []int64{math.MinInt64, 7}).Int64s()
	if err != nil || !slices.Equal(back, []int64{math.MinInt64, 7}) {
		t.Errorf("FromInt64: %v, %v", back, err)
	}
}

func TestConversionErrors(t *testing.T) {
	for want, tensor := range map[string]Tensor{
		"element 1 has the byte 2":      {DType: BOOL, Shape: []int{2}, Data: []byte{1, 2}},
		"beyond the range of int64":     {DType: U64, Shape: []int{1}, Data: []byte{0, 0, 0, 0, 0, 0, 0, 128}},
		"expected an integer type":      {DType: F32, Shape: []int{}, Data: make([]byte, 4)},
		"needs 12 bytes, the data have": {DType: F32, Shape: []int{3}, Data: make([]byte, 8)},
		"negative dimension -1":         {DType: F32, Shape: []int{-1, -1}, Data: make([]byte, 4)},
		"more elements than":            {DType: U8, Shape: []int{1 << 40, 1 << 40}, Data: nil},
		"unknown dtype \"F8_E4M3\"":     {DType: "F8_E4M3", Shape: []int{1}, Data: []byte{0}},
	} {
		tensor.Name = "Qformer.x"
		_, err := tensor.Int64s()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"Qformer.x"`) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestViewNeedsAlignment(t *testing.T) {
	data := float32Bytes([]float32{1, 2, 3})
	for shift := range 4 {
		moved := append(make([]byte, shift, 32), data...)[shift:]
		tensor := Tensor{DType: F32, Shape: []int{3}, Data: moved}
		if got, err := tensor.Float32s(); err != nil || !slices.Equal(got, []float32{1, 2, 3}) {
			t.Errorf("shift %d: %v, %v", shift, got, err)
		}
		v, ok := tensor.Float32View()
		if ok != (shift == 0 && hostIsLittleEndian) || ok && !slices.Equal(v, []float32{1, 2, 3}) {
			t.Errorf("shift %d: view %v, %v", shift, v, ok)
		}
	}
	if v, ok := (Tensor{DType: F32, Shape: []int{0}}).Float32View(); hostIsLittleEndian && (!ok || v == nil) {
		t.Error("no view of an empty tensor")
	}
	if _, ok := (Tensor{DType: F16, Shape: []int{1}, Data: []byte{0, 0}}).Float32View(); ok {
		t.Error("a view of F16 as float32")
	}
}
