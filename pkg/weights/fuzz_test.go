package weights

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"
)

// FuzzOpen opens arbitrary bytes. What is accepted must be readable to the last tensor and survive writing.
func FuzzOpen(f *testing.F) {
	reference, err := os.ReadFile("testdata/reference.safetensors")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(reference)
	f.Add(rawFile(`{}`, nil))
	f.Add(rawFile(two("F16", 0, 2, "BOOL", 2, 3), []byte{0, 1, 2}))
	f.Add(rawFile(two("F64", 0, 8, "F64", 4, 12), make([]byte, 12)))
	f.Add(rawFile(`{"a":{"dtype":"U8","shape":[0,18446744073709551615],"data_offsets":[0,0]}}`, nil))
	f.Fuzz(func(t *testing.T, contents []byte) {
		file, err := fileFromBytes(contents)
		if err != nil {
			return
		}
		var tensors []Tensor
		total := 0
		for _, name := range file.Names() {
			tensor, err := file.Tensor(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tensor.check(); err != nil {
				t.Fatalf("accepted: %v", err)
			}
			// F64 may be beyond the range of float32, every other conversion depends on the type alone.
			if _, err := tensor.Float32s(); tensor.DType != F64 && (err == nil) != tensor.DType.isFloat() {
				t.Fatalf("%s as float32: %v", tensor.DType, err)
			}
			_, _ = tensor.Int64s()
			total += len(tensor.Data)
			tensors = append(tensors, tensor)
		}
		if data := len(contents) - file.header.data; total != data {
			t.Fatalf("tensors have %d of %d bytes", total, data)
		}
		rewrite(t, file, tensors)
	})
}

// fileFromBytes is Open for a file in memory.
func fileFromBytes(raw []byte) (*File, error) { return newFile(inMemory(raw)) }

func inMemory(raw []byte) *contents {
	return &contents{path: "memory", size: len(raw), mapped: append([]byte{}, raw...)}
}

func rewrite(t *testing.T, file *File, tensors []Tensor) {
	for _, tensor := range tensors {
		if tensor.Name == "" {
			return // readable, but not written
		}
	}
	var buf bytes.Buffer
	if err := Encode(&buf, tensors, file.Metadata()); err != nil {
		t.Fatal(err)
	}
	again, err := fileFromBytes(buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range tensors {
		got, err := again.Tensor(want.Name)
		if err != nil || !bytes.Equal(got.Data, want.Data) || got.DType != want.DType {
			t.Fatalf("tensor %q changed: %v", want.Name, err)
		}
	}
}

// FuzzIndex parses arbitrary bytes as the index of a sharded model.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":1},"weight_map":{"x":"model-00001-of-00002.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"x":"../x"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		listed, err := parseIndex(raw)
		if err != nil {
			return
		}
		for tensor, file := range listed {
			if bytes.ContainsAny([]byte(file), "/\x00"+string(os.PathSeparator)) || file == ".." {
				t.Fatalf("tensor %q: shard %q", tensor, file)
			}
		}
	})
}

// TestBitFlips flips every bit of a small file: each is either refused or changes only what it should.
func TestBitFlips(t *testing.T) {
	reference, err := os.ReadFile("testdata/reference.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	end := lengthField + int(binary.LittleEndian.Uint64(reference))
	refused := 0
	for bit := range 8 * end {
		flipped := bytes.Clone(reference)
		flipped[bit/8] ^= 1 << (bit % 8)
		file, err := fileFromBytes(flipped)
		if err != nil {
			refused++
			continue
		}
		for _, name := range file.Names() {
			if _, err := file.Tensor(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What can pass are other letters in names and in metadata, and shapes and types of equal size.
	if share := float64(refused) / float64(8*end); share < 0.8 {
		t.Errorf("only %.0f %% of flipped headers were refused", 100*share)
	}
	for n := range len(reference) {
		if _, err := fileFromBytes(reference[:n]); err == nil {
			t.Errorf("the first %d of %d bytes were accepted", n, len(reference))
		}
	}
}
