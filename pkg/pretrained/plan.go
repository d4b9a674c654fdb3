package pretrained

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"blip2/pkg/model"
)

// maxNamed is how many tensors an error spells out; the coverage has all.
const maxNamed = 5

// recipe says which tensors of the file give one tensor of the model.
type recipe struct {
	rule    rule
	wild    []string
	piece   int
	sources []string // by rule.theirs; empty where the file has none
}

func (r recipe) complete() bool { return !slices.Contains(r.sources, "") }

// lacking returns the file's names of the tensors that an incomplete recipe needs.
func (r recipe) lacking() []string {
	var names []string
	for slot, name := range r.sources {
		if name == "" {
			names = append(names, expand(r.rule.theirs[slot], r.wild))
		}
	}
	return names
}

// plan is what becomes of every tensor of a file and of the model.
type plan struct {
	part    part
	format  format
	src     source
	recipes map[string]recipe // by LAVIS name; first all that the file has, finally those of the part
	twins   []twinned
	// problems are mistakes other than missing and unexpected tensors.
	problems []string
}

// twinned is a pair of recipes that must give the same numbers.
type twinned struct {
	twin
	a, b recipe
}

// recognise returns the format that knows most of the file's names.
func (p part) recognise(src source) (format, error) {
	var best format
	most := 0
	names := src.Names()
	for _, f := range p.formats {
		known := 0
		for _, name := range names {
			if targets := f.targets(name); len(targets) > 0 {
				if _, other := find(p.elsewhere, targets[0].name); !other {
					known++
				}
			}
		}
		if known > most {
			best, most = f, known
		}
	}
	if most == 0 {
		var known []string
		for _, f := range p.formats {
			known = append(known, f.name)
		}
		return best, fmt.Errorf("no %s is in it%s; known are %s; its %d tensors are %s",
			p.what, p.absence, strings.Join(known, ", "), len(names), some(names))
	}
	if best.arch != p.arch {
		return best, fmt.Errorf("it holds %s, but vision.arch is %s: set vision.arch to %s, or give another file",
			best.name, p.arch, best.arch)
	}
	return best, nil
}

// targets returns the tensors of the model that the file's tensor contributes to, none if it is ignored or unknown.
func (f format) targets(name string) []target {
	if _, ok := find(f.ignored, name); ok {
		return nil
	}
	if at := strings.LastIndexByte(name, '.'); at >= 0 {
		if last, ok := f.respell[name[at+1:]]; ok {
			name = name[:at+1] + last
		}
	}
	for _, r := range f.rules {
		if targets := r.targets(name); targets != nil {
			return targets
		}
	}
	return nil
}

// find returns the reason of the first exception that matches the name.
func find(list []exception, name string) (reason string, ok bool) {
	for _, e := range list {
		if _, ok := match(e.pattern, name); ok {
			return e.reason, true
		}
	}
	return "", false
}

// newPlan decides about every name; shapes are check's business.
func newPlan(p part, f format, src source) (*plan, *Coverage) {
	pl := &plan{part: p, format: f, src: src, recipes: map[string]recipe{}}
	cov := &Coverage{Format: f.name}
	pl.collect(cov)
	pl.setAside(cov)
	pl.complete(cov)
	cov.sort()
	return pl, cov
}

// collect gathers the recipes of all that the file holds.
func (pl *plan) collect(cov *Coverage) {
	for _, name := range pl.src.Names() {
		if reason, ok := find(pl.format.ignored, name); ok {
			cov.Ignored = append(cov.Ignored, Note{name, reason})
			continue
		}
		targets := pl.format.targets(name)
		if len(targets) == 0 {
			cov.Unexpected = append(cov.Unexpected, name)
		}
		for _, t := range targets {
			r, ok := pl.recipes[t.name]
			if !ok {
				r = recipe{t.rule, t.wild, t.piece, make([]string, len(t.rule.theirs))}
			}
			// The same tensor under two names, or in one piece and in several: which one counts cannot be known.
			if other := strings.Join(r.sources, ""); ok && (r.rule.op != t.rule.op || r.sources[t.slot] != "") {
				pl.problem("%s and %s both stand for %s: remove one", other, name, t.name)
				continue
			}
			r.sources[t.slot] = name
			pl.recipes[t.name] = r
		}
	}
}

func (pl *plan) problem(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(pl.problems, text) {
		pl.problems = append(pl.problems, text)
	}
}

// setAside takes out the recipes of tensors that the part does not need, and says why.
func (pl *plan) setAside(cov *Coverage) {
	for _, t := range pl.part.twins {
		other, ok := pl.recipes[t.other]
		if !ok {
			continue
		}
		delete(pl.recipes, t.other)
		if r, ok := pl.recipes[t.name]; ok {
			pl.twins = append(pl.twins, twinned{t, r, other})
			cov.Ignored = append(cov.Ignored, Note{other.sources[0], "equal to " + r.sources[0]})
		} else {
			pl.recipes[t.name] = other // files keep either name of a shared tensor
		}
	}
	wanted := map[string]bool{}
	for _, p := range pl.part.params {
		wanted[p.Name] = true
	}
	reason := map[string]string{} // by source: a tensor that gives two of the model's is dealt with once
	for name, r := range pl.recipes {
		if wanted[name] {
			continue
		}
		delete(pl.recipes, name)
		why, _ := find(pl.part.elsewhere, name)
		if pl.part.surplus(name) {
			why = fmt.Sprintf("block beyond the %d that are used", pl.part.used)
		}
		for _, source := range r.sources {
			if source != "" {
				reason[source] = why
			}
		}
	}
	for source, why := range reason {
		if why == "" {
			cov.Unexpected = append(cov.Unexpected, source)
		} else {
			cov.Ignored = append(cov.Ignored, Note{source, why})
		}
	}
}

// complete finds the recipe of every tensor of the part, or the reason why it has none.
func (pl *plan) complete(cov *Coverage) {
	consumed := map[string]bool{}
	for _, r := range pl.recipes {
		for _, source := range r.sources {
			if source != "" {
				consumed[source] = true
			}
		}
	}
	cov.Consumed = slices.Collect(maps.Keys(consumed))
	skipped := pl.absentGroups()
	for _, p := range pl.part.params {
		r, ok := pl.recipes[p.Name]
		if !ok {
			r, ok = pl.copyOf(p.Name)
		}
		if ok && r.complete() {
			pl.recipes[p.Name] = r
			cov.Filled = append(cov.Filled, p.Name)
			continue
		}
		if reason, fresh := find(append(pl.format.fresh, skipped...), p.Name); fresh && !ok {
			cov.Fresh = append(cov.Fresh, Note{p.Name, reason})
			continue
		}
		missing := p.Name
		if ok {
			missing += " (of " + strings.Join(r.lacking(), ", ") + ")"
		}
		cov.Missing = append(cov.Missing, missing)
	}
}

// absentGroups returns the optional groups of which the file has nothing.
func (pl *plan) absentGroups() []exception {
	var absent []exception
	for _, group := range pl.format.optional {
		present := false
		for name := range pl.recipes {
			_, in := match(group.pattern, name)
			present = present || in
		}
		if !present {
			absent = append(absent, group)
		}
	}
	return absent
}

// copyOf returns the recipe of the tensor that the named one starts as a copy of.
func (pl *plan) copyOf(name string) (recipe, bool) {
	for _, c := range pl.format.copies {
		if wild, ok := match(c.ours[0], name); ok {
			r, ok := pl.recipes[expand(c.theirs[0], wild)]
			return r, ok
		}
	}
	return recipe{}, false
}

// check returns what stands against filling the model: names, shapes, twins that differ.
func (pl *plan) check(cov *Coverage) error {
	for _, t := range pl.twins {
		if err := pl.checkTwins(t); err != nil {
			pl.problem("%v", err)
		}
	}
	for _, p := range pl.part.params {
		r, ok := pl.recipes[p.Name]
		if !ok || !r.complete() {
			continue
		}
		if err := pl.checkShape(p, r); err != nil {
			pl.problem("%v", err)
		}
	}
	problems := pl.problems
	if n := len(problems); n > maxNamed {
		problems = append(problems[:maxNamed:maxNamed], fmt.Sprintf("and %d more", n-maxNamed))
	}
	if n := len(cov.Missing); n > 0 {
		problems = append(problems, fmt.Sprintf("%d tensors are missing: %s", n, some(cov.Missing)))
	}
	if n := len(cov.Unexpected); n > 0 {
		problems = append(problems, fmt.Sprintf("%d tensors are not known: %s", n, some(cov.Unexpected)))
	}
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("%s (%s; check that the sizes under %s are those of the checkpoint)",
		strings.Join(problems, "; "), pl.format.name, pl.part.setting)
}

func (pl *plan) checkShape(p model.Param, r recipe) error {
	shape, err := pl.shape(r)
	if err != nil {
		return err
	}
	if a, ok := pl.format.adapters[p.Name]; ok {
		return a.accepts(p, shape)
	}
	return sameShape(p, shape)
}

func sameShape(p model.Param, shape []int) error {
	if !slices.Equal(shape, p.Shape) {
		return fmt.Errorf("%s has shape %v, the model needs %v", p.Name, shape, p.Shape)
	}
	return nil
}

// shape returns the shape that the recipe gives.
func (pl *plan) shape(r recipe) ([]int, error) {
	var shape []int
	for i, name := range r.sources {
		t, err := pl.src.Tensor(name)
		if err != nil {
			return nil, err
		}
		switch {
		case r.rule.op == opCopy:
			return t.Shape, nil
		case len(t.Shape) == 0:
			return nil, fmt.Errorf("%s is a scalar", name)
		case r.rule.op == opQKVBias:
			if len(t.Shape) != 1 || t.Shape[0]%3 != 0 {
				return nil, fmt.Errorf("%s has shape %v, which is no bias of queries, keys and values", name, t.Shape)
			}
			return []int{t.Shape[0] / 3}, nil
		case i == 0:
			shape = slices.Clone(t.Shape)
		case !slices.Equal(t.Shape[1:], shape[1:]):
			return nil, fmt.Errorf("%s has shape %v, which does not fit below that of %s", name, t.Shape, r.sources[0])
		default:
			shape[0] += t.Shape[0]
		}
	}
	return shape, nil
}

// checkTwins compares a tensor that the file holds under two names.
func (pl *plan) checkTwins(t twinned) error {
	a, errA := pl.values(t.a)
	b, errB := pl.values(t.b)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if !sameBits(a, b) {
		return fmt.Errorf("%s and %s differ, but the model has one tensor for both", t.a.sources[0], t.b.sources[0])
	}
	return nil
}

// some names the first of a list.
func some(names []string) string {
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}
