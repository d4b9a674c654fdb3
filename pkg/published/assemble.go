package published

import (
	"errors"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/naming"
	"blip2/pkg/pretrained"
	"blip2/pkg/weights"
)

// Parts says what a model is put together from. Paths are files or folders as weights.OpenAny takes them.
type Parts struct {
	Main    string // a checkpoint of which all that it has is taken
	Vision  string // image encoder: eva_vit_g.pth, clip_vit_L.pth, openai/clip-vit-*, or a checkpoint of BLIP-2 with one
	QFormer string // bert-base-uncased, which becomes a Q-Former, or a checkpoint of BLIP-2
	LLM     string // facebook/opt-*, google/flan-t5-*, or a BLIP-2 folder of Hugging Face

	ImageSize int // of the pictures; the position table is resized; 0 is that of the image encoder
	Queries   int // of a new Q-Former; 0 is 32
	Seed      int64
	Hints     Hints
	DType     weights.DType // of all tensors; empty keeps those of the files

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

// reading is a reader and a parameter that it gives.
type reading struct {
	reader *pretrained.Reader // nil: drawn
	param  model.Param
}

// Assemble opens the parts, tells what model they make, and checks that every tensor of it is there.
func Assemble(p Parts) (_ *Assembly, err error) {
	a := &Assembly{parts: p, opened: map[string]*Checkpoint{}, from: map[string]reading{}}
	defer func() {
		if err != nil {
			_ = a.Close()
		}
	}()
	for _, path := range []string{p.Main, p.Vision, p.QFormer, p.LLM} {
		if path != "" && a.opened[path] == nil {
			if a.opened[path], err = Open(path, p.Hints); err != nil {
				return nil, err
			}
		}
	}
	if err := a.describe(); err != nil {
		return nil, err
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

// describe finds out what the parts make together.
func (a *Assembly) describe() error {
	p := a.parts
	if c := a.opened[p.Main]; c != nil {
		a.Spec = c.Spec
	}
	if c := a.opened[p.Vision]; c != nil {
		v := c.Spec.vision()
		if v == nil {
			return fmt.Errorf("%s: holds %s, which has no image encoder", p.Vision, c.Table.Name)
		}
		encoder := *v
		if slices.Contains([]string{naming.CLIP, naming.CLIPViT, naming.EVAViT}, c.Model) {
			encoder.Layers-- // BLIP-2 takes the features before the last block
		}
		a.Spec.Vision = &encoder
	}
	if a.Spec.Vision != nil && p.ImageSize != 0 {
		encoder := *a.Spec.Vision
		encoder.ImageSize = p.ImageSize
		a.Spec.Vision = &encoder
	}
	if err := a.describeQFormer(); err != nil {
		return err
	}
	if c := a.opened[p.LLM]; c != nil {
		if err := a.describeLLM(c); err != nil {
			return err
		}
	}
	if a.Spec.Model == "" {
		return errors.New("nothing to put together: give an image encoder and BERT for stage 1, " +
			"or an image encoder, a stage-1 checkpoint and a language model for stage 2")
	}
	if err := a.headCounts(); err != nil {
		return err
	}
	if missing := a.Spec.Missing(); len(missing) > 0 && !p.AllowMissing {
		return fmt.Errorf("%s is not complete: it lacks %v, which LAVIS does not store where it was frozen; "+
			"give the part with --vision, --qformer or --llm", a.Spec.Model, missing)
	}
	if len(a.Spec.Missing()) == 0 {
		return a.Spec.Validate()
	}
	return nil
}

// describeQFormer takes the Q-Former's sizes from BERT or from a checkpoint of BLIP-2.
func (a *Assembly) describeQFormer() error {
	c := a.opened[a.parts.QFormer]
	if c == nil {
		return nil
	}
	switch {
	case c.Spec.QFormer != nil:
		q := *c.Spec.QFormer
		a.Spec.LLMWidth = c.Spec.LLMWidth
		a.Spec.QFormer, a.Spec.QFormerText, a.Spec.EmbedDim = &q, c.Spec.QFormerText, c.Spec.EmbedDim
	case c.Spec.BERT != nil && a.Spec.Vision != nil:
		q := *c.Spec.BERT
		q.Queries, q.CrossAttentionFreq, q.EncoderWidth = 32, 2, a.Spec.Vision.Width
		if a.parts.Queries != 0 {
			q.Queries = a.parts.Queries
		}
		q.Vocab++ // [DEC]
		a.Spec.QFormer, a.Spec.QFormerText, a.Spec.EmbedDim = &q, true, 256
	case c.Spec.BERT != nil:
		return fmt.Errorf("%s: a Q-Former from BERT needs the image encoder that it reads: give it with --vision",
			a.parts.QFormer)
	default:
		return fmt.Errorf("%s: holds %s, which is neither BERT nor a Q-Former", a.parts.QFormer, c.Table.Name)
	}
	if a.Spec.LNVisionEps = c.Spec.LNVisionEps; a.Spec.LNVisionEps == 0 {
		a.Spec.LNVisionEps = LNVisionEps
	}
	if a.Spec.Model == "" {
		a.Spec.Model = naming.BLIP2Stage1
	}
	return nil
}

// describeLLM makes the model one of stage 2: without the Q-Former's text side and heads.
func (a *Assembly) describeLLM(c *Checkpoint) error {
	switch {
	case c.Spec.OPT != nil:
		a.Spec.Model, a.Spec.OPT, a.Spec.T5 = naming.BLIP2OPT, c.Spec.OPT, nil
	case c.Spec.T5 != nil:
		llm := *c.Spec.T5
		llm.Activation = nn.GELU // in place of the tanh form of Flan-T5 (spec/model.md 7)
		a.Spec.Model, a.Spec.T5, a.Spec.OPT = naming.BLIP2T5, &llm, nil
	default:
		return fmt.Errorf("%s: holds %s, which has no language model", a.parts.LLM, c.Table.Name)
	}
	if a.Spec.QFormer == nil {
		return errors.New("a language model alone makes no BLIP-2: give a stage-1 checkpoint with --qformer")
	}
	if a.Spec.LLMWidth == 0 { // else the checkpoint's projection must fit
		a.Spec = a.Spec.withLLMWidth()
	}
	q := *a.Spec.QFormer
	q.Vocab, q.MaxPositions = 0, 0
	a.Spec.QFormer, a.Spec.QFormerText, a.Spec.EmbedDim = &q, false, 0
	return nil
}

// headCounts reports parts whose number of attention heads is not known.
func (a *Assembly) headCounts() error {
	type count struct {
		flag, what string
		n, width   int
	}
	var counts []count
	if v := a.Spec.vision(); v != nil {
		counts = append(counts, count{"--vision-heads", "image encoder", v.Heads, v.Width})
	}
	if q := a.Spec.QFormer; q != nil {
		counts = append(counts, count{"--qformer-heads", "Q-Former", q.Heads, q.Hidden})
	}
	if b := a.Spec.BLIP; b != nil {
		counts = append(counts, count{"--qformer-heads", "text decoder", b.Heads, b.Hidden})
	}
	if c := a.Spec.CLIP; c != nil {
		counts = append(counts, count{"--qformer-heads", "text tower", c.Text.Heads, c.Text.Width})
	}
	if o := a.Spec.OPT; o != nil {
		counts = append(counts, count{"--llm-heads", "language model", o.Heads, o.Hidden})
	}
	for _, c := range counts {
		if c.n == 0 {
			return fmt.Errorf("no published %s has width %d, and its tensors do not tell the number of attention heads: "+
				"give it with %s", c.what, c.width, c.flag)
		}
	}
	return nil
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
		main := a.Spec
		if p.Vision != "" {
			main.Vision = nil
		}
		if p.QFormer != "" {
			main.QFormer, main.OPT, main.T5 = nil, nil, nil
		}
		if c.Spec.Vision == nil {
			main.Vision = nil
		}
		params := main.paramsOf(c.Spec)
		if p.LLM != "" {
			params = slices.DeleteFunc(params, isLLM)
		}
		roles = append(roles, role{path: p.Main, part: a.taken(c, params)})
	}
	if p.Vision != "" {
		roles = append(roles, role{path: p.Vision, part: pretrained.VisionPart(*a.Spec.Vision)})
	}
	if c := a.opened[p.QFormer]; c != nil {
		params := a.besideEncoder()
		part := a.taken(c, params)
		if c.Spec.BERT != nil {
			part = pretrained.QFormerPart(params, p.Seed)
		}
		roles = append(roles, role{p.QFormer, part, true})
	}
	if c := a.opened[p.LLM]; c != nil {
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

// paramsOf lists the tensors of the Spec that a checkpoint with the parts of c can have.
func (s Spec) paramsOf(c Spec) []model.Param {
	if c.QFormer == nil {
		s.QFormer = nil
	}
	params := s.Params()
	if c.OPT == nil && c.T5 == nil {
		params = slices.DeleteFunc(params, isLLM)
	}
	return params
}

// isLLM says whether a tensor of BLIP-2 is the language model's.
func isLLM(p model.Param) bool {
	return naming.Matches("opt_model.**", p.Name) || naming.Matches("t5_model.**", p.Name)
}

// besideEncoder lists the tensors of BLIP-2 that are neither the image encoder's nor the language model's.
func (a *Assembly) besideEncoder() []model.Param {
	return slices.DeleteFunc(a.Spec.Params(), func(p model.Param) bool {
		return isLLM(p) || naming.Matches(naming.VisionPrefix+"**", p.Name)
	})
}

// taken is the part of a checkpoint of BLIP-2 that params list.
func (a *Assembly) taken(c *Checkpoint, params []model.Param) pretrained.Part {
	table := c.Table
	table.Optional = append(slices.Clone(table.Optional),
		naming.Exception{Pattern: "opt_proj.*", Reason: "projection to the language model, which the file has not"},
		naming.Exception{Pattern: "t5_proj.*", Reason: "projection to the language model, which the file has not"})
	part := pretrained.Part{Part: naming.Part{What: c.Model, Params: params, Tables: []naming.Table{table},
		Elsewhere: []naming.Exception{{Pattern: "**", Reason: "not part of what is taken from this file"}}}}
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
		a.from[name] = reading{reader, byName[name]}
	}
	if !r.draw {
		a.Absent = append(a.Absent, reader.Coverage().Fresh...)
		return nil
	}
	for _, note := range reader.Coverage().Fresh {
		a.from[note.Name] = reading{nil, byName[note.Name]}
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

// Tensor returns a tensor of the model, read or drawn. Its data may alias a file's.
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
		err = fmt.Errorf("the file gives no tensor %s", name)
	}
	return t, err
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
	for _, p := range a.Params {
		t, err := a.Tensor(p.Name)
		if err != nil {
			return err
		}
		if err := pretrained.Put(store, backend, p, t); err != nil {
			return err
		}
		a.Done(p.Name)
	}
	return nil
}
