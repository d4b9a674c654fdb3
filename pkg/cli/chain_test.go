package cli

import (
	"encoding/json"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/internal/toydata"
	"blip2/pkg/runlog"
)

// TestTrainedModelTells is the way of a user: stage 1, stage 2 on its run folder, and then all that generate does with
// the run folder of stage 2, for both kinds of language model.
func TestTrainedModelTells(t *testing.T) {
	d := newToyFolder(t)
	if err := toydata.WriteStage2(string(d)); err != nil {
		t.Fatal(err)
	}
	d.train(t, "--set", "run.name=one", "--set", "eval.retrieval=false", "--set", "train.steps=2", "--set",
		"optim.warmup_steps=0").done(t)
	for name, file := range map[string]string{"opt": toydata.OPTFile, "t5": toydata.T5File} {
		t.Run(name, func(t *testing.T) {
			runApp(t, nil, "pretrain-stage2", "--config", d.path(file), "--set", "run.name="+name, "--set", "train.steps=4",
				"--set", "stage1="+d.path("runs", "one"), "--set", "eval.before=false", "--set", "report.gallery=32").done(t)
			told := telling{d, d.path("runs", name)}
			t.Run("text", told.text)
			t.Run("file", told.file)
			t.Run("chat", told.chat)
			t.Run("attention", told.attention)
			t.Run("scores", told.scores)
		})
	}
}

// telling is a run of stage 2 whose model writes.
type telling struct {
	d   toyFolder
	run string
}

// asEvaluated are the options with which the toys' stage 2 evaluates.
const asEvaluated = " --beams 2 --min-new-tokens 1 --max-new-tokens 6 --prompt"

func (r telling) generate(t *testing.T, stdin, line string, more ...string) result {
	t.Helper()
	return generating(t, stdin, "--model "+r.run+" "+line, more...)
}

// text: the model tells of every picture what its own evaluation has written, as text and as JSON, in batches or not.
func (r telling) text(t *testing.T) {
	gallery, err := runlog.ReadGallery(r.run)
	if err != nil {
		t.Fatal(err)
	}
	want, different := map[string]string{}, map[string]bool{}
	for _, item := range gallery.Items {
		want[r.d.path(toydata.ImagesDir, item.Key)] = item.Generated
		different[item.Generated] = true
	}
	pictures := r.d.path(toydata.ImagesDir)
	records := recordsOf(t, r.generate(t, "", "--json --batch 5 --image "+pictures+asEvaluated, "a picture").done(t))
	if len(records) != len(want) || len(want) != toydata.TrainImages+toydata.HeldoutImages {
		t.Fatalf("%d pictures, %d in the gallery", len(records), len(want))
	}
	if len(different) < 2 {
		t.Errorf("all pictures have the caption %q", records[0].Text)
	}
	for _, got := range records {
		if got.Text != want[got.Image] || got.Prompt != "a picture" || len(got.Texts) != 1 || len(got.Texts[0].Tokens) == 0 {
			t.Errorf("%+v, the evaluation wrote %q", got, want[got.Image])
		}
	}
	plain := r.generate(t, "", "--image "+pictures+asEvaluated, "a picture").done(t)
	first, _, _ := strings.Cut(plain, "\n")
	if first != records[0].Image+"\t"+records[0].Text {
		t.Errorf("the first line is %q, the first record %+v", first, records[0])
	}
	newest := filepath.Join(r.run, "checkpoints", "latest")
	one := generating(t, "", "--model "+newest+" --image "+records[3].Image+asEvaluated, "a picture").done(t)
	if one != records[3].Text+"\n" {
		t.Errorf("the newest checkpoint writes %q, want %q", one, records[3].Text)
	}
}

// file: a folder is gone on with where a command stopped that had some of its pictures.
func (r telling) file(t *testing.T) {
	out, pictures := filepath.Join(t.TempDir(), "captions.jsonl"), r.d.path(toydata.ImagesDir)
	options := " --out " + out + " --beams 2 --max-new-tokens 5"
	r.generate(t, "", "--image "+pictures+"/0[0-4]*"+options).done(t)
	begun, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := r.generate(t, "", "--batch 4 --image "+pictures+options)
	got.done(t)
	all, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	records := recordsOf(t, string(all))
	if len(records) != toydata.TrainImages+toydata.HeldoutImages || !strings.HasPrefix(string(all), string(begun)) ||
		!strings.Contains(got.err, "pictures=5") {
		t.Errorf("%d pictures\n%s", len(records), got.err)
	}
}

// chat: questions come from a pipe, and what was said stands in front of the next.
func (r telling) chat(t *testing.T) {
	got := r.generate(t, "what\nwhere\n", "--chat --json --max-new-tokens 2 --min-new-tokens 1 --image "+
		r.d.path(toydata.ImagesDir, "03.png")).done(t)
	var answers []chatAnswer
	for line := range strings.Lines(got) {
		var a chatAnswer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != 2 || answers[0].Question != "what" || answers[1].Question != "where" ||
		!strings.HasSuffix(answers[1].Prompt, "Question: where Answer:") {
		t.Errorf("%+v", answers)
	}
}

// attention: a picture of what the queries look at.
func (r telling) attention(t *testing.T) {
	out := filepath.Join(t.TempDir(), "attention.png")
	r.generate(t, "", "--max-new-tokens 3 --image "+r.d.path(toydata.ImagesDir, "03.png")+" --show-attention "+out).done(t)
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if img, err := png.Decode(f); err != nil || img.Bounds().Dx() < 100 {
		t.Errorf("error %v", err)
	}
}

// scores: captions in COCO's form are scored against those of people.
func (r telling) scores(t *testing.T) {
	out := filepath.Join(t.TempDir(), "captions.json")
	r.generate(t, "", "--format coco --out "+out+" --image "+r.d.path(toydata.ImagesDir)+asEvaluated, "a picture").done(t)
	got := runApp(t, nil, "score", "captions", "--results", out, "--annotations", r.d.path(toydata.CaptionFile),
		"--metrics", "cider", "--json").done(t)
	var report struct {
		Pictures int
	}
	err := json.Unmarshal([]byte(got), &report)
	if err != nil || report.Pictures != 16 || !strings.Contains(got, "CIDEr") {
		t.Errorf("%s, error %v", got, err)
	}
}
