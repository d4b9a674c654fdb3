package weights

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// lazyBytes is a tensor of n bytes, all equal to fill.
func lazyBytes(name string, n int, fill byte) Lazy {
	return Lazy{Name: name, DType: U8, Shape: []int{n},
		Data: func() ([]byte, error) { return bytes.Repeat([]byte{fill}, n), nil }}
}

// TestSplitsAsHuggingFace compares with what huggingface_hub 0.36.2 makes of tensors of these sizes and a limit of 50.
func TestSplitsAsHuggingFace(t *testing.T) {
	for _, c := range []struct {
		sizes []int
		want  [][]int // tensors of each shard
	}{
		{[]int{10, 10, 10}, [][]int{{0, 1, 2}}},
		{slices.Repeat([]int{10}, 10), [][]int{{0, 1, 2, 3, 4}, {5, 6, 7, 8, 9}}},
		{[]int{60, 10, 10, 30, 10}, [][]int{{0}, {1, 2, 3}, {4}}},
		{[]int{10, 60, 10, 30, 10}, [][]int{{1}, {0, 2, 3}, {4}}},
		{[]int{50, 1}, [][]int{{0}, {1}}},
		{[]int{51}, [][]int{{0}}},
		{[]int{20, 31, 20, 51, 30}, [][]int{{0}, {1}, {3}, {2, 4}}},
		{[]int{0, 50, 0, 1, 0}, [][]int{{0, 1, 2}, {3, 4}}},
		{[]int{51, 52, 53}, [][]int{{0}, {1}, {2}}},
		{[]int{25, 25, 25, 25, 1}, [][]int{{0, 1}, {2, 3}, {4}}},
		{nil, [][]int{nil}}, // here one file without tensors
	} {
		var tensors []Lazy
		sum := 0
		for i, n := range c.sizes {
			tensors = append(tensors, lazyBytes(fmt.Sprint(i), n, 0))
			sum += n
		}
		shards, total, err := split(tensors, 50)
		if err != nil || total != int64(sum) {
			t.Fatalf("%v: %d bytes, %v", c.sizes, total, err)
		}
		var got [][]int
		for _, shard := range shards {
			var numbers []int
			for _, tensor := range shard {
				numbers = append(numbers, int(tensor.Name[0]-'0'))
			}
			got = append(got, numbers)
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v: got %v, want %v", c.sizes, got, c.want)
		}
	}
}

func TestWriteDirInShards(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out", "model")
	tensors := []Lazy{lazyBytes("b", 30, 1), lazyBytes("a", 30, 2), lazyBytes("<c>", 20, 3), lazyBytes("large", 51, 4)}
	err := WriteDir(t.Context(), dir, tensors, DirOptions{MaxShardBytes: 50, Add: func(temp string) error {
		put(t, temp, "config.json", []byte("{}"))
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, "config.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
		"model-00003-of-00003.safetensors", IndexFile)
	raw, err := os.ReadFile(filepath.Join(dir, IndexFile))
	if err != nil {
		t.Fatal(err)
	}
	const index = `{
  "metadata": {
    "total_size": 131
  },
  "weight_map": {
    "<c>": "model-00003-of-00003.safetensors",
    "a": "model-00003-of-00003.safetensors",
    "b": "model-00001-of-00003.safetensors",
    "large": "model-00002-of-00003.safetensors"
  }
}
`
	if string(raw) != index {
		t.Errorf("index %s", raw)
	}
	s, err := OpenAny(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Container() != "safetensors, 3 shards" {
		t.Errorf("container %s", s.Container())
	}
	for i, want := range tensors {
		got, err := s.Tensor(want.Name)
		if err != nil || !bytes.Equal(got.Data, bytes.Repeat([]byte{byte(i + 1)}, want.Shape[0])) {
			t.Errorf("%s: %v, %v", want.Name, got.Data, err)
		}
	}
	shard, err := Open(filepath.Join(dir, "model-00001-of-00003.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer shard.Close()
	if m := shard.Metadata(); len(m) != 1 || m["format"] != "pt" {
		t.Errorf("metadata %v", m)
	}
}

// wantFiles wants a folder to hold these files and nothing else.
func wantFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	slices.Sort(names)
	if !slices.Equal(got, names) {
		t.Errorf("%s holds %v, want %v", dir, got, names)
	}
}

func TestWriteDirInOneFile(t *testing.T) {
	dir := t.TempDir() // empty: taken over
	o := DirOptions{Metadata: map[string]string{"format": "pt", "from": "here"}}
	done := 0
	x := lazyBytes("x", 3, 1)
	x.Done = func() { done++ }
	if err := WriteDir(t.Context(), dir, []Lazy{x}, o); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, dir, SingleFile)
	f, err := Open(filepath.Join(dir, SingleFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Metadata()["from"] != "here" || done != 1 {
		t.Errorf("metadata %v, done %d times", f.Metadata(), done)
	}
	if err := WriteDir(t.Context(), dir, []Lazy{x}, o); err == nil || !strings.Contains(err.Error(), "not empty") ||
		!strings.Contains(err.Error(), dir) {
		t.Errorf("over an existing folder: %v", err)
	}
	wantFiles(t, dir, SingleFile)
}

func TestWriteDirLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	ctx, cancel := context.WithCancel(t.Context())
	good := lazyBytes("good", 30, 1)
	bad := func(name string, data func() ([]byte, error)) []Lazy {
		return []Lazy{good, {Name: name, DType: U8, Shape: []int{30}, Data: data}}
	}
	for _, c := range []struct {
		name, want string
		tensors    []Lazy
		o          DirOptions
	}{
		{"no data", `model-00002-of-00002.safetensors: tensor "x": boom`,
			bad("x", func() ([]byte, error) { return nil, boom }), DirOptions{MaxShardBytes: 50}},
		{"short data", `model.safetensors: tensor "x": shape [30] of U8 needs 30 bytes, the data have 29`,
			bad("x", func() ([]byte, error) { return make([]byte, 29), nil }), DirOptions{}},
		{"add", "boom", []Lazy{good}, DirOptions{Add: func(string) error { return boom }}},
		{"name twice", `tensor "good": the name occurs twice`, []Lazy{good, good}, DirOptions{}},
		{"name twice in two shards", `tensor "good": the name occurs twice`, []Lazy{good, good},
			DirOptions{MaxShardBytes: 30}},
		{"no name", "the name cannot be used", []Lazy{lazyBytes("", 1, 0)}, DirOptions{}},
		{"dtype", `tensor "x": unknown dtype "C64"`, []Lazy{{Name: "x", DType: "C64"}}, DirOptions{}},
		{"shape", `tensor "x": shape has the negative dimension -1`, []Lazy{{Name: "x", DType: U8, Shape: []int{-1}}},
			DirOptions{}},
		{"size", "more bytes than can be counted", []Lazy{{Name: "x", DType: F64, Shape: []int{1 << 61}}}, DirOptions{}},
		{"limit", "the limit of a shard is -1 bytes", []Lazy{good}, DirOptions{MaxShardBytes: -1}},
		{"cancelled", "context canceled", bad("x", func() ([]byte, error) { cancel(); return make([]byte, 30), nil }),
			DirOptions{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "a", "model")
			err := WriteDir(ctx, dir, c.tensors, c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
			wantEmpty(t, root)
		})
	}
}

// TestConvert turns PyTorch's file into a folder in bfloat16, tensor by tensor.
func TestConvert(t *testing.T) {
	src, err := OpenAny("testdata/torch-zip.pth")
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	var tensors []Lazy
	for _, name := range src.Names() {
		tensor, err := lazyFrom(src, name, BF16)
		if err != nil {
			t.Fatal(err)
		}
		tensors = append(tensors, tensor)
	}
	if _, err := lazyFrom(src, "nosuch", ""); err == nil || !strings.Contains(err.Error(), `no tensor "nosuch"`) {
		t.Errorf("missing tensor: %v", err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := WriteDir(t.Context(), dir, tensors, DirOptions{MaxShardBytes: 100}); err != nil {
		t.Fatal(err)
	}
	got, err := OpenAny(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	for _, name := range src.Names() {
		a, err := src.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := got.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := a.CastFloat(BF16)
		if err != nil {
			t.Fatal(err)
		}
		info, err := got.Info(name)
		if err != nil || info.Data != nil || info.DType != b.DType || !slices.Equal(info.Shape, b.Shape) {
			t.Errorf("%s: info %+v, %v", name, info, err)
		}
		if b.DType != want.DType || !slices.Equal(b.Shape, want.Shape) || !bytes.Equal(b.Data, want.Data) {
			t.Errorf("%s: changed", name)
		}
		kept, err := lazyFrom(src, name, "")
		if err != nil || kept.DType != a.DType {
			t.Errorf("%s: kept as %s, %v", name, kept.DType, err)
		}
		if data, err := kept.Data(); err != nil || !bytes.Equal(data, a.Data) {
			t.Errorf("%s: kept data changed, %v", name, err)
		}
	}
	large := FromFloat32("w", []int{1}, []float32{1e6})
	path := put(t, t.TempDir(), "x", encoded(t, large))
	f, err := OpenAny(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lazy, err := lazyFrom(f, "w", F16)
	if err != nil {
		t.Fatal(err)
	}
	err = WriteDir(t.Context(), filepath.Join(t.TempDir(), "m"), []Lazy{lazy}, DirOptions{})
	if err == nil || !strings.Contains(err.Error(), `tensor "w": element 0 is 1e+06, beyond the range of float16`) {
		t.Errorf("overflow: %v", err)
	}
}

// TestWritingTakesTheMemoryOfOneTensor writes 64 tensors of 4 MB and watches the heap.
func TestWritingTakesTheMemoryOfOneTensor(t *testing.T) {
	const n = 4 << 20
	var most uint64
	var tensors []Lazy
	for i := range 64 {
		tensors = append(tensors, Lazy{Name: fmt.Sprint(i), DType: U8, Shape: []int{n}, Data: func() ([]byte, error) {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
			return make([]byte, n), nil
		}})
	}
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	dir := filepath.Join(t.TempDir(), "m")
	if err := WriteDir(t.Context(), dir, tensors, DirOptions{MaxShardBytes: 10 * n}); err != nil {
		t.Fatal(err)
	}
	if used := int64(most) - int64(before.HeapAlloc); used > 3*n {
		t.Errorf("the heap grew by %d bytes while tensors of %d were written", used, n)
	}
}

// TestIndexIsValidJSON for names that need escapes.
func TestIndexIsValidJSON(t *testing.T) {
	x := newIndex(1)
	name := "a\"\\\n\u2028<>&ü"
	if err := x.add([]Lazy{{Name: name}}, "f"); err != nil {
		t.Fatal(err)
	}
	raw, err := x.encode()
	if err != nil || !json.Valid(raw) {
		t.Fatalf("%s, %v", raw, err)
	}
	if listed, err := parseIndex(raw); err != nil || listed[name] != "f" {
		t.Errorf("%v, %v", listed, err)
	}
}

// lazyFrom returns a tensor of a source to be written: a floating-point one in the given dtype, or with "" and any
// other as it is stored. It is read and converted when its turn comes, and its memory given back then.
func lazyFrom(src Source, name string, dtype DType) (Lazy, error) {
	info, err := src.Info(name)
	if err != nil {
		return Lazy{}, err
	}
	if dtype == "" {
		dtype = info.DType
	}
	if info.DType.isFloat() {
		info.DType = dtype
	}
	return Lazy{Name: name, DType: info.DType, Shape: info.Shape,
		Data: func() ([]byte, error) {
			t, err := src.Tensor(name)
			if err != nil {
				return nil, err
			}
			if dtype == t.DType {
				return t.Data, nil
			}
			t, err = t.CastFloat(dtype)
			return t.Data, err
		},
		Done: func() { src.Drop(name) },
	}, nil
}
