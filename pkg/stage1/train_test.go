package stage1

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/checkpoint"
	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
	"blip2/pkg/weights"
)

// toy is a folder with the toy data set, in which trainings run.
type toy struct {
	dir string
	dev *device.Device
}

func newToy(t *testing.T) *toy {
	t.Helper()
	y := &toy{dir: t.TempDir()}
	if err := toydata.Write(y.dir); err != nil {
		t.Fatal(err)
	}
	var err error
	o := device.Options{Backend: "go", Logger: slog.New(slog.DiscardHandler)}
	if y.dev, err = device.Open(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := y.dev.Close(); err != nil {
			t.Error(err)
		}
	})
	return y
}

// path is a file of the toy's folder.
func (y *toy) path(elements ...string) string {
	return filepath.Join(append([]string{y.dir}, elements...)...)
}

// start is one start of a training.
type start struct {
	run    string   // name of the run folder
	set    []string // key=value over the toy configuration
	resume bool
	// stopAt interrupts the training when its progress display says so, as in "step 6/10". bar makes it a bar, which
	// shows the evaluation too.
	stopAt string
	bar    bool
}

// finished is what a start left.
type finished struct {
	*training.Result
	dir string // run folder
	log string // log lines and progress
	err error
}

// quick leaves out the evaluation.
const quick = "eval.retrieval=false"

// train runs a start to its end.
func (y *toy) train(t *testing.T, s start) finished {
	t.Helper()
	cfg, _, err := config.LoadStage1(config.LoadOptions{Path: y.path(toydata.ConfigFile), Set: s.set})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	screen := &watcher{stopAt: s.stopAt, found: cancel}
	f := finished{dir: y.path("runs", s.run)}
	f.Result, f.err = Train(ctx, cfg, training.Options{RunDir: f.dir, Resume: s.resume, Device: y.dev,
		Log:         slog.New(slog.NewTextHandler(screen, nil)),
		Progress:    runlog.NewProgress(runlog.ProgressOptions{Out: screen, Terminal: s.bar, Width: 120}),
		CommandLine: "blip2 toy"})
	if s.stopAt != "" && ctx.Err() == nil {
		t.Errorf("the display never said %q:\n%s", s.stopAt, screen.text.String())
	}
	f.log = screen.text.String()
	return f
}

// mustTrain is train for starts that should succeed.
func (y *toy) mustTrain(t *testing.T, s start) finished {
	t.Helper()
	f := y.train(t, s)
	if f.err != nil {
		t.Fatalf("%v\n%s", f.err, f.log)
	}
	return f
}

// watcher keeps what is written to it and says when a text is seen.
type watcher struct {
	text   bytes.Buffer
	stopAt string
	found  func()
}

func (w *watcher) Write(p []byte) (int, error) {
	if w.stopAt != "" && bytes.Contains(p, []byte(w.stopAt)) {
		w.found()
	}
	return w.text.Write(p)
}

func readFile(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// checkpointFile is the content of a file of the checkpoint of a step.
func (f finished) checkpointFile(t *testing.T, step int, name string) []byte {
	t.Helper()
	return readFile(t, f.dir, checkpoint.Folder, checkpoint.DirName(step), name)
}

// sameCheckpoint compares the checkpoints of a step byte by byte.
func sameCheckpoint(t *testing.T, name string, got, want finished, step int) {
	t.Helper()
	for _, file := range []string{checkpoint.ModelFile, checkpoint.OptimizerFile, checkpoint.StateFile,
		checkpoint.ManifestFile} {
		if !bytes.Equal(got.checkpointFile(t, step, file), want.checkpointFile(t, step, file)) {
			t.Errorf("%s: %s of step %d differs", name, file, step)
		}
	}
}

// series is metrics.jsonl without what depends on the clock.
func (f finished) series(t *testing.T) []runlog.Row {
	t.Helper()
	rows, err := runlog.ReadMetrics(filepath.Join(f.dir, runlog.MetricsFile))
	if err != nil {
		t.Fatal(err)
	}
	for i := range rows {
		rows[i].Time = rows[0].Time
		rows[i].Fields = slices.DeleteFunc(rows[i].Fields, func(f runlog.Field) bool {
			return slices.Contains([]string{"img_per_s", "mfu", "step_s", "data_wait_s", "memory_gb"}, f.Key)
		})
	}
	return rows
}

func sameSeries(t *testing.T, name string, got, want finished) {
	t.Helper()
	g, w := got.series(t), want.series(t)
	equal := slices.EqualFunc(g, w, func(a, b runlog.Row) bool {
		return a.Step == b.Step && slices.Equal(a.Fields, b.Fields)
	})
	if !equal {
		t.Errorf("%s: metrics are\n%+v, want\n%+v", name, g, w)
	}
}

// TestTrainEndToEnd trains long enough to learn the pictures, and looks at everything that the run leaves.
func TestTrainEndToEnd(t *testing.T) {
	y := newToy(t)
	settings := []string{"train.steps=120", "train.batch_size=12", "train.log_every=10", "data.unit=image",
		"qformer.dropout=0", "optim.lr=5e-3", "checkpoint.every=50"}
	f := y.mustTrain(t, start{run: "whole", set: settings})
	s := f.Summary
	train, heldout := s.Retrieval[runlog.SplitTrain], s.Retrieval[runlog.SplitHeldout]
	if f.Status != trainer.Finished || s.Status != runlog.StatusFinished || s.Steps != 120 || s.Epochs != 120 ||
		s.TrainImages != toydata.TrainImages || s.TrainTexts != 2*toydata.TrainImages ||
		s.ImgPerS <= 0 || s.BadSamples != 0 ||
		s.Checkpoint != "checkpoints/step-00000120" || s.TrainableParameters != s.Parameters {
		t.Errorf("summary %+v", s)
	}
	if train.Images != toydata.TrainImages || train.Texts != 24 || heldout.Images != toydata.HeldoutImages ||
		heldout.Texts != 8 || len(s.RetrievalBefore) != 2 {
		t.Errorf("retrieval %+v, before %+v", s.Retrieval, s.RetrievalBefore)
	}
	// One of 24 texts is right for two of them; one of 12 pictures.
	if c := float64(train.ChanceR1); c < 8.33 || c > 8.34 {
		t.Errorf("chance is %g", c)
	}
	if train.I2TR1 < 4*train.ChanceR1 || train.T2IR5 < 80 || train.I2TR1 <= s.RetrievalBefore[runlog.SplitTrain].I2TR1 {
		t.Errorf("the training pictures were not learned: %+v, before %+v", train, s.RetrievalBefore[runlog.SplitTrain])
	}
	rows := f.series(t)
	first, _ := rows[0].Value("loss")
	last, _ := rows[len(rows)-1].Value("loss")
	if len(rows) != 12 || last > 0.7*first || float64(s.Loss) != last {
		t.Errorf("%d rows, the loss went from %g to %g, the summary says %g", len(rows), first, last, s.Loss)
	}
	checkRunFolder(t, f, y, settings)
}

// checkRunFolder looks at the files of a finished run with its evaluation.
func checkRunFolder(t *testing.T, f finished, y *toy, settings []string) {
	t.Helper()
	cfg, _, err := config.LoadStage1(config.LoadOptions{Path: y.path(toydata.ConfigFile), Set: settings})
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := config.LoadStage1(config.LoadOptions{Path: filepath.Join(f.dir, runlog.ConfigFile)})
	if err != nil || again.Hash() != cfg.Hash() || !bytes.Equal(again.YAML(), cfg.YAML()) {
		t.Errorf("%s does not give the configuration back: %v\n%s", runlog.ConfigFile, err, again.YAML())
	}
	checkSummaryKeys(t, f)
	checkGallery(t, f)
	page := string(readFile(t, f.dir, runlog.ReportFile))
	for _, want := range []string{"<svg", "data:image/", "Learning rate", "Pictures per second", "Training pictures"} {
		if !strings.Contains(page, want) {
			t.Errorf("%s has no %q", runlog.ReportFile, want)
		}
	}
	if strings.Contains(page, "src=\"http") || strings.Contains(page, "NaN") {
		t.Errorf("%s needs the network, or shows a NaN", runlog.ReportFile)
	}
	if events, _ := filepath.Glob(filepath.Join(f.dir, "events.out.tfevents.*")); len(events) != 1 {
		t.Errorf("event files: %v", events)
	}
	log := string(readFile(t, f.dir, runlog.LogFile))
	if !strings.Contains(log, "msg=model") || strings.Count(log, "msg=interval step=") != 12 {
		t.Errorf("%s is %q", runlog.LogFile, log)
	}
	checkModelFile(t, f, cfg)
	temporary := regexp.MustCompile(`(^\.|\.tmp$|~$)`)
	err = filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if temporary.MatchString(d.Name()) && d.Name() != ".lock" {
			t.Errorf("%s was left behind", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// checkSummaryKeys looks for the keys that users and scripts rely on.
func checkSummaryKeys(t *testing.T, f finished) {
	t.Helper()
	var summary map[string]any
	if err := json.Unmarshal(readFile(t, f.dir, runlog.SummaryFile), &summary); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"steps", "img_per_s", "loss", "loss_itc", "loss_itm", "loss_itg", "status", "command",
		"backend", "seconds", "compile_seconds", "epochs", "batch_size", "parameters", "bad_samples", "checkpoint"} {
		if _, ok := summary[key]; !ok {
			t.Errorf("%s has no %s", runlog.SummaryFile, key)
		}
	}
	for _, part := range []string{"retrieval", "retrieval_before"} {
		for _, split := range []string{"train", "heldout"} {
			scores, _ := summary[part].(map[string]any)
			values, _ := scores[split].(map[string]any)
			for _, key := range []string{"i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10", "chance_r1"} {
				if v, ok := values[key].(float64); !ok || v < 0 || v > 100 {
					t.Errorf("%s: %s.%s.%s is %v", runlog.SummaryFile, part, split, key, values[key])
				}
			}
		}
	}
}

func checkGallery(t *testing.T, f finished) {
	t.Helper()
	gallery, err := runlog.ReadGallery(f.dir)
	if err != nil {
		t.Fatal(err)
	}
	count, generated := map[string]int{}, 0
	word := regexp.MustCompile(`^[a-z]*$`)
	for _, item := range gallery.Items {
		count[item.Split]++
		if len(readFile(t, f.dir, filepath.FromSlash(item.Image))) == 0 || len(item.Captions) != 2 {
			t.Errorf("%+v", item)
		}
		for _, w := range strings.Fields(item.Generated) {
			generated++
			if !word.MatchString(w) {
				t.Errorf("the model writes %q", item.Generated)
			}
		}
		if p := float64(item.BestMatchProb); item.BestMatch == "" || !(p >= 0 && p <= 1) {
			t.Errorf("best match of %s: %q with %g", item.Key, item.BestMatch, p)
		}
		if own := slices.Contains(item.Captions, item.BestMatch); own != item.BestMatchCorrect {
			t.Errorf("%s: best match %q, correct %v", item.Key, item.BestMatch, item.BestMatchCorrect)
		}
	}
	if count[runlog.SplitTrain] != 2 || count[runlog.SplitHeldout] != 2 || generated == 0 {
		t.Errorf("gallery of %v with %d written words", count, generated)
	}
}

// checkModelFile: the checkpoint has every trained tensor under its published name, and its slots.
func checkModelFile(t *testing.T, f finished, cfg *config.Stage1) {
	t.Helper()
	loaded, skipped, err := checkpoint.LoadLatest(f.dir)
	if err != nil || len(skipped) > 0 {
		t.Fatalf("%v, damaged: %v", err, skipped)
	}
	defer loaded.Close()
	var want, slots []string
	for _, p := range TrainableParams(NewConfig(cfg, Vocabulary{Size: 21})) {
		want = append(want, p.Name)
		slots = append(slots, "m."+p.Name, "v."+p.Name)
	}
	for _, list := range []struct {
		file *weights.File
		want []string
	}{{loaded.Model, want}, {loaded.Optimizer, slots}} {
		slices.Sort(list.want)
		if !slices.Equal(list.file.Names(), list.want) {
			t.Errorf("checkpoint %s holds %v, want %v", loaded.Dir, list.file.Names(), list.want)
		}
	}
	if !slices.Contains(want, "Qformer.bert.encoder.layer.0.crossattention.self.key.weight") ||
		!slices.Contains(want, "visual_encoder.blocks.0.attn.qkv.weight") &&
			!slices.Contains(want, "visual_encoder.transformer.resblocks.0.attn.in_proj_weight") {
		t.Errorf("names are not LAVIS's: %v", want)
	}
}

// TestEvaluationsOnTheWay: scores at intervals go to the logs, the best checkpoint survives newer ones, also where the
// run goes on after an interrupt, and evaluating changes nothing of the training.
func TestEvaluationsOnTheWay(t *testing.T) {
	y := newToy(t)
	set := []string{"eval.every=3", "eval.before=false", "checkpoint.every=1", "checkpoint.keep_last=1",
		"checkpoint.keep_every=5", "checkpoint.best=train/i2t_r1"}
	f := y.mustTrain(t, start{run: "a", set: set})
	best, score := 0, -1.0
	for _, row := range f.series(t) {
		if v, ok := row.Value("train/i2t_r1"); ok {
			if row.Step%3 != 0 {
				t.Errorf("evaluated after step %d", row.Step)
			}
			if _, ok := row.Value("heldout/t2i_r10"); !ok {
				t.Errorf("step %d: no scores of the held-out pictures", row.Step)
			}
			if v > score {
				best, score = row.Step, v
			}
		}
	}
	kept := map[string]bool{}
	for _, step := range []int{best, 5, 10} {
		kept[checkpoint.DirName(step)] = true
	}
	folders, err := filepath.Glob(filepath.Join(f.dir, checkpoint.Folder, "step-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, folder := range folders {
		if !kept[filepath.Base(folder)] {
			t.Errorf("%s was kept, want %v", folder, kept)
		}
		delete(kept, filepath.Base(folder))
	}
	if len(kept) > 0 || best == 0 {
		t.Errorf("checkpoints lost: %v; best is step %d", kept, best)
	}
	if !strings.Contains(f.log, "msg=evaluated step=3 heldout/i2t_r1=") {
		t.Errorf("no line of the evaluation in the log:\n%s", f.log)
	}
	plain := y.mustTrain(t, start{run: "b", set: []string{quick}})
	sameCheckpoint(t, "without evaluations", plain, f, 10)

	y.mustTrain(t, start{run: "c", set: set, stopAt: "step 7/10"})
	resumed := y.mustTrain(t, start{run: "c", set: set, resume: true})
	sameCheckpoint(t, "resumed", resumed, f, 10)
	sameCheckpoint(t, "resumed", resumed, f, best)
	sameSeries(t, "resumed", resumed, f)
}

// TestReportGrows: from the first checkpoint on the folder has a summary and a report of the run in progress.
func TestReportGrows(t *testing.T) {
	y := newToy(t)
	cfg, _, err := config.LoadStage1(config.LoadOptions{Path: y.path(toydata.ConfigFile),
		Set: []string{quick, "checkpoint.every=4"}})
	if err != nil {
		t.Fatal(err)
	}
	dir := y.path("runs", "a")
	seen := 0
	look := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("step 6/10")) {
			seen++
			s, err := runlog.ReadSummary(dir)
			if err != nil || s.Status != runlog.StatusRunning || s.Steps != 4 || s.Loss == 0 {
				t.Errorf("after step 6: %+v, %v", s, err)
			}
			if page := string(readFile(t, dir, runlog.ReportFile)); !strings.Contains(page, "running") {
				t.Error("the report does not say that the run goes on")
			}
		}
		return len(p), nil
	})
	_, err = Train(t.Context(), cfg, training.Options{RunDir: dir, Device: y.dev, Log: slog.New(slog.DiscardHandler),
		Progress: runlog.NewProgress(runlog.ProgressOptions{Out: look})})
	if err != nil || seen != 1 {
		t.Errorf("%v, looked %d times", err, seen)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
