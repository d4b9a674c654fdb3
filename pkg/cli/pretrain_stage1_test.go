package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/checkpoint"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/runlog"
)

// toyFolder is a folder with the toy data set and its configuration.
type toyFolder string

func newToyFolder(t *testing.T) toyFolder {
	t.Helper()
	dir := t.TempDir()
	if err := toydata.Write(dir); err != nil {
		t.Fatal(err)
	}
	return toyFolder(dir)
}

func (d toyFolder) path(elements ...string) string {
	return filepath.Join(append([]string{string(d)}, elements...)...)
}

// write replaces a file of the folder.
func (d toyFolder) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(d.path(filepath.FromSlash(name)), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (d toyFolder) read(t *testing.T, elements ...string) string {
	t.Helper()
	data, err := os.ReadFile(d.path(elements...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// fill replaces @NAME in an argument by the path of that file of the folder.
func (d toyFolder) fill(text string) string {
	return strings.ReplaceAll(text, "@", string(d)+string(filepath.Separator))
}

// train runs pretrain-stage1 with the folder's configuration.
func (d toyFolder) train(t *testing.T, args ...string) result {
	t.Helper()
	return runApp(t, nil, append([]string{"pretrain-stage1", "--config", d.path(toydata.ConfigFile)}, args...)...)
}

// interrupted is train with an interrupt as soon as a text appears on stderr; an empty text is there from the start.
func (d toyFolder) interrupted(t *testing.T, at string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if at == "" {
		cancel()
	}
	var out bytes.Buffer
	errw := &trigger{text: at, pull: cancel}
	app := &App{In: strings.NewReader(""), Out: &out, Err: errw}
	code := app.Run(ctx, append([]string{"pretrain-stage1", "--config", d.path(toydata.ConfigFile)}, args...))
	if ctx.Err() == nil {
		t.Errorf("stderr never said %q:\n%s", at, errw.String())
	}
	return result{code, out.String(), errw.String(), app}
}

// trigger is a stderr that calls pull when a text is written.
type trigger struct {
	bytes.Buffer
	text string
	pull func()
}

// Write keeps p and pulls the trigger.
func (w *trigger) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(w.text)) {
		w.pull()
	}
	return w.Buffer.Write(p)
}

// checkFailure looks for the exit code and the texts in the one error line on stderr.
func checkFailure(t *testing.T, name string, got result, code int, says ...string) {
	t.Helper()
	_, line, _ := strings.Cut(got.err, "blip2: ")
	if got.code != code || got.out != "" || strings.Count(got.err, "blip2: ") != 1 {
		t.Errorf("%s: exit code %d, stdout %q, want %d, nothing and one error on stderr:\n%s", name, got.code, got.out,
			code, got.err)
	}
	for _, want := range says {
		if !strings.Contains(line, want) {
			t.Errorf("%s: no %q in %q", name, want, line)
		}
	}
	for _, trace := range []string{"goroutine ", ".go:", "panic", "internal error", "%!"} {
		if strings.Contains(got.err, trace) {
			t.Errorf("%s: %q on stderr:\n%s", name, trace, got.err)
		}
	}
}

const without = "eval.retrieval=false"

// TestPretrainStage1 is the command as its help shows it.
func TestPretrainStage1(t *testing.T) {
	d := newToyFolder(t)
	got := d.train(t)
	if got.code != ExitOK {
		t.Fatalf("exit code %d\n%s", got.code, got.err)
	}
	run := d.path("runs", "toy")
	for _, want := range []string{"before training", "after training", "chance", "Training pictures", "Held-out pictures",
		"image → text", "text → image", "run folder  " + run + "\n",
		"report      " + filepath.Join(run, runlog.ReportFile) + "\n"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q on stdout:\n%s", want, got.out)
		}
	}
	if !strings.Contains(got.err, "step 10/10  loss ") || strings.Contains(got.out, "step 10/10") {
		t.Errorf("progress is not on stderr alone:\n%s", got.err)
	}
	summary, err := runlog.ReadSummary(run)
	if err != nil || summary.Steps != 10 || summary.Backend != "go" || summary.Version == "" ||
		!strings.HasPrefix(summary.Command, "blip2 pretrain-stage1 --config ") {
		t.Errorf("%v, %+v", err, summary)
	}

	got = d.train(t, "--json", "--quiet", "--seed", "8", "--set", "run.name=other", "--set", without)
	var printed runlog.Summary
	if err := json.Unmarshal([]byte(got.out), &printed); got.code != ExitOK || err != nil || printed.Steps != 10 ||
		printed.Loss == summary.Loss {
		t.Errorf("--json: exit code %d, %v, %s", got.code, err, got.out)
	}
	if got.err != "" {
		t.Errorf("--quiet: stderr is %q", got.err)
	}
	if config := d.read(t, "runs", "other", runlog.ConfigFile); !strings.Contains(config, "seed: 8") {
		t.Errorf("the seed of the command line is not recorded:\n%s", config)
	}

	got = d.train(t, "--set", "run.name=", "--set", without, "--set", "train.steps=2")
	if runs, _ := filepath.Glob(d.path("runs", "toy-20*")); got.code != ExitOK || len(runs) != 1 {
		t.Errorf("without a name the run folders are %v\n%s", runs, got.err)
	}
}

// TestPretrainStage1BadInput: an error names the thing and the remedy, and nothing is left behind.
func TestPretrainStage1BadInput(t *testing.T) {
	const captions, images = toydata.CaptionFile, toydata.ImagesDir
	none := func(*testing.T, toyFolder) {}
	file := func(name, text string) func(*testing.T, toyFolder) {
		return func(t *testing.T, d toyFolder) { d.write(t, name, text) }
	}
	gone := func(name string) func(*testing.T, toyFolder) {
		return func(t *testing.T, d toyFolder) {
			if err := os.RemoveAll(d.path(filepath.FromSlash(name))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*testing.T, toyFolder)
		args  string // behind --config; @x is a file of the folder
		code  int
		says  []string
	}{
		// The configuration.
		{"no such configuration", gone(toydata.ConfigFile), "", ExitUsage, []string{"toy.yaml", "no such file"}},
		{"unknown key", none, "--set train.stepz=5", ExitUsage, []string{"train.stepz", "train.steps"}},
		{"key of the file", file(toydata.ConfigFile, "trian: {steps: 3}\n"), "", ExitUsage,
			[]string{"toy.yaml", "trian", "did you mean train?"}},
		{"wrong type", none, "--set train.steps=many", ExitUsage, []string{"train.steps", "many"}},
		{"out of range", none, "--set train.batch_size=1", ExitUsage, []string{"train.batch_size", "2"}},
		{"texts longer than the positions", none, "--set text.max_len=17", ExitUsage,
			[]string{"text.max_len", "17", "16", "qformer.max_positions"}},
		{"patches", none, "--set vision.patch_size=5", ExitUsage,
			[]string{"vision.patch_size", "image_size 16", "15 and 20"}},
		{"heads", none, "--set qformer.heads=5", ExitUsage, []string{"qformer.heads", "24", "5"}},
		{"argument", none, "more", ExitUsage, []string{`unexpected argument "more"`}},
		{"run name", none, "--set run.name=a/b", ExitUsage, []string{"run.name", "a/b", "run.dir"}},
		// The backend.
		{"unknown backend", none, "--backend tpu", ExitUsage, []string{`--backend "tpu"`, "xla:cpu"}},
		{"unknown backend in the file", none, "--set backend=cpu", ExitUsage, []string{"backend", "did you mean xla:cpu?"}},
		{"half precision on Go", none, "--backend go --set device.dtype=bf16", ExitUsage, []string{"dtype", "bf16", "f32"}},
		{"missing plugin", none, "--backend xla:@no.so", ExitFailure, []string{"no.so"}},
		{"plugin that is none", file("text.so", "not a library"), "--backend xla:@text.so", ExitFailure, []string{"text.so"}},
		// The data.
		{"no captions", gone(captions), "", ExitFailure, []string{"data.train[0]", captions, "no such file"}},
		{"no held-out captions", none, "--set data.heldout[0].annotations=@no.json", ExitFailure,
			[]string{"data.heldout[0]", "no.json", "no such file"}},
		{"empty captions", file(captions, ""), "", ExitFailure, []string{captions, "the file is empty", "expected a list of"}},
		{"no pictures listed", file(captions, `{"images": [], "annotations": []}`), "", ExitFailure,
			[]string{captions, "the data set is empty"}},
		{"HTML", file(captions, "<!DOCTYPE html><title>404</title>"), "", ExitFailure,
			[]string{captions, "HTML", "download"}},
		{"neither JSON nor a table", file(captions, "image\n1\n"), "", ExitFailure, []string{captions, "neither JSON"}},
		{"truncated", func(t *testing.T, d toyFolder) {
			whole := d.read(t, captions)
			d.write(t, captions, whole[:len(whole)/2])
		}, "", ExitFailure, []string{captions, "cut off", "line 1"}},
		{"other annotations", file(captions,
			`{"images": [{"id": 1, "file_name": "00.jpg"}], "annotations": [{"image_id": 1}]}`), "", ExitFailure,
			[]string{captions, `"caption"`}},
		{"picture outside", file(captions, `[{"image": "../toy.yaml", "caption": "a box", "split": "train"}]`), "",
			ExitFailure, []string{captions, "../toy.yaml", "leaves the image folder"}},
		{"unknown split", none, "--set data.train[0].split=tset", ExitFailure,
			[]string{captions, `"tset"`, `"heldout", "train"`}},
		{"no image folder", gone(images), "", ExitFailure, []string{images, "does not exist"}},
		{"another image folder", func(t *testing.T, d toyFolder) {
			gone(images)(t, d)
			if err := os.Mkdir(d.path(images), 0o755); err != nil {
				t.Fatal(err)
			}
		}, "", ExitFailure, []string{images, "none of its pictures", "right folder?"}},
		{"an image folder that is a file", func(t *testing.T, d toyFolder) {
			gone(images)(t, d)
			d.write(t, images, "")
		}, "", ExitFailure, []string{images, "is a file"}},
		{"unreadable picture", file("images/01.png", "<html>"), "", ExitFailure,
			[]string{"01.png", "HTML", "1 of 12", "max_bad_share"}},
		{"missing picture without evaluation", gone("images/01.png"), "--set " + without, ExitFailure,
			[]string{"01.png", "max_bad_share"}},
		{"batch", none, "--set train.batch_size=25", ExitFailure, []string{"25", "24 rows", "train.batch_size"}},
		{"batch of pictures", none, "--set train.batch_size=13 --set data.unit=image", ExitFailure,
			[]string{"13", "12 rows", "train.batch_size"}},
		{"no vocabulary", gone(toydata.VocabFile), "", ExitFailure,
			[]string{"text.vocab", toydata.VocabFile, "no such file"}},
		{"a vocabulary that is none", file(toydata.VocabFile, "<html>"), "", ExitFailure,
			[]string{toydata.VocabFile, "not a WordPiece vocabulary", "is missing"}},
		{"no ViT weights", none, "--set vision.weights=@vit.pth", ExitFailure, []string{"vision.weights", "vit.pth"}},
		{"ViT weights that are none", file("vit.safetensors", "<html>"), "--set vision.weights=@vit.safetensors", ExitFailure,
			[]string{"vit.safetensors"}},
		{"no BERT weights", none, "--set qformer.weights=@bert.safetensors", ExitFailure,
			[]string{"qformer.weights", "bert.safetensors"}},
		// The run folder.
		{"a file in the place of the runs", file("occupied", ""), "--set run.dir=@occupied", ExitFailure,
			[]string{"occupied", "run.dir"}},
		{"a file in the place of the run", none, "--set run.dir=@ --set run.name=toy.yaml", ExitFailure,
			[]string{"toy.yaml", "run.dir"}},
		{"empty folder behind --resume", none, "--resume=", ExitUsage, []string{"names no folder", "--resume=FOLDER"}},
		{"no time", none, "--max-time=-1s", ExitUsage, []string{"--max-time -1s", "negative"}},
		{"no such run", none, "--resume=@runs/none", ExitFailure, []string{"resume", "none", "no run folder"}},
		{"the run of the configuration", none, "--resume", ExitFailure, []string{"resume", "toy", "no run folder"}},
		{"folder behind --resume", none, "--resume @runs/toy", ExitUsage, []string{"write --resume=", "runs/toy"}},
		{"resume of a run without a name", none, "--resume --set run.name=", ExitUsage, []string{"--resume=FOLDER"}},
		{"start or resume without a name", none, "--resume=auto --set run.name=", ExitUsage, []string{"--resume=FOLDER"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newToyFolder(t)
			tt.spoil(t, d)
			got := d.train(t, strings.Fields(d.fill(tt.args))...)
			checkFailure(t, tt.name, got, tt.code, tt.says...)
			if left, _ := filepath.Glob(d.path("runs", "*")); len(left) > 0 && !strings.Contains(tt.name, "without evaluation") {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	checkFailure(t, "no --config", runApp(t, nil, "pretrain-stage1"), ExitUsage, "--config configs/quickstart.yaml")
	got := runApp(t, nil, "pretrain-stage1", "--resume="+filepath.Join(t.TempDir(), "none"))
	checkFailure(t, "resume of nothing", got, ExitUsage, "there is no run", "none",
		runlog.ConfigFile, "no such file")
	d := newToyFolder(t)
	app := runApp(t, []string{"BLIP2_BACKEND=tpu"}, "pretrain-stage1", "--config", d.path(toydata.ConfigFile))
	checkFailure(t, "unknown backend in the environment", app, ExitUsage, "BLIP2_BACKEND", "tpu")
	checkFailure(t, "as JSON", d.train(t, "--quiet", "--set", "train.batch_size=25"), ExitFailure, "at most 24")
}

// TestPretrainStage1NoPermission: a run folder that cannot be written to.
func TestPretrainStage1NoPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	d := newToyFolder(t)
	if err := os.Mkdir(d.path("runs"), 0o555); err != nil {
		t.Fatal(err)
	}
	checkFailure(t, "run folder", d.train(t), ExitFailure, d.path("runs"), "permission denied", "run.dir")
}

// TestPretrainStage1Again: a run is not overwritten, and its checkpoints are not trusted blindly. --resume=auto starts
// it and goes on with it.
func TestPretrainStage1Again(t *testing.T) {
	d := newToyFolder(t)
	if got := d.train(t, "--set", without, "--resume=auto"); got.code != ExitOK {
		t.Fatal(got.err)
	}
	model := func(step int) string {
		return d.path("runs", "toy", checkpoint.Folder, checkpoint.DirName(step), checkpoint.ModelFile)
	}
	final := d.read(t, "runs", "toy", checkpoint.Folder, checkpoint.DirName(10), checkpoint.ModelFile)
	checkFailure(t, "again", d.train(t), ExitFailure, d.path("runs", "toy"), "holds a run already", "--resume")
	checkFailure(t, "other settings", d.train(t, "--resume", "--seed", "9"), ExitFailure, "other settings",
		"step-00000010", runlog.ConfigFile)
	for _, args := range [][]string{
		{"--resume=" + d.path("runs", "toy")},
		{"--resume=auto", "--config", d.path(toydata.ConfigFile), "--set", without},
	} {
		if err := os.Truncate(model(10), 100); err != nil {
			t.Fatal(err)
		}
		got := runApp(t, nil, append([]string{"pretrain-stage1"}, args...)...)
		if got.code != ExitOK || !strings.Contains(got.err, "step-00000010") || !strings.Contains(got.err, "step 9/10") {
			t.Errorf("%s, the newest checkpoint is damaged: exit code %d\n%s", args[0], got.code, got.err)
		}
		again := d.read(t, "runs", "toy", checkpoint.Folder, checkpoint.DirName(10), checkpoint.ModelFile)
		if again != final {
			t.Errorf("%s: the repaired training came out differently", args[0])
		}
	}
	for _, step := range []int{4, 8, 10} {
		if err := os.Remove(model(step)); err != nil {
			t.Fatal(err)
		}
	}
	checkFailure(t, "all are damaged", d.train(t, "--resume", "--set", without), ExitFailure, "no good checkpoint",
		"step-00000010", checkpoint.ModelFile, "start a new run")
}

// TestPretrainStage1Interrupt: before the first step there is nothing to save, from then on all is saved.
func TestPretrainStage1Interrupt(t *testing.T) {
	d := newToyFolder(t)
	for _, at := range []string{"", `msg="training data"`, "msg=model"} {
		got := d.interrupted(t, at)
		checkFailure(t, "interrupted at "+at, got, ExitFailure, "interrupted: ")
		if _, err := os.Stat(d.path("runs", "toy")); !os.IsNotExist(err) {
			t.Errorf("interrupted at %q: the run folder is there (%v)", at, err)
		}
	}
	reference := d.train(t, "--set", "run.name=whole")
	if reference.code != ExitOK {
		t.Fatal(reference.err)
	}
	run := d.path("runs", "toy")
	got := d.interrupted(t, "step 3/10")
	if got.code != ExitInterrupted || !strings.Contains(got.out, "run folder  "+run) {
		t.Fatalf("interrupted in training: exit code %d, stdout %q\n%s", got.code, got.out, got.err)
	}
	for _, want := range []string{"interrupted; the state was saved", "after step 3", run, "go on with --resume=" + run} {
		if !strings.Contains(got.err, want) {
			t.Errorf("no %q in\n%s", want, got.err)
		}
	}
	// Before a step of a start that goes on: nothing is lost.
	got = d.interrupted(t, "msg=model", "--resume")
	checkFailure(t, "interrupted while it goes on", got, ExitInterrupted, "interrupted; the state was saved",
		"--resume="+run)
	// In the last step: what is interrupted is the evaluation.
	got = d.interrupted(t, "step 10/10", "--resume", "--json")
	var summary runlog.Summary
	if err := json.Unmarshal([]byte(got.out), &summary); got.code != ExitInterrupted || err != nil ||
		summary.Status != runlog.StatusInterrupted || summary.Steps != 10 || summary.Retrieval != nil {
		t.Fatalf("interrupted in the evaluation: exit code %d, %v, %s\n%s", got.code, err, got.out, got.err)
	}
	got = runApp(t, nil, "pretrain-stage1", "--resume="+run)
	if table, _, _ := strings.Cut(reference.out, "run folder"); got.code != ExitOK || !strings.HasPrefix(got.out, table) {
		t.Errorf("gone on: exit code %d, stdout\n%swant\n%s", got.code, got.out, reference.out)
	}
	for _, name := range []string{checkpoint.ModelFile, checkpoint.OptimizerFile} {
		step := checkpoint.DirName(10)
		want := d.read(t, "runs", "whole", checkpoint.Folder, step, name)
		if d.read(t, "runs", "toy", checkpoint.Folder, step, name) != want {
			t.Errorf("%s is not that of the training without interrupts", name)
		}
	}
}

// TestPretrainStage1Output: a result that cannot be shown is an error, after all is on disk.
func TestPretrainStage1Output(t *testing.T) {
	d := newToyFolder(t)
	for _, name := range []string{"table", "json"} {
		var errw bytes.Buffer
		app := &App{Out: failingWriter{}, Err: &errw}
		args := []string{"pretrain-stage1", "--config", d.path(toydata.ConfigFile), "--set", "run.name=" + name,
			"--set", "train.steps=2"}
		if name == "json" {
			args = append(args, "--json")
		}
		if code := app.Run(t.Context(), args); code != ExitFailure || !strings.Contains(errw.String(), "no space left") {
			t.Errorf("%s: exit code %d, %s", name, code, errw.String())
		}
		if _, err := runlog.ReadSummary(d.path("runs", name)); err != nil {
			t.Error(err)
		}
	}
}
