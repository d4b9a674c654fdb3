package stage1

import (
	"os"
	"path/filepath"
	"testing"

	"blip2/pkg/config"
	"blip2/pkg/model"
	"blip2/pkg/training"
)

// TestPaperConfigs loads the configurations of the paper's runs and compares them with the paper: parameters
// (spec/model.md 2, 3 and 5.6), steps and batch (spec/training.md 1).
func TestPaperConfigs(t *testing.T) {
	for _, tt := range []struct {
		file            string
		vision, trained int
		batch           int
	}{
		{"pretrain_stage1_vitl.yaml", 290_581_504, 183_165_758, 2320},
		{"pretrain_stage1_vitg.yaml", 985_894_528, 186_705_470, 1680},
	} {
		c, sources, err := config.LoadStage1(config.LoadOptions{Path: filepath.Join(root(t), "configs", tt.file)})
		if err != nil {
			t.Error(err)
			continue
		}
		if len(sources.Warnings) > 0 {
			t.Errorf("%s: warnings %q", tt.file, sources.Warnings)
		}
		cfg := NewConfig(c, BERTVocabulary())
		if err := cfg.Validate(); err != nil {
			t.Errorf("%s: %v", tt.file, err)
		}
		if got := model.Count(VisionParams(cfg)); got != tt.vision {
			t.Errorf("%s: the image encoder has %d parameters, want %d", tt.file, got, tt.vision)
		}
		if got := model.Count(TrainableParams(cfg)); got != tt.trained {
			t.Errorf("%s: %d parameters are trained, want %d", tt.file, got, tt.trained)
		}
		if c.Train.BatchSize != tt.batch || c.Train.Steps != 250_000 || c.Optim.WarmupSteps != 2000 {
			t.Errorf("%s: batch %d, %d steps, %d of warm-up; want %d, 250000, 2000", tt.file, c.Train.BatchSize,
				c.Train.Steps, c.Optim.WarmupSteps, tt.batch)
		}
		o := training.NewOptimizer(c.Optim)
		if o.Betas != [2]float64{0.9, 0.98} || o.WeightDecay != 0.05 || o.GradClip != 0 {
			t.Errorf("%s: optimizer %+v", tt.file, o)
		}
		if filepath.Dir(c.Vision.Weights) != filepath.Join(root(t), "data", "weights") {
			t.Errorf("%s: weights at %s, want them in data/weights of the project", tt.file, c.Vision.Weights)
		}
	}
}

// root is the project's folder: the nearest one above with a go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test")
		}
		dir = parent
	}
}
