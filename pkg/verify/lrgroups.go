package verify

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"blip2/pkg/model"
	"blip2/pkg/model/vit"
	"blip2/pkg/stage1"
	"blip2/pkg/trainer"
)

// groupsItem is one model of a case of kind lr-groups.
type groupsItem struct {
	Arch        string       `json:"vit"`
	Blocks      int          `json:"blocks"`
	Gamma       float64      `json:"gamma"`
	WeightDecay float64      `json:"weight_decay"`
	Parameters  []namedShape `json:"parameters"`
}

// namedShape is a tensor as [name, shape].
type namedShape struct {
	name  string
	shape []int
}

// UnmarshalJSON reads ["temp", []].
func (n *namedShape) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&n.name, &n.shape})
}

// groups are weight decay and learning-rate scale by parameter.
type groups map[string][2]float64

// groupsExpected is expected.json of kind lr-groups. Fixed are the entries that differ by the default rule.
type groupsExpected struct {
	Items []struct {
		Arch  string `json:"vit"`
		Gamma float64
		LAVIS groups
		Fixed groups
	}
	// EVAScales are those of ViT-g with γ = 0.95 by layer id, 0 (in front of the blocks) to 40 (behind them).
	EVAScales []float64 `json:"eva_g_scales_gamma_0.95_by_layer_id_0_to_40"`
}

// lrGroups runs kind lr-groups: weight decay and layer-wise learning-rate scale of every parameter, by both rules.
func lrGroups(c *Case, k *checker) error {
	var config struct{ Items []groupsItem }
	var expected groupsExpected
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if _, err := c.tolerance(); err != nil {
		return err
	}
	if len(config.Items) != len(expected.Items) {
		return fmt.Errorf("%d items, but %d expected", len(config.Items), len(expected.Items))
	}
	for i, item := range config.Items {
		want := expected.Items[i]
		if item.Arch != vit.EVA && item.Arch != vit.CLIP {
			return fmt.Errorf("config: item %d: vit %q: want %q or %q", i, item.Arch, vit.EVA, vit.CLIP)
		}
		if item.Arch != want.Arch || item.Gamma != want.Gamma {
			return fmt.Errorf("item %d: %s with gamma %g, expected are numbers of %s with %g", i, item.Arch, item.Gamma,
				want.Arch, want.Gamma)
		}
		byDefault := maps.Clone(want.LAVIS)
		maps.Copy(byDefault, want.Fixed)
		label := fmt.Sprintf("%s, gamma %g, ", item.Arch, item.Gamma)
		k.groups(label+trainer.DecayLAVIS, item, trainer.DecayLAVIS, want.LAVIS)
		k.groups(label+trainer.DecayDefault, item, trainer.DecayDefault, byDefault)
	}
	if expected.EVAScales != nil {
		compareFloats(k, "EVA ViT-g", []int{len(expected.EVAScales)}, evaScales(), expected.EVAScales)
	}
	return nil
}

// groups compares all parameters of an item by one rule.
func (k *checker) groups(label string, item groupsItem, rule string, want groups) {
	a := trainer.AdamW{WeightDecay: item.WeightDecay, DecayRule: rule, LayerDecay: item.Gamma}
	cfg := stage1.Config{Vision: vit.Config{Arch: item.Arch, Layers: item.Blocks}}
	var got, recorded []float64 // decay and scale by turns
	for _, p := range item.Parameters {
		pair, ok := want[p.name]
		if !ok {
			k.problem("%s: %s: nothing is expected under this name", label, p.name)
			return
		}
		decay := 0.0
		if a.Decays(model.Param{Name: p.name, Shape: p.shape}) {
			decay = a.WeightDecay
		}
		scale := a.LRScale(stage1.Depth(cfg, rule, p.name))
		got, recorded = append(got, decay, scale), append(recorded, pair[0], pair[1])
	}
	if len(want) != len(item.Parameters) {
		names := slices.Sorted(maps.Keys(want))
		k.problem("%s: %d parameters, but %d expected: %v", label, len(item.Parameters), len(names), names)
	}
	compareFloats(k, label, []int{len(item.Parameters), 2}, got, recorded)
}

// evaScales are the scales of BLIP-2's ViT-g with γ = 0.95 by layer id: what is in front of the blocks, the 39 blocks,
// and what is behind them.
func evaScales() []float64 {
	cfg := stage1.Config{Vision: vit.Config{Arch: vit.EVA, Layers: 39}}
	a := trainer.AdamW{LayerDecay: 0.95}
	names := []string{stage1.VisionPrefix + "pos_embed"}
	for i := range cfg.Vision.Layers {
		names = append(names, fmt.Sprintf("%sblocks.%d.norm1.weight", stage1.VisionPrefix, i))
	}
	scales := make([]float64, 0, len(names)+1)
	for _, name := range append(names, "ln_vision.weight") {
		scales = append(scales, a.LRScale(stage1.Depth(cfg, trainer.DecayDefault, name)))
	}
	return scales
}
