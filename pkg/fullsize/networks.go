package fullsize

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/blip"
	"blip2/pkg/model/clip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/pretrained"
	"blip2/pkg/published"
	"blip2/pkg/stage1"
)

// usualTokens is the length of a prompt where nothing else is asked for: 32 queries and as many words.
const usualTokens = 64

// networks are all networks by name.
func networks() map[string]func() (Network, error) {
	all := map[string]func() (Network, error){
		"vit-g": func() (Network, error) {
			cfg, err := vit.Preset("eva-vit-g14")
			return NewVision(cfg), err
		},
		"vit-l-qformer": func() (Network, error) {
			cfg, err := vit.Preset("clip-vit-l14")
			return NewImageSide(stage1OfBERTBase(cfg)), err
		},
		"clip-vit-l14": func() (Network, error) {
			cfg, err := clip.Preset("clip-vit-l14")
			return NewCLIP(cfg), err
		},
		"blip-large": func() (Network, error) {
			cfg, err := blip.Preset("blip-large")
			return NewBLIP(cfg), err
		},
	}
	for _, name := range opt.Presets() {
		all[name] = func() (Network, error) {
			cfg, err := opt.Preset(name)
			return NewOPT(cfg), err
		}
	}
	for _, name := range t5.Presets() {
		all[name] = func() (Network, error) {
			cfg, err := t5.Preset(name)
			return NewT5(cfg), err
		}
	}
	return all
}

// NewVision is BLIP-2's image encoder alone: pictures to the features of all patches.
func NewVision(cfg vit.Config) Network {
	return Network{part: pretrained.VisionPart(cfg), passes: func(s Sizes) []pass {
		return []pass{{
			name:   "image",
			inputs: pixels(s.Batch, cfg),
			build: func(scope *mlx.Scope, in, _ []*Node) (*Node, []*Node) {
				features := vit.Forward(scope.At("visual_encoder"), cfg, nn.Cast(in[0], s.Compute))
				return nn.Float32(features), nil
			},
			flops: float64(s.Batch) * cfg.FLOPs(),
		}}
	}}
}

// stage1OfBERTBase is a stage-1 model whose Q-Former is BERT-base with 32 queries.
func stage1OfBERTBase(encoder vit.Config) stage1.Config {
	return stage1.Config{Vision: encoder, FreezeVision: true, LNVisionEps: published.LNVisionEps,
		QFormer: qformer.Config{Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, Queries: 32, CrossAttentionFreq: 2,
			EncoderWidth: encoder.Width, Vocab: 30523, MaxPositions: 512, LayerNormEps: 1e-12},
		EmbedDim: 256}
}

// NewImageSide is the image side of a stage-1 model: pictures to the query features that retrieval compares with texts.
func NewImageSide(cfg stage1.Config) Network {
	params := model.Prefixed(naming.VisionPrefix, vit.Params(cfg.Vision))
	params = append(params, model.LayerNorm("ln_vision", cfg.Vision.Width)...)
	params = append(params, qformer.Params(cfg.QFormer, false)...)
	params = append(params, qformer.ProjectionParams(cfg.QFormer, "vision_proj", cfg.EmbedDim)...)
	part := pretrained.Part{Part: naming.Part{What: "stage-1 model", Params: params, Tables: tablesOf(naming.BLIP2Stage1),
		Elsewhere: []naming.Exception{{Pattern: "**", Reason: "not of the image side"}}}}
	return Network{part: part.Resizing(cfg.Vision), passes: func(s Sizes) []pass {
		cfg := cfg
		cfg.Compute = s.Compute
		return []pass{{
			name:   "image features",
			inputs: pixels(s.Batch, cfg.Vision),
			build: func(scope *mlx.Scope, in, _ []*Node) (*Node, []*Node) {
				_, features := stage1.ImageFeatures(scope, cfg, in[0])
				return features, nil
			},
			flops: float64(s.Batch) * stage1.ImageFLOPs(cfg),
		}}
	}}
}

// NewOPT reads a prompt, of which the logits of the last position count, and then computes one more token.
func NewOPT(cfg opt.Config) Network {
	n := Network{Tokens: usualTokens, MaxTokens: cfg.Positions - 1, opt: &cfg}
	n.part = pretrained.Part{Part: naming.Part{What: "language model", Params: opt.Params(cfg),
		Tables: naming.LLMTables(naming.OPT, "")}}
	n.passes = func(s Sizes) []pass {
		forward := func(scope *mlx.Scope, in []*Node, cache *nn.Cache) (*Node, []*Node) {
			out := opt.Forward(scope, cfg, opt.Input{Embeds: opt.Embed(scope, in[0], s.Compute), Mask: in[1], Cache: cache,
				Room: nn.Room{Tokens: 1, Texts: 1}}, nil)
			return opt.Logits(scope, cfg, last(out.Hidden)), out.Cache.Nodes()
		}
		batch := float64(s.Batch)
		return []pass{{
			name:   "prompt",
			inputs: text(s.Batch, s.Tokens, cfg.Vocab),
			build: func(scope *mlx.Scope, in, _ []*Node) (*Node, []*Node) {
				return forward(scope, in, nil)
			},
			flops: batch * (cfg.FLOPs(s.Tokens, s.Tokens) + cfg.HeadFLOPs(1)),
		}, {
			name:   "next token",
			inputs: text(s.Batch, 1, cfg.Vocab),
			build: func(scope *mlx.Scope, in, past []*Node) (*Node, []*Node) {
				return forward(scope, in, nn.CacheOf(past))
			},
			flops:   batch * (cfg.FLOPs(1, s.Tokens+1) + cfg.HeadFLOPs(1)),
			step:    true,
			lookups: []string{"model.decoder.embed_positions.weight"},
		}}
	}
	return n
}

// NewT5 encodes a text, and then decodes one token.
func NewT5(cfg t5.Config) Network {
	// Positions are relative: the limit is only to keep mistakes from filling the memory.
	n := Network{Tokens: usualTokens, MaxTokens: 1 << 14, t5: &cfg}
	n.part = pretrained.Part{Part: naming.Part{What: "language model", Params: t5.Params(cfg),
		Tables: naming.LLMTables(naming.T5, "")}}
	n.passes = func(s Sizes) []pass {
		batch := float64(s.Batch)
		return []pass{{
			name:   "encoder",
			inputs: text(s.Batch, s.Tokens, cfg.Vocab),
			build: func(scope *mlx.Scope, in, _ []*Node) (*Node, []*Node) {
				encoded := t5.Encode(scope, cfg, t5.Embed(scope, in[0], s.Compute), in[1], nil)
				return nn.Float32(encoded), t5.NewCross(scope, cfg, encoded, in[1]).Nodes()
			},
			flops: batch * (cfg.EncodeFLOPs(s.Tokens) + cfg.CrossFLOPs(s.Tokens)),
		}, {
			name:   "decoder step",
			inputs: text(s.Batch, 1, cfg.Vocab),
			build: func(scope *mlx.Scope, in, past []*Node) (*Node, []*Node) {
				out := t5.Decode(scope, cfg, t5.Input{Embeds: t5.Embed(scope, in[0], s.Compute), Mask: in[1],
					Cross: t5.CrossOf(past)}, nil)
				return t5.Logits(scope, cfg, last(out.Hidden)), nil
			},
			flops:   batch * (cfg.DecodeFLOPs(1, 1, s.Tokens) + cfg.HeadFLOPs(1)),
			step:    true,
			lookups: []string{"shared.weight", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"},
		}}
	}
	return n
}

// NewCLIP encodes pictures and texts.
func NewCLIP(cfg clip.Config) Network {
	n := Network{Tokens: cfg.Text.Context, MaxTokens: cfg.Text.Context}
	n.part = pretrained.Part{Part: naming.Part{What: "CLIP", Params: clip.Params(cfg), Tables: tablesOf(naming.CLIP)}}
	n.passes = func(s Sizes) []pass {
		batch := float64(s.Batch)
		return []pass{{
			name:   "image",
			inputs: pixels(s.Batch, cfg.Image),
			build: func(scope *mlx.Scope, in, _ []*Node) (*Node, []*Node) {
				return nn.Float32(clip.ImageFeatures(scope, cfg, nn.Cast(in[0], s.Compute))), nil
			},
			flops: batch * cfg.ImageFLOPs(),
		}, {
			name: "text",
			inputs: func(r *random) []*tensors.Tensor { // the end token is the one of the largest id
				return []*tensors.Tensor{r.ids(s.Batch, s.Tokens, cfg.Text.Vocab-1, int32(cfg.Text.Vocab-1))}
			},
			build: func(scope *mlx.Scope, in, _ []*Node) (*Node, []*Node) {
				return nn.Float32(clip.TextFeatures(scope, cfg, in[0], s.Compute)), nil
			},
			flops: batch * cfg.TextFLOPs(s.Tokens),
		}}
	}
	return n
}

// promptOfBLIP is the length of the text that its captions begin with: [DEC] a picture of.
const promptOfBLIP = 4

// NewBLIP encodes pictures, and then computes the token behind a short text.
func NewBLIP(cfg blip.Config) Network {
	n := Network{Tokens: promptOfBLIP, MaxTokens: cfg.MaxPositions}
	part := pretrained.Part{Part: naming.Part{What: "BLIP captioner", Params: blip.Params(cfg),
		Tables: tablesOf(naming.BLIPCaption)}}
	n.part = part.Resizing(cfg.Vision)
	n.passes = func(s Sizes) []pass {
		batch := float64(s.Batch)
		return []pass{{
			name:   "image",
			inputs: pixels(s.Batch, cfg.Vision),
			build: func(scope *mlx.Scope, in, _ []*Node) (*Node, []*Node) {
				features := blip.EncodeImage(scope, cfg, nn.Cast(in[0], s.Compute))
				var cross []*Node
				for _, kv := range blip.NewCross(scope, cfg, features) {
					cross = append(cross, kv.K, kv.V)
				}
				return nn.Float32(features), cross
			},
			flops: batch * cfg.ImageFLOPs(),
		}, {
			name: "next token",
			inputs: func(r *random) []*tensors.Tensor {
				return []*tensors.Tensor{r.ids(s.Batch, s.Tokens, cfg.Vocab), constant(int32(s.Tokens), s.Batch)}
			},
			build: func(scope *mlx.Scope, in, past []*Node) (*Node, []*Node) {
				var cross []nn.KV
				for i := 0; i < len(past); i += 2 {
					cross = append(cross, nn.KV{K: past[i], V: past[i+1]})
				}
				return blip.NextLogits(scope, cfg, cross, in[0], in[1]), nil
			},
			flops:   batch * cfg.TextFLOPs(s.Tokens, 1),
			step:    true,
			lookups: []string{"text_decoder.bert.embeddings.position_embeddings.weight"},
		}}
	}
	return n
}

// pixels are a batch of pictures for an encoder.
func pixels(batch int, cfg vit.Config) func(r *random) []*tensors.Tensor {
	return func(r *random) []*tensors.Tensor {
		return []*tensors.Tensor{r.normal(batch, 3, cfg.ImageSize, cfg.ImageSize)}
	}
}

// text is a batch of token ids and their mask, without padding.
func text(batch, length, vocab int) func(r *random) []*tensors.Tensor {
	return func(r *random) []*tensors.Tensor {
		return []*tensors.Tensor{r.ids(batch, length, vocab), constant(1, batch, length)}
	}
}

// last is the last position of hidden states [batch, L, D]: [batch, D].
func last(hidden *Node) *Node {
	return Squeeze(SliceAxis(hidden, 1, AxisElem(hidden.Shape().Dimensions[1]-1)), 1)
}
