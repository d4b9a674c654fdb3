package stage1

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/mesh"
	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
)

// Captioner writes captions with a stage-1 model's own LM head (spec/stage1.md 9): texts start with [DEC], end with
// [SEP], and see the queries of the picture, whose keys and values are computed once. A step reads one token per text.
type Captioner struct {
	cfg     Config
	encoder *mesh.Exec
	program *generate.CachedProgram
}

// NewCaptioner prepares the programs of the model in the store. The caller closes the captioner.
func NewCaptioner(backend compute.Backend, store *model.Store, cfg Config) (*Captioner, error) {
	encoder := mesh.NewExec(backend, store, "image side", func(scope *model.Scope, in []*Node) []*Node {
		features := in[0]
		if features.Rank() == 4 {
			features = EncodeImages(scope, cfg, features)
		}
		out := imagePass(scope, cfg, nn.Cast(features, cfg.compute()))
		var all []*Node
		for _, kv := range out.SelfKV {
			all = append(all, nn.Float32(kv.K), nn.Float32(kv.V))
		}
		// Nobody reads the hidden states; but the Go backend (compute v0.1.4) fails on a graph whose last operations are
		// cut off.
		return []*Node{Stack(all, 1), out.Hidden}
	})
	program, err := generate.NewCachedProgram(backend, store, cfg.Prefill, cfg.Advance)
	if err != nil {
		return nil, err
	}
	return &Captioner{cfg, encoder, program}, nil
}

// Close frees the compiled programs.
func (c *Captioner) Close() {
	c.encoder.Close()
	c.program.Close()
}

// Stats says what the programs that write have done.
func (c *Captioner) Stats() generate.Stats { return c.program.Stats() }

// Encode turns pictures, pixels [B, 3, S, S] or their features [B, N, W] behind ln_vision, into what texts see of them:
// every layer's keys and values of the queries, float32 [B, 2·layers, heads, Q, d].
func (c *Captioner) Encode(ctx context.Context, pictures *tensors.Tensor) (*tensors.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := c.encoder.Run(pictures)
	if err != nil {
		return nil, fmt.Errorf("encoding the pictures: %w", err)
	}
	out[1].MustFinalizeAll()
	return out[0], nil
}

// Generate writes captions for pixels [B, 3, S, S]. [DEC] counts for penalties and not among the new tokens; o.EOS is
// set to [SEP].
func (c *Captioner) Generate(ctx context.Context, pixels *tensors.Tensor, o generate.Options) (
	[][]generate.Text, error) {
	encoded, err := c.Encode(ctx, pixels)
	if err != nil {
		return nil, err
	}
	defer encoded.MustFinalizeAll()
	return c.Write(ctx, encoded, nil, o)
}

// Write is Generate for encoded pictures, each with the words, if any, that its caption begins with: ids without [DEC].
// Prompts nil means none.
func (c *Captioner) Write(ctx context.Context, encoded *tensors.Tensor, prompts [][]int32, o generate.Options) (
	[][]generate.Text, error) {
	o.EOS = int32(c.cfg.SEPID)
	rows := encoded.Shape().Dimensions[0]
	if prompts == nil {
		prompts = make([][]int32, rows)
	}
	if len(prompts) != rows {
		return nil, fmt.Errorf("%d pictures and %d prompts", rows, len(prompts))
	}
	begun := make([][]int32, rows)
	for i, words := range prompts {
		begun[i] = append([]int32{int32(c.cfg.BOSID)}, words...)
	}
	return c.program.Continue(ctx, []*tensors.Tensor{encoded}, begun, c.cfg.QFormer.MaxPositions, o)
}

// Prefill is a generate.Prefill: its inputs are the pictures as Encode stacks them, and the beginnings of captions, ids
// and mask [B, L] with padding on the left.
func (c Config) Prefill(scope *model.Scope, in []*Node, room nn.Room) (logits *Node, fixed, cache []*Node) {
	read := qformer.Decode(scope, c.QFormer, bert.Text{IDs: in[1], Mask: in[2], Room: room,
		Front: unstacked(nn.Cast(in[0], c.compute()))})
	return qformer.LMLogits(scope, c.QFormer, read.Last()), nil, read.Cache.Nodes()
}

// Advance is a generate.Advance.
func (c Config) Advance(scope *model.Scope, _, cache []*Node, parents, tokens *Node) (logits *Node, next []*Node) {
	read := qformer.Decode(scope, c.QFormer, bert.Text{IDs: tokens, Cache: nn.CacheOf(cache).Pick(parents)})
	return qformer.LMLogits(scope, c.QFormer, read.Hidden), read.Cache.Nodes()
}

// unstacked takes apart what Encode stacks: [B, 2·layers, heads, Q, d].
func unstacked(encoded *Node) []qformer.KV {
	layer := func(i int) *Node { return Squeeze(SliceAxis(encoded, 1, AxisElem(i)), 1) }
	kv := make([]qformer.KV, encoded.Shape().Dimensions[1]/2)
	for i := range kv {
		kv[i] = qformer.KV{K: layer(2 * i), V: layer(2*i + 1)}
	}
	return kv
}
