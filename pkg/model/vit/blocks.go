package vit

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// Blocks is a stack of pre-LN residual blocks, x += attention(norm(x)); x += MLP(norm(x)): the trunk of every image
// encoder here and of CLIP's text tower.
type Blocks struct {
	Arch             string  // decides names, biases and activation: CLIP, EVA or BLIP
	Width            int     // W: features per token
	Layers           int     // number of blocks
	Heads            int     // attention heads
	MLP              int     // hidden width of the MLP
	LayerNormEps     float64 // of both LayerNorms of a block
	InitializerRange float64 // spread of weights drawn from scratch; 0 means 0.02
	Remat            bool    // compute blocks again in the backward pass
}

// style holds the names of a block's parts and its activation.
type style struct {
	folder        []string // scope of all blocks
	attentionNorm string
	attentionOut  string
	mlpNorm       string
	mlpIn, mlpOut string
	activation    nn.Activation
}

// style returns the style of the architecture; EVA and BLIP differ in their biases only.
func (b Blocks) style() style {
	if b.Arch == CLIP {
		return style{folder: []string{"transformer", "resblocks"}, attentionNorm: "ln_1", attentionOut: "out_proj",
			mlpNorm: "ln_2", mlpIn: "c_fc", mlpOut: "c_proj", activation: nn.QuickGELU}
	}
	return style{folder: []string{"blocks"}, attentionNorm: "norm1", attentionOut: "proj",
		mlpNorm: "norm2", mlpIn: "fc1", mlpOut: "fc2", activation: nn.GELU}
}

// Forward runs x [batch, L, W] through all blocks: [batch, L, W]. The mask is that of nn.Attention; nil lets every
// token see all. The scope is the one that the names of Params start from.
func (b Blocks) Forward(scope *model.Scope, x, mask *Node) *Node {
	s := b.style()
	for _, name := range s.folder {
		scope = scope.At("%s", name)
	}
	for i := range b.Layers {
		if b.Remat {
			x = x.Checkpoint()
		}
		x = b.block(scope.At("%d", i), s, x, mask)
	}
	if b.Remat {
		x = x.StopCheckpoint()
	}
	return x
}

func (b Blocks) block(scope *model.Scope, s style, x, mask *Node) *Node {
	attn := scope.At("attn")
	h := nn.LayerNorm(scope.At("%s", s.attentionNorm), x, b.LayerNormEps)
	parts := Split(b.qkv(attn, h), -1, 3)
	for i, part := range parts {
		parts[i] = nn.SplitHeads(part, b.Heads)
	}
	mixed := nn.Attention(parts[0], parts[1], parts[2], mask, nil, 0)
	x = Add(x, nn.Linear(attn.At("%s", s.attentionOut), mixed))
	h = nn.LayerNorm(scope.At("%s", s.mlpNorm), x, b.LayerNormEps)
	mlp := scope.At("mlp")
	h = s.activation.Apply(nn.Linear(mlp.At("%s", s.mlpIn), h))
	return Add(x, nn.Linear(mlp.At("%s", s.mlpOut), h))
}

// qkv projects h [batch, L, W] to [batch, L, 3·W] in the order (q|k|v, head, feature). EVA's keys have no bias.
func (b Blocks) qkv(attn *model.Scope, h *Node) *Node {
	switch b.Arch {
	case CLIP:
		return nn.AddBias(nn.Project(h, nn.Weight(attn, "in_proj_weight", h)), nn.Weight(attn, "in_proj_bias", h))
	case EVA:
		qkv := nn.Project(h, nn.Weight(attn.At("qkv"), "weight", h))
		qBias, vBias := nn.Weight(attn, "q_bias", h), nn.Weight(attn, "v_bias", h)
		return nn.AddBias(qkv, Concatenate([]*Node{qBias, ZerosLike(qBias), vBias}, 0))
	}
	return nn.Linear(attn.At("qkv"), h)
}

// FLOPs counts the multiply-adds of Forward on one sequence, two operations each; matrix products only. A mask saves
// none of them.
func (b Blocks) FLOPs(tokens int) float64 {
	n, w := float64(tokens), float64(b.Width)
	return float64(b.Layers) * (2*n*w*(4*w+2*float64(b.MLP)) + 4*n*n*w)
}

// RematFLOPs counts what Remat computes again on one sequence: all of a block but its last product, whose result is the
// next block's input.
func (b Blocks) RematFLOPs(tokens int) float64 {
	last := 2 * float64(tokens) * float64(b.Width) * float64(b.MLP)
	return b.FLOPs(tokens) - float64(b.Layers)*last
}
