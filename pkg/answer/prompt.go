package answer

import (
	"fmt"
	"unicode/utf8"

	"blip2/pkg/tokenizer"
)

// t5Context is how many tokens Flan-T5's encoder was trained to read. Its positions are relative, so nothing breaks
// behind them; but there is an end to what it understands, and to memory.
const t5Context = 512

// maxShown bounds how much of a prompt an error shows.
const maxShown = 60

// tokens encodes a prompt and makes sure that it fits the model with so many new tokens behind it. Prompts of more than
// cut tokens, the special ones included, are cut on the right; 0 cuts none.
func (c *Checkpoint) tokens(prompt string, cut, newTokens int) ([]int32, error) {
	o := tokenizer.EncodeOptions{Literal: true, MaxLength: cut}
	if !c.Kind.Answers() {
		o.NoSpecial = true
		if cut > 1 {
			o.MaxLength-- // [DEC]
		}
	}
	ids := c.Tokenizer.Encode(prompt, o)
	room, what := 0, ""
	switch c.Kind {
	case KindOPT:
		queries := c.Spec.QFormer.Queries
		room = c.Spec.OPT.Positions - queries - newTokens
		what = fmt.Sprintf("OPT has %d positions, of which %d are the picture's and %d for new tokens", c.Spec.OPT.Positions,
			queries, newTokens)
	case KindT5:
		queries := c.Spec.QFormer.Queries
		room = t5Context - queries
		what = fmt.Sprintf("Flan-T5 reads %d tokens, of which %d are the picture's", t5Context, queries)
	default:
		positions := c.textPositions()
		room = positions - 1 - newTokens
		what = fmt.Sprintf("its texts have at most %d tokens, of which 1 is [DEC] and %d are new", positions, newTokens)
	}
	if len(ids) <= room {
		return ids, nil
	}
	return nil, fmt.Errorf("the prompt %q has %d tokens, and there is room for %d: %s; give a shorter prompt or fewer "+
		"new tokens", shortened(prompt), len(ids), max(room, 0), what)
}

// Whole says whether cut, the greatest number of a prompt's tokens, leaves the prompt as it is; 0 cuts none.
func (c *Checkpoint) Whole(prompt string, cut int) bool {
	o := tokenizer.EncodeOptions{Literal: true, NoSpecial: !c.Kind.Answers()}
	if cut > 1 && o.NoSpecial {
		cut-- // [DEC]
	}
	return cut == 0 || len(c.Tokenizer.Encode(prompt, o)) <= cut
}

// textPositions is the length of the longest text of a model with BERT's word pieces.
func (c *Checkpoint) textPositions() int {
	if c.Kind == KindBLIP {
		return c.Spec.BLIP.MaxPositions
	}
	return c.Spec.QFormer.MaxPositions
}

// shortened is a text of at most maxShown bytes.
func shortened(text string) string {
	if len(text) <= maxShown {
		return text
	}
	end := maxShown
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}
