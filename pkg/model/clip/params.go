package clip

import (
	"math"

	"blip2/pkg/model"
	"blip2/pkg/model/vit"
)

// Params lists the model's tensors under OpenAI's names.
func Params(cfg Config) []model.Param {
	return append(ImageParams(cfg), TextParams(cfg)...)
}

// ImageParams lists the image tower's tensors, its projection included.
func ImageParams(cfg Config) []model.Param {
	w := cfg.Image.Width
	params := append(vit.Params(cfg.Image), model.LayerNorm("ln_post", w)...)
	params = append(params, projection("proj", w, cfg.Embed))
	return model.Prefixed("visual.", params)
}

// TextParams lists the text tower's tensors, its projection included, and logit_scale, which starts at ln(1/0.07) when
// there is no checkpoint.
func TextParams(cfg Config) []model.Param {
	t := cfg.Text
	params := []model.Param{
		{Name: "token_embedding.weight", Shape: []int{t.Vocab, t.Width}, Init: model.Normal(0.02)},
		{Name: "positional_embedding", Shape: []int{t.Context, t.Width}, Init: model.Normal(0.01)},
	}
	params = append(params, t.blocks().Params()...)
	params = append(params, model.LayerNorm("ln_final", t.Width)...)
	return append(params, projection("text_projection", t.Width, cfg.Embed),
		model.Param{Name: "logit_scale", Init: model.Constant(math.Log(1 / 0.07))})
}

// projection declares a projection to the common space, [in, embed].
func projection(name string, in, embed int) model.Param {
	return model.Param{Name: name, Shape: []int{in, embed}, Init: model.Normal(1 / math.Sqrt(float64(in)))}
}
