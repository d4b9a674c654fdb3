package verify

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/opt"
)

// optConfig are the config keys of all cases with OPT.
type optConfig struct {
	Vocab        int     `json:"llm_vocab"`
	Hidden       int     `json:"llm_hidden"`
	Layers       int     `json:"llm_layers"`
	Heads        int     `json:"llm_heads"`
	FFN          int     `json:"llm_ffn"`
	Positions    int     `json:"llm_positions"`
	LayerNormEps float64 `json:"llm_layer_norm_eps"`
}

// model returns the configuration of the model, without dropout.
func (o optConfig) model() (opt.Config, error) {
	cfg := opt.Config{Vocab: o.Vocab, Hidden: o.Hidden, Layers: o.Layers, Heads: o.Heads, FFN: o.FFN,
		Positions: o.Positions, LayerNormEps: o.LayerNormEps}
	return cfg, cfg.Validate()
}

// optLM runs kind opt-lm: logits of embeddings and of ids with padding in several places, a loss and its gradient.
func optLM(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config optConfig
	if err := c.config(&config); err != nil {
		return err
	}
	cfg, err := config.model()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	set, err := c.weights(nil)
	if err != nil {
		return err
	}
	inputs, err := c.optInputs(cfg)
	if err != nil {
		return err
	}
	store, err := set.store(opt.Params(cfg))
	if err != nil {
		return err
	}
	return c.compareProgram(k, program{store: store, inputs: inputs, forward: func(scope *mlx.Scope, in []*Node) []output {
		return optOutputs(scope, cfg, in)
	}})
}

// paddings are where the recorded inputs have their padding: behind the text, in front, and inside.
var paddings = []string{"right", "left", "hole"}

// optInputs reads embeddings and mask of every padding, then labels/right and input_ids/left.
func (c *Case) optInputs(cfg opt.Config) ([]*tensors.Tensor, error) {
	var inputs []*tensors.Tensor
	for _, s := range paddings {
		embeds, err := c.floatInput("inputs_embeds/" + s)
		if err != nil {
			return nil, err
		}
		mask, err := c.maskInput("attention_mask/" + s)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, embeds, mask)
	}
	labels, err := c.labelInput("labels/right", cfg.Vocab)
	if err != nil {
		return nil, err
	}
	ids, err := c.idInput("input_ids/left", cfg.Vocab)
	if err != nil {
		return nil, err
	}
	return append(inputs, labels, ids), nil
}

// optOutputs names the outputs as the recorded cases do.
func optOutputs(scope *mlx.Scope, cfg opt.Config, in []*Node) []output {
	logits := func(embeds, mask *Node) *Node {
		hidden := opt.Forward(scope, cfg, opt.Input{Embeds: embeds, Mask: mask}, nil).Hidden
		return opt.Logits(scope, cfg, hidden)
	}
	var outputs []output
	for i, s := range paddings {
		embeds, mask := in[2*i], in[2*i+1]
		y := logits(embeds, mask)
		outputs = append(outputs, output{"logits/" + s, whereMask(y, mask)})
		if s == "right" {
			loss := opt.LMLoss(y, in[6])
			outputs = append(outputs, output{"loss", Reshape(loss, 1)},
				output{"grad/inputs_embeds/right", Gradient(loss, embeds)[0]})
		}
	}
	byID := logits(opt.Embed(scope, in[7], dtypes.Float32), in[3])
	return append(outputs, output{"logits/left_ids", whereMask(byID, in[3])})
}
