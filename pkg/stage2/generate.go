package stage2

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/t5"
)

// Generator writes texts about pictures with a model whose weights are in a store.
type Generator struct {
	cfg     Config
	program *generate.Program
}

// NewGenerator prepares the programs. The caller closes the generator.
func NewGenerator(backend compute.Backend, store *model.Store, cfg Config) (*Generator, error) {
	encode, next := optEncode, optNext
	if cfg.T5 != nil {
		encode, next = t5Encode, t5Next
	}
	program, err := generate.NewProgram(backend, store,
		func(scope *model.Scope, in []*Node) []*Node { return encode(scope, cfg, in[0], in[1], in[2]) },
		func(scope *model.Scope, encoded []*Node, rows, ids, lengths *Node) *Node {
			return next(scope, cfg, encoded, rows, ids, lengths)
		})
	if err != nil {
		return nil, err
	}
	return &Generator{cfg, program}, nil
}

// Close frees the compiled programs.
func (g *Generator) Close() { g.program.Close() }

// Prompts are a batch of prompts, padded to one length L: on the left for OPT, on the right for T5.
type Prompts struct {
	Rows, Length int
	IDs, Mask    []int32 // [Rows·Length]; the mask is 1 at tokens
}

// Pad ids of OPT and T5.
const (
	optPad = 1
	t5Pad  = 0
)

// NewPrompts pads token ids, special tokens included, as the language model needs them.
func (c Config) NewPrompts(ids [][]int32) Prompts {
	p := Prompts{Rows: len(ids)}
	for _, row := range ids {
		p.Length = max(p.Length, len(row))
	}
	pad := int32(optPad)
	if c.T5 != nil {
		pad = t5Pad
	}
	for _, row := range ids {
		tokens, mask := make([]int32, p.Length), make([]int32, p.Length)
		for i := range tokens {
			tokens[i] = pad
		}
		at := 0
		if c.OPT != nil {
			at = p.Length - len(row)
		}
		copy(tokens[at:], row)
		for i := range row {
			mask[at+i] = 1
		}
		p.IDs, p.Mask = append(p.IDs, tokens...), append(p.Mask, mask...)
	}
	return p
}

// tokens returns the ids of each prompt without padding.
func (p Prompts) tokens() [][]int32 {
	out := make([][]int32, p.Rows)
	for i := range out {
		for j := range p.Length {
			if p.Mask[i*p.Length+j] == 1 {
				out[i] = append(out[i], p.IDs[i*p.Length+j])
			}
		}
	}
	return out
}

// Generate writes texts about pictures [rows, 3, S, S] behind their prompts. Penalties see new tokens only, and T5's
// start token, as where the prompt is given by embeddings; under generate.LenRulePaper prompts count.
func (g *Generator) Generate(ctx context.Context, pixels *tensors.Tensor, p Prompts, o generate.Options) (
	[][]generate.Text, error) {
	if n := pixels.Shape().Dimensions[0]; n != p.Rows {
		return nil, fmt.Errorf("%d pictures and %d prompts", n, p.Rows)
	}
	ids, mask := tensors.FromFlatDataAndDimensions(p.IDs, p.Rows, p.Length),
		tensors.FromFlatDataAndDimensions(p.Mask, p.Rows, p.Length)
	defer ids.MustFinalizeAll()
	defer mask.MustFinalizeAll()
	in := generate.Input{Tensors: []*tensors.Tensor{pixels, ids, mask}, Prompts: make([][]int32, p.Rows),
		MaxLength: o.MaxNewTokens + 1}
	switch {
	case g.cfg.T5 != nil:
		for i := range in.Prompts {
			in.Prompts[i] = []int32{t5.StartID}
		}
	case o.LenRule == generate.LenRulePaper:
		in.Seen = p.tokens()
	}
	if c := g.cfg.OPT; c != nil {
		room := c.Positions - g.cfg.QFormer.Queries - p.Length
		if o.MaxNewTokens > room {
			return nil, fmt.Errorf("%d new tokens behind %d queries and a prompt of %d do not fit OPT's %d positions",
				o.MaxNewTokens, g.cfg.QFormer.Queries, p.Length, c.Positions)
		}
	}
	return g.program.Generate(ctx, in, o)
}

// optEncode is what OPT reads in front of the texts: embeddings [B, N, D] and their mask [B, N].
func optEncode(scope *model.Scope, cfg Config, pixels, ids, mask *Node) []*Node {
	embeds, all := Prefix(scope, cfg, QueryEmbeds(scope, cfg, pixels), ids, mask)
	return []*Node{embeds, all}
}

// optNext gives the logits [texts, V] of the token after each text; the prefix ends with a token, because it is padded
// on the left of its text.
func optNext(scope *model.Scope, cfg Config, encoded []*Node, rows, ids, lengths *Node) *Node {
	rows = InsertAxes(rows, -1)
	prefix, prefixMask := Gather(encoded[0], rows), Gather(encoded[1], rows)
	words, mask := Prefix(scope, cfg, prefix, ids, textMask(ids, lengths))
	mask = Concatenate([]*Node{prefixMask, SliceAxis(mask, 1, AxisRangeToEnd(prefix.Shape().Dimensions[1]))}, 1)
	last := AddScalar(lengths, prefix.Shape().Dimensions[1]-1)
	return at(OPTLogits(scope, cfg, words, mask), last)
}

// t5Encode is what T5's decoder reads: the encoder's output [B, N, D] and its mask [B, N].
func t5Encode(scope *model.Scope, cfg Config, pixels, ids, mask *Node) []*Node {
	embeds, all := Prefix(scope, cfg, QueryEmbeds(scope, cfg, pixels), ids, mask)
	return []*Node{T5Encode(scope, cfg, embeds, all), all}
}

// t5Next gives the logits [texts, V] of the token after each text.
func t5Next(scope *model.Scope, cfg Config, encoded []*Node, rows, ids, lengths *Node) *Node {
	rows = InsertAxes(rows, -1)
	logits := T5Logits(scope, cfg, Gather(encoded[0], rows), Gather(encoded[1], rows), ids)
	return at(logits, AddScalar(lengths, -1))
}

// textMask is 1 at the first lengths[i] of the ids [texts, L] of text i.
func textMask(ids, lengths *Node) *Node {
	g, dims := ids.Graph(), ids.Shape().Dimensions
	columns := Iota(g, shapes.Make(dtypes.Int32, dims...), 1)
	return nn.Cast(LessThan(columns, BroadcastToDims(InsertAxes(lengths, -1), dims...)), dtypes.Int32)
}

// at picks from logits [texts, N, V] those of the given position [texts] of each text: [texts, V].
func at(logits, position *Node) *Node {
	dims := logits.Shape().Dimensions
	texts := Iota(logits.Graph(), shapes.Make(dtypes.Int32, dims[0], 1), 0)
	return Gather(logits, Concatenate([]*Node{texts, InsertAxes(position, -1)}, 1))
}
