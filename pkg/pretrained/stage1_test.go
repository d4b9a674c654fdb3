package pretrained_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
	"blip2/pkg/pretrained"
	"blip2/pkg/stage1"
	"blip2/pkg/weights"
)

// TestStage1 writes every tensor of stage 1 under its own name and loads the two parts of the file: nothing may be
// left over, and what the store holds must be what was written.
func TestStage1(t *testing.T) {
	for _, arch := range []string{vit.CLIP, vit.EVA} {
		cfg := stage1.Config{
			Vision: vit.Config{Arch: arch, ImageSize: 42, PatchSize: 14, Width: 12, Layers: 2, Heads: 2, MLPRatio: 4},
			QFormer: qformer.Config{Hidden: 8, Layers: 3, Heads: 2, Intermediate: 10, Queries: 3,
				CrossAttentionFreq: 2, EncoderWidth: 12, Vocab: 21, MaxPositions: 9},
			EmbedDim: 4, Temperature: 0.07,
		}
		var file []weights.Tensor
		for i, p := range stage1.Params(cfg) {
			file = append(file, weights.FromFloat32(p.Name, p.Shape, slices.Repeat([]float32{float32(i)}, p.Size())))
		}
		path := filepath.Join(t.TempDir(), "model.safetensors")
		if err := weights.Write(path, file, nil); err != nil {
			t.Fatal(err)
		}
		store := mlx.NewStore()
		encoder, err := pretrained.LoadVision(store, cfg.Vision, path, pretrained.Options{})
		if err != nil {
			t.Fatal(err)
		}
		rest, err := pretrained.LoadQFormer(store, stage1.QFormerParams(cfg), path, 1, pretrained.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(encoder.Consumed) + len(rest.Consumed); n != len(file) {
			t.Errorf("%s: %d of %d tensors used", arch, n, len(file))
		}
		for i, p := range stage1.Params(cfg) {
			value, err := store.GetVariable(model.Path(p.Name)).Value()
			if err != nil {
				t.Fatal(err)
			}
			if got := tensors.MustCopyFlatData[float32](value); got[0] != float32(i) || len(got) != p.Size() {
				t.Errorf("%s: %s is %v…, want %d", arch, p.Name, got[0], i)
			}
		}
	}
}
