package stage1

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// copyRun copies a run folder.
func (y *toy) copyRun(t *testing.T, from, to string) {
	t.Helper()
	if err := os.CopyFS(y.path("runs", to), os.DirFS(y.path("runs", from))); err != nil {
		t.Fatal(err)
	}
}

// damage flips a bit in the middle of a file of a run folder.
func (y *toy) damage(t *testing.T, path ...string) {
	t.Helper()
	file := y.path(append([]string{"runs"}, path...)...)
	data := readFile(t, file)
	data[len(data)/2] ^= 4
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, name string, err error, says ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error", name)
		return
	}
	for _, want := range says {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: no %q in %q", name, want, err)
		}
	}
}

// TestOneTraining: whatever happens on the way, and however the data are read, ten steps are ten steps, bit for bit.
// There is dropout and augmentation, and ten steps are two and a half epochs.
func TestOneTraining(t *testing.T) {
	y := newToy(t)
	whole := y.mustTrain(t, start{run: "whole", set: []string{quick}})
	if s := whole.Summary; s.Steps != 10 || s.Epochs != 2.5 || s.Retrieval != nil || s.RetrievalBefore != nil {
		t.Fatalf("summary %+v", s)
	}
	stopped := y.mustTrain(t, start{run: "stopped", set: []string{quick}, stopAt: "step 6/10"})
	if stopped.Status != trainer.Interrupted || stopped.Summary.Status != runlog.StatusInterrupted ||
		stopped.Summary.Steps != 6 || stopped.Summary.Checkpoint != "checkpoints/step-00000006" {
		t.Fatalf("interrupted: %v, %+v", stopped.Status, stopped.Summary)
	}
	if readFile(t, stopped.dir, runlog.ReportFile); !strings.Contains(string(readFile(t, stopped.dir, checkpoint.Folder,
		checkpoint.LatestFile)), "step-00000006") {
		t.Error("latest does not name the checkpoint of the interrupt")
	}
	y.copyRun(t, "stopped", "damaged")
	y.copyRun(t, "stopped", "ruined")
	y.copyRun(t, "stopped", "changed")

	t.Run("workers", func(t *testing.T) {
		other := y.mustTrain(t, start{run: "workers", set: []string{quick, "data.workers=5", "data.prefetch=1"}})
		sameCheckpoint(t, "other workers", other, whole, 10)
		sameSeries(t, "other workers", other, whole)
	})
	t.Run("interrupt", func(t *testing.T) {
		resumed := y.mustTrain(t, start{run: "stopped", set: []string{quick}, resume: true})
		sameCheckpoint(t, "resumed", resumed, whole, 10)
		sameSeries(t, "resumed", resumed, whole)
		if resumed.Status != trainer.Finished || resumed.Summary.Steps != 10 || resumed.Summary.Loss != whole.Summary.Loss ||
			!strings.Contains(resumed.log, "msg=resumed") || strings.Contains(resumed.log, "step 6/10") {
			t.Errorf("%+v\n%s", resumed.Summary, resumed.log)
		}
	})
	t.Run("damage", func(t *testing.T) {
		y.damage(t, "damaged", checkpoint.Folder, checkpoint.DirName(6), checkpoint.ModelFile)
		resumed := y.mustTrain(t, start{run: "damaged", set: []string{quick}, resume: true})
		sameCheckpoint(t, "from the older checkpoint", resumed, whole, 10)
		sameSeries(t, "from the older checkpoint", resumed, whole)
		for _, want := range []string{"checkpoint skipped", "step-00000006", checkpoint.ModelFile, "step-00000004 step=4"} {
			if !strings.Contains(resumed.log, want) {
				t.Errorf("no %q in the log:\n%s", want, resumed.log)
			}
		}
	})
	t.Run("all damaged", func(t *testing.T) {
		for _, step := range []int{4, 6} {
			y.damage(t, "ruined", checkpoint.Folder, checkpoint.DirName(step), checkpoint.OptimizerFile)
		}
		f := y.train(t, start{run: "ruined", set: []string{quick}, resume: true})
		wantError(t, "all damaged", f.err, "resume", "no good checkpoint", "step-00000006",
			checkpoint.OptimizerFile, "new run")
		if string(readFile(t, f.dir, checkpoint.Folder, checkpoint.LatestFile)) == "" || len(f.series(t)) != 6 {
			t.Error("a refused resume changed the run")
		}
	})
	t.Run("other data", func(t *testing.T) {
		path := y.path(toydata.CaptionFile)
		captions := readFile(t, path)
		more := bytes.Replace(captions, []byte(`"split":"heldout"`), []byte(`"split":"train"`), 1)
		for _, data := range [][]byte{more, captions} {
			if err := os.WriteFile(path, data, 0o644); err != nil {
				t.Fatal(err)
			}
			f := y.train(t, start{run: "changed", set: []string{quick}, resume: true})
			if bytes.Equal(data, captions) {
				sameCheckpoint(t, "with the data brought back", f, whole, 10)
				continue
			}
			wantError(t, "other data", f.err, "resume", "data.train[0] (toys) has 26 rows and had 24", "start a new run")
		}
	})
	t.Run("time limit", func(t *testing.T) {
		f := y.mustTrain(t, start{run: "limited", set: []string{quick, "train.max_time=1ns"}})
		if f.Status != trainer.TimeUp || f.Summary.Status != runlog.StatusTimeLimit || f.Summary.Steps != 0 ||
			!math.IsNaN(float64(f.Summary.Loss)) {
			t.Errorf("%v, %+v", f.Status, f.Summary)
		}
		f = y.mustTrain(t, start{run: "limited", set: []string{quick}, resume: true})
		sameCheckpoint(t, "after the time limit", f, whole, 10)
		sameSeries(t, "after the time limit", f, whole)
	})
	t.Run("killed before its first checkpoint", func(t *testing.T) {
		dir := y.path("runs", "young")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{runlog.ConfigFile, runlog.MetricsFile} {
			if err := os.WriteFile(filepath.Join(dir, name), readFile(t, whole.dir, name), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		f := y.mustTrain(t, start{run: "young", set: []string{quick}, resume: true})
		if !strings.Contains(f.log, "no checkpoint yet") {
			t.Errorf("no warning in\n%s", f.log)
		}
		sameCheckpoint(t, "from the beginning", f, whole, 10)
		sameSeries(t, "from the beginning", f, whole)
	})
}

// TestIntervalsOfAnInterrupt: with longer intervals every step is in exactly one row.
func TestIntervalsOfAnInterrupt(t *testing.T) {
	y := newToy(t)
	settings := []string{quick, "train.log_every=4", "train.steps=9"}
	f := y.mustTrain(t, start{run: "a", set: settings, stopAt: "step 4/9"})
	if f.Summary.Steps != 4 {
		t.Fatalf("%+v", f.Summary)
	}
	f = y.mustTrain(t, start{run: "a", set: append(settings, "train.max_time=1ns"), resume: true})
	if last := f.series(t); f.Summary.Steps != 4 || float64(f.Summary.Loss) != mustValue(t, last[0], "loss") ||
		f.Summary.ImgPerS <= 0 || f.Summary.Checkpoint != "checkpoints/step-00000004" {
		t.Errorf("a start without a step: %+v, the last row is %+v", f.Summary, last)
	}
	f = y.mustTrain(t, start{run: "a", set: settings, resume: true})
	var steps []int
	for _, row := range f.series(t) {
		steps = append(steps, row.Step)
	}
	if len(steps) != 3 || steps[0] != 4 || steps[1] != 8 || steps[2] != 9 {
		t.Errorf("rows at %v", steps)
	}
}

func mustValue(t *testing.T, r runlog.Row, key string) float64 {
	t.Helper()
	v, ok := r.Value(key)
	if !ok {
		t.Errorf("row %+v has no %s", r, key)
	}
	return v
}

// TestInterruptedEvaluation: the training is done and kept; going on does what is left.
func TestInterruptedEvaluation(t *testing.T) {
	y := newToy(t)
	f := y.train(t, start{run: "a", set: []string{"train.steps=2"}, stopAt: "evaluating before heldout", bar: true})
	if !errors.Is(f.err, context.Canceled) {
		t.Errorf("interrupted before the first step: %v", f.err)
	}
	if _, err := os.Stat(f.dir); !os.IsNotExist(err) {
		t.Errorf("the run folder of nothing stayed: %v", err)
	}
	f = y.mustTrain(t, start{run: "a", set: []string{"train.steps=2"}, bar: true,
		stopAt: "evaluating train pictures: matching"})
	if f.Status != trainer.Interrupted || f.Summary.Steps != 2 || f.Summary.Retrieval != nil ||
		len(f.Summary.RetrievalBefore) != 2 || f.Summary.Checkpoint != "checkpoints/step-00000002" {
		t.Errorf("interrupted after the last step: %v, %+v", f.Status, f.Summary)
	}
	before, loss, speed := f.Summary.RetrievalBefore, f.Summary.Loss, f.Summary.ImgPerS
	f = y.mustTrain(t, start{run: "a", set: []string{"train.steps=2"}, resume: true})
	if s := f.Summary; f.Status != trainer.Finished || s.Steps != 2 || len(s.Retrieval) != 2 || s.Loss != loss ||
		s.ImgPerS <= 0 || speed <= 0 || s.Checkpoint != "checkpoints/step-00000002" ||
		s.RetrievalBefore[runlog.SplitTrain] != before[runlog.SplitTrain] {
		t.Errorf("gone on: %v, %+v; before %+v, loss %g", f.Status, s, before, loss)
	}
	if strings.Contains(f.log, "evaluating before") {
		t.Error("the trained model was evaluated as the untrained one")
	}
}

// TestResumeSettings: what decides the arithmetic must be the same, the rest may change and is recorded.
func TestResumeSettings(t *testing.T) {
	y := newToy(t)
	y.mustTrain(t, start{run: "a", set: []string{quick, "train.steps=2"}})
	before := readFile(t, y.path("runs", "a", runlog.ConfigFile))
	for _, change := range []string{"optim.lr=1e-2", "seed=4", "train.batch_size=4", "train.steps=3", "data.unit=image"} {
		f := y.train(t, start{run: "a", set: []string{quick, "train.steps=2", change}, resume: true})
		wantError(t, change, f.err, "resume", "other settings", "step-00000002", runlog.ConfigFile, "new run")
	}
	if !bytes.Equal(readFile(t, y.path("runs", "a", runlog.ConfigFile)), before) {
		t.Error("a refused resume changed the configuration")
	}
	y.mustTrain(t, start{run: "a", resume: true,
		set: []string{quick, "train.steps=2", "data.workers=1", "train.log_every=5"}})
	cfg, _, err := config.LoadStage1(config.LoadOptions{Path: y.path("runs", "a", runlog.ConfigFile)})
	if err != nil || cfg.Train.LogEvery != 5 || cfg.Data.Workers != 1 {
		t.Errorf("the configuration that the run went on with is not recorded: %v", err)
	}
	f := y.train(t, start{run: "none", resume: true})
	wantError(t, "no such run", f.err, "resume", y.path("runs", "none"), "no run folder")
	if _, err := os.Stat(f.dir); !os.IsNotExist(err) {
		t.Errorf("a refused resume made the folder: %v", err)
	}
}

// TestFailedStart: a mistake that shows before the first step leaves no run behind, and harms none that is there.
func TestFailedStart(t *testing.T) {
	y := newToy(t)
	y.mustTrain(t, start{run: "a", set: []string{quick, "train.steps=2"}})
	before := readFile(t, y.path("runs", "a", runlog.MetricsFile))
	f := y.train(t, start{run: "a", set: []string{quick}})
	wantError(t, "a run is there", f.err, y.path("runs", "a"), "holds a run already", "--resume", "run.name")
	if after := readFile(t, y.path("runs", "a", runlog.MetricsFile)); !bytes.Equal(before, after) {
		t.Error("the run that was there was changed")
	}

	f = y.train(t, start{run: "b", set: []string{"train.batch_size=25"}})
	wantError(t, "batch", f.err, "batch of 25", "toys", "24 rows", "at most 24", "train.batch_size")
	if err := os.WriteFile(y.path("images", "01.png"), []byte("<html>not found</html>"), 0o644); err != nil {
		t.Fatal(err)
	}
	f = y.train(t, start{run: "b"})
	var share *dataset.BadShareError
	if wantError(t, "bad picture", f.err, "01.png", "max_bad_share", "1 of 12"); !errors.As(f.err, &share) {
		t.Errorf("bad picture: %v", f.err)
	}
	if _, err := os.Stat(y.path("runs", "b")); !os.IsNotExist(err) {
		t.Errorf("a failed start left its folder: %v", err)
	}
	if err := os.MkdirAll(y.path("runs", "c", "notes"), 0o755); err != nil {
		t.Fatal(err)
	}
	if f = y.train(t, start{run: "c"}); f.err == nil {
		t.Error("bad picture: no error")
	}
	if _, err := os.Stat(y.path("runs", "c", "notes")); err != nil {
		t.Errorf("a failed start took what was in the folder: %v", err)
	}
}

// TestDataGiveOut: bad pictures that only the training finds do not cost what was trained until then.
func TestDataGiveOut(t *testing.T) {
	y := newToy(t)
	picture := y.path("images", "01.png")
	good := readFile(t, picture)
	if err := os.WriteFile(picture, good[:len(good)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	// The picture's two captions are 8.3 % of the rows; the second one comes in batch 3.
	settings := []string{quick, "data.max_bad_share=8%", "checkpoint.every=0", "data.truncated=reject"}
	f := y.train(t, start{run: "a", set: settings})
	wantError(t, "bad picture", f.err, "step 3:", "01.png", "max_bad_share", "the state after step 3 was saved")
	if dir, _, err := checkpoint.Latest(f.dir); err != nil || filepath.Base(dir) != checkpoint.DirName(3) {
		t.Errorf("saved %s, %v", dir, err)
	}
	if err := os.WriteFile(picture, good, 0o644); err != nil {
		t.Fatal(err)
	}
	f = y.mustTrain(t, start{run: "a", set: settings, resume: true})
	if f.Summary.Steps != 10 || len(f.series(t)) != 10 {
		t.Errorf("after the repair: %+v", f.Summary)
	}
}

// TestBadPicture: below the allowed share it is replaced, counted and named, and in no gallery.
func TestBadPicture(t *testing.T) {
	y := newToy(t)
	if err := os.WriteFile(y.path("images", "01.png"), []byte("<html>not found</html>"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(y.path("images", "02.jpg")); err != nil {
		t.Fatal(err)
	}
	f := y.mustTrain(t, start{run: "a", set: []string{"train.steps=4", "data.max_bad_share=20%", "report.gallery=24",
		"eval.k_test=0"}})
	if f.Summary.BadSamples != 2 || f.Summary.Steps != 4 {
		t.Errorf("%+v", f.Summary)
	}
	for _, want := range []string{"bad sample replaced", "key=01.png", "key=02.jpg", "picture not evaluated"} {
		if !strings.Contains(f.log, want) {
			t.Errorf("no %q in the log:\n%s", want, f.log)
		}
	}
	gallery, err := runlog.ReadGallery(f.dir)
	if err != nil || len(gallery.Items) != 10+4 {
		t.Errorf("%d pictures in the gallery, %v", len(gallery.Items), err)
	}
	for _, item := range gallery.Items {
		if item.Key == "01.png" || item.Key == "02.jpg" || item.BestMatch == "" || !(item.BestMatchProb >= 0) {
			t.Errorf("in the gallery: %+v", item)
		}
	}
}
