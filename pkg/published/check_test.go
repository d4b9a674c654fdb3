package published

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// open is Open for a checkpoint that is sound.
func open(t *testing.T, path string) *Checkpoint {
	t.Helper()
	c, err := Open(path, hints)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestCompare compares checkpoints that differ in one thing.
func TestCompare(t *testing.T) {
	spec := tiny()["stage1"]
	s := stateOf(spec)
	without := func(name string) state { out := maps.Clone(s); delete(out, name); return out }
	with := func(name string, shape []int, v ...float32) state {
		out := maps.Clone(s)
		out[name] = weights.FromFloat32(name, shape, v)
		return out
	}
	half := state{}
	for name, tensor := range s {
		cast, err := tensor.CastFloat(weights.BF16)
		if err != nil {
			t.Fatal(err)
		}
		half[name] = cast
	}
	bias, err := s["itm_head.bias"].Float32s()
	if err != nil {
		t.Fatal(err)
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	larger := clone(t, spec)
	larger.Vision.ImageSize = 56
	resized := stateOf(larger)
	for name := range s {
		if !strings.HasSuffix(name, "pos_embed") {
			resized[name] = s[name]
		}
	}
	integers := maps.Clone(s)
	integers["itm_head.bias"] = weights.Tensor{Name: "itm_head.bias", DType: weights.I64, Shape: []int{2},
		Data: make([]byte, 16)}
	base := s.file(t, "base")
	for _, c := range []struct {
		what         string
		other        string
		tolerance    float64
		same         bool
		most         float64
		onlyA, onlyB []string
		reason       string // of the first tensor
	}{
		{what: "itself", other: base, same: true},
		{what: "its copy", other: s.file(t, "copy"), same: true},
		{what: "the folder of transformers, without head and temperature", other: folder(t, spec, s), same: true,
			onlyA: slices.DeleteFunc(slices.Sorted(maps.Keys(s)), func(n string) bool {
				return n != "temp" &&
					!strings.Contains(n, ".cls.")
			})},
		{what: "one number", other: with("itm_head.bias", []int{2}, bias[0], bias[1]+0.25).file(t, "x"), most: 0.25},
		{what: "one number, tolerated", other: with("itm_head.bias", []int{2}, bias[0], bias[1]+0.25).file(t, "x"),
			tolerance: 0.25,
			most:      0.25, same: true},
		{what: "NaN", other: with("itm_head.bias", []int{2}, bias[0], nan).file(t, "x"), most: math.MaxFloat64},
		{what: "infinity", other: with("itm_head.bias", []int{2}, inf, bias[1]).file(t, "x"), tolerance: 1e300,
			most: math.MaxFloat64},
		{what: "the other zero", other: with("temp", nil, 0.5).file(t, "x"), most: -1},
		{what: "another picture size", other: resized.file(t, "x"), reason: "shapes [1 10 6] and [1 17 6]"},
		{what: "a tensor less", other: without("itm_head.bias").file(t, "x"), onlyA: []string{"itm_head.bias"}},
		{what: "without its encoder", other: s.without(naming.VisionPrefix).file(t, "x"), onlyA: visionNames(s)},
		{what: "an unknown tensor more", other: with("extra", []int{1}, 1).file(t, "x"), onlyB: []string{"extra"}},
		{what: "integers", other: integers.file(t, "x"), reason: "dtype is I64"},
		{what: "another network", other: stateOf(tiny()["blip2-opt"]).file(t, "x"), most: -1, reason: "any"},
	} {
		a, b := open(t, base), open(t, c.other)
		got, err := Compare(t.Context(), a, b)
		if err != nil {
			t.Errorf("%s: %v", c.what, err)
			continue
		}
		back, err := Compare(t.Context(), b, a)
		if err != nil || back.MaxAbs != got.MaxAbs || back.Same(c.tolerance) != got.Same(c.tolerance) ||
			!slices.Equal(names(back.OnlyB), names(got.OnlyA)) {
			t.Errorf("%s: the other way round differs: %+v; error %v", c.what, back, err)
		}
		if got.Same(c.tolerance) != c.same {
			t.Errorf("%s: same is %v", c.what, got.Same(c.tolerance))
		}
		if c.most >= 0 && math.Abs(got.MaxAbs-c.most) > 1e-6 {
			t.Errorf("%s: largest difference %g, want %g", c.what, got.MaxAbs, c.most)
		}
		if _, err := json.Marshal(got); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.reason == "any" {
			continue
		}
		if !slices.Equal(names(got.OnlyA), c.onlyA) || !slices.Equal(names(got.OnlyB), c.onlyB) {
			t.Errorf("%s: only in A %v, only in B %v", c.what, got.OnlyA, got.OnlyB)
		}
		var reasons []string
		for _, d := range got.Tensors {
			if d.Reason != "" {
				reasons = append(reasons, d.Reason)
			}
		}
		if c.reason == "" && len(reasons) > 0 || c.reason != "" && !strings.Contains(strings.Join(reasons, ";"), c.reason) {
			t.Errorf("%s: reasons %q, want %q", c.what, reasons, c.reason)
		}
	}
	got, err := Compare(t.Context(), open(t, base), open(t, half.file(t, "half")))
	if err != nil || got.Same(0) || !got.Same(1e-2) || got.MaxAbs == 0 {
		t.Errorf("bfloat16: %v, error %v", got.MaxAbs, err)
	}
	for i, d := range got.Tensors {
		if d.A != weights.F32 || d.B != weights.BF16 || i > 0 && d.MaxAbs > got.Tensors[i-1].MaxAbs {
			t.Errorf("tensor %d is %+v", i, d)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Compare(cancelled, open(t, base), open(t, base)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error %v", err)
	}
}

// names are those of the notes.
func names(notes []naming.Note) []string {
	var out []string
	for _, n := range notes {
		out = append(out, n.Name)
	}
	return out
}

// visionNames are the names of the image encoder's tensors, sorted.
func visionNames(s state) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(s)), func(n string) bool {
		return !strings.HasPrefix(n,
			naming.VisionPrefix)
	})
}

// TestCountTypes counts by type, the largest first.
func TestCountTypes(t *testing.T) {
	s := state{}
	for name, dtype := range map[string]weights.DType{"a": weights.F32, "b": weights.BF16, "c": weights.F16,
		"d": weights.F16} {
		cast, err := weights.FromFloat32(name, []int{4}, make([]float32, 4)).CastFloat(dtype)
		if err != nil {
			t.Fatal(err)
		}
		s[name] = cast
	}
	src, err := weights.OpenAny(s.file(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	got, err := CountTypes(src)
	want := []TypeCount{{weights.F16, 2, 8, 16}, {weights.F32, 1, 4, 16}, {weights.BF16, 1, 4, 8}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, error %v; want %v", got, err, want)
	}
}
