package cli

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"blip2/pkg/config"
	"blip2/pkg/internal/graphtest"
	"blip2/pkg/runlog"
	"blip2/pkg/stage1"
	"blip2/pkg/tokenizer"
)

// TestOverfitsRealPictures trains configs/overfit64.yaml: on 64 real pairs the three losses come down to what they can,
// and every picture finds its caption and every caption its picture.
//
// It runs with BLIP2_LONG=1, on XLA: a minute or two on two processor cores.
func TestOverfitsRealPictures(t *testing.T) {
	if os.Getenv("BLIP2_LONG") == "" {
		t.Skip("takes a minute or two; BLIP2_LONG=1 runs it")
	}
	graphtest.OpenXLA(t)
	path := filepath.Join("..", "..", "configs", "overfit64.yaml")
	cfg, _, err := config.LoadStage1(config.LoadOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	words, err := tokenizer.LoadWordPiece(cfg.Text.Vocab)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	got := runApp(t, nil, "pretrain-stage1", "--config", path, "--backend", "xla:cpu", "--set", "run.dir="+dir,
		"--set", "run.name=overfit")
	if got.code != ExitOK {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	s, err := runlog.ReadSummary(filepath.Join(dir, "overfit"))
	if err != nil {
		t.Fatal(err)
	}
	if s.TrainImages != 64 || s.TrainTexts != 64 || s.BatchSize != 64 || s.Epochs != runlog.Float(s.Steps) {
		t.Fatalf("%d pictures, %d texts, batch %d, %g epochs in %d steps; want 64 of each, an epoch per step",
			s.TrainImages, s.TrainTexts, s.BatchSize, s.Epochs, s.Steps)
	}
	epsilon := float64(cfg.Loss.LabelSmoothing)
	for _, loss := range []struct {
		name        string
		got         runlog.Float
		least, over float64
	}{
		{"ITC", s.LossITC, smoothingFloor(epsilon, s.BatchSize), 0.05},
		{"ITM", s.LossITM, 0, 0.05},
		{"ITG", s.LossITG, smoothingFloor(epsilon, stage1.VocabularyOf(words).Size), 0.05},
	} {
		t.Logf("%s loss %.4f, at least %.4f", loss.name, loss.got, loss.least)
		if v := float64(loss.got); !(v > loss.least-1e-3 && v < loss.least+loss.over) {
			t.Errorf("%s loss is %.4f, want %.4f to %.4f", loss.name, v, loss.least, loss.least+loss.over)
		}
	}
	if len(s.Retrieval) != 1 {
		t.Fatalf("retrieval on %d sets, want 1: %v", len(s.Retrieval), s.Retrieval)
	}
	for _, r := range s.Retrieval {
		if r.Images != 64 || r.I2TR1 != 100 || r.T2IR1 != 100 {
			t.Errorf("R@1 of %d pictures is %g and %g, want 100 both ways", r.Images, r.I2TR1, r.T2IR1)
		}
	}
}

// TestSmoothingFloor checks the bound against its definition: with weight 0.9 + 0.1/2 on one of two classes.
func TestSmoothingFloor(t *testing.T) {
	want := -0.95*math.Log(0.95) - 0.05*math.Log(0.05)
	if got := smoothingFloor(0.1, 2); math.Abs(got-want) > 1e-12 {
		t.Errorf("smoothingFloor = %g, want %g", got, want)
	}
}

// smoothingFloor is the least cross entropy against labels that are smoothed over n classes: their entropy.
func smoothingFloor(epsilon float64, n int) float64 {
	other := epsilon / float64(n)
	label := 1 - epsilon + other
	return -label*math.Log(label) - float64(n-1)*other*math.Log(other)
}
