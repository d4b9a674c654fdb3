// Package generate writes texts with a language model, token by token: greedily, by beam search or by sampling, with
// the decisions of Hugging Face's generate (spec/evaluation.md 1).
//
// The search runs on the host in float32, as the reference does it, over a Model that says how likely every token is to
// come next. It is deterministic: equal scores are told apart by their index, random numbers come from a seed.
package generate

import (
	"context"
	"fmt"
	"math"
)

// Model continues a batch of texts. It keeps what it needs of them, be it their ids or keys and values on a device; the
// search numbers the texts of each step from 0.
type Model interface {
	// Start begins with one text per row, its prompt. It returns the logits of each text's next token, [rows, vocab]
	// row after row, which the caller may overwrite.
	Start(ctx context.Context) ([]float32, error)
	// Step replaces the texts: the new text i is the text parents[i] of the step before, followed by tokens[i]. A text
	// may have several successors, or none. There are at most rows × Options.Width of them. It returns the logits of
	// the new texts' next tokens, [len(parents), vocab].
	Step(ctx context.Context, parents []int, tokens []int32) ([]float32, error)
}

// LenRule says what a length penalty counts.
type LenRule string

// The length rules. With n generated tokens, EOS included, and P tokens of the prompt:
const (
	// LenRuleCurrent is that of transformers 4.57: sums are divided by n^λ, and a row is done when the best running
	// text, divided likewise, is no better than the worst finished one.
	LenRuleCurrent LenRule = "current"
	// LenRulePaper is that of transformers 4.26, which BLIP-2 was published with: sums are divided by (P+n−1)^λ if the
	// text ended with EOS and by (P+n)^λ if not, and a row is done when the best of all candidates, ended ones included,
	// divided by (P+n−1)^λ, is no better than the worst finished text.
	LenRulePaper LenRule = "paper"
)

// Options say how to search. The zero value of a field is given in brackets where it means something else than 0.
type Options struct {
	Beams             int       // K: texts that run side by side (1)
	Return            int       // texts per row: at most K, or any number if drawn one by one (1)
	MinNewTokens      int       // EOS is impossible for so many tokens
	MaxNewTokens      int       // most tokens of a text, EOS included
	EOS               int32     // token that ends a text
	LengthPenalty     float64   // λ: above 0 favours long texts; beams only
	LenRule           LenRule   // (LenRuleCurrent)
	EarlyStopping     bool      // a row is done as soon as it has K finished texts
	RepetitionPenalty float64   // divides the odds of tokens that prompt or text contain (1: none)
	NoRepeatNGram     int       // no n-gram of this size occurs twice in prompt and text (0: off)
	Sampling          *Sampling // draw tokens instead of taking the most likely ones

	// Watch, if set, is told of every step before the next one is computed: the length n that running texts have now
	// and, with one beam, the tokens that they got. With several beams texts are not certain before the end.
	Watch func(n int, tokens []Token) `json:"-"`
}

// Token is one that a text got.
type Token struct {
	Row, Text int // of the result: Generate's texts[Row][Text]
	ID        int32
}

// Text is what was generated from a prompt.
type Text struct {
	Tokens []int32 // new tokens, EOS included if it came
	Ended  bool    // the text ended with EOS
	// LogProb is the sum of the tokens' log-probabilities, after penalties, and Score is what texts are ranked by: the
	// sum divided by a power of the length. Both are 0 with one beam, which ranks nothing.
	LogProb, Score float64
}

// Words returns the text's tokens without the one that ended it.
func (t Text) Words() []int32 {
	if t.Ended {
		return t.Tokens[:len(t.Tokens)-1]
	}
	return t.Tokens
}

// Bounds of options, within which scores stay numbers of single precision.
const (
	LeastRepetitionPenalty = 1e-5
	MostRepetitionPenalty  = 1e5
	LeastTemperature       = 1e-10
)

// MostLengthPenalty is the greatest λ, and the least one with a minus, for texts of so many tokens n: n^λ is 1e15 with
// it.
func MostLengthPenalty(tokens int) float64 { return 15 / math.Log10(float64(tokens)) }

// Width returns how many texts of each row run side by side.
func (o Options) Width() int {
	if o.Beams > 1 {
		return o.Beams
	}
	return max(o.Return, 1)
}

// Validate reports options that make no sense.
func (o Options) Validate() error {
	switch {
	case o.Beams < 0 || o.Return < 0 || o.MinNewTokens < 0 || o.NoRepeatNGram < 0:
		return fmt.Errorf("beams, texts, shortest length and n-gram size must not be negative")
	case o.MaxNewTokens < 1:
		return fmt.Errorf("at most %d new tokens: at least 1 is needed", o.MaxNewTokens)
	case o.RepetitionPenalty != 0 &&
		!(o.RepetitionPenalty >= LeastRepetitionPenalty && o.RepetitionPenalty <= MostRepetitionPenalty):
		return fmt.Errorf("repetition penalty %g must be from %g to %g", o.RepetitionPenalty, LeastRepetitionPenalty,
			MostRepetitionPenalty)
	case math.IsNaN(o.LengthPenalty) || math.IsInf(o.LengthPenalty, 0):
		return fmt.Errorf("length penalty %g is not a number", o.LengthPenalty)
	case o.Beams > 1 && math.Abs(o.LengthPenalty) > MostLengthPenalty(o.MaxNewTokens):
		return fmt.Errorf("length penalty %g with %d new tokens must be from %.3g to %.3g", o.LengthPenalty, o.MaxNewTokens,
			-MostLengthPenalty(o.MaxNewTokens), MostLengthPenalty(o.MaxNewTokens))
	case o.LenRule != "" && o.LenRule != LenRuleCurrent && o.LenRule != LenRulePaper:
		return fmt.Errorf("length rule %q: choose %q or %q", o.LenRule, LenRuleCurrent, LenRulePaper)
	case o.Beams > 1 && o.Return > o.Beams:
		return fmt.Errorf("%d beams do not give %d texts", o.Beams, o.Return)
	case o.Beams <= 1 && o.Return > 1 && o.Sampling == nil:
		return fmt.Errorf("one beam without sampling gives one text per row, not %d", o.Return)
	case o.Beams > 1 && o.Sampling != nil && o.LenRule == LenRulePaper:
		return fmt.Errorf("sampling with several beams has the length rule %q only", LenRuleCurrent)
	}
	return o.Sampling.check()
}

// Generate continues every row's prompt: for each row Options.Return texts, the best first. The prompts are the ids
// that penalties and LenRulePaper see; empty for a model that is prompted by embeddings.
//
// It stops with ctx's error between two steps, and with an error if the model's logits are no numbers.
func Generate(ctx context.Context, m Model, prompts [][]int32, o Options) ([][]Text, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("generating text: %w", err)
	}
	if len(prompts) == 0 {
		return nil, nil
	}
	if s := o.Sampling; s != nil && s.Keys != nil && len(s.Keys) != len(prompts) {
		return nil, fmt.Errorf("generating text: %d keys for the random numbers of %d rows", len(s.Keys), len(prompts))
	}
	s := &search{model: m, options: o, prompts: prompts}
	if n, ok := m.(interface{ normalized() bool }); ok {
		s.normalized = n.normalized()
	}
	if err := s.run(ctx); err != nil {
		return nil, fmt.Errorf("generating text: %w", err)
	}
	out := make([][]Text, len(s.rows))
	for i, r := range s.rows {
		out[i] = r.texts()
	}
	return out, nil
}
