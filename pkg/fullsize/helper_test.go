package fullsize

import (
	"testing"

	"github.com/gomlx/compute/dtypes"

	"blip2/pkg/model/blip"
	"blip2/pkg/model/clip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/stage1"
	"blip2/pkg/weights"
)

// tinyViT is an encoder that runs in milliseconds.
func tinyViT(arch string) vit.Config {
	return vit.Config{Arch: arch, ImageSize: 6, PatchSize: 2, Width: 8, Layers: 2, Heads: 2, MLPRatio: 1.5,
		LayerNormEps: 1e-5}
}

func tinyOPT() opt.Config {
	return opt.Config{Vocab: 29, Hidden: 12, Layers: 2, Heads: 3, FFN: 20, Positions: 16, EmbedDim: 10,
		LayerNormEps: 1e-5}
}

func tinyStage1() stage1.Config {
	return stage1.Config{Vision: tinyViT(vit.CLIP), FreezeVision: true, LNVisionEps: 1e-5,
		QFormer: qformer.Config{Hidden: 10, Layers: 3, Heads: 2, Intermediate: 14, Queries: 3, CrossAttentionFreq: 2,
			EncoderWidth: 8, Vocab: 19, MaxPositions: 12, LayerNormEps: 1e-12},
		EmbedDim: 4}
}

// tiny are networks of all kinds by what Find would call the kind.
func tiny() map[string]Network {
	return map[string]Network{
		"vision":     NewVision(tinyViT(vit.EVA)).Named("vision"),
		"image side": NewImageSide(tinyStage1()).Named("image side"),
		"qformer":    NewQFormer(tinyStage1()).Named("qformer"),
		"opt":        NewOPT(tinyOPT()).Named("opt"),
		"t5": NewT5(t5.Config{Vocab: 31, Hidden: 12, HeadDim: 4, Heads: 2, FFN: 18, EncoderLayers: 2, DecoderLayers: 3,
			Activation: nn.GELU, Buckets: 8, MaxDistance: 20, RMSNormEps: 1e-6}).Named("t5"),
		"clip": NewCLIP(clip.Config{Image: tinyViT(vit.CLIP), Embed: 5, Text: clip.Text{Vocab: 23, Context: 9, Width: 6,
			Layers: 2, Heads: 3, MLP: 10, LayerNormEps: 1e-5}}).Named("clip"),
		"blip": NewBLIP(blip.Config{Vision: tinyViT(vit.BLIP), Hidden: 10, Layers: 2, Heads: 2, Intermediate: 14, Vocab: 27,
			MaxPositions: 12, LayerNormEps: 1e-12}).Named("blip"),
	}
}

// sizesOf are small inputs for a network.
func sizesOf(n Network) Sizes {
	s := Sizes{Batch: 2, Compute: dtypes.Float32}
	if n.Tokens > 0 {
		s.Tokens = 5
	}
	return s
}

// written makes a checkpoint for the test.
func written(t *testing.T, n Network, container string, dtype weights.DType) string {
	t.Helper()
	w, err := n.Write(t.Context(), t.TempDir(), container, dtype)
	if err != nil {
		t.Fatal(err)
	}
	return w.Path
}
