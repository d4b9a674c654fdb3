// Package vit holds the image encoders: CLIP ViT-L/14 and EVA-CLIP ViT-g/14 as the Q-Former sees them (paper section
// 3.1; spec/model.md 1–4) and the ViT-L/16 of BLIP's captioner (spec/model.md 10), at any size.
//
// All are pre-LN transformers over non-overlapping patches behind a class token. They differ in where biases are, in
// CLIP's LayerNorm before the first block and BLIP's after the last, in the activation, and in how position tables are
// resized. Tensors keep the names of the published encoder files.
package vit

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
)

// The architectures.
const (
	CLIP = "clip"
	EVA  = "eva"
	BLIP = "blip"
)

// Config holds an encoder's dimensions. Layers counts the blocks that are used: in BLIP-2 one less than the published
// CLIP and EVA encoders have, because it takes the features before the last block.
type Config struct {
	Arch         string  // CLIP, EVA or BLIP
	ImageSize    int     // S: pictures are S×S
	PatchSize    int     // pixels per side of a patch
	Width        int     // W: features per token
	Layers       int     // blocks used
	Heads        int     // attention heads
	MLPRatio     float64 // hidden width of the MLP as a multiple of Width, rounded down
	LayerNormEps float64 // 1e-5 for CLIP, 1e-6 for EVA and BLIP

	InitializerRange float64 // spread of weights drawn from scratch; 0 means 0.02

	// Remat computes every block a second time in the backward pass instead of keeping its activations (spec/training.md
	// 8). The numbers stay the same. Released code does so in EVA, and by half-blocks in CLIP's upper half.
	Remat bool
}

// Grid returns the number of patches per side.
func (c Config) Grid() int { return c.ImageSize / c.PatchSize }

// Tokens returns N, the number of output tokens: one class token and the patches.
func (c Config) Tokens() int { return c.Grid()*c.Grid() + 1 }

// MLPWidth returns the hidden width of a block's MLP.
func (c Config) MLPWidth() int { return int(float64(c.Width) * c.MLPRatio) }

// RatioOf returns a Config.MLPRatio that makes MLPWidth the given one, for configurations that name the width itself.
func RatioOf(mlpWidth, width int) float64 { return (float64(mlpWidth) + 0.5) / float64(width) }

// blocks returns the encoder's trunk.
func (c Config) blocks() Blocks {
	return Blocks{Arch: c.Arch, Width: c.Width, Layers: c.Layers, Heads: c.Heads, MLP: c.MLPWidth(),
		LayerNormEps: c.LayerNormEps, InitializerRange: c.InitializerRange, Remat: c.Remat}
}

// Validate reports dimensions that do not fit together.
func (c Config) Validate() error {
	switch {
	case c.Arch != CLIP && c.Arch != EVA && c.Arch != BLIP:
		return fmt.Errorf("vision arch %q: choose %q, %q or %q", c.Arch, CLIP, EVA, BLIP)
	case c.PatchSize <= 0 || c.ImageSize <= 0 || c.ImageSize%c.PatchSize != 0:
		return fmt.Errorf("image size %d is not a multiple of the patch size %d", c.ImageSize, c.PatchSize)
	case c.Heads <= 0 || c.Width%c.Heads != 0:
		return fmt.Errorf("vision width %d is not divisible by %d heads", c.Width, c.Heads)
	}
	return nil
}

// Forward encodes pixels [batch, 3, S, S] (CLIP-normalised) to the features of all tokens [batch, N, W] after the
// last used block: without final norm for CLIP and EVA, with it for BLIP. The scope is the encoder's own.
func Forward(scope *model.Scope, cfg Config, pixels *Node) *Node {
	batch := pixels.Shape().Dimensions[0]
	pixels.AssertDims(batch, 3, cfg.ImageSize, cfg.ImageSize)
	x := patchify(pixels, cfg.PatchSize)
	if cfg.Arch == CLIP {
		x = clipStem(scope, cfg, x)
	} else {
		x = timmStem(scope, cfg, x)
	}
	x = cfg.blocks().Forward(scope, x, nil)
	if cfg.Arch == BLIP {
		x = nn.LayerNorm(scope.At("norm"), x, cfg.LayerNormEps)
	}
	x.AssertDims(batch, cfg.Tokens(), cfg.Width)
	return x
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

// clipStem embeds patches without a bias and normalises their sum with the positions.
func clipStem(scope *model.Scope, cfg Config, patches *Node) *Node {
	x := nn.Project(patches, patchKernel(nn.Weight(scope.At("conv1"), "weight", patches)))
	x = withClassToken(nn.Weight(scope, "class_embedding", x), x)
	table := nn.Weight(scope, "positional_embedding", x)
	x = Add(x, Reshape(table, 1, cfg.Tokens(), cfg.Width))
	return nn.LayerNorm(scope.At("ln_pre"), x, cfg.LayerNormEps)
}

// timmStem is the stem of EVA and BLIP.
func timmStem(scope *model.Scope, cfg Config, patches *Node) *Node {
	proj := scope.At("patch_embed").At("proj")
	x := nn.Project(patches, patchKernel(nn.Weight(proj, "weight", patches)))
	x = nn.AddBias(x, nn.Weight(proj, "bias", x))
	x = withClassToken(nn.Weight(scope, "cls_token", x), x)
	return Add(x, Reshape(nn.Weight(scope, "pos_embed", x), 1, cfg.Tokens(), cfg.Width))
}

// FLOPs counts the multiply-adds of Forward on one picture, two operations each; matrix products only.
func (c Config) FLOPs() float64 {
	patches, w := float64(c.Tokens()-1), float64(c.Width)
	return 2*patches*w*float64(3*c.PatchSize*c.PatchSize) + c.blocks().FLOPs(c.Tokens())
}

// RematFLOPs counts what Remat computes again on one picture.
func (c Config) RematFLOPs() float64 { return c.blocks().RematFLOPs(c.Tokens()) }
