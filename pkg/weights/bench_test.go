package weights

import (
	"path/filepath"
	"testing"
)

var sink float32

// benchmarkRead opens a file of 128 MB and passes every tensor to read, as loading a model does.
func benchmarkRead(b *testing.B, read func(Tensor) []float32) {
	path := filepath.Join(b.TempDir(), "x.safetensors")
	tensors := benchmarkTensors()
	if err := Write(path, tensors, nil); err != nil {
		b.Fatal(err)
	}
	size, _ := EncodedSize(tensors, nil)
	b.SetBytes(size)
	for b.Loop() {
		f, err := Open(path)
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range f.Names() {
			tensor, err := f.Tensor(name)
			if err != nil {
				b.Fatal(err)
			}
			for _, v := range read(tensor) {
				sink += v
			}
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadView and BenchmarkReadCopy include opening the file and adding up all values.
func BenchmarkReadView(b *testing.B) {
	benchmarkRead(b, func(t Tensor) []float32 {
		v, ok := t.Float32View()
		if !ok {
			b.Fatal("no view")
		}
		return v
	})
}

func BenchmarkReadCopy(b *testing.B) {
	benchmarkRead(b, func(t Tensor) []float32 {
		v, err := t.Float32s()
		if err != nil {
			b.Fatal(err)
		}
		return v
	})
}

func BenchmarkConvert(b *testing.B) {
	for _, dtype := range []DType{F32, F16, BF16, F64} {
		b.Run(string(dtype), func(b *testing.B) {
			t := Tensor{DType: dtype, Shape: []int{1 << 22}, Data: make([]byte, dtype.Size()<<22)}
			b.SetBytes(int64(len(t.Data)))
			for b.Loop() {
				if _, err := t.Float32s(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
