package verify

import (
	"slices"
	"strings"

	"blip2/pkg/generate"
	"blip2/pkg/model"
	"blip2/pkg/stage1"
)

// captionParams lists the tensors that captions are written with, and the names of the others: the heads of ITC and
// ITM.
func captionParams(cfg stage1.Config) (used []model.Param, unused []string) {
	for _, p := range stage1.Params(cfg) {
		head, _, _ := strings.Cut(p.Name, ".")
		if slices.Contains([]string{"vision_proj", "text_proj", "itm_head", "temp"}, head) {
			unused = append(unused, p.Name)
		} else {
			used = append(used, p)
		}
	}
	return used, unused
}

// stage1Caption runs kind stage1-caption: captions by the model's own LM head, with beams and greedily.
func stage1Caption(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config struct {
		stage1Config
		Beams         int     `json:"num_beams"`
		MaxLength     int     `json:"max_length"`
		MinLength     int     `json:"min_length"`
		LengthPenalty float64 `json:"length_penalty"`
	}
	var expected struct {
		Beam   [][]int32 `json:"beam_tokens"`
		Greedy [][]int32 `json:"greedy_tokens"`
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	cfg, err := config.model()
	if err != nil {
		return err
	}
	params, unused := captionParams(cfg)
	set, err := c.weights(unused)
	if err != nil {
		return err
	}
	store, err := set.store(params)
	if err != nil {
		return err
	}
	defer store.Finalize()
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return err
	}
	backend, err := c.backend()
	if err != nil {
		return err
	}
	captioner, err := stage1.NewCaptioner(backend, store, cfg)
	if err != nil {
		return err
	}
	defer captioner.Close()
	// Both lengths count the [DEC] that every text starts with.
	o := generate.Options{RepetitionPenalty: 1, MinNewTokens: config.MinLength - 1, MaxNewTokens: config.MaxLength - 1}
	greedy, err := captioner.Generate(c.env.ctx, pixels, o)
	if err != nil {
		return err
	}
	// The recorded texts are those of libraries before transformers 4.57, whose rows end later.
	o.Beams, o.LengthPenalty, o.LenRule = config.Beams, config.LengthPenalty, generate.LenRulePaper
	beams, err := captioner.Generate(c.env.ctx, pixels, o)
	if err != nil {
		return err
	}
	k.captions("greedy_tokens", greedy, expected.Greedy, cfg)
	k.captions("beam_tokens", beams, expected.Beam, cfg)
	sums := make([]float32, len(beams))
	for i, texts := range beams {
		sums[i] = float32(texts[0].LogProb)
	}
	k.floats("beam_sum_logprob", []int{len(sums)}, sums)
	return nil
}

// captions compares texts, [DEC] in front and padded to one length, with the recorded output and list.
func (k *checker) captions(name string, rows [][]generate.Text, want [][]int32, cfg stage1.Config) {
	longest := 0
	for _, texts := range rows {
		longest = max(longest, 1+len(texts[0].Tokens))
	}
	var all []int64
	for i, texts := range rows {
		row := append([]int32{int32(cfg.BOSID)}, texts[0].Tokens...)
		for len(row) < longest {
			row = append(row, int32(cfg.PadID))
		}
		for _, id := range row {
			all = append(all, int64(id))
		}
		if i < len(want) {
			equalLists(k, name+" in "+expectedFile, row, want[i])
		}
	}
	if len(rows) != len(want) {
		k.problem("%s: %d texts, recorded %d", name, len(rows), len(want))
	}
	k.ints(name, []int{len(rows), longest}, all)
}
