package pretrained

import (
	"hash/fnv"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// state is the contents of a checkpoint file.
type state map[string]weights.Tensor

// array is a tensor of numbers that depend on its name.
func array(name string, shape ...int) weights.Tensor {
	n := 1
	for _, d := range shape {
		n *= d
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(int32(h.Sum32()+uint32(i)*2654435761)) / math.MaxInt32
	}
	return weights.FromFloat32(name, shape, values)
}

// stateOf is a state dict of the parameters.
func stateOf(params []model.Param) state {
	s := state{}
	for _, p := range params {
		s[p.Name] = array(p.Name, p.Shape...)
	}
	return s
}

func (s state) clone() state { return maps.Clone(s) }

// add puts an array of that name and shape into the state.
func (s state) add(name string, shape ...int) { s[name] = array(name, shape...) }

// rename returns the state with other names; names that map to "" are left out.
func (s state) rename(to func(string) string) state {
	out := state{}
	for name, t := range s {
		if name = to(name); name != "" {
			out[name] = t
		}
	}
	return out
}

// write writes the state as a safetensors file.
func (s state) write(t *testing.T, path string) string {
	t.Helper()
	var list []weights.Tensor
	for _, name := range slices.Sorted(maps.Keys(s)) {
		tensor := s[name]
		tensor.Name = name
		list = append(list, tensor)
	}
	if err := weights.Write(path, list, nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// file writes the state to a file of its own.
func (s state) file(t *testing.T) string {
	return s.write(t, filepath.Join(t.TempDir(), "weights.safetensors"))
}

// read returns the contents of a safetensors file.
func read(t *testing.T, path string) state {
	t.Helper()
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := state{}
	for _, name := range f.Names() {
		if s[name], err = f.Tensor(name); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func floats(t *testing.T, x weights.Tensor) []float32 {
	t.Helper()
	values, err := x.Float32s()
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// stored returns the values of the store's tensor.
func stored(t *testing.T, store *mlx.Store, name string) []float32 {
	t.Helper()
	v := store.GetVariable(model.Path(name))
	if v == nil {
		t.Fatalf("the store has no tensor %s", name)
	}
	value, err := v.Value()
	if err != nil {
		t.Fatal(err)
	}
	return tensors.MustCopyFlatData[float32](value)
}

// mustEqual checks that the store holds exactly the numbers of the state for every parameter.
func mustEqual(t *testing.T, store *mlx.Store, params []model.Param, want state) {
	t.Helper()
	for _, p := range params {
		if got := stored(t, store, p.Name); !sameBits(got, floats(t, want[p.Name])) {
			t.Errorf("%s differs from the file's", p.Name)
		}
	}
}

func size(store *mlx.Store) int {
	n := 0
	for range store.IterVariables() {
		n++
	}
	return n
}

func names(notes []Note) []string {
	var out []string
	for _, n := range notes {
		out = append(out, n.Name)
	}
	return out
}

// golden returns a folder of the recorded cases: in BLIP2_GOLDEN, else ../shared/golden beside the repository.
func golden(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("BLIP2_GOLDEN")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for root != filepath.Dir(root) {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared", "golden")
	}
	dir = filepath.Join(dir, name)
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no recorded case: %v (set BLIP2_GOLDEN to the folder of cases)", err)
	}
	return dir
}

// says checks that there is an error with every one of the texts.
func says(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one that says %q", texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not say %q", err, text)
		}
	}
}

// sizes are those of a stage-1 model.
type sizes struct {
	Vision   vit.Config
	QFormer  qformer.Config
	EmbedDim int
}

// small is a model of few numbers.
func small(arch string) sizes {
	return sizes{
		Vision: vit.Config{Arch: arch, ImageSize: 42, PatchSize: 14, Width: 12, Layers: 2, Heads: 2, MLPRatio: 4,
			LayerNormEps: 1e-6},
		QFormer: qformer.Config{Hidden: 8, Layers: 3, Heads: 2, Intermediate: 10, Queries: 3, CrossAttentionFreq: 2,
			EncoderWidth: 12, Vocab: 21, MaxPositions: 9, LayerNormEps: 1e-12},
		EmbedDim: 4,
	}
}

// vision lists the encoder's tensors under the model's names.
func (s sizes) vision() []model.Param {
	return model.Prefixed(naming.VisionPrefix, vit.Params(s.Vision))
}

// qformer lists what stage 1 has beside the encoder. Package stage1 cannot be asked: it loads through this one.
func (s sizes) qformer() []model.Param {
	w, h, e := s.Vision.Width, s.QFormer.Hidden, s.EmbedDim
	draw := model.Uniform(0.3)
	return append(qformer.Params(s.QFormer, true),
		model.Param{Name: "ln_vision.weight", Shape: []int{w}, Init: model.Constant(1)},
		model.Param{Name: "ln_vision.bias", Shape: []int{w}},
		model.Param{Name: "vision_proj.weight", Shape: []int{e, h}, Init: draw},
		model.Param{Name: "vision_proj.bias", Shape: []int{e}, Init: draw},
		model.Param{Name: "text_proj.weight", Shape: []int{e, h}, Init: draw},
		model.Param{Name: "text_proj.bias", Shape: []int{e}, Init: draw},
		model.Param{Name: "itm_head.weight", Shape: []int{2, h}, Init: draw},
		model.Param{Name: "itm_head.bias", Shape: []int{2}, Init: draw},
		model.Param{Name: "temp", Init: model.Constant(0.07)})
}

// encoder is the state dict of an encoder with one block more than cfg uses, under its published names.
func encoder(cfg vit.Config) state {
	cfg.Layers++
	return stateOf(vit.Params(cfg))
}

// sameBits tells numbers apart that are equal as numbers, such as the two zeros, and takes equal NaNs as equal.
func sameBits(a, b []float32) bool {
	return slices.EqualFunc(a, b, func(x, y float32) bool { return math.Float32bits(x) == math.Float32bits(y) })
}
