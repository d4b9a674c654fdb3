// Package vit is BLIP-2's image encoder: CLIP ViT-L/14 and EVA-CLIP ViT-g/14 as the Q-Former sees them
// (paper section 3.1; spec/model.md 1–4), at any size.
//
// Both are pre-LN transformers over non-overlapping patches behind a class token. They differ in where biases are,
// in CLIP's LayerNorm before the first block, in the activation, and in how position tables are resized. Tensors keep
// the names of the published encoder files.
package vit

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// The two architectures.
const (
	CLIP = "clip"
	EVA  = "eva"
)

// Config holds an encoder's dimensions. Layers counts the blocks that are used: one less than the published
// encoder has, because BLIP-2 takes the features before the last block.
type Config struct {
	Arch         string  // CLIP or EVA
	ImageSize    int     // S: pictures are S×S
	PatchSize    int     // pixels per side of a patch
	Width        int     // W: features per token
	Layers       int     // blocks used
	Heads        int     // attention heads
	MLPRatio     float64 // hidden width of the MLP as a multiple of Width, rounded down
	LayerNormEps float64 // 1e-5 for CLIP, 1e-6 for EVA

	InitializerRange float64 // spread of weights drawn from scratch; 0 means 0.02
}

// Grid returns the number of patches per side.
func (c Config) Grid() int { return c.ImageSize / c.PatchSize }

// Tokens returns N, the number of output tokens: one class token and the patches.
func (c Config) Tokens() int { return c.Grid()*c.Grid() + 1 }

// MLPWidth returns the hidden width of a block's MLP.
func (c Config) MLPWidth() int { return int(float64(c.Width) * c.MLPRatio) }

// Validate reports dimensions that do not fit together.
func (c Config) Validate() error {
	switch {
	case c.Arch != CLIP && c.Arch != EVA:
		return fmt.Errorf("vision arch %q: choose %q or %q", c.Arch, CLIP, EVA)
	case c.PatchSize <= 0 || c.ImageSize <= 0 || c.ImageSize%c.PatchSize != 0:
		return fmt.Errorf("image size %d is not a multiple of the patch size %d", c.ImageSize, c.PatchSize)
	case c.Heads <= 0 || c.Width%c.Heads != 0:
		return fmt.Errorf("vision width %d is not divisible by %d heads", c.Width, c.Heads)
	}
	return nil
}

// Forward encodes pixels [batch, 3, S, S] (CLIP-normalised) to the features of all tokens [batch, N, W] after the
// last used block, without final norm. The scope is the encoder's own.
func Forward(scope *model.Scope, cfg Config, pixels *Node) *Node {
	batch := pixels.Shape().Dimensions[0]
	pixels.AssertDims(batch, 3, cfg.ImageSize, cfg.ImageSize)
	x := patchify(pixels, cfg.PatchSize)
	block := evaBlock
	if cfg.Arch == CLIP {
		block = clipBlock
		x = clipStem(scope, cfg, x)
	} else {
		x = evaStem(scope, cfg, x)
	}
	for i := range cfg.Layers {
		x = block(blockScope(scope, cfg, i), cfg, x)
	}
	x.AssertDims(batch, cfg.Tokens(), cfg.Width)
	return x
}

func blockScope(scope *model.Scope, cfg Config, i int) *model.Scope {
	if cfg.Arch == CLIP {
		return scope.At("transformer").At("resblocks").At("%d", i)
	}
	return scope.At("blocks").At("%d", i)
}

// patchify cuts pixels [batch, 3, S, S] into patches [batch, g², 3·p²], each in (channel, row, column) order: a
// convolution with stride p becomes one matrix product.
func patchify(pixels *Node, p int) *Node {
	dims := pixels.Shape().Dimensions
	batch, grid := dims[0], dims[2]/p
	x := Reshape(pixels, batch, 3, grid, p, grid, p)
	x = TransposeAllAxes(x, 0, 2, 4, 1, 3, 5)
	return Reshape(x, batch, grid*grid, 3*p*p)
}

// patchKernel returns the convolution kernel [W, 3, p, p] as a matrix [W, 3·p²].
func patchKernel(kernel *Node) *Node {
	return Reshape(kernel, kernel.Shape().Dimensions[0], -1)
}

// withClassToken puts the class token [W] in front of the patches [batch, g², W].
func withClassToken(class, patches *Node) *Node {
	dims := patches.Shape().Dimensions
	class = BroadcastToDims(Reshape(class, 1, 1, dims[2]), dims[0], 1, dims[2])
	return Concatenate([]*Node{class, patches}, 1)
}

func clipStem(scope *model.Scope, cfg Config, patches *Node) *Node {
	x := nn.Project(patches, patchKernel(nn.Weight(scope.At("conv1"), "weight", patches)))
	x = withClassToken(nn.Weight(scope, "class_embedding", x), x)
	table := nn.Weight(scope, "positional_embedding", x)
	x = Add(x, Reshape(table, 1, cfg.Tokens(), cfg.Width))
	return nn.LayerNorm(scope.At("ln_pre"), x, cfg.LayerNormEps)
}

func evaStem(scope *model.Scope, cfg Config, patches *Node) *Node {
	proj := scope.At("patch_embed").At("proj")
	x := nn.Project(patches, patchKernel(nn.Weight(proj, "weight", patches)))
	x = nn.AddBias(x, nn.Weight(proj, "bias", x))
	x = withClassToken(nn.Weight(scope, "cls_token", x), x)
	return Add(x, Reshape(nn.Weight(scope, "pos_embed", x), 1, cfg.Tokens(), cfg.Width))
}

// clipBlock is x += MHA(ln_1(x)); x += MLP(ln_2(x)) with quick_gelu; biases everywhere.
func clipBlock(scope *model.Scope, cfg Config, x *Node) *Node {
	attn := scope.At("attn")
	h := nn.LayerNorm(scope.At("ln_1"), x, cfg.LayerNormEps)
	qkv := nn.Project(h, nn.Weight(attn, "in_proj_weight", h))
	qkv = nn.AddBias(qkv, nn.Weight(attn, "in_proj_bias", h))
	x = Add(x, nn.Linear(attn.At("out_proj"), selfAttention(qkv, cfg.Heads)))
	h = nn.LayerNorm(scope.At("ln_2"), x, cfg.LayerNormEps)
	mlp := scope.At("mlp")
	h = nn.QuickGELU.Apply(nn.Linear(mlp.At("c_fc"), h))
	return Add(x, nn.Linear(mlp.At("c_proj"), h))
}

// evaBlock is x += Attn(norm1(x)); x += MLP(norm2(x)) with exact gelu; queries and values have biases, keys have none.
func evaBlock(scope *model.Scope, cfg Config, x *Node) *Node {
	attn := scope.At("attn")
	h := nn.LayerNorm(scope.At("norm1"), x, cfg.LayerNormEps)
	qkv := nn.Project(h, nn.Weight(attn.At("qkv"), "weight", h))
	qBias, vBias := nn.Weight(attn, "q_bias", h), nn.Weight(attn, "v_bias", h)
	qkv = nn.AddBias(qkv, Concatenate([]*Node{qBias, ZerosLike(qBias), vBias}, 0))
	x = Add(x, nn.Linear(attn.At("proj"), selfAttention(qkv, cfg.Heads)))
	h = nn.LayerNorm(scope.At("norm2"), x, cfg.LayerNormEps)
	mlp := scope.At("mlp")
	h = nn.GELU.Apply(nn.Linear(mlp.At("fc1"), h))
	return Add(x, nn.Linear(mlp.At("fc2"), h))
}

// selfAttention attends over all tokens; qkv is [batch, N, 3·W] in the order (q|k|v, head, feature).
func selfAttention(qkv *Node, heads int) *Node {
	parts := Split(qkv, -1, 3)
	for i, part := range parts {
		parts[i] = nn.SplitHeads(part, heads)
	}
	return nn.Attention(parts[0], parts[1], parts[2], nil, nil, 0)
}

// FLOPs counts the multiply-adds of Forward on one picture, two operations each; matrix products only.
func (c Config) FLOPs() float64 {
	n, w := float64(c.Tokens()), float64(c.Width)
	patch := 2 * (n - 1) * w * float64(3*c.PatchSize*c.PatchSize)
	block := 2*n*w*(4*w+2*float64(c.MLPWidth())) + 4*n*n*w
	return patch + float64(c.Layers)*block
}

// initStd is the spread of weights drawn from scratch.
func (c Config) initStd() float64 {
	if c.InitializerRange == 0 {
		return 0.02
	}
	return c.InitializerRange
}

// residualScale is EVA's initialisation rule for the two projections that feed the residual stream of block i.
func residualScale(i int) float64 { return 1 / math.Sqrt(2*float64(i+1)) }
