// Package published knows checkpoints as they are published: which network a file or folder holds, under whose names,
// of what sizes; and it turns one into another — LAVIS's files into folders for transformers and back, downloads of
// parts into one start point for training.
//
// A Checkpoint is an open file or folder with its Spec. Sizes come from a folder's config.json, from what this program
// writes into the metadata of its own files, or from the shapes of the tensors; what no shape tells, numbers of
// attention heads, is that of the published network of the same width, or must be given (Hints).
package published

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"blip2/pkg/model"
	"blip2/pkg/model/blip"
	"blip2/pkg/model/clip"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
)

// Spec says which network a checkpoint holds and how large its parts are. Parts that the network has not, or that the
// checkpoint lacks, are nil.
type Spec struct {
	Model   string          `json:"model"` // naming.BLIP2Stage1 …
	Vision  *vit.Config     `json:"vision,omitempty"`
	QFormer *qformer.Config `json:"qformer,omitempty"`
	OPT     *opt.Config     `json:"opt,omitempty"`
	T5      *t5.Config      `json:"t5,omitempty"`
	CLIP    *clip.Config    `json:"clip,omitempty"`
	BLIP    *blip.Config    `json:"blip,omitempty"`
	BERT    *qformer.Config `json:"bert,omitempty"` // of BERT itself: only what it shares with a Q-Former

	LNVisionEps float64 `json:"ln_vision_eps,omitempty"` // of BLIP-2's LayerNorm behind the encoder
	QFormerText bool    `json:"qformer_text,omitempty"`  // the Q-Former has its text side and, in LAVIS, its LM head
	EmbedDim    int     `json:"embed_dim,omitempty"`     // of the ITC features, stage 1
	LLMWidth    int     `json:"llm_width,omitempty"`     // D: of the projection to the language model, stage 2
	BOS         int     `json:"bos,omitempty"`           // token that starts a text of BLIP's decoder
	EOS         int     `json:"eos,omitempty"`           // token that ends a text of the language model or decoder
	ImageToken  *int    `json:"image_token,omitempty"`   // id of <image>, where the folder follows that convention
}

// own returns the Spec without parts that the network of its name does not have.
func (s Spec) own() Spec {
	out := s
	out.CLIP, out.BLIP, out.BERT, out.OPT, out.T5, out.Vision, out.QFormer = nil, nil, nil, nil, nil, nil, nil
	switch s.Model {
	case naming.CLIP:
		out.CLIP = s.CLIP
	case naming.BLIPCaption:
		out.BLIP = s.BLIP
	case naming.BERT:
		out.BERT = s.BERT
	case naming.OPT:
		out.OPT = s.OPT
	case naming.T5:
		out.T5 = s.T5
	default:
		out.Vision, out.QFormer = s.Vision, s.QFormer
		if s.Model == naming.BLIP2OPT {
			out.OPT = s.OPT
		}
		if s.Model == naming.BLIP2T5 {
			out.T5 = s.T5
		}
	}
	return out
}

// hinted returns the Spec with the sizes that the hints give.
func (s Spec) hinted(h Hints) Spec {
	if v := s.vision(); v != nil && h.VisionHeads != 0 {
		v.Heads = h.VisionHeads
	}
	if h.QFormerHeads != 0 {
		switch {
		case s.QFormer != nil:
			s.QFormer.Heads = h.QFormerHeads
		case s.BERT != nil:
			s.BERT.Heads = h.QFormerHeads
		case s.BLIP != nil:
			s.BLIP.Heads = h.QFormerHeads
		case s.CLIP != nil:
			s.CLIP.Text.Heads = h.QFormerHeads
		}
	}
	if s.OPT != nil && h.LLMHeads != 0 {
		s.OPT.Heads = h.LLMHeads
	}
	return s
}

// temperature is where stage 1's learned ITC temperature starts (spec/model.md 5.4).
const temperature = 0.07

// LNVisionEps is the epsilon of ln_vision in LAVIS; transformers takes that of its image encoder (spec/model.md).
const LNVisionEps = 1e-5

// Params lists the tensors of all parts that the Spec has, under the names of package naming.
func (s Spec) Params() []model.Param {
	var params []model.Param
	switch s.Model {
	case naming.CLIP:
		return clip.Params(*s.CLIP)
	case naming.BLIPCaption:
		return blip.Params(*s.BLIP)
	case naming.OPT:
		return opt.Params(*s.OPT)
	case naming.T5:
		return t5.Params(*s.T5)
	case naming.BERT:
		return s.bertParams()
	}
	if s.Vision != nil {
		params = append(params, model.Prefixed(naming.VisionPrefix, vit.Params(*s.Vision))...)
	}
	if s.QFormer != nil {
		params = append(params, qformer.Params(*s.QFormer, s.QFormerText)...)
		params = append(params, model.LayerNorm("ln_vision", s.QFormer.EncoderWidth)...)
	}
	if s.Model == naming.BLIP2Stage1 && s.QFormer != nil {
		params = append(params, qformer.HeadParams(*s.QFormer, s.EmbedDim, temperature)...)
	}
	if name, ok := projections[s.Model]; ok && s.QFormer != nil {
		params = append(params, qformer.ProjectionParams(*s.QFormer, name, s.LLMWidth)...)
	}
	if s.OPT != nil {
		params = append(params, model.Prefixed("opt_model.", opt.Params(*s.OPT))...)
	}
	if s.T5 != nil {
		params = append(params, model.Prefixed("t5_model.", t5.Params(*s.T5))...)
	}
	return params
}

// projections are LAVIS's names of the layer between Q-Former and language model.
var projections = map[string]string{naming.BLIP2OPT: "opt_proj", naming.BLIP2T5: "t5_proj"}

// withLLMWidth takes the projection's width from the language model, if there is one.
func (s Spec) withLLMWidth() Spec {
	if s.OPT != nil && s.Model == naming.BLIP2OPT {
		s.LLMWidth = s.OPT.EmbedWidth()
	}
	if s.T5 != nil && s.Model == naming.BLIP2T5 {
		s.LLMWidth = s.T5.Hidden
	}
	return s
}

// bertParams lists the tensors of BERT under the Q-Former's names: its text side.
func (s Spec) bertParams() []model.Param {
	cfg := s.asQFormer()
	return slices.DeleteFunc(qformer.Params(cfg, true), func(p model.Param) bool {
		return p.Name == "query_tokens" || strings.Contains(p.Name, "_query.") || strings.Contains(p.Name, ".crossattention.")
	})
}

// part is a part of a network.
type part struct {
	name  string
	there bool
	check func() error // of a part that is there
}

// parts lists what the network is made of. BERT alone has no parts: it is checked as the Q-Former that it becomes.
func (s Spec) parts() []part {
	vision := part{"image encoder", s.Vision != nil, func() error { return s.Vision.Validate() }}
	queries := part{"Q-Former", s.QFormer != nil, func() error { return s.QFormer.Validate() }}
	decoder := part{"language model", s.OPT != nil, func() error { return s.OPT.Validate() }}
	seq2seq := part{"language model", s.T5 != nil, func() error { return s.T5.Validate() }}
	return map[string][]part{
		naming.BLIP2Stage1: {vision, queries}, naming.BLIP2OPT: {vision, queries, decoder},
		naming.BLIP2T5: {vision, queries, seq2seq}, naming.OPT: {decoder}, naming.T5: {seq2seq},
		naming.CLIP:        {{"CLIP", s.CLIP != nil, func() error { return s.CLIP.Validate() }}},
		naming.BLIPCaption: {{"BLIP captioner", s.BLIP != nil, func() error { return s.BLIP.Validate() }}},
		naming.BERT:        {{"BERT", s.BERT != nil, func() error { return s.asQFormer().Validate() }}},
		naming.EVAViT:      {vision}, naming.CLIPViT: {vision},
	}[s.Model]
}

// asQFormer is BERT with what it lacks to be a Q-Former, as small as can be.
func (s Spec) asQFormer() qformer.Config {
	cfg := *s.BERT
	cfg.Queries, cfg.EncoderWidth, cfg.CrossAttentionFreq = 1, 1, 1
	return cfg
}

// Missing names the parts that the network has and the Spec has not.
func (s Spec) Missing() []string {
	var names []string
	for _, p := range s.parts() {
		if !p.there {
			names = append(names, p.name)
		}
	}
	return names
}

// Validate reports parts that are missing and sizes that do not fit together.
func (s Spec) Validate() error {
	var errs []error
	for _, name := range s.Missing() {
		errs = append(errs, fmt.Errorf("the %s is not in it", name))
	}
	return errors.Join(append(errs, s.ValidateParts())...)
}

// ValidateParts is Validate for a network of which parts may be missing.
func (s Spec) ValidateParts() error {
	parts := s.parts()
	if len(parts) == 0 {
		return fmt.Errorf("%q is no network that is known", s.Model)
	}
	var errs []error
	for _, p := range parts {
		if p.there {
			errs = append(errs, p.check())
		}
	}
	if s.Vision != nil && s.QFormer != nil && s.Vision.Width != s.QFormer.EncoderWidth {
		errs = append(errs, fmt.Errorf("the image encoder has width %d, the Q-Former reads %d features: take the encoder "+
			"that the Q-Former was made for", s.Vision.Width, s.QFormer.EncoderWidth))
	}
	if width := s.withLLMWidth().LLMWidth; s.LLMWidth != 0 && width != s.LLMWidth {
		errs = append(errs, fmt.Errorf("the projection gives %d features, the language model reads %d: take the size of it "+
			"that the projection was made for", s.LLMWidth, width))
	}
	return errors.Join(errs...)
}

// Describe says in a few lines what the network is.
func (s Spec) Describe() []string {
	var lines []string
	if v := s.vision(); v != nil {
		lines = append(lines,
			fmt.Sprintf("image encoder: %s ViT, %d blocks of width %d, %s heads, MLP %d, %d px in patches of %d",
				strings.ToUpper(v.Arch), v.Layers, v.Width, heads(v.Heads), v.MLPWidth(), v.ImageSize, v.PatchSize))
	}
	if q := s.QFormer; q != nil {
		text := "queries only"
		if s.QFormerText {
			text = fmt.Sprintf("queries and text, vocabulary %d", q.Vocab)
		}
		lines = append(lines,
			fmt.Sprintf("Q-Former: %d layers of width %d, %s heads, %d queries, cross-attention every %d layers, %s",
				q.Layers, q.Hidden, heads(q.Heads), q.Queries, q.CrossAttentionFreq, text))
	}
	if b := s.BERT; b != nil {
		lines = append(lines, fmt.Sprintf("BERT: %d layers of width %d, vocabulary %d", b.Layers, b.Hidden, b.Vocab))
	}
	if o := s.OPT; o != nil {
		lines = append(lines, fmt.Sprintf("OPT: %d layers of width %d, %s heads, FFN %d, vocabulary %d, %d positions",
			o.Layers, o.Hidden, heads(o.Heads), o.FFN, o.Vocab, o.Positions))
	}
	if t := s.T5; t != nil {
		lines = append(lines, fmt.Sprintf("T5: %d+%d layers of width %d, %s heads of %d, FFN %d (%s), vocabulary %d",
			t.EncoderLayers, t.DecoderLayers, t.Hidden, heads(t.Heads), t.HeadDim, t.FFN, t.Activation, t.Vocab))
	}
	if c := s.CLIP; c != nil {
		lines = append(lines,
			fmt.Sprintf("CLIP text: %d blocks of width %d, %s heads, vocabulary %d, context %d; features %d",
				c.Text.Layers, c.Text.Width, heads(c.Text.Heads), c.Text.Vocab, c.Text.Context, c.Embed))
	}
	if b := s.BLIP; b != nil {
		lines = append(lines, fmt.Sprintf("text decoder: %d layers of width %d, %s heads, vocabulary %d", b.Layers, b.Hidden,
			heads(b.Heads), b.Vocab))
	}
	return lines
}

func heads(n int) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

// vision returns the image encoder, whatever network it belongs to.
func (s Spec) vision() *vit.Config {
	switch {
	case s.CLIP != nil:
		return &s.CLIP.Image
	case s.BLIP != nil:
		return &s.BLIP.Vision
	}
	return s.Vision
}
