package verify

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/clip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
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
	set, err := c.weights(nil)
	if err != nil {
		return err
	}
	if set, err = clipOfHuggingFace(set); err != nil {
		return err
	}
	store, err := set.store(clip.Params(cfg))
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

// clipOfHuggingFace renames the tensors of a CLIPModel to OpenAI's names (spec/weights.md 7): queries, keys and values
// become one tensor, projections are transposed, position numbers are left out.
func clipOfHuggingFace(set tensorSet) (tensorSet, error) {
	names := strings.NewReplacer(
		"vision_model.embeddings.class_embedding", "visual.class_embedding",
		"vision_model.embeddings.position_embedding.weight", "visual.positional_embedding",
		"vision_model.embeddings.patch_embedding", "visual.conv1",
		"vision_model.pre_layrnorm", "visual.ln_pre", // spelt so in the published files
		"vision_model.encoder.layers", "visual.transformer.resblocks",
		"vision_model.post_layernorm", "visual.ln_post",
		"visual_projection.weight", "visual.proj",
		"text_model.embeddings.token_embedding", "token_embedding",
		"text_model.embeddings.position_embedding.weight", "positional_embedding",
		"text_model.encoder.layers", "transformer.resblocks",
		"text_model.final_layer_norm", "ln_final",
		"text_projection.weight", "text_projection",
		"self_attn.out_proj", "attn.out_proj", "layer_norm1", "ln_1", "layer_norm2", "ln_2",
		"mlp.fc1", "mlp.c_fc", "mlp.fc2", "mlp.c_proj",
	)
	out := tensorSet{}
	for name, t := range set {
		switch {
		case strings.HasSuffix(name, "position_ids"):
		case strings.HasSuffix(name, "_projection.weight") && len(t.shape) == 2:
			out[names.Replace(name)] = t.transposed()
		case strings.Contains(name, "self_attn.k_proj."), strings.Contains(name, "self_attn.v_proj."):
			// With the queries.
		case strings.Contains(name, "self_attn.q_proj.") && len(t.shape) > 0:
			joined := array{}
			for _, part := range []string{"q_proj", "k_proj", "v_proj"} {
				part := strings.Replace(name, "q_proj", part, 1)
				rows, ok := set[part]
				if !ok || !slices.Equal(rows.shape, t.shape) {
					return nil, fmt.Errorf("%s: %s and %s do not go together", weightsFile, part, name)
				}
				joined.values = append(joined.values, rows.values...)
			}
			joined.shape = slices.Clone(t.shape)
			joined.shape[0] *= 3
			out[names.Replace(strings.Replace(name, "self_attn.q_proj.", "attn.in_proj_", 1))] = joined
		default:
			out[names.Replace(name)] = t
		}
	}
	return out, nil
}

// transposed swaps the axes of a matrix.
func (a array) transposed() array {
	rows, columns := a.shape[0], a.shape[1]
	out := array{shape: []int{columns, rows}, values: make([]float32, len(a.values))}
	for i, v := range a.values {
		out.values[i%columns*rows+i/columns] = v
	}
	return out
}
