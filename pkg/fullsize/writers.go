package fullsize

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/model/blip"
	"blip2/pkg/model/nn"
	"blip2/pkg/stage1"
	"blip2/pkg/stage2"
)

// writer is how a network writes texts.
type writer struct {
	// inputs makes those of prefill.
	inputs  func(r *random) []*tensors.Tensor
	prefill generate.Prefill
	advance generate.Advance
	kept    kept
}

// kept says how many numbers a picture's keys and values must be.
type kept struct {
	picture int64 // what cross-attention reads
	prompt  int64 // tokens that stand in front of the new ones and that self-attention reads
	token   int64 // numbers per token
}

// bytes is the size for texts of so many new tokens: what stands in front of them once for all texts of a picture,
// filled up to a multiple of the texts. tiled is the usual way, which keeps the prompt for every text (spec/stage2.md
// 8).
func (k kept) bytes(s Sizes, texts, newTokens int) (once, tiled int64) {
	size, n := int64(s.Batch*s.Compute.Size()), int64(texts)
	own := n * int64(newTokens) * k.token
	filled := (k.prompt + n - 1) / n * n
	return size * (k.picture + filled*k.token + own), size * (k.picture + n*k.prompt*k.token + own)
}

// languageModel writes behind embeddings of the given width, as those of a picture's queries and a prompt are.
func languageModel(s Sizes, d stage2.Decoder, width int) writer {
	d.LLM = func(scope *mlx.Scope) *mlx.Scope { return scope }
	d.Prefix = func(_ *mlx.Scope, in []*Node) (embeds, mask *Node) { return nn.Cast(in[0], s.Compute), in[1] }
	w := writer{prefill: d.Prefill, advance: d.Advance, inputs: func(r *random) []*tensors.Tensor {
		return []*tensors.Tensor{r.normal(s.Batch, s.Tokens, width), constant(1, s.Batch, s.Tokens)}
	}}
	if c := d.OPT; c != nil {
		w.kept = kept{prompt: int64(s.Tokens), token: int64(2 * c.Layers * c.Hidden)}
		return w
	}
	token := int64(2 * d.T5.DecoderLayers * d.T5.Heads * d.T5.HeadDim) // the decoder has one in front of its texts
	w.kept = kept{picture: int64(s.Tokens) * token, prompt: 1, token: token}
	return w
}

// blipWriter writes about features of pictures behind a prompt of [DEC] and words.
func blipWriter(s Sizes, cfg blip.Config) writer {
	token := int64(2 * cfg.Layers * cfg.Hidden)
	return writer{
		inputs: func(r *random) []*tensors.Tensor {
			return append([]*tensors.Tensor{r.normal(s.Batch, cfg.Vision.Tokens(), cfg.Vision.Width)},
				text(s.Batch, s.Tokens, cfg.Vocab)(r)...)
		},
		prefill: func(scope *mlx.Scope, in []*Node, room nn.Room) (*Node, []*Node, []*Node) {
			return blip.Prefill(scope, cfg, nn.Cast(in[0], s.Compute), in[1], in[2], room)
		},
		advance: func(scope *mlx.Scope, fixed, cache []*Node, parents, tokens *Node) (*Node, []*Node) {
			return blip.Advance(scope, cfg, fixed, cache, parents, tokens)
		},
		kept: kept{picture: int64(cfg.Vision.Tokens()) * token, prompt: int64(s.Tokens), token: token},
	}
}

// qformerWriter writes about the keys and values of pictures' queries behind a prompt of [DEC] and words.
func qformerWriter(s Sizes, cfg stage1.Config) writer {
	cfg.Compute = s.Compute
	q := cfg.QFormer
	return writer{
		inputs: func(r *random) []*tensors.Tensor {
			return append([]*tensors.Tensor{r.normal(s.Batch, 2*q.Layers, q.Heads, q.Queries, q.Hidden/q.Heads)},
				text(s.Batch, s.Tokens, q.Vocab)(r)...)
		},
		prefill: cfg.Prefill, advance: cfg.Advance,
		kept: kept{prompt: int64(q.Queries + s.Tokens), token: int64(2 * q.Layers * q.Hidden)},
	}
}
