package generate

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/mesh"
)

// maxPrograms is how many sizes of batches, texts and caches a program is compiled for at most; another is an error.
const maxPrograms = 256

// Program runs a network as a Model, one batch after the other. What depends on pictures or prompts alone is computed
// once per batch and stays on the device; texts are read from their first token at every step.
type Program struct {
	encode, next *mesh.Exec
	stats        Stats
}

// Stats returns what the program has done; it has no cache.
func (p *Program) Stats() Stats { return p.stats }

// NewProgram prepares the programs of a network whose weights are in the store. encode computes from the inputs of a
// batch what the decoder reads of its rows. next computes the float32 logits [texts, vocab] of what follows each text:
// text i belongs to row rows[i] and is made of the first lengths[i] of ids[i], ids being [texts, L].
func NewProgram(backend compute.Backend, store *mlx.Store,
	encode func(scope *mlx.Scope, inputs []*graph.Node) []*graph.Node,
	next func(scope *mlx.Scope, encoded []*graph.Node, rows, ids, lengths *graph.Node) *graph.Node) (*Program, error) {
	p := &Program{}
	p.encode = mesh.NewExec(backend, store, "encoder", func(scope *mlx.Scope, in []*graph.Node) []*graph.Node {
		p.stats.Compilations++
		return encode(scope, in)
	}).WithMaxPrograms(maxPrograms)
	p.next = mesh.NewExec(backend, store, "decoder", func(scope *mlx.Scope, in []*graph.Node) []*graph.Node {
		p.stats.Compilations++
		last := len(in) - 3
		return []*graph.Node{next(scope, in[:last], in[last], in[last+1], in[last+2])}
	}).WithMaxPrograms(maxPrograms)
	return p, nil
}

// Close frees the compiled programs.
func (p *Program) Close() {
	p.encode.Close()
	p.next.Close()
}

// Input is one batch for a Program.
type Input struct {
	// Tensors are the inputs of encode. They remain the caller's.
	Tensors []*tensors.Tensor
	// Prompts are the ids that each row's texts start with; empty where encode has taken in the prompt.
	Prompts [][]int32
	// Seen are the ids that penalties and LenRulePaper see in front of the new tokens; nil means Prompts.
	Seen [][]int32
	// MaxLength is the greatest length of a text that the decoder takes, prompt included.
	MaxLength int
}

// Generate continues the prompts of a batch, as the function Generate does.
func (p *Program) Generate(ctx context.Context, in Input, o Options) ([][]Text, error) {
	seen := in.Seen
	if seen == nil {
		seen = in.Prompts
	}
	if len(seen) != len(in.Prompts) {
		return nil, fmt.Errorf("%d prompts, but what penalties see of %d", len(in.Prompts), len(seen))
	}
	encoded, err := call(ctx, p.encode, mesh.HostAll(in.Tensors))
	if err != nil {
		return nil, fmt.Errorf("encoding the prompts: %w", err)
	}
	defer free(encoded)
	m := Recompute(in.Prompts, o.Width(), in.MaxLength, func(ctx context.Context, b Batch) ([]float32, error) {
		return p.logits(ctx, encoded, b)
	})
	return Generate(ctx, m, seen, o)
}

// logits runs the decoder on one batch of texts.
func (p *Program) logits(ctx context.Context, encoded []*mesh.Value, b Batch) ([]float32, error) {
	texts := len(b.Rows)
	own := mesh.HostAll([]*tensors.Tensor{
		tensors.FromFlatDataAndDimensions(b.Rows, texts), tensors.FromFlatDataAndDimensions(b.IDs, texts, b.Length),
		tensors.FromFlatDataAndDimensions(b.Lengths, texts),
	})
	defer free(own)
	out, err := call(ctx, p.next, append(encoded[:len(encoded):len(encoded)], own...))
	if err != nil {
		return nil, fmt.Errorf("computing the next tokens: %w", err)
	}
	defer free(out)
	return mesh.Copy[float32](out[0])
}

// call runs a program unless ctx has ended.
func call(ctx context.Context, exec *mesh.Exec, args []*mesh.Value) ([]*mesh.Value, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return exec.Call(args...)
}

// free gives memory back; what it computed is right even if that fails.
func free(values []*mesh.Value) { _ = mesh.Free(values...) }
