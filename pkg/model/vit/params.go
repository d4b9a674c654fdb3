package vit

import (
	"fmt"
	"math"
	"strings"

	"blip2/pkg/model"
)

// Params lists the encoder's tensors under the published names, without a prefix. Their Init is that of an encoder
// trained from scratch (spec/model.md 5.5).
func Params(cfg Config) []model.Param {
	w, p := cfg.Width, cfg.PatchSize
	trunc := model.TruncNormal(initStd(cfg.InitializerRange))
	patch := model.Uniform(model.LinearBound(3 * p * p))
	var params []model.Param
	if cfg.Arch == CLIP {
		params = []model.Param{
			{Name: "class_embedding", Shape: []int{w}, Init: trunc},
			{Name: cfg.PositionName(), Shape: []int{cfg.Tokens(), w}, Init: trunc},
			{Name: "conv1.weight", Shape: []int{w, 3, p, p}, Init: patch},
		}
		params = append(params, model.LayerNorm("ln_pre", w)...)
	} else {
		params = []model.Param{
			{Name: "cls_token", Shape: []int{1, 1, w}, Init: trunc},
			{Name: cfg.PositionName(), Shape: []int{1, cfg.Tokens(), w}, Init: trunc},
			{Name: "patch_embed.proj.weight", Shape: []int{w, 3, p, p}, Init: patch},
			{Name: "patch_embed.proj.bias", Shape: []int{w}, Init: patch},
		}
	}
	params = append(params, cfg.blocks().Params()...)
	if cfg.Arch == BLIP {
		params = append(params, model.LayerNorm("norm", w)...)
	}
	return params
}

// Params lists the blocks' tensors under the published names, without a prefix.
func (b Blocks) Params() []model.Param {
	s := b.style()
	w, m, std := b.Width, b.MLP, initStd(b.InitializerRange)
	var params []model.Param
	for i := range b.Layers {
		block := fmt.Sprintf("%s.%d.", strings.Join(s.folder, "."), i)
		residual := std
		if b.Arch == EVA {
			residual *= residualScale(i)
		}
		params = append(params, model.LayerNorm(block+s.attentionNorm, w)...)
		params = append(params, b.qkvParams(block+"attn.", std)...)
		params = append(params, linear(block+"attn."+s.attentionOut, w, w, residual)...)
		params = append(params, model.LayerNorm(block+s.mlpNorm, w)...)
		params = append(params, linear(block+"mlp."+s.mlpIn, m, w, std)...)
		params = append(params, linear(block+"mlp."+s.mlpOut, w, m, residual)...)
	}
	return params
}

// qkvParams lists the projection to queries, keys and values.
func (b Blocks) qkvParams(attn string, std float64) []model.Param {
	w, trunc := b.Width, model.TruncNormal(std)
	switch b.Arch {
	case CLIP:
		return []model.Param{
			{Name: attn + "in_proj_weight", Shape: []int{3 * w, w}, Init: trunc},
			{Name: attn + "in_proj_bias", Shape: []int{3 * w}},
		}
	case EVA:
		return []model.Param{
			{Name: attn + "qkv.weight", Shape: []int{3 * w, w}, Init: trunc},
			{Name: attn + "q_bias", Shape: []int{w}},
			{Name: attn + "v_bias", Shape: []int{w}},
		}
	}
	return linear(attn+"qkv", 3*w, w, std)
}

// linear declares weight [out, in], drawn with the given spread, and bias [out].
func linear(name string, out, in int, std float64) []model.Param {
	return []model.Param{
		{Name: name + ".weight", Shape: []int{out, in}, Init: model.TruncNormal(std)},
		{Name: name + ".bias", Shape: []int{out}},
	}
}

// initStd is the spread of weights drawn from scratch.
func initStd(initializerRange float64) float64 {
	if initializerRange == 0 {
		return 0.02
	}
	return initializerRange
}

// residualScale is EVA's initialisation rule for the two projections that feed the residual stream of block i.
func residualScale(i int) float64 { return 1 / math.Sqrt(2*float64(i+1)) }
