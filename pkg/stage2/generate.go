package stage2

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/mesh"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/t5"
	"blip2/pkg/tokenizer"
)

// Generator writes texts about pictures with a model whose weights are in a store.
type Generator struct {
	cfg     Config
	encoder *mesh.Exec
	program *generate.CachedProgram
}

// NewGenerator prepares the programs. The caller closes the generator.
func NewGenerator(backend compute.Backend, store *model.Store, cfg Config) (*Generator, error) {
	encoder := mesh.NewExec(backend, store, "image side", func(scope *model.Scope, pixels []*Node) []*Node {
		return []*Node{nn.Float32(QueryEmbeds(scope, cfg, pixels[0]))}
	})
	d := cfg.decoder(func(_ *model.Scope, queries *Node) *Node { return nn.Cast(queries, cfg.compute()) })
	program, err := generate.NewCachedProgram(backend, store, d.Prefill, d.Advance)
	if err != nil {
		return nil, err
	}
	return &Generator{cfg, encoder, program}, nil
}

// Decoder is how the model writes texts about pixels [B, 3, S, S] behind prompts, ids and mask [B, L].
func (c Config) Decoder() Decoder {
	return c.decoder(func(scope *model.Scope, pixels *Node) *Node { return QueryEmbeds(scope, c, pixels) })
}

// decoder is how the model writes texts about what queries turns into query embeddings.
func (c Config) decoder(queries func(scope *model.Scope, pictures *Node) *Node) Decoder {
	return Decoder{OPT: c.OPT, T5: c.T5, LLM: c.llm, Prefix: func(scope *model.Scope, in []*Node) (embeds, mask *Node) {
		return Prefix(scope, c, queries(scope, in[0]), in[1], in[2])
	}}
}

// Close frees the compiled programs.
func (g *Generator) Close() {
	g.encoder.Close()
	g.program.Close()
}

// Stats says what the language model's programs have done.
func (g *Generator) Stats() generate.Stats { return g.program.Stats() }

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

// promptBuckets are the lengths that prompts are padded to for the device, so that few programs are compiled; longer
// ones become multiples of the last. What stands in padding changes nothing: positions follow the mask.
var promptBuckets = []int{8, 16, 24, 32, 48, 64, 96, 128}

// bucket is the length on the device of prompts of the given length, at most limit where that is enough.
func bucket(length, limit int) int {
	last := promptBuckets[len(promptBuckets)-1]
	size := (length + last - 1) / last * last
	if i, _ := slices.BinarySearch(promptBuckets, length); i < len(promptBuckets) {
		size = promptBuckets[i]
	}
	return max(min(size, limit), length)
}

// padded returns ids and mask [Rows, length] of the prompts with more padding, on the side where it stands already.
func (c Config) padded(p Prompts, length int) (ids, mask []int32) {
	pad, at := int32(optPad), length-p.Length
	if c.T5 != nil {
		pad, at = t5Pad, 0
	}
	ids, mask = slices.Repeat([]int32{pad}, p.Rows*length), make([]int32, p.Rows*length)
	for row := range p.Rows {
		copy(ids[row*length+at:], p.IDs[row*p.Length:][:p.Length])
		copy(mask[row*length+at:], p.Mask[row*p.Length:][:p.Length])
	}
	return ids, mask
}

// Encode turns pictures [rows, 3, S, S] into their query embeddings [rows, Q, D], float32: all that Write reads of
// them, for any number of prompts.
func (g *Generator) Encode(ctx context.Context, pixels *tensors.Tensor) (*tensors.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := g.encoder.Run(pixels)
	if err != nil {
		return nil, fmt.Errorf("encoding the pictures: %w", err)
	}
	return out[0], nil
}

// Generate is Encode, then Write.
func (g *Generator) Generate(ctx context.Context, pixels *tensors.Tensor, p Prompts, o generate.Options) (
	[][]generate.Text, error) {
	if err := g.check(pixels.Shape().Dimensions[0], p, o); err != nil {
		return nil, err
	}
	queries, err := g.Encode(ctx, pixels)
	if err != nil {
		return nil, err
	}
	defer queries.MustFinalizeAll()
	return g.Write(ctx, queries, p, o)
}

// check reports prompts that do not fit the pictures or the model.
func (g *Generator) check(pictures int, p Prompts, o generate.Options) error {
	if pictures != p.Rows {
		return fmt.Errorf("%d pictures and %d prompts", pictures, p.Rows)
	}
	for row := range p.Rows {
		if !slices.Contains(p.Mask[row*p.Length:][:p.Length], 1) {
			return fmt.Errorf("prompt %d has no tokens: encode it with its special tokens", row)
		}
	}
	if c := g.cfg.OPT; c != nil && g.cfg.QFormer.Queries+p.Length+o.MaxNewTokens > c.Positions {
		return fmt.Errorf("%d queries, a prompt of %d and %d new tokens are more than OPT's %d positions",
			g.cfg.QFormer.Queries, p.Length, o.MaxNewTokens, c.Positions)
	}
	return nil
}

// Write writes texts about pictures, given by their query embeddings [rows, Q, D], behind their prompts. Penalties see
// new tokens only, and T5's start token, as where the prompt is given by embeddings; under generate.LenRulePaper they
// see OPT's prompts, padding to the longest included.
func (g *Generator) Write(ctx context.Context, queries *tensors.Tensor, p Prompts, o generate.Options) (
	[][]generate.Text, error) {
	if err := g.check(queries.Shape().Dimensions[0], p, o); err != nil {
		return nil, err
	}
	limit := math.MaxInt
	if c := g.cfg.OPT; c != nil {
		limit = c.Positions - g.cfg.QFormer.Queries - o.MaxNewTokens
	}
	length := bucket(p.Length, limit)
	paddedIDs, paddedMask := g.cfg.padded(p, length)
	ids, mask := tensors.FromFlatDataAndDimensions(paddedIDs, p.Rows, length),
		tensors.FromFlatDataAndDimensions(paddedMask, p.Rows, length)
	defer ids.MustFinalizeAll()
	defer mask.MustFinalizeAll()
	seen := make([][]int32, p.Rows)
	switch {
	case g.cfg.T5 != nil:
		seen = slices.Repeat([][]int32{{t5.StartID}}, p.Rows)
	case o.LenRule == generate.LenRulePaper:
		seen = slices.Collect(slices.Chunk(p.IDs, p.Length))
	}
	return g.program.Generate(ctx, []*tensors.Tensor{queries, ids, mask}, seen, o)
}
