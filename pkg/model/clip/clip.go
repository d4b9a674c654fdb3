// Package clip is CLIP's dual encoder, which ranks captions by how well they fit a picture (paper section 4.1, CapFilt;
// spec/model.md 9): the image tower with all of its blocks, the text tower, and both projections.
//
// Tensors have OpenAI's names: the image tower's under "visual.", the text tower's without prefix. The projections are
// stored [width, embed], the other way round than a linear layer's weight.
package clip

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
)

// Config holds the dimensions of both towers.
type Config struct {
	Image vit.Config // its Layers are all blocks of the tower
	Text  Text
	Embed int // E: features of the space that both towers project to
}

// Text holds the text tower's dimensions.
type Text struct {
	Vocab        int     // tokens
	Context      int     // longest text, start and end token included
	Width        int     // features per token
	Layers       int     // blocks
	Heads        int     // attention heads
	MLP          int     // hidden width of the MLP
	LayerNormEps float64 // 1e-5
}

// Preset returns the model of the published name: clip-vit-l14.
func Preset(name string) (Config, error) {
	if name != "clip-vit-l14" {
		return Config{}, fmt.Errorf("no CLIP model is called %q: choose clip-vit-l14", name)
	}
	image, err := vit.Preset(name)
	image.Layers++ // BLIP-2's encoder is without the last block
	return Config{
		Image: image,
		Text:  Text{Vocab: 49408, Context: 77, Width: 768, Layers: 12, Heads: 12, MLP: 3072, LayerNormEps: 1e-5},
		Embed: 768,
	}, err
}

// Validate reports dimensions that do not fit together.
func (c Config) Validate() error {
	if err := c.Image.Validate(); err != nil {
		return err
	}
	switch {
	case c.Image.Arch != vit.CLIP:
		return fmt.Errorf("vision arch %q: CLIP's image tower is %q", c.Image.Arch, vit.CLIP)
	case c.Text.Heads <= 0 || c.Text.Width%c.Text.Heads != 0:
		return fmt.Errorf("text width %d is not divisible by %d heads", c.Text.Width, c.Text.Heads)
	}
	return nil
}

// blocks returns the text tower's trunk, whose blocks are those of the image tower.
func (t Text) blocks() vit.Blocks {
	return vit.Blocks{Arch: vit.CLIP, Width: t.Width, Layers: t.Layers, Heads: t.Heads, MLP: t.MLP,
		LayerNormEps: t.LayerNormEps}
}

// ImageFeatures encodes pixels [batch, 3, S, S] (CLIP-normalised) to [batch, E], not normalised: the class token after
// the last block, ln_post and the projection. The scope is the model's root.
func ImageFeatures(scope *model.Scope, cfg Config, pixels *Node) *Node {
	visual := scope.At("visual")
	x := vit.Forward(visual, cfg.Image, pixels)
	class := Squeeze(SliceAxis(x, 1, AxisElem(0)), 1)
	class = nn.LayerNorm(visual.At("ln_post"), class, cfg.Image.LayerNormEps)
	return project(class, nn.Weight(visual, "proj", class))
}

// TextFeatures encodes token ids [batch, L] to [batch, E] in the given compute type, not normalised: the state of the
// end token, which is the first position of the largest id, after ln_final and the projection. What follows the end
// token does not matter. The scope is the model's root.
func TextFeatures(scope *model.Scope, cfg Config, ids *Node, dtype dtypes.DType) *Node {
	g, length := ids.Graph(), ids.Shape().Dimensions[1]
	table := scope.At("token_embedding").GetVariable("weight").NodeValue(g)
	positions := SliceAxis(scope.GetVariable("positional_embedding").NodeValue(g), 0, AxisRangeFromStart(length))
	x := nn.Cast(Add(Gather(table, InsertAxes(ids, -1)), InsertAxes(positions, 0)), dtype)
	// Tokens see no later ones, so padding needs no mask.
	mask := nn.CausalMask(BroadcastToDims(Scalar(g, dtypes.Float32, 1), 1, length), 0)
	x = cfg.Text.blocks().Forward(scope, x, mask)
	end := endOf(x, ids)
	end = nn.LayerNorm(scope.At("ln_final"), end, cfg.Text.LayerNormEps)
	return project(end, nn.Weight(scope, "text_projection", end))
}

// endOf picks of x [batch, L, W] the first position of each row's largest id: [batch, W].
func endOf(x, ids *Node) *Node {
	dims := ids.Shape().Dimensions
	largest := Equal(ids, BroadcastToDims(ReduceAndKeep(ids, ReduceMax, 1), dims...))
	positions := Iota(ids.Graph(), ids.Shape(), 1)
	first := ReduceMin(Where(largest, positions, AddScalar(ZerosLike(ids), dims[1])), 1)
	rows := Iota(ids.Graph(), first.Shape(), 0)
	return Gather(x, Stack([]*Node{rows, first}, -1))
}

// project multiplies x [batch, in] with w [in, out].
func project(x, w *Node) *Node { return MatMul(x, w) }

// Logits compares features of pictures [I, E] and texts [T, E], as the towers give them: exp(logit_scale) times their
// cosines, [I, T], in float32. The scale does not change an order.
func Logits(scope *model.Scope, image, text *Node) *Node {
	image, text = nn.UnitNorm(nn.Float32(image)), nn.UnitNorm(nn.Float32(text))
	scale := Exp(scope.GetVariable("logit_scale").NodeValue(image.Graph()))
	cosines := nn.Project(image, text)
	return Mul(cosines, BroadcastToDims(scale, cosines.Shape().Dimensions...))
}

// ImageFLOPs counts the multiply-adds of ImageFeatures on one picture, two operations each; matrix products only.
func (c Config) ImageFLOPs() float64 {
	return c.Image.FLOPs() + 2*float64(c.Image.Width)*float64(c.Embed)
}

// TextFLOPs counts those of TextFeatures on one text of the given length.
func (c Config) TextFLOPs(length int) float64 {
	return c.Text.blocks().FLOPs(length) + 2*float64(c.Text.Width)*float64(c.Embed)
}
