package qformer

import (
	"fmt"

	"blip2/pkg/model"
	"blip2/pkg/model/bert"
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
	if err := c.bert().Validate(); err != nil {
		return fmt.Errorf("qformer %w", err)
	}
	if c.CrossAttentionFreq <= 0 {
		return fmt.Errorf("qformer cross_attention_freq %d must be at least 1", c.CrossAttentionFreq)
	}
	return nil
}

// bert returns what the Q-Former's layers share with BERT's.
func (c Config) bert() bert.Config {
	return bert.Config{Hidden: c.Hidden, Heads: c.Heads, Intermediate: c.Intermediate, LayerNormEps: c.LayerNormEps,
		InitializerRange: c.InitializerRange, Dropout: c.Dropout}
}

// Params lists the Q-Former's tensors under LAVIS names: query_tokens, Qformer.bert.*, Qformer.cls.*. The decoder of
// the LM head is the word embedding table and is not listed twice. Without text, the tensors that only texts use
// (embedding tables, text feed-forward networks, LM head) are left out, as in stage 2.
func Params(cfg Config, text bool) []model.Param {
	b := cfg.bert()
	params := []model.Param{
		{Name: "query_tokens", Shape: []int{1, cfg.Queries, cfg.Hidden}, Init: model.Normal(b.InitStd())},
	}
	const embeddings = "Qformer.bert.embeddings."
	if text {
		params = append(params, b.EmbeddingParams(embeddings, cfg.Vocab, cfg.MaxPositions)...)
	}
	params = append(params, model.LayerNorm(embeddings+"LayerNorm", cfg.Hidden)...)
	for i := range cfg.Layers {
		layer := fmt.Sprintf("Qformer.bert.encoder.layer.%d.", i)
		params = append(params, b.AttentionParams(layer, bert.SelfAttention, cfg.Hidden)...)
		if cfg.HasCross(i) {
			params = append(params, b.AttentionParams(layer, bert.CrossAttention, cfg.EncoderWidth)...)
		}
		params = append(params, b.FeedForwardParams(layer, querySide)...)
		if text {
			params = append(params, b.FeedForwardParams(layer, textSide)...)
		}
	}
	if text {
		params = append(params, b.HeadParams("Qformer.cls.predictions.", cfg.Vocab)...)
	}
	return params
}

// HeadParams lists what stage 1 has beside the Q-Former and ln_vision (spec/model.md 5.4): the projections to the
// embedDim ITC features, the ITM head, and the temperature. Linear layers start as PyTorch starts them.
func HeadParams(cfg Config, embedDim int, temperature float64) []model.Param {
	params := ProjectionParams(cfg, "vision_proj", embedDim)
	params = append(params, ProjectionParams(cfg, "text_proj", embedDim)...)
	params = append(params, ProjectionParams(cfg, "itm_head", 2)...)
	return append(params, model.Param{Name: "temp", Init: model.Constant(temperature)})
}

// ProjectionParams declares a linear layer from the Q-Former to width features, which starts as PyTorch starts it.
func ProjectionParams(cfg Config, name string, width int) []model.Param {
	draw := model.Uniform(model.LinearBound(cfg.Hidden))
	return []model.Param{
		{Name: name + ".weight", Shape: []int{width, cfg.Hidden}, Init: draw},
		{Name: name + ".bias", Shape: []int{width}, Init: draw},
	}
}
