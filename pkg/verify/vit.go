package verify

import (
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
)

// visionConfig are the keys of a case's config that describe the image encoder.
type visionConfig struct {
	Vit          string  `json:"vit"`
	ImageSize    int     `json:"image_size"`
	PatchSize    int     `json:"patch_size"`
	Width        int     `json:"vit_width"`
	Layers       int     `json:"vit_layers"`
	Heads        int     `json:"vit_heads"`
	MLPRatio     float64 `json:"vit_mlp_ratio"`
	LayerNormEps float64 `json:"vit_layer_norm_eps"`
	LNVisionEps  float64 `json:"ln_vision_eps"`
}

// encoder returns the encoder's configuration; a key that is missing shows as a value that cannot be.
func (v visionConfig) encoder() (vit.Config, error) {
	cfg := vit.Config{Arch: v.Vit, ImageSize: v.ImageSize, PatchSize: v.PatchSize, Width: v.Width, Layers: v.Layers,
		Heads: v.Heads, MLPRatio: v.MLPRatio, LayerNormEps: v.LayerNormEps}
	if err := cfg.Validate(); err != nil {
		return cfg, err
	}
	return cfg, allPositive(map[string]float64{"vit_width": float64(v.Width), "vit_layers": float64(v.Layers),
		"vit_mlp_ratio": v.MLPRatio, "vit_layer_norm_eps": v.LayerNormEps, "ln_vision_eps": v.LNVisionEps})
}

// allPositive reports a config value that is missing or not above 0.
func allPositive(values map[string]float64) error {
	for key, v := range values {
		if !(v > 0) {
			return fmt.Errorf("config: %s must be above 0, not %v", key, v)
		}
	}
	return nil
}

// vision runs kinds vit-clip and vit-eva: the encoder and ln_vision at the size of the weights, and at other sizes
// with a resized position table.
func vision(c *Case, k *checker) error {
	var config struct {
		visionConfig
		Resized []int `json:"resized_image_sizes"`
	}
	var expected struct {
		Unused []string `json:"unused"`
	}
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	cfg, err := config.encoder()
	if err != nil {
		return err
	}
	if "vit-"+cfg.Arch != c.Kind {
		return fmt.Errorf("config: vit %q in a case of kind %s", cfg.Arch, c.Kind)
	}
	set, err := c.weights(expected.Unused)
	if err != nil {
		return err
	}
	if err := encode(c, k, cfg, config.LNVisionEps, set, ""); err != nil {
		return err
	}
	for i, size := range config.Resized {
		suffix := fmt.Sprintf("_r%d", i)
		resized := cfg
		resized.ImageSize = size
		if err := resized.Validate(); err != nil {
			return err
		}
		positions, err := resizePositions(k, cfg, resized, set, suffix)
		if err != nil {
			return err
		}
		if err := encode(c, k, resized, config.LNVisionEps, positions, suffix); err != nil {
			return err
		}
	}
	return nil
}

// resizePositions returns the weights with the position table of the new size, after comparing the table.
func resizePositions(k *checker, old, resized vit.Config, set tensorSet, suffix string) (tensorSet, error) {
	name := old.PositionName()
	table, ok := set[name]
	if !ok {
		return nil, fmt.Errorf("%s has no position table %s", weightsFile, name)
	}
	values, err := vit.ResizePositions(old, table.values, old.Grid(), resized.Grid())
	if err != nil {
		return nil, err
	}
	shape := []int{resized.Tokens(), resized.Width}
	if old.Arch == vit.EVA {
		shape = append([]int{1}, shape...)
	}
	k.floats("pos_embed"+suffix, shape, values)
	out := tensorSet{}
	for n, t := range set {
		out[n] = t
	}
	out[name] = array{shape, values}
	return out, nil
}

// encode compares the features before and after ln_vision of the pictures named with the suffix.
func encode(c *Case, k *checker, cfg vit.Config, lnEps float64, set tensorSet, suffix string) error {
	backend, err := c.backend()
	if err != nil {
		return err
	}
	params := append(vit.Params(cfg),
		model.Param{Name: "ln_vision.weight", Shape: []int{cfg.Width}},
		model.Param{Name: "ln_vision.bias", Shape: []int{cfg.Width}})
	store, err := set.store(params)
	if err != nil {
		return err
	}
	pixels, err := c.floatInput("pixels" + suffix)
	if err != nil {
		return err
	}
	results, err := program{store: store, inputs: []*tensors.Tensor{pixels},
		forward: func(scope *mlx.Scope, in []*Node) []output {
			features := vit.Forward(scope, cfg, in[0])
			return []output{
				{"features" + suffix, features},
				{"ln_vision" + suffix, nn.LayerNorm(scope.At("ln_vision"), features, lnEps)},
			}
		}}.run(backend)
	if err != nil {
		return err
	}
	for _, r := range results {
		k.tensor(r.name, r.value)
	}
	return nil
}
