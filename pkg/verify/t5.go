package verify

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/t5"
)

// t5Config are the config keys of all cases with T5.
type t5Config struct {
	Vocab         int     `json:"llm_vocab"`
	Hidden        int     `json:"llm_hidden"`
	HeadDim       int     `json:"llm_head_dim"`
	Heads         int     `json:"llm_heads"`
	FFN           int     `json:"llm_ffn"`
	EncoderLayers int     `json:"llm_layers"`
	DecoderLayers int     `json:"llm_decoder_layers"`
	Activation    string  `json:"llm_act"`
	Buckets       int     `json:"relative_attention_num_buckets"`
	MaxDistance   int     `json:"relative_attention_max_distance"`
	RMSNormEps    float64 `json:"llm_layer_norm_eps"`
}

// model returns the configuration of the model, without dropout.
func (t t5Config) model() (t5.Config, error) {
	cfg := t5.Config{Vocab: t.Vocab, Hidden: t.Hidden, HeadDim: t.HeadDim, Heads: t.Heads, FFN: t.FFN,
		EncoderLayers: t.EncoderLayers, DecoderLayers: t.DecoderLayers, Activation: nn.Activation(t.Activation),
		Buckets: t.Buckets, MaxDistance: t.MaxDistance, RMSNormEps: t.RMSNormEps}
	return cfg, cfg.Validate()
}

// t5Seq2Seq runs kind t5-seq2seq: encoder and decoder on one batch, the loss, and its gradient at the input.
func t5Seq2Seq(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config t5Config
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
	inputs, err := c.t5Inputs(cfg)
	if err != nil {
		return err
	}
	store, err := set.store(t5.Params(cfg))
	if err != nil {
		return err
	}
	return c.compareProgram(k, program{store: store, inputs: inputs, forward: func(scope *mlx.Scope, in []*Node) []output {
		return t5Outputs(scope, cfg, in[0], in[1], in[2], in[3])
	}})
}

// t5Inputs reads the encoder's embeddings and mask, the labels and the decoder's mask.
func (c *Case) t5Inputs(cfg t5.Config) ([]*tensors.Tensor, error) {
	embeds, err := c.floatInput("inputs_embeds")
	if err != nil {
		return nil, err
	}
	mask, err := c.maskInput("attention_mask")
	if err != nil {
		return nil, err
	}
	labels, err := c.labelInput("labels", cfg.Vocab)
	if err != nil {
		return nil, err
	}
	decoderMask, err := c.maskInput("decoder_attention_mask")
	if err != nil {
		return nil, err
	}
	return []*tensors.Tensor{embeds, mask, labels, decoderMask}, nil
}

// t5Outputs names the outputs as the recorded cases do.
func t5Outputs(scope *mlx.Scope, cfg t5.Config, embeds, mask, labels, decoderMask *Node) []output {
	encoded := t5.Encode(scope, cfg, embeds, mask, nil)
	decoded := t5.Decode(scope, cfg, t5.Input{
		Embeds: t5.Embed(scope, t5.DecoderIDs(labels), dtypes.Float32),
		Mask:   decoderMask,
		Cross:  t5.NewCross(scope, cfg, encoded, mask),
	}, nil)
	logits := t5.Logits(scope, cfg, decoded.Hidden)
	loss := t5.Loss(logits, labels)
	return []output{
		{"encoder_last_hidden_state", whereMask(encoded, mask)}, {"logits", whereMask(logits, decoderMask)},
		{"loss", Reshape(loss, 1)}, {"grad/inputs_embeds", Gradient(loss, embeds)[0]},
	}
}
