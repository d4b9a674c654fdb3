package published

import (
	"errors"
	"fmt"
	"strings"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
)

// describe finds out what the parts make together.
func (a *Assembly) describe() error {
	p := a.parts
	if p.Main == "" && p.QFormer == "" || p.Main != "" && p.QFormer != "" {
		return errors.New("a model is made from one checkpoint, or from an image encoder and a Q-Former or BERT")
	}
	if c := a.opened[p.Main]; c != nil {
		a.Spec = c.Spec
		if _, composed := projections[c.Model]; !composed && c.Model != naming.BLIP2Stage1 {
			if p.Vision != "" || p.LLM != "" || p.ImageSize != 0 {
				return fmt.Errorf("%s: holds %s, which is taken as it is: only BLIP-2 has an image encoder, an image size "+
					"and a language model to choose", p.Main, c.Table.Name)
			}
		}
	}
	if err := a.describeVision(); err != nil {
		return err
	}
	if err := a.describeQFormer(); err != nil {
		return err
	}
	return a.describeLLM()
}

// describeVision takes the image encoder from a file of its own, and the size of the pictures from the options.
func (a *Assembly) describeVision() error {
	if c := a.opened[a.parts.Vision]; c != nil {
		v := c.Spec.vision()
		if v == nil || v.Arch == vit.BLIP {
			return fmt.Errorf("%s: holds %s, which has no image encoder for BLIP-2: give EVA ViT-g, CLIP ViT-L, or a BLIP-2 "+
				"with one", a.parts.Vision, c.Table.Name)
		}
		encoder := *v
		encoder.Layers = usedLayers(c.Model, encoder)
		if a.parts.VisionLayers != 0 {
			encoder.Layers = a.parts.VisionLayers
		}
		a.Spec.Vision = &encoder
	}
	if size := a.parts.ImageSize; size != 0 {
		if a.Spec.Vision == nil {
			return fmt.Errorf("%s: has no image encoder whose positions could be resized: give one with --vision", a.parts.Main)
		}
		encoder := *a.Spec.Vision
		encoder.ImageSize = size
		a.Spec.Vision = &encoder
	}
	return nil
}

// usedLayers returns how many blocks of an encoder BLIP-2 uses: all but the last, which the published files of the
// encoders alone have, unless somebody has taken it out.
func usedLayers(network string, v vit.Config) int {
	if network != naming.CLIP && network != naming.CLIPViT && network != naming.EVAViT {
		return v.Layers
	}
	for _, name := range []string{"clip-vit-l14", "eva-vit-g14"} {
		if p, err := vit.Preset(name); err == nil && p.Arch == v.Arch && p.Width == v.Width && p.Layers == v.Layers {
			return v.Layers
		}
	}
	return v.Layers - 1
}

// describeQFormer takes the Q-Former's sizes from BERT or from a checkpoint of BLIP-2.
func (a *Assembly) describeQFormer() error {
	c := a.opened[a.parts.QFormer]
	if c == nil {
		return nil
	}
	a.Spec.Model = naming.BLIP2Stage1
	a.Spec.LNVisionEps = LNVisionEps
	switch {
	case c.Spec.QFormer != nil:
		q := *c.Spec.QFormer
		a.Spec.QFormer, a.Spec.QFormerText, a.Spec.EmbedDim = &q, c.Spec.QFormerText, c.Spec.EmbedDim
		a.Spec.LNVisionEps = c.Spec.LNVisionEps
		if a.parts.LLM == "" && !c.Spec.QFormerText {
			return fmt.Errorf("%s: its Q-Former has no text side, which stage 1 needs: give BERT or a stage-1 checkpoint",
				a.parts.QFormer)
		}
	case c.Spec.BERT == nil:
		return fmt.Errorf("%s: holds %s, which is neither BERT nor a Q-Former", a.parts.QFormer, c.Table.Name)
	case a.parts.LLM != "":
		return fmt.Errorf("%s: holds BERT, from which stage 1 starts; stage 2 needs a Q-Former that stage 1 has trained",
			a.parts.QFormer)
	case a.Spec.Vision == nil:
		return fmt.Errorf("%s: a Q-Former from BERT needs the image encoder that it reads: give it with --vision",
			a.parts.QFormer)
	default:
		q := *c.Spec.BERT
		q.Queries, q.CrossAttentionFreq, q.EncoderWidth = 32, 2, a.Spec.Vision.Width
		if a.parts.Queries != 0 {
			q.Queries = a.parts.Queries
		}
		q.Vocab++ // [DEC]
		a.Spec.QFormer, a.Spec.QFormerText, a.Spec.EmbedDim = &q, true, 256
	}
	return nil
}

// describeLLM makes the model one of stage 2: without the Q-Former's text side and heads.
func (a *Assembly) describeLLM() error {
	c := a.opened[a.parts.LLM]
	if c == nil {
		return nil
	}
	network := naming.BLIP2OPT
	switch {
	case c.Spec.OPT != nil:
		a.Spec.OPT, a.Spec.T5 = c.Spec.OPT, nil
	case c.Spec.T5 != nil:
		llm := *c.Spec.T5
		llm.Activation = nn.GELU // in place of the tanh form of Flan-T5 (spec/model.md 7)
		network, a.Spec.T5, a.Spec.OPT = naming.BLIP2T5, &llm, nil
	default:
		return fmt.Errorf("%s: holds %s, which has no language model", a.parts.LLM, c.Table.Name)
	}
	if main := a.opened[a.parts.Main]; main != nil && main.Model != network {
		return fmt.Errorf("%s: holds %s, which has no projection to %s of %s: a stage-1 checkpoint becomes a start point "+
			"for stage 2 by blip2 weights assemble", a.parts.Main, main.Table.Name, c.Table.Name, a.parts.LLM)
	}
	a.Spec.Model = network
	if from := a.opened[a.parts.QFormer]; from != nil {
		if a.Spec.LLMWidth = from.Spec.LLMWidth; from.Model != network || a.Spec.LLMWidth == 0 {
			a.Spec = a.Spec.withLLMWidth() // of a new projection
		}
	}
	if a.Spec.QFormer == nil {
		return fmt.Errorf("%s: has no Q-Former", a.parts.Main)
	}
	q := *a.Spec.QFormer
	q.Vocab, q.MaxPositions = 0, 0
	a.Spec.QFormer, a.Spec.QFormerText, a.Spec.EmbedDim = &q, false, 0
	return nil
}

// remedies say what to do about a part that is missing.
var remedies = map[string]string{
	"image encoder":  "which LAVIS does not store where it was frozen: give it with --vision",
	"language model": "which LAVIS does not store: give it with --llm",
	"Q-Former":       "without which it is of no use: give another checkpoint",
}

// check reports parts that are missing or do not fit together.
func (a *Assembly) check() error {
	if err := a.headCounts(); err != nil {
		return err
	}
	var missing []string
	for _, name := range a.Spec.Missing() {
		if frozen := name != "Q-Former"; frozen && a.parts.Partial || a.parts.AllowMissing {
			continue
		}
		missing = append(missing, fmt.Sprintf("the %s of %s is not in it, %s", name, a.Spec.Model, remedies[name]))
	}
	if len(missing) > 0 {
		return errors.New(strings.Join(missing, "; "))
	}
	return a.Spec.ValidateParts()
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
			return fmt.Errorf("no published %s has width %d, and tensors do not tell the number of attention heads: "+
				"give it with %s", c.what, c.width, c.flag)
		}
	}
	return nil
}
