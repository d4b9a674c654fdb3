package weights

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

var sink = make([]float32, 1<<20)

// benchmarkRead opens a file of 128 MB, reads every tensor, and copies the values elsewhere as loading a model into a
// device does.
func benchmarkRead(b *testing.B, file []byte, read func(Tensor) []float32) {
	path := filepath.Join(b.TempDir(), "x")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(file)))
	for b.Loop() {
		f, err := OpenAny(path)
		if err != nil {
			b.Fatal(err)
		}
		for _, name := range f.Names() {
			tensor, err := f.Tensor(name)
			if err != nil {
				b.Fatal(err)
			}
			copy(sink, read(tensor))
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmarkSafetensors is the file of benchmarkTensors.
func benchmarkSafetensors(b *testing.B) []byte { return encoded(b, benchmarkTensors()...) }

// benchmarkZip is the same in PyTorch's zip container, aligned as PyTorch aligns it.
func benchmarkZip(b *testing.B) []byte {
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	add := func(name string, data []byte) {
		if err := w.Flush(); err != nil {
			b.Fatal(err)
		}
		const local = 30 // bytes of a local header without name and extra field
		pad := 63 - (buf.Len()+local+len(name)+4+63)%64
		to, err := w.CreateRaw(&zip.FileHeader{Name: name, CompressedSize64: uint64(len(data)),
			UncompressedSize64: uint64(len(data)), Extra: append([]byte{'F', 'B', byte(pad), 0}, make([]byte, pad)...)})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := to.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	var state []string
	for i, t := range benchmarkTensors() {
		state = append(state, str(t.Name), view(floats(strconv.Itoa(i), 1<<20), 0, nums(1024, 1024), nums(1024, 1)))
	}
	add("x/data.pkl", []byte(pickleOf(dict(state...))))
	for i, t := range benchmarkTensors() {
		add("x/data/"+strconv.Itoa(i), t.Data)
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
	return buf.Bytes()
}

// BenchmarkRead includes opening the file; it lies in the page cache.
func BenchmarkRead(b *testing.B) {
	view := func(t Tensor) []float32 {
		v, ok := t.Float32View()
		if !ok {
			b.Fatal("no view")
		}
		return v
	}
	read := func(t Tensor) []float32 {
		v, err := t.Float32s()
		if err != nil {
			b.Fatal(err)
		}
		return v
	}
	b.Run("safetensors/view", func(b *testing.B) { benchmarkRead(b, benchmarkSafetensors(b), view) })
	b.Run("safetensors/copy", func(b *testing.B) { benchmarkRead(b, benchmarkSafetensors(b), read) })
	b.Run("zip/view", func(b *testing.B) { benchmarkRead(b, benchmarkZip(b), view) })
	b.Run("zip/copy", func(b *testing.B) { benchmarkRead(b, benchmarkZip(b), read) })
}

// BenchmarkOpenTorch opens a file of 4000 tensors without reading them.
func BenchmarkOpenTorch(b *testing.B) {
	entries := []stored{}
	var state []string
	for i := range 4000 {
		key := strconv.Itoa(i)
		state = append(state, str("layer."+key+".weight"), vector(key, 1))
		entries = append(entries, stored{name: "x/data/" + key, data: "1234"})
	}
	entries = append(entries, stored{name: "x/data.pkl", data: pickleOf(dict(state...))})
	path := filepath.Join(b.TempDir(), "x.pth")
	if err := os.WriteFile(path, zipFile(entries...), 0o666); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		f, err := OpenTorch(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
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

func BenchmarkCast(b *testing.B) {
	for _, c := range []struct{ from, to DType }{{F32, BF16}, {F32, F16}, {F16, BF16}, {BF16, F32}} {
		b.Run(string(c.from)+"-"+string(c.to), func(b *testing.B) {
			t := Tensor{DType: c.from, Shape: []int{1 << 22}, Data: make([]byte, c.from.Size()<<22)}
			b.SetBytes(int64(len(t.Data)))
			for b.Loop() {
				if _, err := t.CastFloat(c.to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTransposed(b *testing.B) {
	view := storageView{&storage{contents: inMemory(make([]byte, 4<<22)), size: 4 << 22}, 0, 4 << 22}
	t, err := newTorchTensor(view, F32, 0, []int{2048, 2048}, []int{1, 2048})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(4 << 22)
	for b.Loop() {
		if _, err := t.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
