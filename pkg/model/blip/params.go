package blip

import (
	"fmt"

	"blip2/pkg/model"
	"blip2/pkg/model/bert"
	"blip2/pkg/model/vit"
)

// Params lists the captioner's tensors under LAVIS names. The decoder of the LM head is the word table and is not
// listed twice.
func Params(cfg Config) []model.Param {
	return append(model.Prefixed("visual_encoder.", vit.Params(cfg.Vision)), DecoderParams(cfg)...)
}

// DecoderParams lists the text decoder's tensors.
func DecoderParams(cfg Config) []model.Param {
	b := cfg.bert()
	const embeddings = "bert.embeddings."
	params := b.EmbeddingParams(embeddings, cfg.Vocab, cfg.MaxPositions)
	params = append(params, model.LayerNorm(embeddings+"LayerNorm", cfg.Hidden)...)
	for i := range cfg.Layers {
		layer := fmt.Sprintf("bert.encoder.layer.%d.", i)
		params = append(params, b.AttentionParams(layer, bert.SelfAttention, cfg.Hidden)...)
		params = append(params, b.AttentionParams(layer, bert.CrossAttention, cfg.Vision.Width)...)
		params = append(params, b.FeedForwardParams(layer, "")...)
	}
	params = append(params, b.HeadParams("cls.predictions.", cfg.Vocab)...)
	return model.Prefixed("text_decoder.", params)
}
