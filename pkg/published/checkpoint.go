package published

import (
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
	var err error
	if c.Detection, err = naming.Detect(src.Names()); err != nil {
		return nil, err
	}
	tensors, err := c.Table.Shapes(src)
	if err != nil {
		return nil, err
	}
	measured, err := FromShapes(c.Model, tensors, h)
	if err != nil {
		return nil, fmt.Errorf("it looks like %s, but %w", c.Table.Name, err)
	}
	stated, from, err := statedSpec(src)
	if err != nil {
		return nil, err
	}
	if from == "" {
		c.Spec, c.SpecFrom = measured, "shapes"
		return c, nil
	}
	if err := stated.agrees(measured, from); err != nil {
		return nil, err
	}
	c.Spec, c.SpecFrom = stated.only(measured), from
	return c, nil
}

// metadata is a source with free-form strings.
type metadata interface{ Metadata() map[string]string }

// statedSpec returns what a config.json beside the weights, or the metadata of the file, say; from is empty if nothing
// does.
func statedSpec(src weights.Source) (s Spec, from string, err error) {
	if m, ok := src.(metadata); ok {
		if text, ok := m.Metadata()[specKey]; ok {
			if err := json.Unmarshal([]byte(text), &s); err != nil {
				return s, "", fmt.Errorf("metadata %s: %w", specKey, err)
			}
			return s, "the file's metadata", nil
		}
	}
	dir := src.Path()
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		dir = filepath.Dir(dir)
	}
	s, err = ReadConfig(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return s, "", nil
	}
	return s, configFile, err
}

// agrees reports sizes that differ from those of the tensors' shapes. Only what shapes tell is compared.
func (s Spec) agrees(measured Spec, from string) error {
	if s.Model != measured.Model {
		return fmt.Errorf("%s says that it is %s, but the tensors are of %s", from, s.Model, measured.Model)
	}
	for _, size := range s.sizes(measured) {
		if size.stated != size.measured {
			return fmt.Errorf("%s says that the %s is %d, but the tensors have %d", from, size.what, size.stated, size.measured)
		}
	}
	return nil
}

// size is a number that both a configuration and the shapes of the tensors tell.
type size struct {
	what             string
	stated, measured int
}

// sizes pairs what the Spec says with what was measured, of the parts that both have.
func (s Spec) sizes(measured Spec) []size {
	var out []size
	add := func(what string, stated, measured int) { out = append(out, size{what, stated, measured}) }
	if a, b := s.vision(), measured.vision(); a != nil && b != nil {
		add("image encoder's width", a.Width, b.Width)
		add("number of the image encoder's blocks", a.Layers, b.Layers)
		add("image encoder's MLP", a.MLPWidth(), b.MLPWidth())
		add("image size", a.ImageSize, b.ImageSize)
		add("patch size", a.PatchSize, b.PatchSize)
	}
	if a, b := s.QFormer, measured.QFormer; a != nil && b != nil {
		add("Q-Former's width", a.Hidden, b.Hidden)
		add("number of the Q-Former's layers", a.Layers, b.Layers)
		add("number of queries", a.Queries, b.Queries)
		add("Q-Former's feed-forward network", a.Intermediate, b.Intermediate)
		add("width that the Q-Former reads", a.EncoderWidth, b.EncoderWidth)
	}
	if a, b := s.OPT, measured.OPT; a != nil && b != nil {
		add("OPT's width", a.Hidden, b.Hidden)
		add("number of OPT's layers", a.Layers, b.Layers)
		add("OPT's FFN", a.FFN, b.FFN)
		add("OPT's vocabulary", a.Vocab, b.Vocab)
		add("number of OPT's positions", a.Positions, b.Positions)
	}
	if a, b := s.T5, measured.T5; a != nil && b != nil {
		add("T5's width", a.Hidden, b.Hidden)
		add("number of T5's encoder blocks", a.EncoderLayers, b.EncoderLayers)
		add("number of T5's decoder blocks", a.DecoderLayers, b.DecoderLayers)
		add("T5's FFN", a.FFN, b.FFN)
		add("T5's vocabulary", a.Vocab, b.Vocab)
		add("number of T5's heads", a.Heads, b.Heads)
	}
	return out
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
		if a.Bytes != b.Bytes {
			return int(b.Bytes - a.Bytes)
		}
		return len(a.DType) - len(b.DType)
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
