package stage1

import (
	"context"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
)

// Captioner writes captions with a stage-1 model's own LM head (spec/stage1.md 9): texts start with [DEC], end with
// [SEP], and see the queries of the picture, whose keys and values are computed once.
type Captioner struct {
	cfg     Config
	program *generate.Program
}

// NewCaptioner prepares the programs of the model in the store. The caller closes the captioner.
func NewCaptioner(backend compute.Backend, store *model.Store, cfg Config) (*Captioner, error) {
	program, err := generate.NewProgram(backend, store,
		func(scope *model.Scope, in []*Node) []*Node {
			out := imagePass(scope, cfg, EncodeImages(scope, cfg, in[0]))
			var nodes []*Node
			for _, kv := range out.SelfKV {
				nodes = append(nodes, kv.K, kv.V)
			}
			// Nobody reads the hidden states; but the Go backend (compute v0.1.4) fails on a graph whose last operations
			// are cut off.
			return append(nodes, out.Hidden)
		},
		func(scope *model.Scope, encoded []*Node, rows, ids, lengths *Node) *Node {
			return nextLogits(scope, cfg, encoded, rows, ids, lengths)
		})
	if err != nil {
		return nil, err
	}
	return &Captioner{cfg, program}, nil
}

// Close frees the compiled programs.
func (c *Captioner) Close() { c.program.Close() }

// Generate writes captions for pixels [B, 3, S, S]. [DEC] counts for penalties and not among the new tokens; o.EOS is
// set to [SEP].
func (c *Captioner) Generate(ctx context.Context, pixels *tensors.Tensor, o generate.Options) ([][]generate.Text, error) {
	o.EOS = int32(c.cfg.SEPID)
	prompts := slices.Repeat([][]int32{{int32(c.cfg.BOSID)}}, pixels.Shape().Dimensions[0])
	return c.program.Generate(ctx, generate.Input{Tensors: []*tensors.Tensor{pixels}, Prompts: prompts,
		MaxLength: c.cfg.QFormer.MaxPositions}, o)
}

// nextLogits gives the logits [texts, V] of the token after each text: encoded are every layer's keys and values of the
// pictures' queries, ids [texts, L] begin with [DEC].
func nextLogits(scope *model.Scope, cfg Config, encoded []*Node, rows, ids, lengths *Node) *Node {
	rows = InsertAxes(rows, -1)
	past := make([]qformer.KV, len(encoded)/2)
	for i := range past {
		past[i] = qformer.KV{K: Gather(encoded[2*i], rows), V: Gather(encoded[2*i+1], rows)}
	}
	g, dims := ids.Graph(), ids.Shape().Dimensions
	column := Iota(g, shapes.Make(dtypes.Int32, dims...), 1)
	mask := nn.Cast(LessThan(column, BroadcastToDims(InsertAxes(lengths, -1), dims...)), dtypes.Int32)
	logits := captionLogits(scope, cfg, ids, mask, past, nil)
	text := Iota(g, shapes.Make(dtypes.Int32, dims[0], 1), 0)
	return Gather(logits, Concatenate([]*Node{text, InsertAxes(AddScalar(lengths, -1), -1)}, 1))
}
