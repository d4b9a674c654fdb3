package answer

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/mesh"
	"blip2/pkg/model/blip"
	"blip2/pkg/model/nn"
	"blip2/pkg/stage1"
	"blip2/pkg/stage2"
)

// newNetwork prepares the programs of the model in the store.
func (c *Checkpoint) newNetwork(backend compute.Backend, store *mlx.Store, activations dtypes.DType) (network, error) {
	switch c.Kind {
	case KindStage1:
		return newStage1(c, backend, store, activations)
	case KindBLIP:
		return newBLIP(c, backend, store, activations)
	}
	cfg, err := stage2.NewConfig(c.Spec)
	if err != nil {
		return nil, err
	}
	cfg.Compute = activations
	g, err := stage2.NewGenerator(backend, store, cfg)
	return stage2Network{g, cfg}, err
}

// stage2Network is BLIP-2 with a language model.
type stage2Network struct {
	*stage2.Generator
	cfg stage2.Config
}

func (n stage2Network) encode(ctx context.Context, pixels *tensors.Tensor) (*tensors.Tensor, error) {
	return n.Encode(ctx, pixels)
}

func (n stage2Network) write(ctx context.Context, encoded *tensors.Tensor, prompts [][]int32, o generate.Options) (
	[][]generate.Text, error) {
	return n.Write(ctx, encoded, n.cfg.NewPrompts(prompts), o)
}

func (n stage2Network) stats() generate.Stats { return n.Stats() }
func (n stage2Network) close()                { n.Close() }

// stage1Network is BLIP-2's stage 1.
type stage1Network struct{ *stage1.Captioner }

func newStage1(c *Checkpoint, backend compute.Backend, store *mlx.Store, activations dtypes.DType) (network, error) {
	cfg, err := stage1.FromPublished(c.Spec)
	if err != nil {
		return nil, err
	}
	cfg.Compute, cfg.BOSID, cfg.SEPID = activations, int(c.BOS), int(c.EOS)
	captioner, err := stage1.NewCaptioner(backend, store, cfg)
	return stage1Network{captioner}, err
}

func (n stage1Network) encode(ctx context.Context, pixels *tensors.Tensor) (*tensors.Tensor, error) {
	return n.Encode(ctx, pixels)
}

func (n stage1Network) write(ctx context.Context, encoded *tensors.Tensor, prompts [][]int32, o generate.Options) (
	[][]generate.Text, error) {
	return n.Write(ctx, encoded, prompts, o)
}

func (n stage1Network) stats() generate.Stats { return n.Stats() }
func (n stage1Network) close()                { n.Close() }

// blipNetwork is BLIP's captioner.
type blipNetwork struct {
	cfg     blip.Config
	bos     int32
	encoder *mesh.Exec
	program *generate.CachedProgram
}

func newBLIP(c *Checkpoint, backend compute.Backend, store *mlx.Store, activations dtypes.DType) (network, error) {
	n := &blipNetwork{cfg: *c.Spec.BLIP, bos: c.BOS}
	var err error
	n.encoder = mesh.NewExec(backend, store, "image side", func(scope *mlx.Scope, pixels []*Node) []*Node {
		return []*Node{nn.Float32(blip.EncodeImage(scope, n.cfg, nn.Cast(pixels[0], activations)))}
	})
	n.program, err = generate.NewCachedProgram(backend, store,
		func(scope *mlx.Scope, in []*Node, room nn.Room) (*Node, []*Node, []*Node) {
			return blip.Prefill(scope, n.cfg, nn.Cast(in[0], activations), in[1], in[2], room)
		},
		func(scope *mlx.Scope, fixed, cache []*Node, parents, tokens *Node) (*Node, []*Node) {
			return blip.Advance(scope, n.cfg, fixed, cache, parents, tokens)
		})
	if err != nil {
		return nil, err
	}
	return n, nil
}

func (n *blipNetwork) encode(ctx context.Context, pixels *tensors.Tensor) (*tensors.Tensor, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := n.encoder.Run(pixels)
	if err != nil {
		return nil, fmt.Errorf("encoding the pictures: %w", err)
	}
	return out[0], nil
}

// write continues [DEC] and the prompt's words, which penalties see.
func (n *blipNetwork) write(ctx context.Context, encoded *tensors.Tensor, prompts [][]int32, o generate.Options) (
	[][]generate.Text, error) {
	begun := make([][]int32, len(prompts))
	for i, words := range prompts {
		begun[i] = append([]int32{n.bos}, words...)
	}
	return n.program.Continue(ctx, []*tensors.Tensor{encoded}, begun, n.cfg.MaxPositions, o)
}

func (n *blipNetwork) stats() generate.Stats { return n.program.Stats() }

func (n *blipNetwork) close() {
	n.encoder.Close()
	n.program.Close()
}
