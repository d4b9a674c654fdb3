package lm

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/config"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/t5"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/tokenizer"
	"blip2/pkg/trainer"
)

// newT5 is a T5 with as many layers in its encoder as in its decoder.
func newT5(c *config.LM, tok tokenizer.Tokenizer, texts [][]string) (*network, error) {
	m := c.Model
	cfg := t5.Config{Vocab: tok.VocabSize(), Hidden: m.Hidden, HeadDim: m.Hidden / m.Heads, Heads: m.Heads, FFN: m.FFN,
		EncoderLayers: m.Layers, DecoderLayers: m.Layers, Activation: nn.GELU, Buckets: 32, MaxDistance: 128,
		RMSNormEps: 1e-6, Dropout: m.Dropout}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	p := newPairs(tok, texts, m.Positions, c.Seed)
	return &network{spec: published.Spec{Model: naming.T5, T5: &cfg}, vocab: cfg.Vocab,
		params: t5Params(cfg, m.InitStd), task: NewT5Task(cfg),
		batch: func(step, size int) []*tensors.Tensor {
			read, written := p.batch(step, size)
			return append(padded(read, p.read), padded(written, p.written)...)
		}}, nil
}

// t5Params are the tensors of a T5 that starts from scratch. Embeddings and LM head start as narrow as OPT's: from T5's
// own spread, which is 1, the first logits are so far apart that a short training is over before they are mended.
func t5Params(cfg t5.Config, std float64) []model.Param {
	params := t5.Params(cfg)
	for i, p := range params {
		if p.Name == "shared.weight" || p.Name == "lm_head.weight" {
			params[i].Init = model.Normal(std)
		}
	}
	return params
}

// NewT5Task is a T5 as the trainer sees it: the decoder learns the ids of the third tensor [rows, L] from what the
// encoder reads, those of the first [rows, N]; behind each stands its mask, 1 at tokens.
func NewT5Task(cfg t5.Config) trainer.Task {
	return trainer.Task{Params: t5.Params(cfg),
		Loss: func(scope *mlx.Scope, in []*Node, rng *nn.RNG) (*Node, []*Node) {
			encoded := t5.Encode(scope, cfg, t5.Embed(scope, in[0], dtypes.Float32), in[1], rng)
			labels := labelsOf(in[2], in[3])
			out := t5.Decode(scope, cfg, t5.Input{Embeds: t5.Embed(scope, t5.DecoderIDs(labels), dtypes.Float32),
				Mask: in[3], Cross: t5.NewCross(scope, cfg, encoded, in[1])}, rng)
			return nn.HeadLoss(out.Hidden, t5.Head(scope, out.Hidden), labels, 0), nil
		}}
}

// padded are ids and mask [rows, length] of T5's rows.
func padded(rows [][]int32, length int) []*tensors.Tensor {
	ids, mask, width := tokenizer.Pad(rows, length, t5.StartID, tokenizer.Right)
	return []*tensors.Tensor{tensors.FromFlatDataAndDimensions(ids, len(rows), width),
		tensors.FromFlatDataAndDimensions(mask, len(rows), width)}
}

// pairs makes the texts of T5's training: prefix language modelling, as in stage 2, behind other captions of the
// picture in the place of its queries.
type pairs struct {
	texts         [][][]int32 // every picture's captions, as ids without </s>
	end           int32       // </s>
	read, written int         // tokens of the longest text of encoder and decoder, </s> included
	seed          int64
}

func newPairs(tok tokenizer.Tokenizer, texts [][]string, positions int, seed int64) *pairs {
	p := &pairs{texts: encodeAll(tok, texts, true), end: tok.Special().EOS, read: positions, seed: seed}
	for _, captions := range p.texts {
		for _, ids := range captions {
			p.written = min(max(p.written, len(ids)+1), positions)
		}
	}
	return p
}

// batch makes the rows of a step from the seed and the number of the step. Of a picture's captions in a drawn order the
// last of a drawn number is cut in two, in front of its middle; the encoder reads its first part behind the others, the
// decoder writes the rest. What is too long for the encoder is cut off in front, where it matters least.
func (p *pairs) batch(step, size int) (read, written [][]int32) {
	rng := drawing(p.seed, step)
	for range size {
		captions := p.texts[rng.IntN(len(p.texts))]
		order := rng.Perm(len(captions))
		others := order[:rng.IntN(len(order))]
		target := captions[order[len(others)]]
		var before []int32
		for _, k := range others {
			before = append(before, captions[k]...)
		}
		at := rng.IntN(len(target)/2 + 1)
		before = append(before, target[:at]...)
		before = before[max(len(before)-(p.read-1), 0):]
		rest := target[at:]
		rest = rest[:min(len(rest), p.written-1)]
		read = append(read, append(append([]int32{}, before...), p.end))
		written = append(written, append(append([]int32{}, rest...), p.end))
	}
	return read, written
}
