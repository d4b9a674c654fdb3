package verify

import (
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/clip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
)

// clipConfig are the config keys of a case of CLIP's two towers.
type clipConfig struct {
	TextVocab    int     `json:"text_vocab"`
	TextWidth    int     `json:"text_width"`
	TextHeads    int     `json:"text_heads"`
	TextMLP      int     `json:"text_mlp"`
	TextLayers   int     `json:"text_layers"`
	TextContext  int     `json:"text_context"`
	Width        int     `json:"vit_width"`
	Heads        int     `json:"vit_heads"`
	MLP          int     `json:"vit_mlp"`
	Layers       int     `json:"vit_layers"`
	ImageSize    int     `json:"image_size"`
	PatchSize    int     `json:"patch_size"`
	Embed        int     `json:"projection_dim"`
	LayerNormEps float64 `json:"layer_norm_eps"`
}

// model returns the model's configuration; a key that is missing shows as a value that cannot be.
func (c clipConfig) model() (clip.Config, error) {
	cfg := clip.Config{
		Image: vit.Config{Arch: vit.CLIP, ImageSize: c.ImageSize, PatchSize: c.PatchSize, Width: c.Width,
			Layers: c.Layers, Heads: c.Heads, MLPRatio: vit.RatioOf(c.MLP, c.Width), LayerNormEps: c.LayerNormEps},
		Text: clip.Text{Vocab: c.TextVocab, Context: c.TextContext, Width: c.TextWidth, Layers: c.TextLayers,
			Heads: c.TextHeads, MLP: c.TextMLP, LayerNormEps: c.LayerNormEps},
		Embed: c.Embed,
	}
	if err := cfg.Validate(); err != nil {
		return cfg, err
	}
	return cfg, allPositive(map[string]float64{"text_vocab": float64(c.TextVocab), "text_width": float64(c.TextWidth),
		"text_mlp": float64(c.TextMLP), "text_layers": float64(c.TextLayers), "text_context": float64(c.TextContext),
		"vit_width": float64(c.Width), "vit_mlp": float64(c.MLP), "vit_layers": float64(c.Layers),
		"projection_dim": float64(c.Embed), "layer_norm_eps": c.LayerNormEps})
}

// clipTextImage runs kind clip-text-image: the features of both towers and what follows from them.
func clipTextImage(c *Case, k *checker) error {
	var config clipConfig
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	if err := c.config(&config); err != nil {
		return err
	}
	cfg, err := config.model()
	if err != nil {
		return err
	}
	store, err := c.storeOf(weightsFile, naming.CLIP, naming.HuggingFace, clip.Params(cfg))
	if err != nil {
		return err
	}
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return err
	}
	ids, err := c.idInput("input_ids", cfg.Text.Vocab)
	if err != nil {
		return err
	}
	return c.compareProgram(k, program{store: store, inputs: []*tensors.Tensor{pixels, ids},
		forward: func(scope *mlx.Scope, in []*Node) []output {
			image := clip.ImageFeatures(scope, cfg, in[0])
			text := clip.TextFeatures(scope, cfg, in[1], dtypes.Float32)
			return []output{
				{"image_features", image}, {"text_features", text},
				{"image_embeds", nn.UnitNorm(image)}, {"text_embeds", nn.UnitNorm(text)},
				{"logits_per_image", clip.Logits(scope, image, text)},
			}
		}})
}
