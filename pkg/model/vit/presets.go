package vit

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Preset returns the encoder of the published name at the picture size it was trained with: clip-vit-l14 and
// eva-vit-g14 with the blocks that BLIP-2 uses (one less than published), blip-vit-l16 with all of its blocks and its
// final norm. Another size is another ImageSize, with a resized position table.
func Preset(name string) (Config, error) {
	presets := map[string]Config{
		"clip-vit-l14": {Arch: CLIP, ImageSize: 224, PatchSize: 14, Width: 1024, Layers: 23, Heads: 16, MLPRatio: 4,
			LayerNormEps: 1e-5},
		"eva-vit-g14": {Arch: EVA, ImageSize: 224, PatchSize: 14, Width: 1408, Layers: 39, Heads: 16, MLPRatio: 4.3637,
			LayerNormEps: 1e-6},
		"blip-vit-l16": {Arch: BLIP, ImageSize: 384, PatchSize: 16, Width: 1024, Layers: 24, Heads: 16, MLPRatio: 4,
			LayerNormEps: 1e-6},
	}
	cfg, ok := presets[name]
	if !ok {
		return cfg, fmt.Errorf("no image encoder is called %q: choose one of %s", name,
			strings.Join(slices.Sorted(maps.Keys(presets)), ", "))
	}
	return cfg, nil
}
