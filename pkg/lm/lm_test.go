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

// TestTrain: both kinds of model learn, and their folders are those of OPT and of T5 in every respect that stage 2
// looks at; a second training gives the same bytes.
func TestTrain(t *testing.T) {
	for _, arch := range []struct {
		name   string
		files  []string // of the tokenizer
		end    string   // of a caption
		begins bool     // with </s>, instead of ending with it
	}{
		{config.LMOPT, []string{"vocab.json", "merges.txt"}, "\n", true},
		{config.LMT5, []string{"tokenizer.json", "tokenizer_config.json"}, "", false},
	} {
		t.Run(arch.name, func(t *testing.T) {
			dir := toys(t)
			set := func(name string, more ...string) []string {
				return append(more, "model.arch="+arch.name, "out="+filepath.Join(dir, name))
			}
			short, _, err := train(t, t.Context(), dir, set("short", "train.steps=10", "train.log_every=10")...)
			if err != nil {
				t.Fatal(err)
			}
			r, log, err := train(t, t.Context(), dir, set("lm")...)
			if err != nil {
				t.Fatal(err)
			}
			if !(r.Loss < 0.7*short.Loss) || r.Captions != 2*toydata.TrainImages || r.Arch != arch.name ||
				!strings.Contains(log, "step 40/40") {
				t.Errorf("%+v after 10 steps %+v\n%s", r, short, log)
			}
			checkFolder(t, r)
			tok, err := tokenizer.Load(r.Dir)
			if err != nil {
				t.Fatal(err)
			}
			ids := tok.Encode("a red box"+arch.end, tokenizer.EncodeOptions{})
			if tok.VocabSize() != r.Vocab || arch.begins != (ids[0] == 2) || arch.begins == (ids[len(ids)-1] == 1) {
				t.Errorf("a caption is %v of %d", ids, tok.VocabSize())
			}
			if _, _, err := train(t, t.Context(), dir, set("again")...); err != nil {
				t.Fatal(err)
			}
			for _, name := range append(arch.files, "model.safetensors", "config.json") {
				first, err := os.ReadFile(filepath.Join(r.Dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if second, err := os.ReadFile(filepath.Join(dir, "again", name)); err != nil || !bytes.Equal(first, second) {
					t.Errorf("%s differs, error %v", name, err)
				}
			}
		})
	}
}

// checkFolder: config.json tells the sizes, and the tensors are all of them.
func checkFolder(t *testing.T, r *Result) {
	t.Helper()
	spec, err := published.ReadConfig(r.Dir)
	switch {
	case err != nil:
		t.Error(err)
	case spec.OPT != nil:
		if spec.OPT.Vocab != r.Vocab || spec.OPT.Positions != 24 || r.Arch != config.LMOPT {
			t.Errorf("config.json says %+v", spec.OPT)
		}
	case spec.T5 == nil || spec.T5.Vocab != r.Vocab || spec.T5.EncoderLayers != 1 || r.Arch != config.LMT5:
		t.Errorf("config.json says %+v", spec)
	}
	checked, err := published.Open(r.Dir, published.Hints{})
	if err != nil {
		t.Fatal(err)
	}
	defer checked.Close()
	if _, err := checked.Plan(false, false); err != nil {
		t.Error(err)
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
	// What cannot be written is said at once, and not after the training.
	gone := filepath.Join(dir, "gone")
	if err := os.Symlink(filepath.Join(dir, "nowhere"), gone); err != nil {
		t.Skip(err)
	}
	if _, _, err := train(t, ctx, dir, "out="+filepath.Join(gone, "lm")); err == nil ||
		errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "cannot be made") {
		t.Errorf("a folder behind a link to nothing: error %v", err)
	}
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

// TestPairs: the encoder reads whole captions of one picture and the beginning of another, the decoder writes the rest;
// both end with </s>, are as long as they may be at most, and functions of seed and step.
func TestPairs(t *testing.T) {
	captions := [][][]int32{{{10, 11, 12, 13}, {14, 15}, {16}}, {{20, 21}}}
	p := &pairs{texts: captions, end: 1, read: 6, written: 4, seed: 1}
	read, written := p.batch(4, 400)
	var alone, whole, cut int
	for i := range read {
		r, w := read[i], written[i]
		if len(r) > 6 || len(w) > 4 || r[len(r)-1] != 1 || w[len(w)-1] != 1 {
			t.Fatalf("%v and %v", r, w)
		}
		r, w = r[:len(r)-1], w[:len(w)-1]
		if (w[0] >= 20) != (len(r) > 0 && r[0] >= 20) && len(r) > 0 {
			t.Errorf("%v stands in front of %v", r, w)
		}
		switch w[0] {
		case 10, 14, 16, 20:
			whole++
			if len(r) == 0 {
				alone++
			}
		case 11, 12, 15, 21: // the first part stands in front, at most the half
			cut++
			if r[len(r)-1] != w[0]-1 {
				t.Errorf("%v is not the beginning of %v", r, w)
			}
		default:
			t.Errorf("%v is cut behind its middle", w)
		}
	}
	if alone < 20 || whole-alone < 20 || cut < 20 {
		t.Errorf("%d captions alone, %d whole ones behind others, %d cut ones", alone, whole-alone, cut)
	}
	again, _ := p.batch(4, 400)
	other, _ := p.batch(5, 400)
	same := func(a, b [][]int32) bool { return slices.EqualFunc(a, b, slices.Equal[[]int32]) }
	if !same(read, again) || same(read, other) {
		t.Error("batches are no functions of the step")
	}
	if !slices.Equal(captions[0][0], []int32{10, 11, 12, 13}) {
		t.Error("a batch has changed the captions")
	}
}
