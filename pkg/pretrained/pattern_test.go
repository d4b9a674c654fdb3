package pretrained

import (
	"slices"
	"testing"

	"blip2/pkg/model/vit"
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

// TestTables checks the shape of all rules, and that every format of an encoder gives every tensor of it.
func TestTables(t *testing.T) {
	for _, arch := range []string{vit.CLIP, vit.EVA} {
		cfg := small(arch)
		parts := []part{visionPart(cfg.Vision), qformerPart(cfg.qformer(), 1)}
		for _, p := range parts {
			for _, f := range p.formats {
				for _, r := range slices.Concat(f.rules, f.copies) {
					checkRule(t, f.name, r)
				}
				if f.arch != p.arch {
					continue
				}
				for _, param := range p.params {
					if !gives(f, param.Name) {
						t.Errorf("%s: nothing gives %s", f.name, param.Name)
					}
				}
			}
		}
	}
}

func checkRule(t *testing.T, name string, r rule) {
	t.Helper()
	if len(r.theirs) != 1 && len(r.ours) != 1 {
		t.Errorf("%s: %v to %v cannot be read in both directions", name, r.theirs, r.ours)
	}
	wild := []string{"1", "2", "3"}
	for _, pattern := range slices.Concat(r.theirs, r.ours) {
		got, ok := match(pattern, expand(pattern, wild))
		want, _ := match(r.ours[0], expand(r.ours[0], wild))
		if !ok || !slices.Equal(got, want) {
			t.Errorf("%s: %s and %s have different wildcards", name, pattern, r.ours[0])
		}
	}
}

// gives says whether a rule, a copy or an initialisation makes the tensor.
func gives(f format, name string) bool {
	for _, r := range slices.Concat(f.rules, f.copies) {
		for _, ours := range r.ours {
			if _, ok := match(ours, name); ok {
				return true
			}
		}
	}
	_, ok := find(f.fresh, name)
	return ok
}
