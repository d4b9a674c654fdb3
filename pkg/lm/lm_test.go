package lm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/published"
	"blip2/pkg/runlog"
	"blip2/pkg/tokenizer"
)

// train trains on the toy captions with settings over small sizes.
func train(t *testing.T, ctx context.Context, dir string, set ...string) (*Result, string, error) {
	t.Helper()
	text := `seed: 3
backend: go
out: lm
model: {vocab: 300, hidden: 16, layers: 1, heads: 2, ffn: 32, positions: 24, initializer_range: 0.1, dropout: 0.1}
data: {train: [{annotations: captions.json, images: images, split: train}]}
optim: {lr: 2e-2, min_lr: 1e-3, warmup_steps: 2}
train: {steps: 40, batch_size: 8, log_every: 10}
`
	path := filepath.Join(dir, "lm.yaml")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	c, _, err := config.LoadLM(config.LoadOptions{Path: path, Set: set})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := device.Open(t.Context(), device.Options{Backend: "go", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dev.Close() })
	var out bytes.Buffer
	r, err := Train(ctx, c, Options{Device: dev, Log: slog.New(slog.NewTextHandler(&out, nil)),
		Progress: runlog.NewProgress(runlog.ProgressOptions{Out: &out})})
	return r, out.String(), err
}

func toys(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := toydata.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestTrain: the model learns, and the folder is one of OPT in every respect that stage 2 looks at; a second training
// gives the same bytes.
func TestTrain(t *testing.T) {
	dir := toys(t)
	short, _, err := train(t, t.Context(), dir, "train.steps=10", "train.log_every=10", "out="+filepath.Join(dir, "short"))
	if err != nil {
		t.Fatal(err)
	}
	r, log, err := train(t, t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if !(r.Loss < 0.7*short.Loss) || r.Captions != 2*toydata.TrainImages || !strings.Contains(log, "step 40/40") {
		t.Errorf("%+v after 10 steps %+v\n%s", r, short, log)
	}
	spec, err := published.ReadConfig(r.Dir)
	if err != nil || spec.OPT == nil || spec.OPT.Vocab != r.Vocab || spec.OPT.Positions != 24 {
		t.Errorf("config.json says %+v, error %v", spec.OPT, err)
	}
	checked, err := published.Open(r.Dir, published.Hints{})
	if err != nil {
		t.Fatal(err)
	}
	defer checked.Close()
	if _, err := checked.Plan(false, false); err != nil {
		t.Error(err)
	}
	tok, err := tokenizer.Load(r.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if ids := tok.Encode("a red box\n", tokenizer.EncodeOptions{}); ids[0] != 2 || tok.VocabSize() != r.Vocab {
		t.Errorf("a caption is %v of %d", ids, tok.VocabSize())
	}
	if _, _, err := train(t, t.Context(), dir, "out="+filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.safetensors", "vocab.json", "merges.txt", "config.json"} {
		first, err := os.ReadFile(filepath.Join(r.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if second, err := os.ReadFile(filepath.Join(dir, "again", name)); err != nil || !bytes.Equal(first, second) {
			t.Errorf("%s differs, error %v", name, err)
		}
	}
}

// TestTrainRefuses: a folder that is not empty, and an interrupt, which leaves nothing.
func TestTrainRefuses(t *testing.T) {
	dir := toys(t)
	if _, _, err := train(t, t.Context(), dir, "out="+filepath.Join(dir, "images")); err == nil ||
		!strings.Contains(err.Error(), "not empty") {
		t.Errorf("error %v", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	_, _, err := train(t, ctx, dir)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "lm")); err == nil {
		t.Error("an interrupted training has left a folder")
	}
}

// TestRows: texts are full, made of whole captions of one picture each, and functions of seed and step.
func TestRows(t *testing.T) {
	r := &rows{length: 7, seed: 1, texts: [][][]int32{{{2, 10, 11}, {2, 12}}, {{2, 20}}}}
	ids, mask := r.batch(4, 50)
	if len(ids) != 350 || slices.Contains(mask, 0) {
		t.Fatalf("%d ids", len(ids))
	}
	orders := map[string]bool{}
	for row := range slices.Chunk(ids, 7) {
		first, second := slices.Contains(row, 20), slices.Contains(row, 10) || slices.Contains(row, 12)
		if row[0] != 2 || first == second {
			t.Errorf("row %v", row)
		}
		orders[string([]byte{byte(row[1]), byte(row[3])})] = true
	}
	if len(orders) < 3 {
		t.Error("captions always come in the same order")
	}
	again, _ := r.batch(4, 50)
	other, _ := r.batch(5, 50)
	if !slices.Equal(ids, again) || slices.Equal(ids, other) {
		t.Error("batches are no functions of the step")
	}
}
