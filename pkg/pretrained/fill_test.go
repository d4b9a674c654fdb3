package pretrained

import (
	"maps"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/gomlx/compute/dtypes"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// source is an open checkpoint in memory that counts the tensors that are read and not given back.
type source struct {
	state
	counting   sync.Mutex
	live, most int
}

func (s *source) Names() []string { return slices.Sorted(maps.Keys(s.state)) }

func (s *source) Info(name string) (weights.Tensor, error) {
	t := s.state[name]
	t.Name, t.Data = name, nil
	return t, nil
}

func (s *source) Tensor(name string) (weights.Tensor, error) {
	s.counting.Lock()
	defer s.counting.Unlock()
	s.live++
	s.most = max(s.most, s.live)
	t := s.state[name]
	t.Name = name
	return t, nil
}

func (s *source) Drop(string) {
	s.counting.Lock()
	defer s.counting.Unlock()
	s.live--
}

// TestLoad moves tensors to a device, holding no more of them than are copied at once, in the type that the precision
// chooses.
func TestLoad(t *testing.T) {
	cfg := small(vit.EVA).Vision
	part := VisionPart(cfg)
	backend := graphtest.Open(t, "go")
	matrix, bias := naming.VisionPrefix+"blocks.0.mlp.fc1.weight", naming.VisionPrefix+"blocks.0.mlp.fc1.bias"
	wide := cfg
	wide.ImageSize = 70
	for what, c := range map[string]struct {
		part         Part
		precision    Precision
		matrix, bias dtypes.DType
	}{
		"nothing chosen": {part, nil, dtypes.Float32, dtypes.Float32},
		"as stored":      {part, AsStored, dtypes.Float16, dtypes.Float32},
		"uniform":        {part, Uniform(weights.BF16), dtypes.BFloat16, dtypes.BFloat16},
		"frozen":         {part, Frozen(dtypes.BFloat16), dtypes.BFloat16, dtypes.Float32},
		"frozen, f32":    {part, Frozen(dtypes.Float32), dtypes.Float32, dtypes.Float32},
		"resized":        {VisionPart(wide), AsStored, dtypes.Float16, dtypes.Float32},
	} {
		src := &source{state: encoder(cfg)}
		half, err := src.state["blocks.0.mlp.fc1.weight"].CastFloat(weights.F16)
		if err != nil {
			t.Fatal(err)
		}
		double := weights.Tensor{DType: weights.F64, Shape: src.state["blocks.0.mlp.fc1.bias"].Shape,
			Data: make([]byte, 8*src.state["blocks.0.mlp.fc1.bias"].Shape[0])}
		src.state["blocks.0.mlp.fc1.weight"], src.state["blocks.0.mlp.fc1.bias"] = half, double
		store := mlx.NewStore()
		cov, err := Load(store, c.part, src, Options{Backend: backend, Precision: c.precision})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if len(cov.Filled) != len(part.Params) || size(store) != len(part.Params) {
			t.Errorf("%s: %d of %d tensors are filled, %d in the store", what, len(cov.Filled), len(part.Params), size(store))
		}
		for name, want := range map[string]dtypes.DType{matrix: c.matrix, bias: c.bias} {
			if got := store.GetVariable(model.Path(name)).DType(); got != want {
				t.Errorf("%s: %s is %s, want %s", what, name, got, want)
			}
		}
		if src.live != 0 || src.most > min(runtime.GOMAXPROCS(0), maxCopiers) {
			t.Errorf("%s: %d tensors are still held, at most %d were at once", what, src.live, src.most)
		}
		store.Finalize()
	}
}

// TestReaderInfo announces what Tensor gives.
func TestReaderInfo(t *testing.T) {
	cfg := small(vit.CLIP).Vision
	wide := cfg
	wide.ImageSize = 70
	part := VisionPart(wide)
	r, err := NewReader(part, &source{state: encoder(cfg)}, Options{Precision: Uniform(weights.BF16)})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range part.Params {
		info, ok, err := r.Info(p)
		if err != nil || !ok {
			t.Fatalf("%s: %v, error %v", p.Name, ok, err)
		}
		tensor, ok, err := r.Tensor(p)
		if err != nil || !ok || tensor.DType != info.DType || !slices.Equal(tensor.Shape, info.Shape) ||
			tensor.Name != info.Name {
			t.Errorf("%s is announced as %v and is %v; error %v", p.Name, info, tensor.Shape, err)
		}
	}
	if _, ok, err := r.Tensor(model.Param{Name: "nosuch"}); ok || err != nil {
		t.Errorf("a tensor that is not of the part: %v, %v", ok, err)
	}
}

// TestReaderRefuses numbers that do not fit the type, and types that are no numbers.
func TestReaderRefuses(t *testing.T) {
	cfg := small(vit.EVA).Vision
	part := VisionPart(cfg)
	large, integer := encoder(cfg), encoder(cfg)
	for _, p := range part.Params {
		if p.Name == naming.VisionPrefix+"pos_embed" {
			large["pos_embed"] = weights.FromFloat32("pos_embed", p.Shape, slices.Repeat([]float32{1e5}, p.Size()))
			integer["pos_embed"] = weights.Tensor{DType: weights.I64, Shape: p.Shape, Data: make([]byte, 8*p.Size())}
		}
	}
	store := mlx.NewStore()
	_, err := Load(store, part, &source{state: large}, Options{Precision: Uniform(weights.F16)})
	says(t, err, "pos_embed", "100000", "float16", "bf16 has the range of f32")
	_, err = Load(mlx.NewStore(), part, &source{state: integer}, Options{Precision: AsStored})
	says(t, err, "pos_embed", "I64")
}
