package stage2

import (
	"context"
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/model/t5"
	"blip2/pkg/tokenizer"
)

// Generator writes texts about pictures with a model whose weights are in a store.
type Generator struct {
	cfg     Config
	program *generate.CachedProgram
}

// NewGenerator prepares the programs. The caller closes the generator.
func NewGenerator(backend compute.Backend, store *model.Store, cfg Config) (*Generator, error) {
	d := cfg.Decoder()
	program, err := generate.NewCachedProgram(backend, store, d.Prefill, d.Advance)
	if err != nil {
		return nil, err
	}
	return &Generator{cfg, program}, nil
}

// Decoder is how the model writes texts about pixels [B, 3, S, S] behind prompts, ids and mask [B, L].
func (c Config) Decoder() Decoder {
	return Decoder{OPT: c.OPT, T5: c.T5, LLM: c.llm, Prefix: func(scope *model.Scope, in []*Node) (embeds, mask *Node) {
		return Prefix(scope, c, QueryEmbeds(scope, c, in[0]), in[1], in[2])
	}}
}

// Close frees the compiled programs.
func (g *Generator) Close() { g.program.Close() }

// Prompts are a batch of prompts, padded to one length L: on the left for OPT, on the right for T5.
type Prompts struct {
	Rows, Length int
	IDs, Mask    []int32 // [Rows·Length]; the mask is 1 at tokens
}

// Ids of padding.
const (
	optPad = 1
	t5Pad  = 0
)

// NewPrompts pads token ids, special tokens included, as the language model needs them.
func (c Config) NewPrompts(ids [][]int32) Prompts {
	pad, side := int32(optPad), tokenizer.Left
	if c.T5 != nil {
		pad, side = t5Pad, tokenizer.Right
	}
	p := Prompts{Rows: len(ids)}
	p.IDs, p.Mask, p.Length = tokenizer.Pad(ids, 0, pad, side)
	return p
}

// Generate writes texts about pictures [rows, 3, S, S] behind their prompts. Penalties see new tokens only, and T5's
// start token, as where the prompt is given by embeddings; under generate.LenRulePaper they see OPT's prompts, padding
// included.
func (g *Generator) Generate(ctx context.Context, pixels *tensors.Tensor, p Prompts, o generate.Options) (
	[][]generate.Text, error) {
	if n := pixels.Shape().Dimensions[0]; n != p.Rows {
		return nil, fmt.Errorf("%d pictures and %d prompts", n, p.Rows)
	}
	for row := range p.Rows {
		if !slices.Contains(p.Mask[row*p.Length:][:p.Length], 1) {
			return nil, fmt.Errorf("prompt %d has no tokens: encode it with its special tokens", row)
		}
	}
	if c := g.cfg.OPT; c != nil && g.cfg.QFormer.Queries+p.Length+o.MaxNewTokens > c.Positions {
		return nil, fmt.Errorf("%d queries, a prompt of %d and %d new tokens are more than OPT's %d positions",
			g.cfg.QFormer.Queries, p.Length, o.MaxNewTokens, c.Positions)
	}
	ids, mask := tensors.FromFlatDataAndDimensions(p.IDs, p.Rows, p.Length),
		tensors.FromFlatDataAndDimensions(p.Mask, p.Rows, p.Length)
	defer ids.MustFinalizeAll()
	defer mask.MustFinalizeAll()
	seen := make([][]int32, p.Rows)
	switch {
	case g.cfg.T5 != nil:
		seen = slices.Repeat([][]int32{{t5.StartID}}, p.Rows)
	case o.LenRule == generate.LenRulePaper:
		seen = slices.Collect(slices.Chunk(p.IDs, p.Length))
	}
	return g.program.Generate(ctx, []*tensors.Tensor{pixels, ids, mask}, seen, o)
}
