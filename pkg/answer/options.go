package answer

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"blip2/pkg/generate"
)

// Preset is a way of writing that has a name: options, and what stands around what the user gives.
type Preset struct {
	Options generate.Options
	Prompt  string // where no other is given
	// Question is what a question becomes, with {} in its place.
	Question string
}

// ChatTurn is how earlier questions and answers stand in front of the next question (LAVIS's example of BLIP-2).
const ChatTurn = "Question: {} Answer: {}."

// Default returns how the model writes where nothing else is said: the defaults of its generate method in LAVIS, which
// are 5 beams and at most 30 tokens for models with a language model. For the others LAVIS counts the prompt among
// the 30 tokens and the least number, 10.
func (c *Checkpoint) Default() Preset {
	p := Preset{Options: generate.Options{Beams: 5, Return: 1, MinNewTokens: 1, MaxNewTokens: 30, LengthPenalty: 1,
		RepetitionPenalty: 1}, Question: "Question: {} Answer:"}
	switch c.Kind {
	case KindT5:
		p.Options.MinNewTokens = 0 // LAVIS counts the decoder's start
	case KindStage1:
		p.Options.Beams, p.Options.MinNewTokens, p.Options.MaxNewTokens = 3, 9, 29
	case KindBLIP:
		p.Options.Beams, p.Options.MinNewTokens, p.Options.MaxNewTokens = 3, 6, 26
		p.Prompt = "a picture of"
	}
	if !c.Kind.Answers() { // [DEC] and the prompt's words, of which there are 3, are part of the text
		p.Options.MaxNewTokens = min(p.Options.MaxNewTokens, max(c.textPositions()-4, 1))
		p.Options.MinNewTokens = min(p.Options.MinNewTokens, p.Options.MaxNewTokens)
	}
	return p
}

// Presets lists the names that Checkpoint.Preset knows.
func Presets() []string { return slices.Sorted(maps.Keys(presets)) }

// presets change the default (spec/evaluation.md 2 and 3).
var presets = map[string]func(c *Checkpoint, p *Preset){
	// Captions as of the models that were fine-tuned on COCO, with the penalties of the paper's time.
	"caption": func(c *Checkpoint, p *Preset) {
		if !c.Kind.Answers() {
			return
		}
		p.Options.Beams, p.Options.MinNewTokens, p.Options.MaxNewTokens, p.Prompt = 5, 8, 30, "a photo of"
		if c.Kind == KindT5 {
			p.Options.MinNewTokens = 7
		}
	},
	// Zero-shot answers.
	"vqa": func(c *Checkpoint, p *Preset) {
		p.Options.MaxNewTokens, p.Options.LengthPenalty = 10, -1
		if c.Kind == KindT5 {
			p.Question = "Question: {} Short answer:"
		}
	},
}

// Preset returns the preset of the given name; "" is Default.
func (c *Checkpoint) Preset(name string) (Preset, error) {
	p := c.Default()
	if name == "" {
		return p, nil
	}
	change, ok := presets[name]
	if !ok {
		return p, fmt.Errorf("no preset is called %q: choose one of %s", name, strings.Join(Presets(), ", "))
	}
	if name == "vqa" && !c.Kind.Answers() {
		return p, fmt.Errorf("preset vqa: %s answers no questions: give BLIP-2 with a language model", c.Kind)
	}
	change(c, &p)
	return p, nil
}

// Ask puts a question into the preset's template.
func (p Preset) Ask(question string) string { return strings.Replace(p.Question, "{}", question, 1) }

// Conversation is what has been said about a picture.
type Conversation struct{ turns []turn }

type turn struct{ question, answer string }

// Add appends a question with its answer.
func (c *Conversation) Add(question, answer string) {
	c.turns = append(c.turns, turn{question, answer})
}

// Turns returns how many questions were answered.
func (c *Conversation) Turns() int { return len(c.turns) }

// DropFirst forgets the oldest question.
func (c *Conversation) DropFirst() { c.turns = c.turns[1:] }

// Reset forgets everything.
func (c *Conversation) Reset() { c.turns = nil }

// Prompt is the prompt for the next question: the earlier ones with their answers, joined by spaces, in front of it.
func (c *Conversation) Prompt(p Preset, question string) string {
	var parts []string
	for _, t := range c.turns {
		q := strings.Replace(ChatTurn, "{}", t.question, 1)
		at := strings.LastIndex(q, "{}")
		parts = append(parts, q[:at]+strings.TrimRight(t.answer, ".")+q[at+2:])
	}
	return strings.Join(append(parts, p.Ask(question)), " ")
}

// Check reports options and prompts that the model cannot do, before it is loaded. cut is the greatest number of tokens
// of a prompt, longer ones being cut on the right; 0 means that none is cut.
func (c *Checkpoint) Check(o generate.Options, cut int, prompts ...string) error {
	o.EOS = c.EOS
	errs := []error{o.Validate()}
	for _, prompt := range prompts {
		_, err := c.tokens(prompt, cut, o.MaxNewTokens)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// LeastMemory is what writing texts about so many pictures at once takes at least beside the weights, in bytes: the
// attention among the image encoder's patches in a layer, or else that among the new tokens, their logits, and with a
// language model their keys and values, in 16 bits.
func (c *Checkpoint) LeastMemory(o generate.Options, pictures int) float64 {
	perToken := 0.0 // keys and values of a text
	heads, vision := 0, c.Spec.Vision
	switch c.Kind {
	case KindOPT:
		perToken = 2 * float64(c.Spec.OPT.Layers) * float64(c.Spec.OPT.Hidden)
		heads = c.Spec.OPT.Heads
	case KindT5:
		perToken = 2 * float64(c.Spec.T5.DecoderLayers) * float64(c.Spec.T5.Heads*c.Spec.T5.HeadDim)
		heads = c.Spec.T5.Heads
	case KindStage1:
		heads = c.Spec.QFormer.Heads
	case KindBLIP:
		heads, vision = c.Spec.BLIP.Heads, &c.Spec.BLIP.Vision
	}
	width := float64(o.Width())
	// A step compares the newest token of every text with all new tokens of the picture's texts.
	perText := 2*perToken*float64(o.MaxNewTokens) + 4*float64(c.vocab()) +
		4*float64(heads)*width*float64(o.MaxNewTokens)
	patches := float64(vision.Grid()*vision.Grid() + 1)
	return float64(pictures) * max(width*perText, 4*float64(vision.Heads)*patches*patches)
}
