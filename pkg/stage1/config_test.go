package stage1

import (
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
)

// publishedConfig returns BLIP-2 on the encoder with the given architecture, at 224 pixels.
func publishedConfig(arch string) Config {
	cfg := Config{
		Vision: vit.Config{Arch: vit.CLIP, ImageSize: 224, PatchSize: 14, Width: 1024, Layers: 23, Heads: 16,
			MLPRatio: 4},
		FreezeVision: true, EmbedDim: 256, MaxTextLen: 32, BOSID: 30522, HardNegatives: NegativesMaskedSoftmax,
	}
	if arch == vit.EVA {
		cfg.Vision.Arch, cfg.Vision.Width, cfg.Vision.Layers, cfg.Vision.MLPRatio = vit.EVA, 1408, 39, 4.3637
	}
	cfg.QFormer = qformer.Config{Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, Queries: 32,
		CrossAttentionFreq: 2, EncoderWidth: cfg.Vision.Width, Vocab: 30523, MaxPositions: 512}
	return cfg
}

// TestPublishedSizes compares totals with spec/model.md 5.6 and the paper.
func TestPublishedSizes(t *testing.T) {
	for _, c := range []struct {
		arch                        string
		trainable, stage2, unfrozen int
	}{
		{vit.CLIP, 183_165_758, 101_625_344, 291_011_584 + 183_165_758},
		{vit.EVA, 186_705_470, 105_165_056, 986_485_888 + 186_705_470},
	} {
		cfg := publishedConfig(c.arch)
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", c.arch, err)
		}
		if got := model.Count(TrainableParams(cfg)); got != c.trainable {
			t.Errorf("%s: stage 1 trains %d parameters, want %d", c.arch, got, c.trainable)
		}
		if got := model.Count(HeadParams(cfg)) - 2*cfg.Vision.Width; got != 395_267 {
			t.Errorf("%s: projections, ITM head and temperature have %d parameters, want 395,267", c.arch, got)
		}
		if got := model.Count(qformer.Params(cfg.QFormer, false)) + 2*cfg.Vision.Width; got != c.stage2 {
			t.Errorf("%s: stage 2 starts from %d parameters, want %d", c.arch, got, c.stage2)
		}
		cfg.FreezeVision, cfg.Vision.ImageSize = false, 364
		if got := model.Count(TrainableParams(cfg)); got != c.unfrozen {
			t.Errorf("%s: retrieval fine-tuning trains %d parameters, want %d", c.arch, got, c.unfrozen)
		}
	}
}

// TestParams: names are unique, survive their path, and the lists are the parts of one another.
func TestParams(t *testing.T) {
	cfg := tinyConfig()
	seen := map[string]bool{}
	vision := 0
	for _, p := range Params(cfg) {
		if seen[p.Name] || model.Name(model.Path(p.Name)) != p.Name {
			t.Errorf("name %q is declared twice or does not survive its path", p.Name)
		}
		seen[p.Name] = true
		if strings.HasPrefix(p.Name, VisionPrefix) {
			vision++
		}
	}
	if vision != len(VisionParams(cfg)) || vision+len(QFormerParams(cfg)) != len(seen) {
		t.Errorf("%d tensors, %d of the encoder; VisionParams has %d, QFormerParams %d",
			len(seen), vision, len(VisionParams(cfg)), len(QFormerParams(cfg)))
	}
	for _, p := range TrainableParams(cfg) {
		if strings.HasPrefix(p.Name, VisionPrefix) {
			t.Errorf("%s is trained though the encoder is frozen", p.Name)
		}
	}
	for _, p := range HeadParams(cfg) {
		want := model.Uniform(model.LinearBound(cfg.QFormer.Hidden))
		switch p.Name {
		case "temp":
			want = model.Constant(0.07)
		case "ln_vision.weight":
			want = model.Constant(1)
		case "ln_vision.bias":
			want = model.Constant(0)
		}
		if p.Init != want {
			t.Errorf("%s starts as %v, want %v", p.Name, p.Init, want)
		}
	}
}

// TestEveryTensorIsRead: the graph of the losses reads exactly the declared tensors.
func TestEveryTensorIsRead(t *testing.T) {
	for _, arch := range []string{vit.CLIP, vit.EVA} {
		cfg := tinyConfig()
		cfg.Vision.Arch = arch
		evalBatch(t, cfg, randomStore(t, cfg), newHostBatch(cfg), func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
			o := Forward(scope, cfg, b, nil)
			for _, p := range Params(cfg) {
				if !scope.Store().GetVariable(model.Path(p.Name)).InUseByGraph(b.Pixels.Graph()) {
					t.Errorf("%s: the graph does not read %s", arch, p.Name)
				}
			}
			return []*Node{o.Loss}
		})
	}
}

func TestConfigValidate(t *testing.T) {
	for says, change := range map[string]func(*Config){
		"encoder width": func(c *Config) { c.QFormer.EncoderWidth = 9 },
		"positions":     func(c *Config) { c.MaxTextLen = 9 },
		"easy":          func(c *Config) { c.HardNegatives = "easy" },
		"vision arch":   func(c *Config) { c.Vision.Arch = "x" },
		"heads":         func(c *Config) { c.QFormer.Heads = 5 },
	} {
		cfg := tinyConfig()
		if err := cfg.Validate(); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
}
