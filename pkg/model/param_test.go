package model

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"
)

func TestPathAndName(t *testing.T) {
	const layer = "Qformer.bert.encoder.layer.0.attention.self.query.weight"
	for name, path := range map[string]string{
		"temp":                                 "/temp",
		"query_tokens":                         "/query_tokens",
		"ln_vision.weight":                     "/ln_vision/weight",
		"visual_encoder.blocks.38.attn.q_bias": "/visual_encoder/blocks/38/attn/q_bias",
		layer:                                  "/Qformer/bert/encoder/layer/0/attention/self/query/weight",
	} {
		if got := Path(name); got != path {
			t.Errorf("Path(%q) = %q, want %q", name, got, path)
		}
		if got := Name(path); got != name {
			t.Errorf("Name(%q) = %q, want %q", path, got, name)
		}
	}
}

func TestPrefixedAndCount(t *testing.T) {
	params := []Param{{Name: "a", Shape: []int{2, 3}}, {Name: "b"}, {Name: "c", Shape: []int{5}}}
	if got := Count(params); got != 12 {
		t.Errorf("Count = %d, want 6 + 1 + 5", got)
	}
	prefixed := Prefixed("x.", params)
	for i, want := range []string{"x.a", "x.b", "x.c"} {
		if prefixed[i].Name != want || !slices.Equal(prefixed[i].Shape, params[i].Shape) {
			t.Errorf("Prefixed gives %v", prefixed[i])
		}
	}
	if params[0].Name != "a" {
		t.Error("Prefixed changed its argument")
	}
}

// values returns a variable of the store.
func values(t *testing.T, store *mlx.Store, name string) []float32 {
	t.Helper()
	v := store.GetVariable(Path(name))
	if v == nil {
		t.Fatalf("the store has no %s", name)
	}
	return tensors.MustCopyFlatData[float32](v.MustValue())
}

// initialized returns a new store with the parameters.
func initialized(t *testing.T, seed int64, params ...Param) *mlx.Store {
	t.Helper()
	store := mlx.NewStore()
	if err := Initialize(store, params, seed); err != nil {
		t.Fatal(err)
	}
	return store
}

// TestInitializeIsKeyed: a tensor's values depend on seed and name, not on what else is initialised, or when.
func TestInitializeIsKeyed(t *testing.T) {
	a := Param{Name: "a.weight", Shape: []int{40, 3}, Init: Normal(1)}
	b := Param{Name: "b.weight", Shape: []int{40, 3}, Init: Normal(1)}
	c := Param{Name: "c.weight", Shape: []int{7}, Init: Uniform(1)}
	first := initialized(t, 5, a, b, c)
	for name, other := range map[string]*mlx.Store{
		"again": initialized(t, 5, a, b, c), "other order": initialized(t, 5, c, b, a), "alone": initialized(t, 5, b),
	} {
		if !slices.Equal(values(t, first, b.Name), values(t, other, b.Name)) {
			t.Errorf("%s: %s differs", name, b.Name)
		}
	}
	reshaped := b
	reshaped.Shape = []int{3, 40}
	if !slices.Equal(values(t, first, b.Name), values(t, initialized(t, 5, reshaped), b.Name)) {
		t.Error("the shape changes the draws")
	}
	far := math.Sqrt(120) * 5 // of the product of independent draws, five standard deviations
	for name, other := range map[string][]float32{
		"another tensor": values(t, first, a.Name),
		"another seed":   values(t, initialized(t, 6, b), b.Name),
		"negative seed":  values(t, initialized(t, -5, b), b.Name),
		"seed 0":         values(t, initialized(t, 0, b), b.Name),
	} {
		var product float64
		for i, v := range values(t, first, b.Name) {
			product += float64(v) * float64(other[i])
		}
		if math.Abs(product) > far {
			t.Errorf("%s draws much the same as %s: product %g", name, b.Name, product)
		}
	}
}

// TestDistributions checks range, mean, variance and the share within one unit of every Init.
func TestDistributions(t *testing.T) {
	const n = 40000
	inside := func(z float64) float64 { return math.Erf(z / math.Sqrt2) } // share of a normal within ±z
	// Cutting at one standard deviation leaves the variance σ²·(1 − 2φ(1)/(2Φ(1)−1)).
	cut := 2 * math.Sqrt(1-2*0.2419707245/inside(1))
	for _, c := range []struct {
		name            string
		init            Init
		std, limit      float64
		within, inShare float64 // share of |v| ≤ within
	}{
		{"normal", Normal(0.02), 0.02, math.Inf(1), 0.02, inside(1)},
		{"truncated, as used", TruncNormal(0.02), 0.02, 2, 0.02, inside(1)},
		{"truncated at one deviation", TruncNormal(2), cut, 2, 1, inside(0.5) / inside(1)},
		{"uniform", Uniform(0.3), 0.3 / math.Sqrt(3), 0.3, 0.15, 0.5},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := values(t, initialized(t, 1, Param{Name: "w", Shape: []int{200, n / 200}, Init: c.init}), "w")
			var mean, square, fourth, in, edge float64
			for _, x := range v {
				x := float64(x)
				if math.Abs(x) > c.limit*(1+1e-6) {
					t.Fatalf("%g is outside ±%g", x, c.limit)
				}
				mean += x / n
				square += x * x / n
				fourth += x * x * x * x / n
				if math.Abs(x) <= c.within {
					in += 1.0 / n
				}
				if math.Abs(x) == c.limit {
					edge++
				}
			}
			if d := 5 * c.std / math.Sqrt(n); math.Abs(mean) > d {
				t.Errorf("mean %g, want 0 ± %.2g", mean, d)
			}
			if d := 5 * math.Sqrt((fourth-square*square)/n); math.Abs(square-c.std*c.std) > d {
				t.Errorf("variance %g, want %g ± %.2g", square, c.std*c.std, d)
			}
			if d := 5 * math.Sqrt(c.inShare*(1-c.inShare)/n); math.Abs(in-c.inShare) > d {
				t.Errorf("share within ±%g is %g, want %g ± %.2g", c.within, in, c.inShare, d)
			}
			if edge > 5 {
				t.Errorf("%g values lie on the limit: they were clamped, not drawn again", edge)
			}
		})
	}
}

func TestConstants(t *testing.T) {
	store := initialized(t, 1, Param{Name: "temp", Init: Constant(0.07)},
		Param{Name: "weight", Shape: []int{3}, Init: Constant(1)}, Param{Name: "bias", Shape: []int{2}})
	for name, want := range map[string][]float32{"temp": {0.07}, "weight": {1, 1, 1}, "bias": {0, 0}} {
		if got := values(t, store, name); !slices.Equal(got, want) {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
	}
	if r := store.GetVariable("/temp").Shape().Rank(); r != 0 {
		t.Errorf("temp has rank %d, want a scalar", r)
	}
	if got, want := LinearBound(16), 0.25; got != want {
		t.Errorf("LinearBound(16) = %g, want %g", got, want)
	}
}

// TestInitializeKeeps: what a checkpoint brought stays, in its own dtype, but must have the model's shape.
func TestInitializeKeeps(t *testing.T) {
	store := mlx.NewStore()
	if err := Set(store, "a", []int{2}, []float32{3, 4}); err != nil {
		t.Fatal(err)
	}
	half := tensors.FromShape(shapes.Make(dtypes.BFloat16, 2, 2))
	if _, err := store.CreateVariable("/b", half); err != nil {
		t.Fatal(err)
	}
	a, b := Param{Name: "a", Shape: []int{2}, Init: Normal(1)}, Param{Name: "b", Shape: []int{2, 2}, Init: Normal(1)}
	c := Param{Name: "c", Shape: []int{1}, Init: Constant(5)}
	if err := Initialize(store, []Param{a, b, c}, 1); err != nil {
		t.Fatal(err)
	}
	if got := values(t, store, "a"); !slices.Equal(got, []float32{3, 4}) {
		t.Errorf("a loaded tensor became %v", got)
	}
	if d := store.GetVariable("/b").DType(); d != dtypes.BFloat16 {
		t.Errorf("a loaded bfloat16 tensor became %s", d)
	}
	if got := values(t, store, "c"); got[0] != 5 {
		t.Errorf("the missing tensor is %v", got)
	}
	for _, shape := range [][]int{{3}, {2, 1}, {}} {
		err := Initialize(store, []Param{{Name: "a", Shape: shape}}, 1)
		if err == nil || !strings.Contains(err.Error(), "tensor a") || !strings.Contains(err.Error(), "[2]") {
			t.Errorf("a of shape [2] passes as %v: error %v", shape, err)
		}
	}
}

func TestSet(t *testing.T) {
	store := mlx.NewStore()
	for _, v := range [][]float32{{1, 2, 3, 4}, {5, 6, 7, 8}} {
		if err := Set(store, "a.b", []int{2, 2}, v); err != nil {
			t.Fatal(err)
		}
		if got := values(t, store, "a.b"); !slices.Equal(got, v) {
			t.Errorf("set to %v, is %v", v, got)
		}
	}
	for name, shape := range map[string][]int{"too few values": {2, 3}, "other shape": {4}, "other rank": {2, 2, 1}} {
		err := Set(store, "a.b", shape, []float32{0, 0, 0, 0})
		if err == nil || !strings.Contains(err.Error(), "a.b") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if got := values(t, store, "a.b"); !slices.Equal(got, []float32{5, 6, 7, 8}) {
		t.Errorf("a refused value was written: %v", got)
	}
}

func TestSetTrainable(t *testing.T) {
	a, b := Param{Name: "a", Shape: []int{1}}, Param{Name: "b", Shape: []int{1}}
	store := initialized(t, 1, a, b)
	if err := SetTrainable(store, []Param{a}, false); err != nil {
		t.Fatal(err)
	}
	if store.GetVariable("/a").Trainable || !store.GetVariable("/b").Trainable {
		t.Error("freezing a froze b, or did not freeze a")
	}
	if err := SetTrainable(store, []Param{a}, true); err != nil || !store.GetVariable("/a").Trainable {
		t.Errorf("thawing a: error %v", err)
	}
	err := SetTrainable(store, []Param{{Name: "x.y"}}, false)
	if err == nil || !strings.Contains(err.Error(), "x.y") {
		t.Errorf("freezing what is not there: error %v", err)
	}
}

// TestKeep: a tensor becomes a variable in its own type, and replaces one that is there, whatever that was.
func TestKeep(t *testing.T) {
	store := mlx.NewStore()
	p := Param{Name: "a.b", Shape: []int{2}}
	for _, tt := range []struct {
		dtype dtypes.DType
		data  []byte
	}{
		{dtypes.Float32, []byte{0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}},
		{dtypes.BFloat16, []byte{0x80, 0x3f, 0, 0xc0}},
	} {
		tensor, err := NewTensor(nil, p, tt.dtype, tt.data)
		if err != nil {
			t.Fatal(err)
		}
		if err := Keep(store, p, tensor); err != nil {
			t.Fatal(err)
		}
		v := store.GetVariable(Path(p.Name))
		if v == nil || v.DType() != tt.dtype || !slices.Equal(v.Shape().Dimensions, p.Shape) {
			t.Errorf("%s: the variable is %v", tt.dtype, v)
		}
		var got []byte
		if err := v.MustValue().ConstBytes(func(b []byte) { got = slices.Clone(b) }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, tt.data) {
			t.Errorf("%s: numbers %x, want %x", tt.dtype, got, tt.data)
		}
	}
	if _, err := NewTensor(nil, p, dtypes.Float32, make([]byte, 4)); err == nil || !strings.Contains(err.Error(), "a.b") {
		t.Errorf("4 bytes for two numbers: error %v", err)
	}
}
