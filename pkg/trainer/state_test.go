package trainer

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/checkpoint"
	"blip2/pkg/model"
	"blip2/pkg/weights"
)

func toyState() State {
	return State{Seed: 9, Epoch: 2, Index: 40, ConfigHash: "abc", Command: "toy"}
}

// trainedStore is a toy model after three steps, with slots.
func trainedStore(t *testing.T) *mlx.Store {
	t.Helper()
	store := toyStore(t)
	s := newToyStep(t, store, AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}, 0, 1)
	for step := range 3 {
		runToy(t, s, step, 0.01, newToyBatch(step))
	}
	return store
}

// saved writes a snapshot to disk and opens it.
func saved(t *testing.T, s checkpoint.Snapshot) *checkpoint.Loaded {
	t.Helper()
	dir, err := checkpoint.Save(t.Context(), t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	l, err := checkpoint.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func takeToy(t *testing.T, store *mlx.Store) checkpoint.Snapshot {
	t.Helper()
	s, err := TakeSnapshot(store, toyParams(), 3, toyState())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSnapshotContents(t *testing.T) {
	s := takeToy(t, trainedStore(t))
	names := func(list []weights.Tensor) string {
		var out []string
		for _, x := range list {
			out = append(out, fmt.Sprint(x.Name, x.Shape))
		}
		return strings.Join(out, " ")
	}
	if got, want := names(s.Model), "dense.weight[2 3] dense.bias[2] norm.weight[2] temp[]"; got != want {
		t.Errorf("model: %s, want %s", got, want)
	}
	want := "m.dense.bias[2] m.dense.weight[2 3] m.norm.weight[2] m.temp[] " +
		"v.dense.bias[2] v.dense.weight[2 3] v.norm.weight[2] v.temp[]"
	if got := names(s.Optimizer); got != want {
		t.Errorf("optimizer: %s, want %s", got, want)
	}
	l := saved(t, s)
	var state State
	if err := l.DecodeState(&state); err != nil || state != toyState() || l.Step != 3 {
		t.Errorf("step %d, state %+v, error %v", l.Step, state, err)
	}
}

// TestRestoreIsExact: what comes back is what was saved, whatever bits, with and without slots in the store.
func TestRestoreIsExact(t *testing.T) {
	from := trainedStore(t)
	odd := []float32{float32(math.Copysign(0, -1)), math.SmallestNonzeroFloat32}
	odd = append(odd, math.MaxFloat32, float32(math.Inf(-1)), math.Float32frombits(0x7fc00abc), 1.0/3)
	for _, name := range []string{"dense.weight", "opt.adamw.m.dense.weight", "opt.adamw.v.dense.weight"} {
		if err := model.Set(from, name, []int{2, 3}, odd); err != nil {
			t.Fatal(err)
		}
	}
	want := bits(t, from)
	l := saved(t, takeToy(t, from))

	bare := toyStore(t)
	if err := Restore(bare, toyParams(), l); err != nil {
		t.Fatal(err)
	}
	sameBits(t, "into a store without slots", bits(t, bare), want)
	newToyStep(t, bare, AdamW{}, 0, 1)
	sameBits(t, "behind NewStep", bits(t, bare), want)

	other := toyStore(t)
	s := newToyStep(t, other, AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8}, 0, 1)
	runToy(t, s, 0, 0.5, newToyBatch(7))
	if err := Restore(other, toyParams(), l); err != nil {
		t.Fatal(err)
	}
	sameBits(t, "into a store that was trained", bits(t, other), want)
	for _, p := range toyParams() {
		path := model.Path(p.Name)
		if !other.GetVariable(path).Trainable || other.GetVariable("/opt/adamw/m"+path).Trainable {
			t.Errorf("%s is not trained, or its slot is", p.Name)
		}
	}
}

// TestRestoredTrainingGoesOn: three steps, a checkpoint on disk, and three more equal six.
func TestRestoredTrainingGoesOn(t *testing.T) {
	optimizer := AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.1}
	whole := toyStore(t)
	s := newToyStep(t, whole, optimizer, 0.3, 5)
	var snapshot checkpoint.Snapshot
	for step := range 6 {
		if step == 3 {
			snapshot = takeToy(t, whole)
		}
		runToy(t, s, step, 0.02, newToyBatch(step))
	}
	second := toyStore(t)
	s = newToyStep(t, second, optimizer, 0.3, 5)
	if err := Restore(second, toyParams(), saved(t, snapshot)); err != nil {
		t.Fatal(err)
	}
	for step := 3; step < 6; step++ {
		runToy(t, s, step, 0.02, newToyBatch(step))
	}
	sameBits(t, "resumed", bits(t, second), bits(t, whole))
}

func TestRestoreRefuses(t *testing.T) {
	good := takeToy(t, trainedStore(t))
	without := func(list []weights.Tensor, name string) []weights.Tensor {
		return slices.DeleteFunc(slices.Clone(list), func(x weights.Tensor) bool { return x.Name == name })
	}
	with := func(list []weights.Tensor, name string, shape ...int) []weights.Tensor {
		n := 1
		for _, d := range shape {
			n *= d
		}
		return append(without(list, name), weights.FromFloat32(name, shape, make([]float32, n)))
	}
	for name, tt := range map[string]struct {
		change func(s *checkpoint.Snapshot)
		says   []string
	}{
		"no optimizer state": {func(s *checkpoint.Snapshot) { s.Optimizer = nil }, []string{"no optimizer state", "resumed"}},
		"tensor of another model": {func(s *checkpoint.Snapshot) { s.Model = with(s.Model, "visual_encoder.proj", 2) },
			[]string{"visual_encoder.proj", "configuration of the run"}},
		"slot of another model": {func(s *checkpoint.Snapshot) { s.Optimizer = with(s.Optimizer, "m.ln_vision", 2) },
			[]string{"m.ln_vision", "configuration of the run"}},
		"slot of another optimizer": {func(s *checkpoint.Snapshot) { s.Optimizer = with(s.Optimizer, "momentum.temp") },
			[]string{"momentum.temp"}},
		"missing tensor": {func(s *checkpoint.Snapshot) { s.Model = without(s.Model, "dense.bias") }, []string{"dense.bias"}},
		"missing slot":   {func(s *checkpoint.Snapshot) { s.Optimizer = without(s.Optimizer, "v.temp") }, []string{"v.temp"}},
		"wrong shape": {func(s *checkpoint.Snapshot) { s.Model = with(s.Model, "dense.weight", 3, 2) },
			[]string{"dense.weight has shape [3 2]", "needs [2 3]"}},
		"wrong shape of a slot": {func(s *checkpoint.Snapshot) { s.Optimizer = with(s.Optimizer, "v.dense.bias", 1) },
			[]string{"v.dense.bias has shape [1]"}},
		"one value instead of a scalar": {func(s *checkpoint.Snapshot) { s.Model = with(s.Model, "temp", 1) },
			[]string{"temp has shape [1]"}},
		"integers": {func(s *checkpoint.Snapshot) {
			s.Model = append(without(s.Model, "dense.bias"), weights.FromInt64("dense.bias", []int{2}, []int64{1, 2}))
		}, []string{"dense.bias"}},
	} {
		s := good
		tt.change(&s)
		l := saved(t, s)
		err := Restore(toyStore(t), toyParams(), l)
		if err == nil {
			t.Errorf("%s: restored", name)
			continue
		}
		for _, want := range append(tt.says, l.Dir) {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: no %q in %q", name, want, err)
			}
		}
	}
}

func TestSnapshotOfAnotherModel(t *testing.T) {
	store := trainedStore(t)
	params := append(toyParams(), model.Param{Name: "more.weight", Shape: []int{1}})
	if _, err := TakeSnapshot(store, params, 3, toyState()); err == nil || !strings.Contains(err.Error(), "more.weight") {
		t.Errorf("a tensor that the store lacks: error %v", err)
	}
	if _, err := TakeSnapshot(toyStore(t), toyParams(), 3, toyState()); err == nil ||
		!strings.Contains(err.Error(), "m.dense.weight") && !strings.Contains(err.Error(), "v.dense.weight") {
		t.Errorf("a model without slots: error %v", err)
	}
}

// TestStateWithoutStreams: states from before data had streams are read as they are, and those without are still
// written so.
func TestStateWithoutStreams(t *testing.T) {
	old := `{"seed":9,"epoch":2,"index":40,"config_hash":"abc","command":"toy"}`
	var s State
	if err := json.Unmarshal([]byte(old), &s); err != nil || s != toyState() {
		t.Errorf("%+v, %v", s, err)
	}
	if text, err := json.Marshal(s); err != nil || string(text) != old {
		t.Errorf("%s, %v", text, err)
	}
}
