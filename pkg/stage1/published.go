package stage1

import (
	"fmt"

	"blip2/pkg/naming"
	"blip2/pkg/published"
)

// FromPublished returns the model of a published stage-1 checkpoint, for inference: losses have no weight, and of the
// vocabulary only the size is known.
func FromPublished(s published.Spec) (Config, error) {
	if s.Model != naming.BLIP2Stage1 || s.Vision == nil || s.QFormer == nil || !s.QFormerText {
		return Config{}, fmt.Errorf("%s is not a complete model of stage 1: it lacks %v", s.Model, s.Missing())
	}
	cfg := Config{Vision: *s.Vision, FreezeVision: true, LNVisionEps: s.LNVisionEps, QFormer: *s.QFormer,
		EmbedDim: s.EmbedDim, MaxTextLen: s.QFormer.MaxPositions, HardNegatives: NegativesMaskedSoftmax}
	cfg.QFormer.Dropout = 0
	return cfg, cfg.Validate()
}
