package t5

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// stack is the encoder or the decoder at graph-building time.
type stack struct {
	scope   *model.Scope
	cfg     Config
	compute dtypes.DType // of products; the residual stream may have another
	rng     *nn.RNG
}

// run sends embeddings [batch, L, D] through the blocks, with dropout in front and behind and a norm at the end.
func (s stack) run(embeds *Node, blocks int, forward func(b block, index int, x *Node) *Node) *Node {
	x := s.rng.Dropout(nn.Cast(embeds, stream(s.compute)), s.cfg.Dropout)
	for i := range blocks {
		if s.cfg.Recompute {
			x = x.Checkpoint()
			s.rng.Checkpoint()
		}
		x = forward(block{stack: s, scope: s.scope.At("block").At("%d", i).At("layer")}, i, x)
	}
	if s.cfg.Recompute {
		x = x.StopCheckpoint()
		s.rng.StopCheckpoint()
	}
	x = nn.RMSNorm(s.scope.At("final_layer_norm"), x, s.cfg.RMSNormEps)
	return s.rng.Dropout(nn.Cast(x, s.compute), s.cfg.Dropout)
}

// bias is positionBias with the stack's table.
func (s stack) bias(bidirectional bool, positions func() (rows, columns *Node)) *Node {
	rows, columns := positions()
	table := s.scope.At("block").At("0").At("layer").At("0").At("SelfAttention")
	return positionBias(table, s.cfg, bidirectional, rows, columns)
}

// stream is the dtype in which blocks add up. It is float32 for float16, whose range is too small for it; Hugging Face
// gets there by keeping wo in float32.
func stream(compute dtypes.DType) dtypes.DType {
	if compute == dtypes.Float16 {
		return dtypes.Float32
	}
	return compute
}

// block is one block of a stack. Every sublayer is x + dropout(f(norm(x))); it has a number, and f has a name.
type block struct {
	stack
	scope *model.Scope
}

// selfAttention lets x [batch, L, D] read what join makes of its keys and values. The mask holds position biases too.
func (b block) selfAttention(x, mask *Node, join func(nn.KV) nn.KV) *Node {
	scope := b.scope.At("0").At("SelfAttention")
	return b.residual("0", x, func(h *Node) *Node {
		kv := join(keysValues(scope, b.cfg, h))
		return b.attend(scope, h, kv, mask)
	})
}

// crossAttention lets x [batch, L, D] read the encoder's output.
func (b block) crossAttention(x *Node, kv nn.KV, mask *Node) *Node {
	scope := b.scope.At("1").At("EncDecAttention")
	return b.residual("1", x, func(h *Node) *Node { return b.attend(scope, h, kv, mask) })
}

// feedForward is wo(act(wi_0·x) ⊙ wi_1·x); number is that of the sublayer.
func (b block) feedForward(number string, x *Node) *Node {
	scope := b.scope.At("%s", number).At("DenseReluDense")
	return b.residual(number, x, func(h *Node) *Node {
		gate := b.cfg.Activation.Apply(project(scope, "wi_0", h))
		h = b.rng.Dropout(Mul(gate, project(scope, "wi_1", h)), b.cfg.Dropout)
		return project(scope, "wo", nn.Cast(h, stream(b.compute)))
	})
}

func (b block) residual(number string, x *Node, f func(h *Node) *Node) *Node {
	h := nn.RMSNorm(b.scope.At("%s", number).At("layer_norm"), x, b.cfg.RMSNormEps)
	y := nn.Cast(f(nn.Cast(h, b.compute)), x.DType())
	return Add(x, b.rng.Dropout(y, b.cfg.Dropout))
}

// attend is attention of h [batch, L, D] with unscaled scores.
func (b block) attend(scope *model.Scope, h *Node, kv nn.KV, mask *Node) *Node {
	q := nn.SplitHeads(project(scope, "q", h), b.cfg.Heads)
	return project(scope, "o", nn.ScaledAttention(q, kv.K, kv.V, 1, mask, b.rng, b.cfg.Dropout))
}

// keysValues projects h [batch, L, D] to an attention's keys and values.
func keysValues(scope *model.Scope, cfg Config, h *Node) nn.KV {
	return nn.KV{
		K: nn.SplitHeads(project(scope, "k", h), cfg.Heads),
		V: nn.SplitHeads(project(scope, "v", h), cfg.Heads),
	}
}

// project multiplies with the named layer of the scope; nothing in T5 has a bias.
func project(scope *model.Scope, name string, x *Node) *Node {
	return nn.Project(x, nn.Weight(scope.At("%s", name), "weight", x))
}
