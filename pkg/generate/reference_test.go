package generate

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// recordedSearch is a search of transformers with a model whose next token depends on the last one (make_searches.py).
type recordedSearch struct {
	Table   [][]float32 `json:"table"`
	Prompts [][]int32   `json:"prompts"`
	EOS     int32       `json:"eos"`
	Options struct {
		Beams         int     `json:"num_beams"`
		Return        int     `json:"num_return_sequences"`
		NGram         int     `json:"no_repeat_ngram_size"`
		Max           int     `json:"max_new_tokens"`
		Min           int     `json:"min_new_tokens"`
		Repetition    float64 `json:"repetition_penalty"`
		LengthPenalty float64 `json:"length_penalty"`
		Early         bool    `json:"early_stopping"`
	} `json:"options"`
	Texts []struct {
		Tokens []int32  `json:"tokens"`
		Score  *float64 `json:"score"`
	} `json:"texts"`
}

// model is the recorded one: texts follow prompts.
func (r recordedSearch) model() *chain {
	c := &chain{}
	for _, prompt := range r.Prompts {
		// The first token follows the prompt's last one; behind that the chain's own last token counts.
		first := slices.Repeat([][]float32{r.Table[prompt[len(prompt)-1]]}, len(r.Table))
		c.logits = append(c.logits, append([][][]float32{first}, slices.Repeat([][][]float32{r.Table}, r.Options.Max)...))
	}
	return c
}

// TestReferenceSearches: tokens, their order and scores are those of transformers 4.57.6, with no-repeat n-grams,
// several returned texts, penalties and shortest lengths, greedily and with beams.
func TestReferenceSearches(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "searches.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []recordedSearch
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	banned := 0
	for i, r := range cases {
		o := Options{Beams: r.Options.Beams, Return: r.Options.Return, NoRepeatNGram: r.Options.NGram,
			MaxNewTokens: r.Options.Max, MinNewTokens: r.Options.Min, EOS: r.EOS, RepetitionPenalty: r.Options.Repetition,
			LengthPenalty: r.Options.LengthPenalty, EarlyStopping: r.Options.Early}
		var got []Text
		for _, texts := range generated(t, r.model(), r.Prompts, o) {
			got = append(got, texts...)
		}
		if len(got) != len(r.Texts) {
			t.Errorf("case %d: %d texts, recorded %d", i, len(got), len(r.Texts))
			continue
		}
		for k, want := range r.Texts {
			if !slices.Equal(got[k].Tokens, want.Tokens) || want.Score != nil && math.Abs(got[k].Score-*want.Score) > 1e-4 {
				t.Errorf("case %d, %+v, text %d: %v %.6f, recorded %v %v", i, r.Options, k, got[k].Tokens, got[k].Score,
					want.Tokens, want.Score)
			}
		}
		o.NoRepeatNGram = 0
		free := generated(t, r.model(), r.Prompts, o)
		if !slices.Equal(free[0][0].Tokens, r.Texts[0].Tokens) {
			banned++
		}
	}
	if len(cases) < 100 || banned < 20 {
		t.Errorf("n-grams matter in %d of %d cases: the comparison says little", banned, len(cases))
	}
}
