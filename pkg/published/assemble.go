package published

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/naming"
	"blip2/pkg/pretrained"
	"blip2/pkg/weights"
)

// Parts says what a model is put together from. Paths are files or folders as weights.OpenAny takes them. Main and
// QFormer exclude each other.
type Parts struct {
	Main    string // a checkpoint of which all is taken that Vision and LLM do not replace
	Vision  string // image encoder: eva_vit_g.pth, clip_vit_L.pth, openai/clip-vit-*, or a checkpoint of BLIP-2 with one
	QFormer string // bert-base-uncased, which becomes a Q-Former, or a checkpoint of BLIP-2
	LLM     string // facebook/opt-*, google/flan-t5-*, or a BLIP-2 folder of Hugging Face

	VisionLayers int // blocks of Vision that are used; 0 is what BLIP-2 uses of it
	ImageSize    int // of the pictures; the position table is resized; 0 is that of the image encoder
	Queries      int // of a new Q-Former; 0 is 32
	Seed         int64
	Hints        Hints
	DType        weights.DType // of all tensors; empty keeps those of the files

	// Partial lets the image encoder and the language model be missing, as in LAVIS's files, where they were frozen.
	Partial bool
	// AllowMissing and AllowUnexpected pass over tensors that a file lacks or that are not known, which are then only
	// reported.
	AllowMissing, AllowUnexpected bool
}

// Assembly is a model whose tensors lie in one or several open checkpoints. Its tensors are read when they are asked
// for. It must be closed.
type Assembly struct {
	Spec      Spec
	Params    []model.Param      // of the model, those left out by AllowMissing excepted
	Coverages []*naming.Coverage // of the files, in the order Main, Vision, QFormer, LLM
	Drawn     []naming.Note      // tensors that no file gives and that start as drawn from the seed
	Absent    []naming.Note      // tensors that the main file's format has no place for, and the assembly not either

	parts  Parts
	opened map[string]*Checkpoint // by path
	from   map[string]reading     // by the name of the tensor
}

// reading is a parameter and the reader that gives it.
type reading struct {
	param  model.Param
	reader *pretrained.Reader // nil: drawn
	path   string
}

// Assemble opens the parts, tells what model they make, and checks that every tensor of it is there.
func Assemble(p Parts) (_ *Assembly, err error) {
	a := &Assembly{parts: p, opened: map[string]*Checkpoint{}, from: map[string]reading{}}
	defer func() {
		if err != nil {
			_ = a.Close()
		}
	}()
	for _, path := range a.paths() {
		if a.opened[path] == nil {
			if a.opened[path], err = Open(path, p.Hints); err != nil {
				return nil, err
			}
		}
	}
	if err := a.describe(); err != nil {
		return nil, err
	}
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(a.paths(), " with "), err)
	}
	for _, role := range a.roles() {
		if err := a.read(role); err != nil {
			return nil, err
		}
	}
	return a, a.complete()
}

// Close closes the files.
func (a *Assembly) Close() error {
	var errs []error
	for _, c := range a.opened {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}

// paths lists the files and folders in the order of Coverages.
func (a *Assembly) paths() []string {
	p := a.parts
	return slices.DeleteFunc([]string{p.Main, p.Vision, p.QFormer, p.LLM}, func(path string) bool { return path == "" })
}

// role is what is taken from one file.
type role struct {
	path string
	part pretrained.Part
	draw bool // what the file has no place for starts from the seed
}

// roles lists the files with what is taken from each.
func (a *Assembly) roles() []role {
	p := a.parts
	var roles []role
	if c := a.opened[p.Main]; c != nil {
		var elsewhere []naming.Exception
		if p.Vision != "" {
			elsewhere = append(elsewhere,
				naming.Exception{Pattern: naming.VisionPrefix + "**", Reason: "replaced by " + p.Vision})
		}
		if p.LLM != "" {
			for _, pattern := range llmPatterns {
				elsewhere = append(elsewhere, naming.Exception{Pattern: pattern, Reason: "replaced by " + p.LLM})
			}
		}
		params := slices.DeleteFunc(a.Spec.Params(), func(q model.Param) bool {
			return isVision(q) && (p.Vision != "" || c.Spec.vision() == nil) ||
				isLLM(q) && (p.LLM != "" || c.Spec.OPT == nil && c.Spec.T5 == nil)
		})
		roles = append(roles, role{path: p.Main, part: a.taken(c, params, elsewhere)})
	}
	if p.Vision != "" {
		roles = append(roles, role{path: p.Vision, part: pretrained.VisionPart(*a.Spec.Vision)})
	}
	if c := a.opened[p.QFormer]; c != nil {
		params := slices.DeleteFunc(a.Spec.Params(), func(q model.Param) bool { return isVision(q) || isLLM(q) })
		part := pretrained.QFormerPart(params, p.Seed)
		if c.Spec.BERT == nil {
			part = a.taken(c, params, []naming.Exception{{Pattern: "**", Reason: "not taken from this file"}})
			for _, name := range projections {
				part.Tables[0].Fresh = append(part.Tables[0].Fresh,
					naming.Exception{Pattern: name + ".*", Reason: "projection to the language model, which the file has not"})
			}
		}
		roles = append(roles, role{p.QFormer, part, true})
	}
	if p.LLM != "" {
		params := slices.DeleteFunc(a.Spec.Params(), func(q model.Param) bool { return !isLLM(q) })
		network, prefix := naming.OPT, "opt_model."
		if a.Spec.T5 != nil {
			network, prefix = naming.T5, "t5_model."
		}
		roles = append(roles, role{path: p.LLM, part: pretrained.Part{Part: naming.Part{What: "language model",
			Params: params, Tables: naming.LLMTables(network, prefix)}}})
	}
	return roles
}

// llmPatterns are the names of the language models' tensors in BLIP-2.
var llmPatterns = []string{"opt_model.**", "t5_model.**"}

// isLLM says whether a tensor of BLIP-2 is the language model's.
func isLLM(p model.Param) bool {
	return slices.ContainsFunc(llmPatterns, func(pattern string) bool { return naming.Matches(pattern, p.Name) })
}

// isVision says whether a tensor of BLIP-2 is the image encoder's.
func isVision(p model.Param) bool { return strings.HasPrefix(p.Name, naming.VisionPrefix) }

// taken is the part of a checkpoint that params list. Tensors that the list of elsewhere names may be left.
func (a *Assembly) taken(c *Checkpoint, params []model.Param, elsewhere []naming.Exception) pretrained.Part {
	table := c.Table
	table.Fresh = slices.Clone(table.Fresh)
	part := pretrained.Part{Part: naming.Part{What: c.Model, Params: params, Tables: []naming.Table{table},
		Elsewhere: elsewhere}}
	if v := a.Spec.Vision; v != nil {
		part = part.Resizing(*v)
	}
	return part
}

// read checks what is taken from one file.
func (a *Assembly) read(r role) error {
	o := pretrained.Options{Precision: pretrained.AsStored, AllowMissing: a.parts.AllowMissing,
		AllowUnexpected: a.parts.AllowUnexpected}
	if a.parts.DType != "" {
		o.Precision = pretrained.Uniform(a.parts.DType)
	}
	reader, err := pretrained.NewReader(r.part, a.opened[r.path], o)
	if cov := reader.Coverage(); cov != nil {
		cov.Path = r.path
		a.Coverages = append(a.Coverages, cov)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", r.path, err)
	}
	byName := map[string]model.Param{}
	for _, p := range r.part.Params {
		byName[p.Name] = p
	}
	for _, name := range reader.Coverage().Filled {
		a.from[name] = reading{byName[name], reader, r.path}
	}
	if !r.draw {
		a.Absent = append(a.Absent, reader.Coverage().Fresh...)
		return nil
	}
	for _, note := range reader.Coverage().Fresh {
		a.from[note.Name] = reading{param: byName[note.Name]}
		a.Drawn = append(a.Drawn, note)
	}
	return nil
}

// complete makes sure that every tensor comes from somewhere.
func (a *Assembly) complete() error {
	var lost []string
	for _, p := range a.Spec.Params() {
		_, given := a.from[p.Name]
		absent := slices.ContainsFunc(a.Absent, func(n naming.Note) bool { return n.Name == p.Name })
		switch {
		case given:
			a.Params = append(a.Params, p)
		case !absent:
			lost = append(lost, p.Name)
		}
	}
	if len(lost) > 0 && !a.parts.AllowMissing {
		return fmt.Errorf("%d tensors of the model are in none of the files, the first is %s", len(lost), lost[0])
	}
	return nil
}

// Names lists the model's tensors that the assembly has.
func (a *Assembly) Names() []string {
	names := make([]string, len(a.Params))
	for i, p := range a.Params {
		names[i] = p.Name
	}
	return names
}

// Tensor returns a tensor of the model, read or drawn. Its data may alias a file's. Errors name the file. It may be
// called from several goroutines.
func (a *Assembly) Tensor(name string) (weights.Tensor, error) {
	r, ok := a.from[name]
	if !ok {
		return weights.Tensor{}, fmt.Errorf("the model has no tensor %s", name)
	}
	if r.reader == nil {
		t := weights.FromFloat32(name, r.param.Shape, model.Draw(r.param, a.parts.Seed))
		if a.parts.DType == "" {
			return t, nil
		}
		return t.CastFloat(a.parts.DType)
	}
	t, ok, err := r.reader.Tensor(r.param)
	if err == nil && !ok {
		err = fmt.Errorf("it gives no tensor %s", name)
	}
	if err != nil {
		return t, fmt.Errorf("%s: %w", r.path, err)
	}
	return t, nil
}

// Info is Tensor without the numbers, which are not read.
func (a *Assembly) Info(name string) (weights.Tensor, error) {
	r, ok := a.from[name]
	switch {
	case !ok:
		return weights.Tensor{}, fmt.Errorf("the model has no tensor %s", name)
	case r.reader == nil && a.parts.DType == "":
		return weights.Tensor{Name: name, DType: weights.F32, Shape: r.param.Shape}, nil
	case r.reader == nil:
		return weights.Tensor{Name: name, DType: a.parts.DType, Shape: r.param.Shape}, nil
	}
	t, _, err := r.reader.Info(r.param)
	return t, err
}

// Done gives back the memory that reading a tensor took.
func (a *Assembly) Done(name string) {
	if r := a.from[name]; r.reader != nil {
		r.reader.Done(r.param)
	}
}

// Fill puts all tensors into a store, straight on the backend's first device, or in host memory where backend is nil.
func (a *Assembly) Fill(store *mlx.Store, backend compute.Backend) error {
	return pretrained.Fill(store, backend, a.Params, func(p model.Param) (weights.Tensor, bool, error) {
		t, err := a.Tensor(p.Name)
		return t, err == nil, err
	}, func(p model.Param) { a.Done(p.Name) })
}
