// Package answer lets a model say something about pictures: captions, and answers to questions. It opens every
// checkpoint that can write — BLIP-2 with OPT or Flan-T5, BLIP-2's stage 1 with its own LM head, BLIP's captioner —
// and offers the same for all of them:
//
//	c, err := answer.Open(answer.Source{Model: dir})      reads headers, configurations and the tokenizer
//	err = c.Check(options, prompts)                       refuses what cannot be, before anything heavy is loaded
//	m, err := c.Load(ctx, device)                         puts the weights on the device
//	pictures, err := m.Encode(ctx, pixels)                once per picture, for any number of prompts
//	texts, err := m.Write(ctx, requests, options)         a batch
package answer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"blip2/pkg/dataset"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/tokenizer"
	"blip2/pkg/weights"
)

// Source says where the parts of a model lie. Paths are files or folders as weights.OpenAny takes them.
type Source struct {
	Model     string // the checkpoint
	Vision    string // image encoder, where the checkpoint has none or another shall be taken
	LLM       string // language model, where the checkpoint has none
	Tokenizer string // folder or file; empty: beside the language model or the checkpoint

	VisionLayers int // blocks of Vision that are used; 0 is what BLIP-2 uses of it
	ImageSize    int // of the pictures; the position table is resized; 0 is that of the image encoder
	Hints        published.Hints
	DType        weights.DType // of all weights; empty keeps those of the files
}

// Kind is what a model does.
type Kind string

// The kinds.
const (
	KindOPT    Kind = "BLIP-2 with OPT"     // captions and answers
	KindT5     Kind = "BLIP-2 with Flan-T5" // captions and answers
	KindStage1 Kind = "BLIP-2 stage 1"      // captions by its own LM head
	KindBLIP   Kind = "BLIP captioner"      // captions
)

// kinds are those of the networks.
var kinds = map[string]Kind{naming.BLIP2OPT: KindOPT, naming.BLIP2T5: KindT5, naming.BLIP2Stage1: KindStage1,
	naming.BLIPCaption: KindBLIP}

// Answers reports whether the model was made to answer questions.
func (k Kind) Answers() bool { return k == KindOPT || k == KindT5 }

// Checkpoint is a model of which everything is known and checked but the numbers.
type Checkpoint struct {
	Source    Source
	Kind      Kind
	Spec      published.Spec
	Tokenizer tokenizer.Tokenizer
	EOS       int32 // token that ends a text
	BOS       int32 // token that starts a text of KindStage1 and KindBLIP, [DEC]

	assembly  *published.Assembly
	processor published.ImageProcessor
	squash    bool // pictures become squares as in LAVIS, with Pillow's resize of its time
}

// Open opens the parts and tells what model they make. Everything that can be known without reading weights is checked:
// that no part is missing, that sizes fit together, that the tokenizer is the model's. The caller closes the
// checkpoint.
func Open(s Source) (*Checkpoint, error) {
	assembly, err := published.Assemble(published.Parts{Main: s.Model, Vision: s.Vision, LLM: s.LLM,
		VisionLayers: s.VisionLayers, ImageSize: s.ImageSize, Hints: s.Hints, DType: s.DType})
	if err != nil {
		return nil, err
	}
	c := &Checkpoint{Source: s, Spec: assembly.Spec, Kind: kinds[assembly.Spec.Model], assembly: assembly}
	if err := errors.Join(c.checkModel(), c.readProcessor()); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.readTokenizer(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close closes the files. A loaded model needs them no more.
func (c *Checkpoint) Close() error { return c.assembly.Close() }

// checkModel reports models that do not write.
func (c *Checkpoint) checkModel() error {
	if c.Kind == "" {
		return fmt.Errorf("%s: holds %s, which writes nothing about pictures: give BLIP-2 with a language model or of "+
			"stage 1, or BLIP's captioner", c.Source.Model, c.Spec.Model)
	}
	for _, note := range c.assembly.Absent {
		if c.Kind == KindStage1 && strings.HasPrefix(note.Name, naming.LMHead) {
			return fmt.Errorf("%s: is a stage-1 model without an LM head (%s is missing), as for retrieval only: give "+
				"LAVIS's file or a run of this program, or BLIP-2 with a language model", c.Source.Model, note.Name)
		}
	}
	return nil
}

// folder is where the model's configuration files are.
func folder(path string) string {
	if info, err := os.Stat(path); err == nil && !info.IsDir() {
		return filepath.Dir(path)
	}
	return path
}

// readProcessor finds out how pictures become pixels.
func (c *Checkpoint) readProcessor() error {
	dir := folder(c.Source.Model)
	_, err := os.Stat(filepath.Join(dir, "preprocessor_config.json"))
	c.squash = err != nil
	if c.squash || c.Source.ImageSize != 0 {
		c.processor = published.NewProcessor(c.Spec)
		return nil
	}
	c.processor, err = published.ReadProcessor(dir, c.Spec)
	return err
}

// Pixels turns a picture into the image encoder's input, planes [3, S, S].
func (c *Checkpoint) Pixels(img *dataset.RGB) ([]float32, error) {
	if !c.squash || img.W < 1 || img.H < 1 {
		return c.processor.Pixels(img)
	}
	size := c.processor.Size
	out := make([]float32, 3*size*size)
	dataset.Normalize(out, dataset.Resize(img, nil, size, size, dataset.Bicubic), false, c.processor.Mean, c.processor.Std)
	return out, nil
}

// ImageSize is S, the pixels per side.
func (c *Checkpoint) ImageSize() int { return c.processor.Size }

// readTokenizer loads the tokenizer and finds the tokens that start and end texts.
func (c *Checkpoint) readTokenizer() error {
	path := c.Source.Tokenizer
	if path == "" {
		path = folder(c.Source.Model)
		if c.Source.LLM != "" {
			path = folder(c.Source.LLM)
		}
	}
	var err error
	if c.Tokenizer, err = tokenizer.Load(path); err != nil {
		if c.Source.Tokenizer == "" {
			err = fmt.Errorf("%w; name the model's with --tokenizer", err)
		}
		return err
	}
	if n, vocab := c.Tokenizer.VocabSize(), c.vocab(); n > vocab {
		return fmt.Errorf("%s: the tokenizer has %d ids, the model knows %d: give the model's own tokenizer", path, n, vocab)
	}
	if err := c.specialTokens(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// vocab is how many tokens the model knows.
func (c *Checkpoint) vocab() int {
	switch c.Kind {
	case KindOPT:
		return c.Spec.OPT.Vocab
	case KindT5:
		return c.Spec.T5.Vocab
	case KindBLIP:
		return c.Spec.BLIP.Vocab
	}
	return c.Spec.QFormer.Vocab
}

// specialTokens sets EOS and BOS: those that the checkpoint states, or those of the published models.
func (c *Checkpoint) specialTokens() error {
	special := c.Tokenizer.Special()
	eos, what := int32(c.Spec.EOS), "</s>"
	switch c.Kind {
	case KindOPT:
		// LAVIS ends texts with the newline (spec/stage2.md 6.1). A tokenizer without it is another model's.
		ids := c.Tokenizer.Encode("\n", tokenizer.EncodeOptions{NoSpecial: true})
		if what = "newline"; len(ids) != 1 || c.Tokenizer.Decode(ids, false) != "\n" {
			eos = -1
		} else if eos == 0 {
			eos = ids[0]
		}
	case KindT5:
		if eos == 0 {
			eos = special.EOS
		} else if piece, _ := c.Tokenizer.Piece(eos); piece != what {
			eos = -1
		}
	case KindStage1, KindBLIP:
		if what = "[SEP]"; eos == 0 {
			eos = special.SEP
		}
		// [DEC] comes behind BERT's vocabulary, and BLIP's [ENC] behind it.
		c.BOS = int32(c.vocab() - 1)
		if c.Kind == KindBLIP {
			if c.BOS--; c.Spec.BOS != 0 {
				c.BOS = int32(c.Spec.BOS)
			}
		}
	}
	if eos < 0 || int(eos) >= c.vocab() {
		return fmt.Errorf("the tokenizer has no %s, with which texts of this model end: give the model's own tokenizer", what)
	}
	c.EOS = eos
	return nil
}

// Describe says in a few lines what the model is.
func (c *Checkpoint) Describe() []string {
	return slices.Concat([]string{string(c.Kind)}, c.Spec.Describe())
}
