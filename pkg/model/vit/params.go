package vit

import (
	"fmt"

	"blip2/pkg/model"
)

// Params lists the encoder's tensors under the published names, without a prefix. Their Init is that of an encoder
// trained from scratch (spec/model.md 5.5).
func Params(cfg Config) []model.Param {
	if cfg.Arch == CLIP {
		return clipParams(cfg)
	}
	return evaParams(cfg)
}

func clipParams(cfg Config) []model.Param {
	w, p, m := cfg.Width, cfg.PatchSize, cfg.MLPWidth()
	trunc := model.TruncNormal(cfg.initStd())
	params := []model.Param{
		{Name: "class_embedding", Shape: []int{w}, Init: trunc},
		{Name: "positional_embedding", Shape: []int{cfg.Tokens(), w}, Init: trunc},
		{Name: "conv1.weight", Shape: []int{w, 3, p, p}, Init: model.Uniform(model.LinearBound(3 * p * p))},
	}
	params = append(params, model.LayerNorm("ln_pre", w)...)
	for i := range cfg.Layers {
		block := fmt.Sprintf("transformer.resblocks.%d.", i)
		params = append(params, model.LayerNorm(block+"ln_1", w)...)
		params = append(params,
			model.Param{Name: block + "attn.in_proj_weight", Shape: []int{3 * w, w}, Init: trunc},
			model.Param{Name: block + "attn.in_proj_bias", Shape: []int{3 * w}})
		params = append(params, linear(block+"attn.out_proj", w, w, cfg.initStd())...)
		params = append(params, model.LayerNorm(block+"ln_2", w)...)
		params = append(params, linear(block+"mlp.c_fc", m, w, cfg.initStd())...)
		params = append(params, linear(block+"mlp.c_proj", w, m, cfg.initStd())...)
	}
	return params
}

func evaParams(cfg Config) []model.Param {
	w, p, m := cfg.Width, cfg.PatchSize, cfg.MLPWidth()
	trunc := model.TruncNormal(cfg.initStd())
	patch := model.Uniform(model.LinearBound(3 * p * p))
	params := []model.Param{
		{Name: "cls_token", Shape: []int{1, 1, w}, Init: trunc},
		{Name: "pos_embed", Shape: []int{1, cfg.Tokens(), w}, Init: trunc},
		{Name: "patch_embed.proj.weight", Shape: []int{w, 3, p, p}, Init: patch},
		{Name: "patch_embed.proj.bias", Shape: []int{w}, Init: patch},
	}
	for i := range cfg.Layers {
		block := fmt.Sprintf("blocks.%d.", i)
		params = append(params, model.LayerNorm(block+"norm1", w)...)
		params = append(params,
			model.Param{Name: block + "attn.qkv.weight", Shape: []int{3 * w, w}, Init: trunc},
			model.Param{Name: block + "attn.q_bias", Shape: []int{w}},
			model.Param{Name: block + "attn.v_bias", Shape: []int{w}})
		params = append(params, linear(block+"attn.proj", w, w, cfg.initStd()*residualScale(i))...)
		params = append(params, model.LayerNorm(block+"norm2", w)...)
		params = append(params, linear(block+"mlp.fc1", m, w, cfg.initStd())...)
		params = append(params, linear(block+"mlp.fc2", w, m, cfg.initStd()*residualScale(i))...)
	}
	return params
}

// linear declares weight [out, in], drawn with the given spread, and bias [out].
func linear(name string, out, in int, std float64) []model.Param {
	return []model.Param{
		{Name: name + ".weight", Shape: []int{out, in}, Init: model.TruncNormal(std)},
		{Name: name + ".bias", Shape: []int{out}},
	}
}
