package training

import (
	"blip2/pkg/config"
	"blip2/pkg/model/vit"
	"blip2/pkg/trainer"
)

// NewOptimizer returns the AdamW that a configuration describes.
func NewOptimizer(o config.Optim) trainer.AdamW {
	return trainer.AdamW{Betas: o.Betas, Eps: o.Eps, WeightDecay: o.WeightDecay, DecayRule: o.DecayRule,
		LayerDecay: o.LayerDecay, GradClip: o.GradClip,
		LossScale: trainer.LossScale{Dynamic: o.LossScale == 0, Value: float64(o.LossScale)}}
}

// NewVision returns the image encoder that a configuration describes.
func NewVision(v config.Vision) vit.Config {
	return vit.Config{Arch: v.Arch, ImageSize: v.ImageSize, PatchSize: v.PatchSize, Width: v.Width, Layers: v.Layers,
		Heads: v.Heads, MLPRatio: v.MLPRatio, LayerNormEps: v.LayerNormEps, InitializerRange: v.InitStd, Remat: v.Remat}
}
