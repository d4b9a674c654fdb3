package weights

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestWritesWhatTheReferenceWrites encodes the reference file's tensors in its order and must get its bytes.
func TestWritesWhatTheReferenceWrites(t *testing.T) {
	want, err := os.ReadFile("testdata/reference.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open("testdata/reference.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var tensors []Tensor
	for _, name := range []string{"u64", "i64", "f64", "Qformer.bert.scalar", "empty", "f32", "u32", "i32", "bf16", "f16",
		"u16", "i16", "i8", "u8", "bool"} {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, tensor)
	}
	var got bytes.Buffer
	if err := Encode(&got, tensors, f.Metadata()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("got  %q\nwant %q", got.Bytes(), want)
	}
}

func TestRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	long := make([]float32, 3*chunk/4/2+5) // more than one piece, not a multiple
	for i := range long {
		long[i] = rng.Float32()
	}
	tensors := []Tensor{
		FromFloat32("Qformer.bert.embeddings.word_embeddings.weight", []int{len(long)}, long),
		FromFloat32("temp", nil, []float32{0.07}),
		FromInt64("step", []int{1, 2}, []int64{-1, 1 << 60}),
		FromFloat32("nothing", []int{0, 768}, nil),
		{Name: `odd "name" <&> \ ` + "\n\u2028 ü", DType: BOOL, Shape: []int{3}, Data: []byte{0, 1, 0}},
		{Name: "behind a bool", DType: F16, Shape: []int{1}, Data: []byte{0, 0x3c}},
	}
	metadata := map[string]string{"format": "pt", "b": "<ü>", "a": ""}
	path := filepath.Join(t.TempDir(), "x.safetensors")
	for range 2 { // the second time over the existing file
		if err := Write(path, tensors, metadata); err != nil {
			t.Fatal(err)
		}
	}
	bothWays(t, func(t *testing.T, open func(string) (*File, error)) {
		f, err := open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if len(f.Names()) != len(tensors) || len(f.Metadata()) != 3 || f.Metadata()["b"] != "<ü>" {
			t.Errorf("names %q, metadata %q", f.Names(), f.Metadata())
		}
		for _, want := range tensors {
			got, err := f.Tensor(want.Name)
			if err != nil {
				t.Fatal(err)
			}
			if got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) || !bytes.Equal(got.Data, want.Data) {
				t.Errorf("%q changed", want.Name)
			}
		}
	})
}

func TestEncodingIsDeterministicAndAligned(t *testing.T) {
	for n := range 20 { // header lengths of all remainders
		tensors := []Tensor{FromFloat32(strings.Repeat("x", n+1), []int{2}, []float32{1, 2})}
		metadata := map[string]string{"c": "3", "b": "2", "a": "1", "e": "5", "d": "4"}
		var first bytes.Buffer
		if err := Encode(&first, tensors, metadata); err != nil {
			t.Fatal(err)
		}
		if at := 8 + binary.LittleEndian.Uint64(first.Bytes()); at%8 != 0 || int(at)+8 != first.Len() {
			t.Errorf("data begin at byte %d of %d", at, first.Len())
		}
		if size, err := EncodedSize(tensors, metadata); err != nil || size != int64(first.Len()) {
			t.Errorf("EncodedSize says %d, %v; written were %d", size, err, first.Len())
		}
		for range 5 {
			var again bytes.Buffer
			if err := Encode(&again, tensors, metadata); err != nil || !bytes.Equal(first.Bytes(), again.Bytes()) {
				t.Fatalf("equal input, other bytes (%v)", err)
			}
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	x := FromFloat32("x", []int{1}, []float32{1})
	for want, tensors := range map[string][]Tensor{
		`tensor "x": the name occurs twice`:              {x, x},
		`shape [2] of F32 needs 8 bytes, the data`:       {FromFloat32("y", []int{2}, []float32{1})},
		`shape [] of I64 needs 8 bytes, the data`:        {FromInt64("y", nil, nil)},
		`tensor "__metadata__": the name cannot be`:      {FromInt64("__metadata__", []int{0}, nil)},
		`tensor "": the name cannot be`:                  {FromInt64("", []int{0}, nil)},
		`tensor "\xff": the name cannot be`:              {FromInt64("\xff", []int{0}, nil)},
		`tensor "z": unknown dtype "C64"`:                {{Name: "z", DType: "C64", Shape: []int{1}, Data: make([]byte, 8)}},
		`tensor "z": shape has the negative dimension`:   {{Name: "z", DType: U8, Shape: []int{-1}, Data: nil}},
		`tensor "z": a shape of 2 dimensions has more e`: {{Name: "z", DType: U8, Shape: []int{1 << 62, 4}, Data: nil}},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "x.safetensors")
		if err := Write(path, tensors, nil); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("got %v\nwant %s", err, want)
		}
		wantEmpty(t, dir)
		if _, err := EncodedSize(tensors, nil); err == nil {
			t.Errorf("EncodedSize accepts: %s", want)
		}
	}
	if err := Encode(&bytes.Buffer{}, nil, map[string]string{"a": "\xff"}); err == nil {
		t.Error("metadata that is not UTF-8 was accepted")
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left in the folder: %v, %v", left, err)
	}
}

// failing accepts some bytes and then fails as a full disk does.
type failing struct{ room int }

var errFull = errors.New("full")

func (f *failing) Write(p []byte) (int, error) {
	if len(p) > f.room {
		return f.room, errFull
	}
	f.room -= len(p)
	return len(p), nil
}

func TestEncodeReportsWriteErrors(t *testing.T) {
	tensors := []Tensor{FromFloat32("x", []int{1}, []float32{1}), FromFloat32("y", []int{1}, []float32{1})}
	size, err := EncodedSize(tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	for room := range int(size) {
		if err := Encode(&failing{room}, tensors, nil); !errors.Is(err, errFull) {
			t.Fatalf("%d of %d bytes: %v", room, size, err)
		}
	}
	if err := Encode(&failing{int(size)}, tensors, nil); err != nil {
		t.Error(err)
	}
}

func BenchmarkWrite(b *testing.B) {
	tensors := benchmarkTensors()
	path := filepath.Join(b.TempDir(), "x.safetensors")
	size, err := EncodedSize(tensors, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(size)
	for b.Loop() {
		if err := Write(path, tensors, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmarkTensors are 128 MB of float32 in 32 tensors.
func benchmarkTensors() []Tensor {
	var tensors []Tensor
	for i := range 32 {
		v := make([]float32, 1<<20)
		for j := range v {
			v[j] = float32(i*j) * 0x1p-30
		}
		tensors = append(tensors, FromFloat32("layer."+string(rune('a'+i)), []int{1024, 1024}, v))
	}
	return tensors
}
