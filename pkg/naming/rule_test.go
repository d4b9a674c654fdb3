package naming

import (
	"slices"
	"testing"

	"blip2/pkg/weights"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		wild          []string
		ok            bool
	}{
		{"a.b", "a.b", nil, true},
		{"a.b", "a.c", nil, false},
		{"a.b", "a", nil, false},
		{"a", "a.b", nil, false},
		{"a.*.c", "a.7.c", []string{"7"}, true},
		{"a.*.c", "a..c", nil, false},
		{"a.*", "a.b.c", nil, false},
		{"a.**", "a.b.c", []string{"b.c"}, true},
		{"a.**", "a", nil, false},
		{"a.**", "a.", nil, false},
		{"a.**", "ab.c", nil, false},
		{"*.x.**", "1.x.2.3", []string{"1", "2.3"}, true},
	} {
		wild, ok := match(c.pattern, c.name)
		if ok != c.ok || (ok && !slices.Equal(wild, c.wild)) {
			t.Errorf("match(%q, %q) = %q, %v", c.pattern, c.name, wild, ok)
			continue
		}
		if ok && expand(c.pattern, wild) != c.name {
			t.Errorf("expand(%q, %q) = %q", c.pattern, wild, expand(c.pattern, wild))
		}
	}
}

// TestOps applies every op in both directions.
func TestOps(t *testing.T) {
	at := func(name string, shape []int, v ...float32) weights.Tensor {
		return weights.FromFloat32(name, shape, v)
	}
	for _, c := range []struct {
		op           Op
		theirs, ours []weights.Tensor
	}{
		{Copy, []weights.Tensor{at("a", []int{2}, 1, 2)}, []weights.Tensor{at("x", []int{2}, 1, 2)}},
		{Rows, []weights.Tensor{at("q", []int{1, 2}, 1, 2), at("k", []int{1, 2}, 3, 4), at("v", []int{1, 2}, 5, 6)},
			[]weights.Tensor{at("qkv", []int{3, 2}, 1, 2, 3, 4, 5, 6)}},
		{QKVBias, []weights.Tensor{at("qkv", []int{6}, 1, 2, 0, 0, 5, 6)},
			[]weights.Tensor{at("q", []int{2}, 1, 2), at("v", []int{2}, 5, 6)}},
		{Transpose, []weights.Tensor{at("w", []int{2, 3}, 1, 2, 3, 4, 5, 6)},
			[]weights.Tensor{at("p", []int{3, 2}, 1, 4, 2, 5, 3, 6)}},
	} {
		r := Rule{c.op, make([]string, len(c.theirs)), make([]string, len(c.ours))}
		check := func(what string, got, want weights.Tensor, err error) {
			t.Helper()
			if err != nil || !slices.Equal(got.Shape, want.Shape) || !slices.Equal(got.Data, want.Data) {
				t.Errorf("op %d: %s %s is %v %v (%v), want %v %v", c.op, what, want.Name, got.Shape, got.Data, err, want.Shape,
					want.Data)
			}
		}
		for i, want := range c.ours {
			got, err := r.our(c.theirs, i)
			check("our", got, want, err)
		}
		for i, want := range c.theirs {
			got, err := r.their(c.ours, i)
			check("their", got, want, err)
		}
	}
}

// TestModelTables checks the shape of all rules.
func TestModelTables(t *testing.T) {
	for _, m := range Models() {
		for publisher, table := range m.Tables {
			if table.Name == "" {
				t.Errorf("%s of %s has no name", m.Name, publisher)
			}
			for _, r := range slices.Concat(table.Rules, table.Copies) {
				checkRule(t, table.Name, r)
			}
		}
	}
	for _, tables := range [][]Table{VisionTables(), QFormerTables(), LLMTables(OPT, "opt_model."), LLMTables(T5,
		"t5_model.")} {
		for _, table := range tables {
			for _, r := range slices.Concat(table.Rules, table.Copies) {
				checkRule(t, table.Name, r)
			}
		}
	}
}

func checkRule(t *testing.T, name string, r Rule) {
	t.Helper()
	if len(r.Theirs) != 1 && len(r.Ours) != 1 {
		t.Errorf("%s: %v to %v cannot be read in both directions", name, r.Theirs, r.Ours)
	}
	wild := []string{"1", "2", "3"}
	for _, pattern := range slices.Concat(r.Theirs, r.Ours) {
		got, ok := match(pattern, expand(pattern, wild))
		want, _ := match(r.Ours[0], expand(r.Ours[0], wild))
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %s and %s have different wildcards", name, pattern, r.Ours[0])
		}
	}
}
