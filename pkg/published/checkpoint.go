package published

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// specKey is where this program's own safetensors files keep their Spec among the metadata.
const specKey = "blip2.spec"

// Checkpoint is an open checkpoint of which it is known what it holds.
type Checkpoint struct {
	weights.Source
	naming.Detection
	Spec Spec
	// SpecFrom says where the sizes come from: "config.json", "the file's metadata" or "shapes".
	SpecFrom string
}

// Open opens the weights at path, which weights.OpenAny describes, and tells what network they are of. The hints serve
// where sizes come from shapes. The caller closes the checkpoint.
func Open(path string, h Hints) (*Checkpoint, error) {
	src, err := weights.OpenAny(path)
	if err != nil {
		return nil, err
	}
	c, err := Identify(src, h)
	if err != nil {
		_ = src.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// Identify is Open for weights that are open already; they stay the caller's to close.
func Identify(src weights.Source, h Hints) (*Checkpoint, error) {
	c := &Checkpoint{Source: src}
	if number, all := weights.ShardOf(src.Path()); all > 1 {
		return nil, fmt.Errorf("it is file %d of the %d of a model: name their folder, %s", number, all,
			filepath.Dir(src.Path()))
	}
	var err error
	if c.Detection, err = naming.Detect(src.Names()); err != nil {
		return nil, err
	}
	tensors, err := c.Table.Shapes(src)
	if err != nil {
		return nil, err
	}
	measured, err := FromShapes(c.Model, tensors)
	if err != nil {
		return nil, fmt.Errorf("it looks like %s, but %w", c.Table.Name, err)
	}
	c.Spec, c.SpecFrom = measured, "shapes"
	stated, from, err := c.statedSpec()
	if err != nil {
		return nil, err
	}
	if from != "" {
		if err := stated.agrees(measured, from); err != nil {
			return nil, err
		}
		c.Spec, c.SpecFrom = stated.only(measured), from
	}
	c.Spec = c.Spec.hinted(h)
	return c, nil
}

// metadata is a source with free-form strings.
type metadata interface{ Metadata() map[string]string }

// statedSpec returns what the metadata of the file say, or a config.json beside weights under Hugging Face names; from
// is empty if nothing does.
func (c *Checkpoint) statedSpec() (s Spec, from string, err error) {
	if m, ok := c.Source.(metadata); ok {
		if text, ok := m.Metadata()[specKey]; ok {
			s, err := parseSpec(text)
			return s, "the file's metadata", err
		}
	}
	if c.Publisher != naming.HuggingFace {
		return s, "", nil // a config.json there is of something else
	}
	dir := c.Path()
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	s, err = ReadConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s, "", nil
	}
	return s, filepath.Join(dir, configFile), err
}

// parseSpec reads a Spec from a file's metadata. It may lack parts, but those that are there must be sound.
func parseSpec(text string) (s Spec, err error) {
	if err = json.Unmarshal([]byte(text), &s); err == nil {
		s = s.own()
		err = s.ValidateParts()
	}
	if err != nil {
		return s, fmt.Errorf("metadata %s: %w", specKey, err)
	}
	return s, nil
}

// agrees reports sizes that differ from those of the tensors' shapes. Only what shapes tell is compared.
func (s Spec) agrees(measured Spec, from string) error {
	if s.Model != measured.Model {
		return fmt.Errorf("%s says that it is %s, but the tensors are of %s", from, s.Model, measured.Model)
	}
	theirs := measured.sizes()
	for _, ours := range s.sizes() {
		i := slices.IndexFunc(theirs, func(other size) bool { return other.what == ours.what })
		if i >= 0 && theirs[i].n != ours.n {
			return fmt.Errorf("%s says that the %s is %d, but the tensors have %d", from, ours.what, ours.n, theirs[i].n)
		}
	}
	return nil
}

// only keeps the parts of the Spec that the tensors have.
func (s Spec) only(measured Spec) Spec {
	if measured.Vision == nil {
		s.Vision = nil
	}
	if measured.QFormer == nil {
		s.QFormer = nil
	}
	if measured.OPT == nil {
		s.OPT = nil
	}
	if measured.T5 == nil {
		s.T5 = nil
	}
	return s
}

// Plan checks every tensor of the checkpoint against the network of its Spec.
func (c *Checkpoint) Plan(allowMissing, allowUnexpected bool) (*naming.Plan, error) {
	plan, err := naming.NewPlan(naming.Part{What: c.Model, Params: c.Spec.Params(), Tables: []naming.Table{c.Table},
		AllowMissing: allowMissing, AllowUnexpected: allowUnexpected}, c.Source)
	if cov := plan.Coverage(); cov != nil {
		cov.Path = c.Path()
	}
	if err != nil {
		return plan, fmt.Errorf("%s: %w", c.Path(), err)
	}
	return plan, nil
}

// CountTypes counts tensors and their bytes by type, most bytes first.
func CountTypes(c weights.Source) ([]TypeCount, error) {
	counts := map[weights.DType]*TypeCount{}
	for _, name := range c.Names() {
		t, err := c.Info(name)
		if err != nil {
			return nil, err
		}
		n := counts[t.DType]
		if n == nil {
			n = &TypeCount{DType: t.DType}
			counts[t.DType] = n
		}
		elements, err := t.Elements()
		if err != nil {
			return nil, err
		}
		n.Tensors++
		n.Elements += int64(elements)
		n.Bytes += int64(elements * t.DType.Size())
	}
	out := make([]TypeCount, 0, len(counts))
	for _, n := range counts {
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b TypeCount) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.DType, b.DType))
	})
	return out, nil
}

// TypeCount is how much of a checkpoint is of one type.
type TypeCount struct {
	DType    weights.DType `json:"dtype"`
	Tensors  int           `json:"tensors"`
	Elements int64         `json:"elements"`
	Bytes    int64         `json:"bytes"`
}
