package weights

import (
	"bytes"
	"encoding/binary"
	"math/big"
	"os"
	"reflect"
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

// FuzzPickle runs arbitrary bytes as a pickle. What is accepted must be plain and come to an end when it is walked.
func FuzzPickle(f *testing.F) {
	f.Add([]byte(pickleOf(dict(str("w"), vector("0", 4), str("n"), list(num(-1), "\x88", "N", tup(str("a")))))))
	f.Add([]byte(pickleOf(call("collections", "OrderedDict") + dict(str("_metadata"), "}") + "b")))
	f.Add([]byte(pickleOf(class("argparse", "Namespace") + ")\x81" +
		dict(str("lr"), "G\x3f\xf0\x00\x00\x00\x00\x00\x00") + "b")))
	f.Add([]byte(pickleOf(nested(20) + "q\x00h\x00\x86")))
	f.Add([]byte("\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x01a\x94\x8c\x01b\x94\x86\x94\x8f(K\x01K\x02\x90\x86."))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := inMemory(raw)
		stored := storages{byKey: map[string]*storage{}, find: func(id storageID) (*storage, error) {
			size, err := id.bytes(c.size)
			return &storage{contents: c, key: id.key, dtype: id.dtype, size: size}, err
		}}
		v, err := unpickle(newPickleReader(c, 0, c.size), stored.load)
		if err != nil {
			return
		}
		if n := walk(t, v); n > sharedFree+sharedFactor*len(raw)+1 {
			t.Fatalf("%d bytes unfold to %d values", len(raw), n)
		}
	})
}

// walk counts the values below v, reads tensors on the way, and wants nothing but plain values.
func walk(t *testing.T, v any) int {
	n := 1
	switch v := v.(type) {
	case nil, bool, int64, float64, string, []byte, *big.Int:
	case *TorchTensor:
		tensor, err := v.Read()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tensor.check(); err != nil {
			t.Fatal(err)
		}
	case []any:
		for _, item := range v {
			n += walk(t, item)
		}
	case Tuple:
		n += walk(t, []any(v))
	case *Dict:
		for key, value := range v.All() {
			if got, ok := v.Get(key); !ok || reflect.TypeOf(got) != reflect.TypeOf(value) {
				t.Fatalf("key %v leads to %T, want %T", key, got, value)
			}
			n += walk(t, key) + walk(t, value)
		}
	default:
		t.Fatalf("a %T is no plain value", v)
	}
	return n
}

// fuzzTorch opens arbitrary bytes as a PyTorch file. What is accepted must be readable to the last tensor.
func fuzzTorch(t *testing.T, raw []byte) {
	f, err := newTorch(inMemory(raw))
	if err != nil {
		return
	}
	readAll(t, f)
	walk(t, f.Value())
}

// FuzzTorchZip makes a zip container of an arbitrary pickle and then damages it in one place: arbitrary bytes hardly
// ever have a directory at the end that leads to anything.
func FuzzTorchZip(f *testing.F) {
	good := pickleOf(dict(str("w"), view(floats("0", 4), 1, nums(1, 3), nums(3, 1))))
	size := len(torchZip(good))
	for _, at := range []int{0, 8, 26, size - 22, size - 12, size - 6, size - 90, size - 60} {
		f.Add([]byte(good), uint32(at), uint64(1))
	}
	f.Add([]byte(pickleOf(dict(str("w"), vector("0", 4)))), uint32(0), uint64(0))
	f.Fuzz(func(t *testing.T, pickle []byte, at uint32, flip uint64) {
		raw := torchZip(string(pickle), stored{name: "x/byteorder", data: "little"})
		for i := range 8 {
			raw[(int(at)+i)%len(raw)] ^= byte(flip >> (8 * i))
		}
		fuzzTorch(t, raw)
	})
}

// FuzzTorchLegacy adds the pickles in front of the object.
func FuzzTorchLegacy(f *testing.F) {
	head := legacyHeadText(1001, "\x88")
	for _, seed := range [][]byte{
		torchLegacy(pickleOf(dict(str("w"), vector("k", 1))), pickleOf(list(str("k"))), elementsOf(1, "....")),
		torchLegacy(pickleOf(dict(str("w"), vector("k", 0), str("v"), vector("l", 2))), pickleOf(list(str("l"), str("k"))),
			elementsOf(2, "........")+elementsOf(0, "")),
	} {
		f.Add(seed[len(head):])
	}
	f.Fuzz(func(t *testing.T, raw []byte) { fuzzTorch(t, append([]byte(head), raw...)) })
}

// FuzzKind sniffs arbitrary bytes and opens them as whatever they look like.
func FuzzKind(f *testing.F) {
	f.Add([]byte("<!doctype html>"))
	f.Add([]byte("version https://git-lfs.github.com/spec/v1\n"))
	f.Add([]byte(pickleOf("N")))
	f.Add(rawFile(`{}`, nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		kind, err := kindOf(raw[:min(len(raw), sniffed)])
		if err != nil {
			return
		}
		if file, err := fileFromBytes(raw); err == nil && kind != kindSafetensors {
			t.Fatalf("a safetensors file of %d tensors was taken for kind %d", len(file.Names()), kind)
		}
		fuzzTorch(t, raw)
	})
}
