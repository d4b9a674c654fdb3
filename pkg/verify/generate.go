package verify

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/t5"
	"blip2/pkg/stage2"
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

// generateCase is what the parts of a case of kind generate work on.
type generateCase struct {
	*Case
	vocab   int
	store   *mlx.Store
	decoder stage2.Decoder
	// prompts returns what penalties see in front of a run's texts, given the ids of its input; nil without ids.
	prompts func(rows int, ids [][]int32) [][]int32
	// room is how many tokens the model reads at most; 0 means any number.
	room int
}

// generateTexts runs kind generate: many searches with one model.
func generateTexts(c *Case, k *checker) error {
	var config struct {
		Model string `json:"model"`
	}
	var expected struct {
		Runs []generateRun `json:"runs"`
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if strings.HasPrefix(config.Model, "blip2_") {
		return generateBLIP2(c, k)
	}
	models := map[string]func(c *Case) (*generateCase, error){"opt": generateOPT, "t5": generateT5}
	open, ok := models[config.Model]
	if !ok {
		return fmt.Errorf("config: model %q: known are %s", config.Model,
			strings.Join(slices.Sorted(maps.Keys(models)), ", "))
	}
	g, err := open(c)
	if err != nil {
		return err
	}
	defer g.store.Finalize()
	backend, err := c.backend()
	if err != nil {
		return err
	}
	p, err := generate.NewCachedProgram(backend, g.store, g.decoder.Prefill, g.decoder.Advance)
	if err != nil {
		return err
	}
	defer p.Close()
	return k.generates("runs", expected.Runs, func(r generateRun, o generate.Options) ([][]generate.Text, error) {
		inputs, prompts, err := g.inputsOf(r)
		if err != nil {
			return nil, err
		}
		return p.Generate(c.env.ctx, inputs, prompts, o)
	})
}

// inputsOf returns what a run's input consists of, embeddings or ids, then the mask; and what penalties see of it.
func (g *generateCase) inputsOf(r generateRun) ([]*tensors.Tensor, [][]int32, error) {
	f, err := g.inputs()
	if err != nil {
		return nil, nil, err
	}
	mask, err := g.maskInput("attention_mask/" + r.Input)
	if err != nil {
		return nil, nil, err
	}
	shape := mask.Shape().Dimensions
	if len(shape) != 2 || shape[0]*shape[1] == 0 {
		return nil, nil, fmt.Errorf("%s: mask of input %s has shape %v", inputsFile, r.Input, shape)
	}
	longest := 0
	for row := range slices.Chunk(tensors.MustCopyFlatData[int32](mask), shape[1]) {
		tokens := 0
		for _, m := range row {
			tokens += int(m)
		}
		longest = max(longest, tokens)
	}
	// The last token is not read again.
	if g.room > 0 && longest+r.MaxNewTokens-1 > g.room {
		return nil, nil, fmt.Errorf("input %s of %d tokens with %d new ones: the model has %d positions", r.Input, longest,
			r.MaxNewTokens, g.room)
	}
	if name := "inputs_embeds/" + r.Input; f.Has(name) {
		embeds, err := g.floatInput(name)
		return []*tensors.Tensor{embeds, mask}, g.prompts(shape[0], nil), err
	}
	ids, err := g.idRows("input_ids/"+r.Input, g.vocab)
	if err != nil {
		return nil, nil, err
	}
	return []*tensors.Tensor{matrix(ids), mask}, g.prompts(shape[0], ids), nil
}

// generateOPT prepares the part opt: the prompt's ids, padding included, stand in front of the text.
func generateOPT(c *Case) (*generateCase, error) {
	var config optConfig
	if err := c.config(&config); err != nil {
		return nil, err
	}
	cfg, err := config.model()
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	set, err := c.weights(nil)
	if err != nil {
		return nil, err
	}
	g := &generateCase{Case: c, vocab: cfg.Vocab, room: cfg.Positions, prompts: func(rows int, ids [][]int32) [][]int32 {
		if ids == nil {
			return make([][]int32, rows)
		}
		return ids
	}}
	g.decoder = stage2.Decoder{OPT: &cfg, LLM: alone, Prefix: func(scope *mlx.Scope, in []*Node) (*Node, *Node) {
		if in[0].DType().IsInt() {
			return opt.Embed(scope, in[0], dtypes.Float32), in[1]
		}
		return in[0], in[1]
	}}
	g.store, err = set.store(opt.Params(cfg))
	return g, err
}

// generateT5 prepares the part t5: the encoder reads the prompt, and the decoder's start is all that penalties see.
func generateT5(c *Case) (*generateCase, error) {
	var config t5Config
	if err := c.config(&config); err != nil {
		return nil, err
	}
	cfg, err := config.model()
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	set, err := c.weights(nil)
	if err != nil {
		return nil, err
	}
	g := &generateCase{Case: c, vocab: cfg.Vocab, prompts: func(rows int, _ [][]int32) [][]int32 {
		return slices.Repeat([][]int32{{t5.StartID}}, rows)
	}}
	g.decoder = stage2.Decoder{T5: &cfg, LLM: alone, Prefix: func(scope *mlx.Scope, in []*Node) (*Node, *Node) {
		if in[0].DType().IsInt() {
			return t5.Embed(scope, in[0], dtypes.Float32), in[1]
		}
		return in[0], in[1]
	}}
	g.store, err = set.store(t5.Params(cfg))
	return g, err
}

// alone is the scope of a language model that is all of the network.
func alone(scope *mlx.Scope) *mlx.Scope { return scope }
