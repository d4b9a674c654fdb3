package stage2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"

	"blip2/pkg/tokenizer"
)

// The units in which a text is cut in two for T5.
const (
	SplitWords  = "word"  // words between spaces
	SplitTokens = "token" // tokens of SentencePiece
)

// What T5's encoder reads of a caption beside the queries.
const (
	PrefixRandom = "random" // its first words, as many as are drawn: prefix language modelling
	PrefixEmpty  = "empty"  // nothing: plain captioning
)

// TextOptions say how captions become texts of the language model (spec/stage2.md 3 and 4).
type TextOptions struct {
	MaxLength int    // tokens of a text, special ones included; the rest is cut off
	Prompt    string // in front of every caption, with a space behind it; nothing is learned from it
	SplitUnit string // SplitWords or SplitTokens
	Prefix    string // PrefixRandom or PrefixEmpty
	Seed      int64  // of where captions are cut
	// PadTo makes the length of a batch's texts a multiple of it, up to MaxLength, so that few programs are compiled.
	// 0 makes all texts MaxLength long.
	PadTo int
}

// Validate reports options that make no sense.
func (o TextOptions) Validate() error {
	switch {
	case o.MaxLength < 2:
		return fmt.Errorf("texts of %d tokens: a token and the one that ends or starts a text need 2", o.MaxLength)
	case o.SplitUnit != SplitWords && o.SplitUnit != SplitTokens:
		return fmt.Errorf("split unit %q: choose %q or %q", o.SplitUnit, SplitWords, SplitTokens)
	case o.Prefix != PrefixRandom && o.Prefix != PrefixEmpty:
		return fmt.Errorf("prefix %q: choose %q or %q", o.Prefix, PrefixRandom, PrefixEmpty)
	case o.PadTo < 0:
		return fmt.Errorf("lengths in multiples of %d: want 1 or more, or 0 for the largest length", o.PadTo)
	}
	return nil
}

// Writer turns captions into the texts that a language model learns. It is safe for concurrent use.
type Writer struct {
	tok  tokenizer.Tokenizer
	t5   bool
	o    TextOptions
	eos  int32
	skip int // tokens of OPT's prompt, </s> included
}

// newline ends a caption: with OPT it stands for the end of the text (spec/stage2.md 6.1).
const newline = "\n"

// NewWriter returns a writer for the configuration's language model, whose tokenizer is given.
func NewWriter(cfg Config, tok tokenizer.Tokenizer, o TextOptions) (*Writer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if have, rows := tok.VocabSize(), cfg.vocab(); have > rows {
		return nil, fmt.Errorf("the tokenizer has %d ids, the language model %d: give the tokenizer that belongs to it",
			have, rows)
	}
	eos, err := cfg.EOS(tok)
	if err != nil {
		return nil, err
	}
	w := &Writer{tok: tok, t5: cfg.T5 != nil, o: o, eos: eos}
	if !w.t5 && o.Prompt != "" {
		w.skip = len(tok.Encode(o.Prompt, tokenizer.EncodeOptions{Literal: true, MaxLength: o.MaxLength}))
		if w.skip >= o.MaxLength {
			return nil, fmt.Errorf("the prompt %q has %d tokens, and a text only %d: nothing would be learned", o.Prompt,
				w.skip, o.MaxLength)
		}
	}
	return w, nil
}

// EOS returns the token that ends a text of the language model: OPT's newline, T5's </s>.
func (c Config) EOS(tok tokenizer.Tokenizer) (int32, error) {
	if c.T5 != nil {
		if id := tok.Special().EOS; id >= 0 {
			return id, nil
		}
		return 0, errors.New("the tokenizer has no token that ends a text, which T5 needs: give the one of the model")
	}
	ids := tok.Encode(newline, tokenizer.EncodeOptions{NoSpecial: true})
	if len(ids) != 1 {
		return 0, fmt.Errorf("the tokenizer makes %d tokens of a newline, with which OPT's captions end: it needs one",
			len(ids))
	}
	return ids[0], nil
}

// PromptLength returns how many tokens of OPT's texts are the prompt: Config.PromptLength. It is 0 without a prompt.
func (w *Writer) PromptLength() int { return w.skip }

// Texts are a batch of texts, padded on the right.
type Texts struct {
	Rows, Length int
	IDs, Mask    []int32 // [Rows·Length]; the mask is 1 at tokens: OPT's texts, T5's prefixes

	OutputLength          int     // T5
	OutputIDs, OutputMask []int32 // [Rows·OutputLength]: what T5's decoder learns
}

// Write makes the texts of captions that have been processed. For T5 the place of the cut is drawn from the seed, the
// epoch, the picture's number and the caption, so that it does not depend on which batch they are in.
func (w *Writer) Write(captions []string, epoch int64, pictures []int64) Texts {
	inputs, outputs := make([][]int32, len(captions)), make([][]int32, len(captions))
	for i, caption := range captions {
		if w.t5 {
			inputs[i], outputs[i] = w.split(caption, w.draw(epoch, pictures[i], caption))
		} else {
			inputs[i] = w.encode(w.prompted(caption) + newline)
		}
	}
	t := Texts{Rows: len(captions)}
	t.IDs, t.Mask, t.Length = w.pad(inputs)
	if w.t5 {
		t.OutputIDs, t.OutputMask, t.OutputLength = w.pad(outputs)
	}
	return t
}

// prompted is the text behind the prompt, if there is one.
func (w *Writer) prompted(text string) string {
	switch {
	case w.o.Prompt == "":
		return text
	case text == "":
		return w.o.Prompt
	}
	return w.o.Prompt + " " + text
}

func (w *Writer) encode(text string) []int32 {
	return w.tok.Encode(text, tokenizer.EncodeOptions{Literal: true, MaxLength: w.o.MaxLength})
}

// draw returns the random numbers of a caption.
func (w *Writer) draw(epoch, picture int64, caption string) *rand.Rand {
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, [3]int64{w.o.Seed, epoch, picture})
	_, _ = h.Write([]byte(caption))
	return rand.New(rand.NewPCG(h.Sum64(), uint64(w.o.Seed)))
}

// split cuts a caption into T5's prefix and suffix, each with </s>: between its first piece and its middle, as the
// paper's first author says (spec/stage2.md 4).
func (w *Writer) split(caption string, rng *rand.Rand) (prefix, suffix []int32) {
	if w.o.Prefix == PrefixEmpty {
		return w.encode(w.prompted("")), w.encode(caption)
	}
	if w.o.SplitUnit == SplitWords {
		words := strings.Split(caption, " ")
		at := cut(len(words), rng)
		return w.encode(w.prompted(strings.Join(words[:at], " "))), w.encode(strings.Join(words[at:], " "))
	}
	ids := w.tok.Encode(caption, tokenizer.EncodeOptions{Literal: true, NoSpecial: true})
	at := cut(len(ids), rng)
	front := ids[:at]
	if w.o.Prompt != "" {
		prompt := w.tok.Encode(w.o.Prompt, tokenizer.EncodeOptions{Literal: true, NoSpecial: true})
		front = append(prompt, front...)
	}
	return w.ended(front), w.ended(ids[at:])
}

// cut draws after how many of n pieces a text is cut: 1 to the midpoint, or 0 if there is no second piece.
func cut(n int, rng *rand.Rand) int {
	if n < 2 {
		return 0
	}
	return 1 + rng.IntN(max(1, n/2))
}

// ended returns the ids, as many as fit, with </s> behind them.
func (w *Writer) ended(ids []int32) []int32 {
	ids = ids[:min(len(ids), w.o.MaxLength-1)]
	return append(append(make([]int32, 0, len(ids)+1), ids...), w.eos)
}

// pad makes rows equally long.
func (w *Writer) pad(rows [][]int32) (ids, mask []int32, length int) {
	longest := w.o.MaxLength
	if w.o.PadTo > 0 {
		longest = 1
		for _, row := range rows {
			longest = max(longest, len(row))
		}
		longest = min((longest+w.o.PadTo-1)/w.o.PadTo*w.o.PadTo, w.o.MaxLength)
	}
	pad := int32(optPad)
	if w.t5 {
		pad = t5Pad
	}
	return tokenizer.Pad(rows, longest, pad, tokenizer.Right)
}
