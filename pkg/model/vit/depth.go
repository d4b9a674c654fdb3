package vit

import (
	"strconv"
	"strings"
)

// Depth returns how many times a layer-wise learning-rate decay applies to the encoder's tensor of the given name
// (spec/training.md 6): once to the last block, once more to each block below it, and Layers+1 times to what is in
// front of the first block — patches, class token, positions and CLIP's first LayerNorm.
func (c Config) Depth(name string) int {
	for _, stem := range []string{"conv1.", "ln_pre.", "patch_embed."} {
		if strings.HasPrefix(name, stem) {
			return c.Layers + 1
		}
	}
	return c.DepthLAVIS(name)
}

// DepthLAVIS is Depth as released code assigns it. It compares CLIP's names for equality, so that conv1.weight and
// ln_pre.* pass for the last block.
func (c Config) DepthLAVIS(name string) int {
	switch {
	case name == "class_embedding", name == "cls_token", name == c.PositionName(),
		strings.HasPrefix(name, "patch_embed."):
		return c.Layers + 1
	}
	folder := strings.Join(c.blocks().style().folder, ".") + "."
	if rest, ok := strings.CutPrefix(name, folder); ok {
		number, _, _ := strings.Cut(rest, ".")
		if block, err := strconv.Atoi(number); err == nil && block >= 0 && block < c.Layers {
			return c.Layers - block
		}
	}
	return 1
}
