package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/weights"
)

// testState is a state as a trainer would give.
type testState struct {
	Seed    uint64 `json:"seed"`
	Attempt int    `json:"attempt"`
	Data    struct {
		Epoch int64 `json:"epoch"`
		Index int64 `json:"index"`
	} `json:"data"`
	Best *float64 `json:"best,omitempty"`
}

// snapshot makes a checkpoint whose three files all follow from step and attempt, so that checkConsistent can tell
// whether they belong together. Each tensor has n values.
func snapshot(step, attempt, n int) Snapshot {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(step) + float32(attempt)/64 + float32(i%7)/1024
	}
	s := Snapshot{Step: step, Model: []weights.Tensor{
		weights.FromFloat32("query_tokens", []int{1, n}, v),
		weights.FromFloat32("temp", nil, v[:1]),
	}, Optimizer: []weights.Tensor{
		weights.FromFloat32("m.query_tokens", []int{1, n}, v),
		weights.FromFloat32("v.query_tokens", []int{1, n}, v),
	}}
	state := testState{Seed: math.MaxUint64, Attempt: attempt}
	state.Data.Epoch, state.Data.Index = int64(step/10), int64(step%10)
	s.State = state
	return s
}

// checkConsistent makes sure that all parts of a loaded checkpoint come from one snapshot.
func checkConsistent(l *Loaded) error {
	var state testState
	if err := l.DecodeState(&state); err != nil {
		return err
	}
	if int(state.Data.Epoch*10+state.Data.Index) != l.Step || state.Seed != math.MaxUint64 {
		return fmt.Errorf("step %d has the state %+v", l.Step, state)
	}
	want := float32(l.Step) + float32(state.Attempt)/64
	for name, f := range map[string]*weights.File{
		"query_tokens": l.Model, "temp": l.Model, "m.query_tokens": l.Optimizer, "v.query_tokens": l.Optimizer,
	} {
		tensor, err := f.Tensor(name)
		if err != nil {
			return err
		}
		v, err := tensor.Float32s()
		if err != nil {
			return err
		}
		for i, x := range v {
			if x != want+float32(i%7)/1024 {
				return fmt.Errorf("step %d, attempt %d: %s[%d] is %g, want %g", l.Step, state.Attempt, name, i, x, want)
			}
		}
	}
	return nil
}

func mustSave(t testing.TB, runDir string, s Snapshot) string {
	t.Helper()
	dir, err := Save(context.Background(), runDir, s)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// visible lists the names in the checkpoints folder, hidden lock file aside.
func visible(t testing.TB, runDir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(runDir, Folder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	names := []string{}
	for _, e := range entries {
		if e.Name() != lockFile {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestSaveAndLoad(t *testing.T) {
	run := filepath.Join(t.TempDir(), "run") // does not exist yet
	dir := mustSave(t, run, snapshot(100, 0, 1000))
	if want := filepath.Join(run, "checkpoints", "step-00000100"); dir != want {
		t.Errorf("directory is %s, want %s", dir, want)
	}
	mustSave(t, run, snapshot(200, 0, 1000))
	if got := visible(t, run); !slices.Equal(got, []string{"latest", "step-00000100", "step-00000200"}) {
		t.Errorf("in the folder: %v", got)
	}
	if raw, err := os.ReadFile(filepath.Join(run, Folder, LatestFile)); err != nil || string(raw) != "step-00000200\n" {
		t.Errorf("latest is %q, %v", raw, err)
	}
	for step := 100; step <= 200; step += 100 {
		l, err := Load(filepath.Join(run, Folder, DirName(step)))
		if err != nil {
			t.Fatal(err)
		}
		if err := checkConsistent(l); err != nil || l.Step != step {
			t.Errorf("step %d: %v", l.Step, err)
		}
		if l.Model.Metadata()["format"] != "pt" {
			t.Errorf("metadata %v", l.Model.Metadata())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
	l, skipped, err := LoadLatest(run)
	if err != nil || len(skipped) != 0 || l.Step != 200 {
		t.Fatalf("latest: %+v, %v, %v", l, skipped, err)
	}
	defer l.Close()
	if err := checkConsistent(l); err != nil {
		t.Error(err)
	}
}

func TestEqualSnapshotsGiveEqualBytes(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	first, second := mustSave(t, a, snapshot(7, 0, 100)), mustSave(t, b, snapshot(7, 0, 100))
	for _, name := range []string{ModelFile, OptimizerFile, StateFile, ManifestFile} {
		x, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		if y, err := os.ReadFile(filepath.Join(second, name)); err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs (%v)", name, err)
		}
	}
}

func TestReplaceSameStep(t *testing.T) {
	run := t.TempDir()
	for attempt := range 3 {
		mustSave(t, run, snapshot(5, attempt, 10))
		l, _, err := LoadLatest(run)
		if err != nil {
			t.Fatal(err)
		}
		var state testState
		if err := errors.Join(checkConsistent(l), l.DecodeState(&state)); err != nil || state.Attempt != attempt {
			t.Errorf("attempt %d: %+v, %v", attempt, state, err)
		}
		l.Close()
	}
	if got := visible(t, run); !slices.Equal(got, []string{"latest", "step-00000005"}) {
		t.Errorf("in the folder: %v", got)
	}
}

// TestMoveIntoWithoutExchange takes the way of systems that cannot swap two directories at once.
func TestMoveIntoWithoutExchange(t *testing.T) {
	root := t.TempDir()
	temp, dir := filepath.Join(root, ".tmp-new"), filepath.Join(root, "step-1")
	for name, content := range map[string]string{temp: "new", dir: "old"} {
		err := errors.Join(os.Mkdir(name, 0o777), os.WriteFile(filepath.Join(name, "x"), []byte(content), 0o666))
		if err != nil {
			t.Fatal(err)
		}
	}
	never := func(_, _ string) error { return errors.ErrUnsupported }
	if err := moveInto(temp, dir, never); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{dir: "new", temp: "old"} {
		if got, err := os.ReadFile(filepath.Join(name, "x")); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v; want %q", name, got, err, want)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) != 2 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestWithoutOptimizer(t *testing.T) {
	run := t.TempDir()
	s := snapshot(3, 0, 4)
	s.Optimizer = nil
	dir := mustSave(t, run, s)
	if _, err := os.Stat(filepath.Join(dir, OptimizerFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("optimizer file: %v", err)
	}
	l, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if l.Optimizer != nil || l.Model == nil {
		t.Error("wrong files are open")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestLoadUnderAnotherName(t *testing.T) {
	run := t.TempDir()
	dir := mustSave(t, run, snapshot(3, 0, 4))
	best := filepath.Join(run, "best")
	if err := os.Rename(dir, best); err != nil {
		t.Fatal(err)
	}
	l, err := Load(best)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Step != 3 || l.Dir != best {
		t.Errorf("%+v", l)
	}
	// Among the numbered ones a name must say what is inside.
	if err := os.Rename(best, filepath.Join(run, Folder, DirName(9))); err != nil {
		t.Fatal(err)
	}
	_, skipped, err := Latest(run)
	if !errors.Is(err, ErrNone) || len(skipped) != 1 || !strings.Contains(skipped[0].Error(), "contains step 3") {
		t.Errorf("renamed: %v, %v", skipped, err)
	}
}

func TestSaveRefuses(t *testing.T) {
	ok := snapshot(1, 0, 2)
	for _, c := range []struct {
		want   string
		change func(*Snapshot)
	}{
		{"the step is negative", func(s *Snapshot) { s.Step = -1 }},
		{"state cannot be written as JSON", func(s *Snapshot) { s.State = math.NaN() }},
		{"state cannot be written as JSON", func(s *Snapshot) { s.State = func() {} }},
		{`model.safetensors: tensor "temp": the name occurs twice`, func(s *Snapshot) {
			s.Model = append(slices.Clone(s.Model), s.Model[1])
		}},
		{`optimizer.safetensors: tensor "m.temp": shape [2]`, func(s *Snapshot) {
			s.Optimizer = []weights.Tensor{weights.FromFloat32("m.temp", []int{2}, []float32{1})}
		}},
	} {
		run := t.TempDir()
		s := ok
		c.change(&s)
		if _, err := Save(context.Background(), run, s); err == nil || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(err.Error(), fmt.Sprintf("step %d", s.Step)) {
			t.Errorf("got %v\nwant %s", err, c.want)
		}
		if got := visible(t, run); len(got) != 0 {
			t.Errorf("left: %v", got)
		}
	}
}

func TestDecodeStateIsStrict(t *testing.T) {
	type inner struct {
		A int `json:"a"`
		B int `json:"b,omitempty"`
	}
	type state struct {
		Inner inner   `json:"inner"`
		List  []inner `json:"list"`
		Next  *inner  `json:"next"`
	}
	for _, c := range []struct{ raw, want string }{
		{`{"inner":{"a":1},"list":[{"a":1,"b":2}],"next":null}`, ""},
		{`{"inner":{"a":1,"b":3},"list":null,"next":{"a":1}}`, ""},
		{`{"inner":{"a":1},"list":[],"next":null,"extra":1}`, `unknown field "extra"`},
		{`{"inner":{"a":1,"c":1},"list":[],"next":null}`, `unknown field "c"`},
		{`{"inner":{},"list":[],"next":null}`, `the key "inner.a" is missing`},
		{`{"inner":{"a":1},"list":[{"a":1},{"b":1}],"next":null}`, `the key "list.1.a" is missing`},
		{`{"inner":{"a":1},"next":null}`, `the key "list" is missing`},
		{`{"inner":{"A":1},"list":[],"next":null}`, `the key "inner.a" is missing`},
		{`{"inner":{"a":"1"},"list":[],"next":null}`, "cannot unmarshal string"},
		{`{"inner":{"a":1},"list":[],"next":null} x`, "more after the JSON value"},
	} {
		l := &Loaded{Dir: "run/checkpoints/step-00000001", State: json.RawMessage(c.raw)}
		var s state
		err := l.DecodeState(&s)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(err.Error(), "state.json")) {
			t.Errorf("%s: got %v, want %q", c.raw, err, c.want)
		}
	}
}

func TestNilState(t *testing.T) {
	s := snapshot(1, 0, 2)
	s.State = nil
	l, err := Load(mustSave(t, t.TempDir(), s))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if string(l.State) != "null" {
		t.Errorf("state is %q", l.State)
	}
}

func TestStepsBeyondEightDigitsSort(t *testing.T) {
	run := t.TempDir()
	for _, step := range []int{99_999_999, 100_000_000, 5} {
		mustSave(t, run, Snapshot{Step: step})
	}
	// Not made by Save: never read.
	for _, name := range []string{"step-5", "step-", "step-x", "step--0000001", "step-000000200000000"} {
		if err := os.Mkdir(filepath.Join(run, Folder, name), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	dir, skipped, err := Latest(run)
	if filepath.Base(dir) != "step-100000000" || len(skipped) != 0 || err != nil {
		t.Errorf("latest is %s, %v, %v", dir, skipped, err)
	}
}
