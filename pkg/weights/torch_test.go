package weights

import (
	"bytes"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// torchFiles are the fixtures: checkpoints of a training program, and bare state dicts.
var torchFiles = []struct {
	name, container, stateKey string
	new                       bool // has the dtypes that only the zip container has
	checkpoint                bool
}{
	{"torch-zip", "PyTorch zip", "model", true, true},
	{"torch-zip-protocol5", "PyTorch zip", "model", true, true},
	{"torch-bare", "PyTorch zip", "", true, false},
	{"torch-zip-state-dict", "PyTorch zip", "state_dict", false, false},
	{"torch-legacy", "PyTorch legacy", "model", false, true},
	{"torch-legacy-protocol4", "PyTorch legacy", "", false, false},
}

// bothWaysTorch runs a test on a PyTorch file that is mapped and one that is read piecewise.
func bothWaysTorch(t *testing.T, path string, test func(t *testing.T, f *Torch)) {
	for way, mapper := range map[string]mapper{
		"mapped": mapFile,
		"read":   func(*os.File, int) ([]byte, error) { return nil, errNoMap },
	} {
		t.Run(way, func(t *testing.T) {
			f, err := openTorch(path, mapper)
			if err != nil {
				t.Fatal(err)
			}
			test(t, f)
			for range 2 {
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			if _, err := f.Tensor(f.Names()[0]); err == nil || !strings.Contains(err.Error(), "closed") {
				t.Errorf("tensor after close: %v", err)
			}
		})
	}
}

// TestTorchFiles compares every tensor of files that PyTorch wrote with PyTorch's own conversion to safetensors.
func TestTorchFiles(t *testing.T) {
	want, err := Open("testdata/torch.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	for _, c := range torchFiles {
		t.Run(c.name, func(t *testing.T) {
			bothWaysTorch(t, filepath.Join("testdata", c.name+".pth"), func(t *testing.T, f *Torch) {
				if f.Container() != c.container || f.StateKey() != c.stateKey {
					t.Errorf("container %s, state dict under %q", f.Container(), f.StateKey())
				}
				var names []string
				for _, name := range want.Names() {
					if c.new || name != "u16" && name != "u32" && name != "u64" {
						names = append(names, name)
					}
				}
				if !slices.Equal(f.Names(), names) {
					t.Fatalf("names %v\nwant  %v", f.Names(), names)
				}
				for _, name := range names {
					compareTensors(t, f, want, name)
				}
			})
		})
	}
}

// compareTensors wants a tensor to be the same bit for bit.
func compareTensors(t *testing.T, f, want Source, name string) {
	t.Helper()
	w, err := want.Tensor(name)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // before and after its pages are dropped
		got, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		if got.Name != name || got.DType != w.DType || !slices.Equal(got.Shape, w.Shape) || !bytes.Equal(got.Data, w.Data) {
			t.Errorf("%s: got %s %v % x\nwant %s %v % x", name, got.DType, got.Shape, got.Data, w.DType, w.Shape, w.Data)
		}
		f.Drop(name)
	}
}

func TestTorchLayout(t *testing.T) {
	for _, file := range []string{"torch-zip", "torch-legacy"} {
		f, err := OpenTorch(filepath.Join("testdata", file+".pth"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for name, want := range map[string]struct {
			shape, stride []int
			offset        int
			contiguous    bool
		}{
			"f32":         {[]int{3, 4}, []int{4, 1}, 0, true},
			"scalar":      {[]int{}, []int{}, 0, true},
			"empty":       {[]int{0, 3}, []int{3, 1}, 0, true},
			"transposed":  {[]int{3, 4}, []int{1, 3}, 0, false},
			"permuted":    {[]int{4, 2, 3}, []int{1, 12, 4}, 0, false},
			"steps":       {[]int{7}, []int{3}, 1, false},
			"columns":     {[]int{4, 2}, []int{5, 1}, 1, false},
			"tail":        {[]int{4}, []int{1}, 5, true},
			"expanded":    {[]int{2, 1, 4}, []int{0, 4, 1}, 0, false},
			"ones":        {[]int{1, 3, 2}, []int{2, 2, 1}, 0, true},
			"shared.bias": {[]int{4}, []int{1}, 4, true},
		} {
			s, ok := f.Stored(name)
			if !ok {
				t.Fatalf("%s: not there", name)
			}
			if !slices.Equal(s.Shape(), want.shape) || !slices.Equal(s.Stride(), want.stride) || s.Offset() != want.offset ||
				s.Contiguous() != want.contiguous {
				t.Errorf("%s: %s: shape %v, stride %v, offset %d, contiguous %v", file, name, s.Shape(), s.Stride(),
					s.Offset(), s.Contiguous())
			}
		}
		sharing := map[string][]string{}
		for _, name := range f.Order() {
			s, _ := f.Stored(name)
			sharing[s.Storage()] = append(sharing[s.Storage()], name)
		}
		var shared []string
		for _, names := range sharing {
			if len(names) > 1 {
				shared = append(shared, strings.Join(names, " "))
			}
		}
		slices.Sort(shared)
		if want := []string{"f32 tied", "shared.weight shared.bias"}; !slices.Equal(shared, want) {
			t.Errorf("%s: shared storages %q, want %q", file, shared, want)
		}
		if f.Order()[0] != "f32" || f.Order()[1] != "parameter" {
			t.Errorf("%s: order %v", file, f.Order())
		}
	}
}

// TestContiguousTensorsAliasTheMapping: no copy, and aligned as PyTorch aligned it.
func TestContiguousTensorsAliasTheMapping(t *testing.T) {
	f, err := OpenTorch("testdata/torch-zip.pth")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.contents.mapped == nil {
		t.Skip("files are not mapped here")
	}
	inside := func(data []byte) bool {
		for i := range f.contents.mapped {
			if &f.contents.mapped[i] == &data[0] {
				return true
			}
		}
		return false
	}
	for name, want := range map[string]bool{"f32": true, "tail": true, "tied": true, "i64": true, "transposed": false} {
		tensor, err := f.Tensor(name)
		if err != nil {
			t.Fatal(err)
		}
		if inside(tensor.Data) != want {
			t.Errorf("%s: aliases the file: %v, want %v", name, !want, want)
		}
	}
	tensor, err := f.Tensor("f32")
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := tensor.Float32View(); hostIsLittleEndian && !ok {
		t.Error("no view of a float32 tensor in a zip container")
	}
}

func TestTorchValues(t *testing.T) {
	large := new(big.Int).Lsh(big.NewInt(1), 80)
	negative, _ := new(big.Int).SetString("-9223372036854775809", 10)
	type m = map[any]any
	want := m{
		"epoch":  int64(3),
		"scaler": m{"scale": 65536.0, "_growth_tracker": int64(2)},
		"config": m{"name": "größer", "nested": m{
			"list": []any{int64(1), []any{2.5, nil}, Tuple{}}, "empty": m{}, int64(7): true}},
		"odd": m{
			"bytes": []byte{0, 0x7f, 0xff}, "no bytes": []byte{}, "frozen": []any{int64(6)},
			"large": large, "negative": negative, "long": int64(-1 << 40),
			"set": []any{int64(5)}, "size": Tuple{int64(2), int64(3)}, "device": "cuda:1", "cpu": "cpu",
			"dtype": "torch.bfloat16", "args": m{"lr": 0.1, "tags": []any{"a"}}, "one": Tuple{int64(1)},
			"two": Tuple{int64(1), "b"}, "three": Tuple{int64(1), int64(2), int64(3)},
			"four":    Tuple{int64(1), int64(2), int64(3), int64(4)},
			"numbers": []any{int64(0), int64(255), int64(256), int64(65535), int64(65536), int64(-1), int64(-1 << 31)},
		},
	}
	for _, c := range torchFiles {
		if !c.checkpoint {
			continue
		}
		f, err := OpenTorch(filepath.Join("testdata", c.name+".pth"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		top := f.Value().(*Dict)
		if got := top.Keys(); !slices.Equal(got, []any{"model", "optimizer", "epoch", "scaler", "config", "odd"}) {
			t.Errorf("%s: top level %v", c.name, got)
		}
		for key, w := range want {
			got, _ := top.Get(key)
			if got = plainMaps(got); !reflect.DeepEqual(got, w) {
				t.Errorf("%s: %s:\ngot  %#v\nwant %#v", c.name, key, got, w)
			}
		}
		checkOptimizer(t, top)
	}
}

// plainMaps makes dicts comparable.
func plainMaps(v any) any {
	switch v := v.(type) {
	case *Dict:
		out := map[any]any{}
		for key, value := range v.All() {
			out[key] = plainMaps(value)
		}
		return out
	case []any:
		out := []any{}
		for _, item := range v {
			out = append(out, plainMaps(item))
		}
		return out
	}
	return v
}

// checkOptimizer reads AdamW's slots of a layer with a weight [2,3] and a bias [2] after one step.
func checkOptimizer(t *testing.T, top *Dict) {
	t.Helper()
	optimizer, _ := top.Get("optimizer")
	state, _ := optimizer.(*Dict).Get("state")
	if !slices.Equal(state.(*Dict).Keys(), []any{int64(0), int64(1)}) {
		t.Fatalf("slots %v", state.(*Dict).Keys())
	}
	slot, _ := state.(*Dict).Get(int64(0))
	for name, shape := range map[string][]int{"step": {}, "exp_avg": {2, 3}, "exp_avg_sq": {2, 3}} {
		v, _ := slot.(*Dict).Get(name)
		tensor, err := v.(*TorchTensor).Read()
		if err != nil {
			t.Fatal(err)
		}
		values, err := tensor.Float32s()
		if err != nil || !slices.Equal(tensor.Shape, shape) {
			t.Fatalf("%s: shape %v, %v", name, tensor.Shape, err)
		}
		// Every weight's gradient is 1.
		if name == "step" && values[0] != 1 || name == "exp_avg" && math.Abs(float64(values[5])-0.1) > 1e-7 {
			t.Errorf("%s: %v", name, values)
		}
	}
	groups, _ := optimizer.(*Dict).Get("param_groups")
	group := groups.([]any)[0].(*Dict)
	if lr, _ := group.Get("lr"); lr != 1e-3 {
		t.Errorf("lr %v", lr)
	}
	if betas, _ := group.Get("betas"); !reflect.DeepEqual(betas, Tuple{0.9, 0.98}) {
		t.Errorf("betas %v", betas)
	}
}
