package qformer

import (
	"fmt"

	"blip2/pkg/model"
)

// Config holds the Q-Former's dimensions.
type Config struct {
	Hidden             int     // H: features per token
	Layers             int     // transformer layers
	Heads              int     // attention heads
	Intermediate       int     // hidden width of the feed-forward networks
	Queries            int     // Q: learned query tokens
	CrossAttentionFreq int     // layer l attends to the picture if l mod this = 0
	EncoderWidth       int     // W: features of the image encoder
	Vocab              int     // word pieces, [DEC] included as the last id
	MaxPositions       int     // longest text
	LayerNormEps       float64 // 1e-12
	InitializerRange   float64 // spread of weights drawn from scratch; 0 means BERT's 0.02
	Dropout            float64 // rate on embeddings, attention probabilities and sublayer outputs, in training
}

// HasCross reports whether the layer attends to the picture.
func (c Config) HasCross(layer int) bool { return layer%c.CrossAttentionFreq == 0 }

// Validate reports dimensions that do not fit together.
func (c Config) Validate() error {
	switch {
	case c.Heads <= 0 || c.Hidden%c.Heads != 0:
		return fmt.Errorf("qformer hidden size %d is not divisible by %d heads", c.Hidden, c.Heads)
	case c.CrossAttentionFreq <= 0:
		return fmt.Errorf("qformer cross_attention_freq %d must be at least 1", c.CrossAttentionFreq)
	}
	return nil
}

// initStd is the spread of weights drawn from scratch (spec/model.md 5.5).
func (c Config) initStd() float64 {
	if c.InitializerRange == 0 {
		return 0.02
	}
	return c.InitializerRange
}

// Params lists the Q-Former's tensors under LAVIS names: query_tokens, Qformer.bert.*, Qformer.cls.*. The decoder of
// the LM head is the word embedding table and is not listed twice. Without text, the tensors that only texts use
// (embedding tables, text feed-forward networks, LM head) are left out, as in stage 2.
func Params(cfg Config, text bool) []model.Param {
	h := cfg.Hidden
	params := []model.Param{{Name: "query_tokens", Shape: []int{1, cfg.Queries, h}, Init: model.Normal(cfg.initStd())}}
	draw := drawn{std: cfg.initStd()}
	if text {
		params = append(params,
			draw.matrix("Qformer.bert.embeddings.word_embeddings", cfg.Vocab, h),
			draw.matrix("Qformer.bert.embeddings.position_embeddings", cfg.MaxPositions, h))
	}
	params = append(params, model.LayerNorm("Qformer.bert.embeddings.LayerNorm", h)...)
	for i := range cfg.Layers {
		layer := fmt.Sprintf("Qformer.bert.encoder.layer.%d.", i)
		params = append(params, draw.layerParams(cfg, layer, cfg.HasCross(i), text)...)
	}
	if text {
		head := "Qformer.cls.predictions."
		params = append(params, draw.linear(head+"transform.dense", h, h)...)
		params = append(params, model.LayerNorm(head+"transform.LayerNorm", h)...)
		params = append(params, model.Param{Name: head + "bias", Shape: []int{cfg.Vocab}})
	}
	return params
}

// drawn declares tensors whose weights start from N(0, std²).
type drawn struct{ std float64 }

func (d drawn) layerParams(cfg Config, layer string, cross, text bool) []model.Param {
	h := cfg.Hidden
	params := d.attentionParams(layer+"attention.", h, h)
	if cross {
		params = append(params, d.attentionParams(layer+"crossattention.", h, cfg.EncoderWidth)...)
	}
	sides := []string{"_query"}
	if text {
		sides = append(sides, "")
	}
	for _, side := range sides {
		params = append(params, d.linear(layer+"intermediate"+side+".dense", cfg.Intermediate, h)...)
		params = append(params, d.linear(layer+"output"+side+".dense", h, cfg.Intermediate)...)
		params = append(params, model.LayerNorm(layer+"output"+side+".LayerNorm", h)...)
	}
	return params
}

func (d drawn) attentionParams(name string, h, keyWidth int) []model.Param {
	params := d.linear(name+"self.query", h, h)
	params = append(params, d.linear(name+"self.key", h, keyWidth)...)
	params = append(params, d.linear(name+"self.value", h, keyWidth)...)
	params = append(params, d.linear(name+"output.dense", h, h)...)
	return append(params, model.LayerNorm(name+"output.LayerNorm", h)...)
}

func (d drawn) matrix(name string, rows, columns int) model.Param {
	return model.Param{Name: name + ".weight", Shape: []int{rows, columns}, Init: model.Normal(d.std)}
}

func (d drawn) linear(name string, out, in int) []model.Param {
	return []model.Param{d.matrix(name, out, in), {Name: name + ".bias", Shape: []int{out}}}
}
