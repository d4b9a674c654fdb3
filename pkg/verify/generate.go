package verify

import (
	"fmt"

	"blip2/pkg/generate"
)

// generateRun is one recorded search: its options and what came out, sequences of all rows in order, best first.
type generateRun struct {
	Input             string             `json:"input"`
	NumBeams          int                `json:"num_beams"`
	NumReturn         int                `json:"num_return_sequences"`
	LengthPenalty     float64            `json:"length_penalty"`
	RepetitionPenalty float64            `json:"repetition_penalty"`
	EarlyStopping     bool               `json:"early_stopping"`
	MinNewTokens      int                `json:"min_new_tokens"`
	MaxNewTokens      int                `json:"max_new_tokens"`
	EOS               int32              `json:"eos_token_id"`
	LenRule           generate.LenRule   `json:"len_rule"`
	Sequences         []recordedSequence `json:"sequences"`
}

// recordedSequence is one generated text; its score is null with one beam.
type recordedSequence struct {
	Tokens []int32  `json:"tokens"`
	Score  *float64 `json:"score"`
	Ended  bool     `json:"ended"`
}

// options returns the run's options.
func (r generateRun) options() generate.Options {
	return generate.Options{Beams: r.NumBeams, Return: r.NumReturn, MinNewTokens: r.MinNewTokens,
		MaxNewTokens: r.MaxNewTokens, EOS: r.EOS, LengthPenalty: r.LengthPenalty, LenRule: r.LenRule,
		EarlyStopping: r.EarlyStopping, RepetitionPenalty: r.RepetitionPenalty}
}

// generates repeats recorded runs. search continues the prompts of a run's input.
func (k *checker) generates(name string, runs []generateRun, search func(r generateRun, o generate.Options) (
	[][]generate.Text, error)) error {
	for i, r := range runs {
		where := fmt.Sprintf("%s[%d]", name, i)
		rows, err := search(r, r.options())
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		var texts []generate.Text
		for _, row := range rows {
			texts = append(texts, row...)
		}
		if len(texts) != len(r.Sequences) {
			k.problem("%s: %d sequences, recorded %d", where, len(texts), len(r.Sequences))
			continue
		}
		var got, want []float64
		for n, text := range texts {
			recorded := r.Sequences[n]
			equalLists(k, fmt.Sprintf("%s.sequences[%d].tokens", where, n), text.Tokens, recorded.Tokens)
			if text.Ended != recorded.Ended {
				k.problem("%s.sequences[%d].ended: got %v", where, n, text.Ended)
			}
			if recorded.Score != nil {
				got, want = append(got, text.Score), append(want, *recorded.Score)
			}
		}
		compareFloats(k, where+".score", []int{len(got)}, got, want)
	}
	return nil
}
