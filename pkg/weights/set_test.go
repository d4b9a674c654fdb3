package weights

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// shards makes a model folder of two shards a (x, y) and b (z), and the given index.
func shards(t *testing.T, index string) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, tensors ...Tensor) {
		if err := Write(filepath.Join(dir, name), tensors, nil); err != nil {
			t.Fatal(err)
		}
	}
	put("a.safetensors", FromInt64("x", nil, []int64{1}), FromInt64("y", nil, []int64{2}))
	put("b.safetensors", FromInt64("z", nil, []int64{3}), FromInt64("y", nil, []int64{4}))
	if err := os.WriteFile(filepath.Join(dir, IndexFile), []byte(index), 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestShards(t *testing.T) {
	dir := shards(t, `{"metadata":{"total_size":32},"weight_map":{"x":"a.safetensors","y":"b.safetensors"}}`)
	s, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !slices.Equal(s.Names(), []string{"x", "y", "z"}) || s.Path() != dir || !s.Has("z") || s.Has("w") {
		t.Errorf("names %v, path %s", s.Names(), s.Path())
	}
	for name, want := range map[string]int64{"x": 1, "y": 4, "z": 3} { // z is not in the index, y is in both files
		tensor, err := s.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tensor.Int64s(); err != nil || got[0] != want {
			t.Errorf("%s = %v, %v; want %d", name, got, err, want)
		}
	}
	if _, err := s.Tensor("w"); err == nil || !strings.Contains(err.Error(), `no tensor "w" among its 3`) {
		t.Errorf("missing tensor: %v", err)
	}
}

// TestAbsent: a tensor that the index places in a shard without it is told, and is none of the set's.
func TestAbsent(t *testing.T) {
	dir := shards(t, `{"weight_map":{"x":"b.safetensors","y":"b.safetensors"}}`)
	s, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if got := s.Absent(); len(got) != 1 || got["x"] != filepath.Join(dir, "b.safetensors") {
		t.Errorf("absent %v", got)
	}
	if s.Has("x") || !slices.Equal(s.Names(), []string{"y", "z"}) {
		t.Errorf("names %v", s.Names())
	}
}

func TestSingleFileComesFirst(t *testing.T) {
	dir := shards(t, `{"weight_map":{"x":"a.safetensors"}}`)
	if err := Write(filepath.Join(dir, SingleFile), []Tensor{FromInt64("only", nil, []int64{1})}, nil); err != nil {
		t.Fatal(err)
	}
	s, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !slices.Equal(s.Names(), []string{"only"}) {
		t.Errorf("names %v", s.Names())
	}
}

func TestOpenDirRefuses(t *testing.T) {
	for _, c := range []struct{ name, index, want string }{
		{"not JSON", `{"weight_map":`, "not JSON"},
		{"no map", `{"metadata":{}}`, "has no weight_map"},
		{"empty map", `{"weight_map":{}}`, "has no weight_map"},
		{"map is a list", `{"weight_map":[]}`, "weight_map: found"},
		{"tensor twice", `{"weight_map":{"x":"a.safetensors","x":"b.safetensors"}}`, `"x" occurs twice`},
		{"parent", `{"weight_map":{"x":"../a.safetensors"}}`, `shard "../a.safetensors" is not a plain file name`},
		{"absolute", `{"weight_map":{"x":"/etc/passwd"}}`, "is not a plain file name"},
		{"subfolder", `{"weight_map":{"x":"sub/a.safetensors"}}`, "is not a plain file name"},
		{"dots", `{"weight_map":{"x":".."}}`, "is not a plain file name"},
		{"dot", `{"weight_map":{"x":"."}}`, "is not a plain file name"},
		{"empty name", `{"weight_map":{"x":""}}`, "is not a plain file name"},
		{"missing shard", `{"weight_map":{"x":"a.safetensors","w":"c.safetensors"}}`, `shard "c.safetensors", which`},
		{"ambiguous", `{"weight_map":{"x":"a.safetensors","z":"b.safetensors"}}`, `tensor "y" is also in a.safetensors`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := shards(t, c.index)
			s, err := OpenDir(dir)
			if err == nil {
				s.Close()
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	dir := t.TempDir()
	if _, err := OpenDir(dir); err == nil || !strings.Contains(err.Error(), "has neither model.safetensors nor") {
		t.Errorf("empty folder: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, SingleFile), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(dir); err == nil || !strings.Contains(err.Error(), SingleFile+": not a safetensors file") {
		t.Errorf("damaged file: %v", err)
	}
}

// A folder that is not a model's may hold weights all the same, under names that must be given.
func TestOpenDirSaysWhereElse(t *testing.T) {
	for want, files := range map[string][]string{
		"name a file in it: a.pth, b.bin, c.pt and 1 more":       {"d.safetensors", "a.pth", "c.pt", "b.bin", "x.txt"},
		"name a file in it: model-00001-of-00001.safetensors":    {"model-00001-of-00001.safetensors"},
		"the index of its shards is missing":                     {"model-00001-of-00002.safetensors", "a.bin"},
		"it is a folder of Hugging Face's cache: name ":          {"snapshots/0a1b/config.json"},
		filepath.Join("snapshots", "0a1b"):                       {"snapshots/0a1b/config.json"},
		"nor pytorch_model.bin nor pytorch_model.bin.index.json": {"x.txt"},
	} {
		dir := t.TempDir()
		for _, name := range files {
			path := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, nil, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := OpenDir(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want %s", files, err, want)
		}
	}
}

func TestShardOf(t *testing.T) {
	for path, want := range map[string][2]int{
		"x/model-00001-of-00002.safetensors": {1, 2}, "pytorch_model-00003-of-00003.bin": {3, 3},
		"model.safetensors": {}, "model-1-of-2.safetensors": {}, "model-00001-of-00002.json": {}, "": {},
	} {
		if number, all := ShardOf(path); number != want[0] || all != want[1] {
			t.Errorf("%s: %d of %d, want %v", path, number, all, want)
		}
	}
}
