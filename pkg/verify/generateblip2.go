package verify

import (
	"fmt"
	"path/filepath"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/published"
	"blip2/pkg/stage2"
)

// generateBLIP2 runs the part of kind generate with a whole BLIP-2: what the language model reads of pictures and
// prompts, and the texts that it writes, by both length rules.
func generateBLIP2(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config convertConfig
	var expected struct {
		Runs      []generateRun `json:"runs"`
		PaperRuns []generateRun `json:"paper_runs"`
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	a, err := published.Assemble(published.Parts{Main: filepath.Join(c.Dir, weightsFile), Hints: config.hints()})
	if err != nil {
		return err
	}
	defer a.Close()
	cfg, err := stage2.NewConfig(a.Spec)
	if err != nil {
		return err
	}
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return err
	}
	if err := c.prefixes(k, a, cfg, pixels); err != nil {
		return err
	}
	store := mlx.NewStore()
	defer store.Finalize()
	if err := a.Fill(store, nil); err != nil {
		return err
	}
	backend, err := c.backend()
	if err != nil {
		return err
	}
	g, err := stage2.NewGenerator(backend, store, cfg)
	if err != nil {
		return err
	}
	defer g.Close()
	search := func(r generateRun, o generate.Options) ([][]generate.Text, error) {
		p, err := c.prompts(r.Input)
		if err != nil {
			return nil, err
		}
		return g.Generate(c.env.ctx, pixels, p, o)
	}
	if err := k.generates("runs", expected.Runs, search); err != nil {
		return err
	}
	return k.generates("paper_runs", expected.PaperRuns, search)
}

// hints are the numbers of heads that no shape tells.
func (c convertConfig) hints() published.Hints {
	return published.Hints{VisionHeads: c.visionConfig.Heads, QFormerHeads: c.Heads, LLMHeads: c.LLMHeads}
}

// prompts reads the prompts of an input, padded already.
func (c *Case) prompts(input string) (stage2.Prompts, error) {
	t, err := c.textsNamed("prompt_ids/"+input, "prompt_mask/"+input)
	return stage2.Prompts{Rows: t.rows, Length: t.length, IDs: t.ids, Mask: t.mask}, err
}

// prefixes compares what the language model reads for every input: inputs_embeds/ and attention_mask/.
func (c *Case) prefixes(k *checker, a *published.Assembly, cfg stage2.Config, pixels *tensors.Tensor) error {
	f, err := c.inputs()
	if err != nil {
		return err
	}
	inputs := []*tensors.Tensor{pixels}
	var names []string
	for _, name := range f.Names() {
		input, ok := strings.CutPrefix(name, "prompt_ids/")
		if !ok {
			continue
		}
		t, err := c.textsNamed(name, "prompt_mask/"+input)
		if err != nil {
			return err
		}
		names, inputs = append(names, input), append(inputs, t.idTensor(), t.maskTensor())
		if !k.has("attention_mask/" + input) {
			return fmt.Errorf("%s has no attention_mask/%s", outputsFile, input)
		}
		mask := behindQueries(t.mask, t.rows, cfg.QFormer.Queries)
		wide := make([]int64, len(mask))
		for i, v := range mask {
			wide[i] = int64(v)
		}
		k.ints("attention_mask/"+input, []int{t.rows, cfg.QFormer.Queries + t.length}, wide)
	}
	store := mlx.NewStore()
	if err := a.Fill(store, nil); err != nil {
		return err
	}
	backend, err := c.backend()
	if err != nil {
		return err
	}
	results, err := program{store: store, inputs: inputs, partial: true,
		forward: func(scope *mlx.Scope, in []*Node) []output {
			var outputs []output
			queries := stage2.QueryEmbeds(scope, cfg, in[0])
			for i, name := range names {
				embeds, _ := stage2.Prefix(scope, cfg, queries, in[1+2*i], in[2+2*i])
				outputs = append(outputs, output{"inputs_embeds/" + name, embeds})
			}
			return outputs
		}}.run(backend)
	if err != nil {
		return err
	}
	for _, r := range results {
		k.tensor(r.name, r.value)
	}
	return nil
}
