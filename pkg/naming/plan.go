package naming

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"blip2/pkg/model"
	"blip2/pkg/weights"
)

// maxNamed is how many tensors an error spells out; the coverage has all.
const maxNamed = 5

// Part is a group of a model's tensors that one checkpoint provides.
type Part struct {
	What    string        // for messages
	Absence string        // why a checkpoint may be without it, for messages
	Params  []model.Param // under the model's names
	Tables  []Table       // the ways to name them
	// Arch is the architecture of the image encoder, which must be the table's; empty if any will do.
	Arch string
	// Setting names the configuration that the sizes come from, for messages.
	Setting string
	// Layers is the pattern of tensors in numbered layers of which a file may have more than the model, which uses Used.
	Layers string
	Used   int
	// Elsewhere are tensors of the model that tables know, but that this part leaves alone.
	Elsewhere []Exception
	// Accept judges the shape that the table gives a tensor; nil means that it must be the parameter's.
	Accept func(t Table, p model.Param, shape []int) error
	// AllowMissing and AllowUnexpected turn these two mistakes into entries of the coverage.
	AllowMissing, AllowUnexpected bool
}

// Plan is what becomes of every tensor of a file and of a part of the model.
type Plan struct {
	part    Part
	table   Table
	src     Source
	recipes map[string]recipe // by the model's name; first all that the file has, finally those of the part
	twins   []twinned
	// problems are mistakes other than missing and unexpected tensors.
	problems []string
	coverage *Coverage
}

// recipe says which tensors of the file give one tensor of the model.
type recipe struct {
	rule    Rule
	wild    []string
	piece   int
	sources []string // by rule.Theirs; empty where the file has none
}

func (r recipe) complete() bool { return !slices.Contains(r.sources, "") }

// lacking returns the file's names of the tensors that an incomplete recipe needs.
func (r recipe) lacking() []string {
	var names []string
	for slot, name := range r.sources {
		if name == "" {
			names = append(names, expand(r.rule.Theirs[slot], r.wild))
		}
	}
	return names
}

// twinned is a pair of recipes that must give the same numbers.
type twinned struct {
	Twin
	a, b recipe
}

// NewPlan recognises how the file's tensors are named and decides about every name and shape. The plan's Coverage,
// which is nil only if the file is not recognised, lists all; the error names the first that stand against filling the
// model. The numbers are not read, but for tensors that a file holds twice.
func NewPlan(part Part, src Source) (*Plan, error) {
	table, err := part.Recognise(src.Names())
	if err != nil {
		return &Plan{part: part}, err
	}
	pl := &Plan{part: part, table: table, src: src, recipes: map[string]recipe{}, coverage: &Coverage{Format: table.Name}}
	pl.collect()
	pl.listedOnly()
	pl.setAside()
	pl.complete()
	pl.coverage.Sort()
	return pl, pl.check()
}

// Table returns the way in which the file's tensors are named.
func (pl *Plan) Table() Table { return pl.table }

// Coverage says what becomes of every tensor; nil if the file was not recognised.
func (pl *Plan) Coverage() *Coverage { return pl.coverage }

// Recognise returns the table that knows most of the names, among those that know as many the one with the fewest
// unknown.
func (p Part) Recognise(names []string) (Table, error) {
	var best Table
	most, least := 0, 0
	wanted := p.wanted()
	for _, t := range p.Tables {
		known, unknown := t.Knows(names)
		for _, name := range names {
			if ours := t.Ours(name); len(ours) > 0 {
				if _, other := find(p.Elsewhere, ours[0]); other && !wanted[ours[0]] {
					known--
				}
			}
		}
		if known > most || known == most && known > 0 && unknown < least {
			best, most, least = t, known, unknown
		}
	}
	if most == 0 {
		var known []string
		for _, t := range p.Tables {
			known = append(known, t.Name)
		}
		return best, fmt.Errorf("no %s is in it%s; known are %s; its %d tensors are %s",
			p.What, p.Absence, strings.Join(known, ", "), len(names), some(names))
	}
	if p.Arch != "" && best.Arch != p.Arch {
		return best, fmt.Errorf("it holds %s, but vision.arch is %s: set vision.arch to %s, or give another file",
			best.Name, p.Arch, best.Arch)
	}
	return best, nil
}

// collect gathers the recipes of all that the file holds.
func (pl *Plan) collect() {
	for _, name := range pl.src.Names() {
		if reason, ok := find(pl.table.Ignored, name); ok {
			pl.coverage.Ignored = append(pl.coverage.Ignored, Note{name, reason})
			continue
		}
		targets := pl.table.targets(name)
		if len(targets) == 0 {
			pl.coverage.Unexpected = append(pl.coverage.Unexpected, name)
		}
		for _, t := range targets {
			r, ok := pl.recipes[t.name]
			if !ok {
				r = recipe{t.rule, t.wild, t.piece, make([]string, len(t.rule.Theirs))}
			}
			// The same tensor under two names, or in one piece and in several: which one counts cannot be known.
			if other := strings.Join(r.sources, ""); ok && (r.rule.Op != t.rule.Op || r.sources[t.slot] != "") {
				pl.problem("%s and %s both stand for %s: remove one", other, name, t.name)
				continue
			}
			r.sources[t.slot] = name
			pl.recipes[t.name] = r
		}
	}
}

func (pl *Plan) problem(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(pl.problems, text) {
		pl.problems = append(pl.problems, text)
	}
}

// listedOnly deals with tensors that an index lists and no shard holds: the second names of shared tensors may be.
func (pl *Plan) listedOnly() {
	src, ok := pl.src.(interface{ Absent() map[string]string })
	if !ok {
		return
	}
	absent := src.Absent()
	for _, name := range slices.Sorted(maps.Keys(absent)) {
		reason, spare := find(pl.table.Ignored, name)
		for _, ours := range pl.table.Ours(name) {
			if first := pl.table.twinOf(ours); first != ours && pl.recipes[first].sources != nil {
				reason, spare = "another name of "+first, true
			}
		}
		if spare {
			pl.coverage.Ignored = append(pl.coverage.Ignored, Note{name, "only listed by the index: " + reason})
		} else {
			pl.problem("the index places %s in %s, which does not hold it: download the shard again", name, absent[name])
		}
	}
}

// setAside takes out the recipes of tensors that the part does not need, and says why.
func (pl *Plan) setAside() {
	for _, t := range pl.table.Twins {
		other, ok := pl.recipes[t.Other]
		if !ok {
			continue
		}
		delete(pl.recipes, t.Other)
		if r, ok := pl.recipes[t.Name]; ok {
			pl.twins = append(pl.twins, twinned{t, r, other})
			pl.coverage.Ignored = append(pl.coverage.Ignored, Note{other.sources[0], "equal to " + r.sources[0]})
		} else {
			pl.recipes[t.Name] = other // files keep either name of a shared tensor
		}
	}
	wanted := pl.part.wanted()
	reason := map[string]string{} // by source: a tensor that gives two of the model's is dealt with once
	for name, r := range pl.recipes {
		if wanted[name] {
			continue
		}
		delete(pl.recipes, name)
		why, _ := find(pl.part.Elsewhere, name)
		if pl.part.surplus(name) {
			why = fmt.Sprintf("block beyond the %d that are used", pl.part.Used)
		}
		for _, source := range r.sources {
			if source != "" {
				reason[source] = why
			}
		}
	}
	for source, why := range reason {
		if why == "" {
			pl.coverage.Unexpected = append(pl.coverage.Unexpected, source)
		} else {
			pl.coverage.Ignored = append(pl.coverage.Ignored, Note{source, why})
		}
	}
}

// wanted has the names of the part's tensors.
func (p Part) wanted() map[string]bool {
	wanted := make(map[string]bool, len(p.Params))
	for _, param := range p.Params {
		wanted[param.Name] = true
	}
	return wanted
}

// surplus says whether the tensor is of a layer beyond those that the model uses.
func (p Part) surplus(name string) bool {
	if p.Layers == "" {
		return false
	}
	wild, ok := match(p.Layers, name)
	if !ok {
		return false
	}
	layer, ok := number(wild[0])
	return ok && layer >= p.Used
}

// complete finds the recipe of every tensor of the part, or the reason why it has none.
func (pl *Plan) complete() {
	consumed := map[string]bool{}
	for _, r := range pl.recipes {
		for _, source := range r.sources {
			if source != "" {
				consumed[source] = true
			}
		}
	}
	pl.coverage.Consumed = slices.Collect(maps.Keys(consumed))
	skipped := pl.absentGroups()
	for _, p := range pl.part.Params {
		r, ok := pl.recipes[p.Name]
		if !ok {
			r, ok = pl.copyOf(p.Name)
		}
		if ok && r.complete() {
			pl.recipes[p.Name] = r
			pl.coverage.Filled = append(pl.coverage.Filled, p.Name)
			continue
		}
		if reason, fresh := find(append(pl.table.Fresh, skipped...), p.Name); fresh && !ok {
			pl.coverage.Fresh = append(pl.coverage.Fresh, Note{p.Name, reason})
			continue
		}
		missing := p.Name
		if ok {
			missing += " (of " + strings.Join(r.lacking(), ", ") + ")"
			delete(pl.recipes, p.Name)
		}
		pl.coverage.Missing = append(pl.coverage.Missing, missing)
	}
}

// absentGroups returns the optional groups of which the file has nothing.
func (pl *Plan) absentGroups() []Exception {
	var absent []Exception
	for _, group := range pl.table.Optional {
		present := false
		for name := range pl.recipes {
			_, in := match(group.Pattern, name)
			present = present || in
		}
		if !present {
			absent = append(absent, group)
		}
	}
	return absent
}

// copyOf returns the recipe of the tensor that the named one starts as a copy of.
func (pl *Plan) copyOf(name string) (recipe, bool) {
	for _, c := range pl.table.Copies {
		if wild, ok := match(c.Ours[0], name); ok {
			r, ok := pl.recipes[expand(c.Theirs[0], wild)]
			return r, ok
		}
	}
	return recipe{}, false
}

// check returns what stands against filling the model: names, shapes, twins that differ.
func (pl *Plan) check() error {
	for _, t := range pl.twins {
		if err := pl.checkTwins(t); err != nil {
			pl.problem("%v", err)
		}
	}
	for _, p := range pl.part.Params {
		r, ok := pl.recipes[p.Name]
		if !ok {
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
	if n := len(pl.coverage.Missing); n > 0 && !pl.part.AllowMissing {
		problems = append(problems, fmt.Sprintf("%d tensors are missing: %s", n, some(pl.coverage.Missing)))
	}
	if n := len(pl.coverage.Unexpected); n > 0 && !pl.part.AllowUnexpected {
		problems = append(problems, fmt.Sprintf("%d tensors are not known: %s", n, some(pl.coverage.Unexpected)))
	}
	if len(problems) == 0 {
		return nil
	}
	hint := ""
	if pl.part.Setting != "" {
		hint = fmt.Sprintf("; check that the sizes under %s are those of the checkpoint", pl.part.Setting)
	}
	return fmt.Errorf("%s (%s%s)", strings.Join(problems, "; "), pl.table.Name, hint)
}

func (pl *Plan) checkShape(p model.Param, r recipe) error {
	sources, err := all(r.sources, pl.src.Info)
	if err != nil {
		return err
	}
	shape, err := r.rule.ourShape(sources)
	if err != nil {
		return err
	}
	if pl.part.Accept != nil {
		return pl.part.Accept(pl.table, p, shape)
	}
	return SameShape(p, shape)
}

// SameShape reports a tensor whose shape is not the model's.
func SameShape(p model.Param, shape []int) error {
	if !slices.Equal(shape, p.Shape) {
		return fmt.Errorf("%s has shape %v, the model needs %v", p.Name, shape, p.Shape)
	}
	return nil
}

// Sources returns the file's tensors that give the named tensor of the model; none if the file does not give it.
func (pl *Plan) Sources(name string) []string { return pl.recipes[name].sources }

// Tensor returns the model's tensor of that name in the file's dtype and shape. ok is false if the file does not give
// it: it is fresh or missing. The data may alias the file's.
func (pl *Plan) Tensor(name string) (t weights.Tensor, ok bool, err error) {
	r, ok := pl.recipes[name]
	if !ok {
		return t, false, nil
	}
	sources, err := all(r.sources, pl.src.Tensor)
	if err != nil {
		return t, true, err
	}
	t, err = r.rule.our(sources, r.piece)
	t.Name = name
	return t, true, err
}

// DType returns the type of the file's tensors that give the named tensor of the model; ok is false if it gives none.
func (pl *Plan) DType(name string) (dtype weights.DType, ok bool, err error) {
	r, ok := pl.recipes[name]
	if !ok {
		return "", false, nil
	}
	t, err := pl.src.Info(r.sources[0])
	return t.DType, true, err
}

// checkTwins compares a tensor that the file holds under two names.
func (pl *Plan) checkTwins(t twinned) error {
	a, errA := all(t.a.sources, pl.src.Tensor)
	b, errB := all(t.b.sources, pl.src.Tensor)
	defer Drop(pl.src, slices.Concat(t.a.sources, t.b.sources)...)
	if err := errors.Join(errA, errB); err != nil {
		return err
	}
	if a[0].DType != b[0].DType || !bytes.Equal(a[0].Data, b[0].Data) {
		return fmt.Errorf("%s and %s differ, but the model has one tensor for both", t.a.sources[0], t.b.sources[0])
	}
	return nil
}

// Drop gives back the memory that reading tensors took, where the source can.
func Drop(src Source, names ...string) {
	if d, ok := src.(interface{ Drop(name string) }); ok {
		for _, name := range names {
			d.Drop(name)
		}
	}
}

// some names the first of a list.
func some(names []string) string {
	if len(names) > maxNamed {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
	}
	return strings.Join(names, ", ")
}

// Shapes returns the shapes of all tensors of the model that the file gives, by the model's names.
func (t Table) Shapes(src Source) (map[string][]int, error) {
	pl := &Plan{table: t, src: src, recipes: map[string]recipe{}, coverage: &Coverage{}}
	pl.collect()
	shapes := map[string][]int{}
	for name, r := range pl.recipes {
		if !r.complete() {
			continue
		}
		sources, err := all(r.sources, src.Info)
		if err != nil {
			return nil, err
		}
		if shapes[t.twinOf(name)], err = r.rule.ourShape(sources); err != nil {
			return nil, err
		}
	}
	return shapes, nil
}
