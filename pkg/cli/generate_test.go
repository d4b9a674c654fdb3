package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/internal/measure"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/internal/toymodel"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/weights"

	"github.com/gofrs/flock"
)

// generating runs generate on the Go backend with what comes on standard input.
func generating(t *testing.T, stdin, line string, more ...string) result {
	t.Helper()
	var out, errw bytes.Buffer
	app := &App{In: strings.NewReader(stdin), Out: &out, Err: &errw}
	args := append(append([]string{"generate", "--backend", "go"}, strings.Fields(line)...), more...)
	return result{app.Run(t.Context(), args), out.String(), errw.String(), app}
}

// album is a folder of n pictures; those in bad cannot be read.
func album(t *testing.T, n int, bad ...int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		name := "COCO_val2014_00000000000" + string(rune('0'+i)) + ".png"
		path := toymodel.Picture(t, dir, name, i)
		if slices.Contains(bad, i) {
			if err := os.WriteFile(path, []byte("no picture"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// done fails the test unless the command succeeded, and returns its stdout.
func (r result) done(t *testing.T) string {
	t.Helper()
	if r.code != ExitOK {
		t.Fatalf("exit code %d: %s", r.code, r.err)
	}
	return r.out
}

// recordsOf reads lines of JSON.
func recordsOf(t *testing.T, text string) []record {
	t.Helper()
	var out []record
	for line := range strings.Lines(text) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		out = append(out, r)
	}
	return out
}

// TestGenerateWrongUsage: unknown options and combinations are refused before anything is opened.
func TestGenerateWrongUsage(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--image a", "--model is missing"},
		{"--model m", "--image is missing"},
		{"--model m --image a b", `unexpected argument "b"`},
		{"--model m --image a --batch 0", "--batch 0"},
		{"--model m --image a --dtype f8", `--dtype "f8" is unknown`},
		{"--model m --image a --format xml", `--format "xml" is unknown`},
		{"--model m --image a --format coco", "name a file with it"},
		{"--model m --image a --out x --format coco --prompt a --prompt b", "one caption per picture"},
		{"--model m --image a --out x --format coco --num-return 2", "one caption per picture"},
		{"--model m --image a --out x --stream", "--stream"},
		{"--model m --image a --json --stream", "--stream"},
		{"--model m --image a --stream --prompt a --prompt b", "--stream shows one text"},
		{"--model m --image a --stream --num-return 2 --sample", "--stream shows one text"},
		{"--model m --image a --attention-layer mean", "--attention-layer is for --show-attention"},
		{"--model m --image a --max-prompt-tokens -1", "--max-prompt-tokens -1"},
		{"--model m --image a --vision-heads -1", "--vision-heads -1"},
		{"--model m --image a --vision-layers 2", "how much of --vision is used"},
		{"--model m --image a --chat --prompt x", "leave out --prompt"},
		{"--model m --image a --chat --question x", "leave out --question"},
		{"--model m --image a --chat --batch 2", "leave out --batch"},
		{"--model m --image a --chat --out x", "leave out --out"},
		{"--model m --image a --chat --show-attention x", "leave out --show-attention"},
		{"--model m --image - --chat", "cannot come from there"},
		{"--model m --image a --temperature 0.5", "add --sample"},
		{"--model m --image a --top-k 5", "add --sample"},
		{"--model m --image a --top-p 0.5", "add --sample"},
		{"--model m --image a --sample --top-p 0", "--top-p 0"},
		{"--model m --image a --sample --top-p NaN", "--top-p NaN"},
		{"--model m --image a --sample --top-k -1", "--top-k -1"},
		{"--model m --image a --sample --temperature 0", "--temperature 0"},
		{"--model m --image a --beams 0", "--beams 0"},
		{"--model m --image a --num-return 0", "--num-return 0"},
		{"--model m --image a --max-new-tokens 0", "--max-new-tokens 0"},
		{"--model m --image a --min-new-tokens -1", "--min-new-tokens -1"},
		{"--model m --image a --no-repeat-ngram -1", "--no-repeat-ngram -1"},
		{"--model m --image a --repetition-penalty 0", "--repetition-penalty 0"},
		{"--model m --image a --length-penalty NaN", "--length-penalty NaN"},
		{"--model m --image a --repetition-penalty 1e6", "from 1e-05 to 100000"},
		{"--model m --image a --sample --temperature 1e-40", "leave out --sample"},
		{"--model m --image a --preset captoin", "did you mean caption?"},
		{"--model m --image a --len-rule old", `--len-rule "old" is unknown`},
	} {
		got := generating(t, "", tt.args)
		if got.code != ExitUsage || !strings.Contains(got.err, tt.want) || got.out != "" {
			t.Errorf("%s: exit code %d, stderr %s want %s", tt.args, got.code, got.err, tt.want)
		}
	}
}

// TestGenerateRefusesBeforeLoading: what depends on the model is refused from headers, before weights are read.
func TestGenerateRefusesBeforeLoading(t *testing.T) {
	model := toymodel.Folder(t, naming.BLIP2OPT)
	pictures := album(t, 2, 1)
	good := filepath.Join(pictures, "COCO_val2014_000000000000.png")
	bad := filepath.Join(pictures, "COCO_val2014_000000000001.png")
	stage1, blip := toymodel.Folder(t, naming.BLIP2Stage1), toymodel.Folder(t, naming.BLIPCaption)
	lavis := lavisFile(t)
	for _, tt := range []struct {
		args string
		code int
		want []string
	}{
		{"--model " + model + " --image no.png", 1, []string{"no.png", "no such file"}},
		{"--model " + model + " --image ftp://host/no.png", 1, []string{"begin with http:// or https://"}},
		{"--model " + model + " --image " + good + " --out /dev/null", 2, []string{"--out /dev/null: is a device"}},
		{"--model " + model + " --image " + good + " --show-attention /dev/null", 2, []string{"is a device"}},
		{"--model no-model --image " + good, 1, []string{"no-model"}},
		{"--model " + model + " --image " + bad, 1, []string{bad, "not a JPEG"}},
		{"--model " + model + " --image " + bad + " --chat", 1, []string{bad, "not a JPEG"}},
		{"--model " + model + " --image " + good + " --num-return 7", 2,
			[]string{"5 beams do not give 7 texts", "--num-return"}},
		{"--model " + model + " --image " + good + " --num-return 2 --beams 1", 2, []string{"gives one text per row"}},
		{"--model " + model + " --image " + good + " --beams 1 --length-penalty 2", 2, []string{"--length-penalty ranks"}},
		{"--model " + model + " --image " + good + " --sample --len-rule paper", 2, []string{"--len-rule ranks"}},
		{"--model " + model + " --image " + good + " --sample --beams 3 --len-rule paper", 2, []string{"length rule"}},
		{"--model " + model + " --image " + good + " --min-new-tokens 9 --max-new-tokens 8", 2,
			[]string{"--min-new-tokens 9"}},
		{"--model " + model + " --image " + good + " --length-penalty -11", 2,
			[]string{"--length-penalty -11", "from -10.2 to 10.2"}},
		{"--model " + model + " --image " + good + " --stream", 2, []string{"5 beams", "--beams 1"}},
		{"--model " + model + " --image " + pictures + " --stream --beams 1", 2, []string{"there are 2"}},
		{"--model " + model + " --image " + pictures + " --show-attention x.png", 2, []string{"there are 2"}},
		{"--model " + model + " --image " + pictures + " --chat", 2, []string{"there are 2"}},
		{"--model " + model + " --image " + good + " --show-attention x.png --attention-layer 1", 2,
			[]string{"layer 1 has no cross-attention: those that have are [0 2]"}},
		{"--model " + model + " --image " + good + " --show-attention x.png --attention-layer 1x", 2, []string{`"1x"`}},
		{"--model " + blip + " --image " + good + " --show-attention x.png", 2, []string{"no queries"}},
		{"--model " + model + " --image " + good + " --prompt " + strings.Repeat("a", 200), 1,
			[]string{"has 201 tokens, and there is room for 127", "160 positions"}},
		{"--model " + model + " --image " + good + " --max-new-tokens 200", 1, []string{"room for 0"}},
		{"--model " + model + " --image " + good + " --chat --max-new-tokens 150", 1,
			[]string{"has 19 tokens", "room for 7"}},
		{"--model " + model + " --image " + good + " --out no/such.jsonl", 1, []string{"--out no/such.jsonl", "its folder"}},
		{"--model " + model + " --image " + good + " --out " + pictures, 2, []string{"is a folder"}},
		{"--model " + model + " --image " + good + " --show-attention no/such.png", 1,
			[]string{"--show-attention no/such.png", "its folder"}},
		{"--model " + model + " --image " + good + " --show-attention " + pictures, 2, []string{"is a folder"}},
		{"--model " + stage1 + " --image " + good + " --question x", 2, []string{"answers no questions"}},
		{"--model " + blip + " --image " + good + " --chat", 2, []string{"answers no questions"}},
		{"--model " + stage1 + " --image " + good + " --preset vqa", 2, []string{"answers no questions"}},
		{"--model " + llmFolder(t, publishedOPT()) + " --image " + good, 1, []string{"writes nothing about pictures"}},
		{"--model " + lavis.file + heads + " --image " + good, 1, []string{"language model", "--llm"}},
		{"--model " + lavis.file + heads + " --llm " + lavis.llm + " --llm-heads 2 --image " + good, 1,
			[]string{"image encoder", "--vision"}},
		{"--model " + lavis.file + heads + " --vision " + lavis.vision + " --vision-layers 2 --llm-heads 2 --image " + good +
			" --llm " + llmFolder(t, publishedOPT()), 1,
			[]string{"the projection gives 16 features, the language model reads 8"}},
	} {
		got := generating(t, "", tt.args)
		if got.code != tt.code || got.out != "" || strings.Contains(got.err, "model loaded") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %s", tt.args, got.code, got.out, got.err)
		}
		for _, want := range tt.want {
			if !strings.Contains(got.err, want) {
				t.Errorf("%s: stderr %s want %s", tt.args, got.err, want)
			}
		}
	}
}

// TestGenerateNeedsTooMuch: what the machine has no memory for is refused before weights are read.
func TestGenerateNeedsTooMuch(t *testing.T) {
	if measure.AvailableMemory() == 0 {
		t.Skip("the system does not tell how much memory it has")
	}
	pictures := album(t, 2)
	for _, tt := range []struct{ network, args, want string }{
		{naming.BLIP2OPT, "--sample --num-return 1000000000000", "1 picture at once, 1000000000000 texts each"},
		{naming.BLIP2T5, "--batch 2 --max-new-tokens 1000000000000", "2 pictures at once, 5 texts each of up to 10"},
		{naming.BLIP2Stage1, "--beams 1000000000000", "1000000000000 texts each"},
		{naming.BLIP2OPT, "--beams 100000", "100000 texts each"}, // attention among themselves
	} {
		got := generating(t, "", "--model "+toymodel.Folder(t, tt.network)+" --image "+pictures+" "+tt.args)
		if got.code != ExitFailure || !strings.Contains(got.err, tt.want) ||
			!strings.Contains(got.err, "--max-new-tokens") || strings.Contains(got.err, "model loaded") {
			t.Errorf("%s: exit code %d, stderr %s want %s", tt.args, got.code, got.err, tt.want)
		}
	}
}

// lavisParts are a LAVIS checkpoint of stage 2, which holds neither image encoder nor language model, and these.
type lavisParts struct{ file, vision, llm string }

func lavisFile(t *testing.T) lavisParts {
	t.Helper()
	spec := toymodel.Spec(naming.BLIP2OPT)
	all := toymodel.Tensors(spec, 1)
	var own, vision, llm []weights.Tensor
	for _, p := range spec.Params() {
		tensor := all[p.Name]
		switch {
		case strings.HasPrefix(p.Name, naming.VisionPrefix):
			tensor.Name = strings.TrimPrefix(p.Name, naming.VisionPrefix)
			vision = append(vision, tensor)
		case strings.HasPrefix(p.Name, "opt_model."):
			tensor.Name = strings.TrimPrefix(p.Name, "opt_model.")
			llm = append(llm, tensor)
		default:
			own = append(own, tensor)
		}
	}
	for _, list := range [][]weights.Tensor{own, vision, llm} {
		slices.SortFunc(list, func(a, b weights.Tensor) int { return strings.Compare(a.Name, b.Name) })
	}
	parts := lavisParts{file: writeTensors(t, "blip2_pretrained", own), vision: writeTensors(t, "eva", vision)}
	parts.llm = filepath.Dir(writeTensors(t, "model", llm))
	files, err := published.HFFiles(published.Spec{Model: naming.OPT, OPT: spec.OPT, EOS: 2}, weights.F32)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range toymodel.Tokenizer(naming.BLIP2OPT) {
		files[name] = data
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(parts.llm, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return parts
}

// TestGenerateLAVIS: LAVIS's file with encoder and language model writes what the folder of the same numbers writes,
// in pictures of the same processor.
func TestGenerateLAVIS(t *testing.T) {
	picture := album(t, 1) + "/COCO_val2014_000000000000.png"
	parts := lavisFile(t)
	got := recordsOf(t, generating(t, "", "--json --model "+parts.file+heads+" --vision "+parts.vision+
		" --vision-layers 2 --llm "+parts.llm+" --llm-heads 2 --image "+picture).done(t))
	folder := toymodel.Folder(t, naming.BLIP2OPT)
	if err := os.Remove(filepath.Join(folder, "preprocessor_config.json")); err != nil { // whose resize is a newer one
		t.Fatal(err)
	}
	want := recordsOf(t, generating(t, "", "--json --model "+folder+" --image "+picture).done(t))
	if len(got) != 1 || got[0].Text != want[0].Text ||
		math.Abs(got[0].Texts[0].Score-want[0].Texts[0].Score) > 1e-3 {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestGenerateOptions: every option reaches the search, and changes what it is there for.
func TestGenerateOptions(t *testing.T) {
	model := toymodel.Folder(t, naming.BLIP2OPT)
	picture := album(t, 1) + "/COCO_val2014_000000000000.png"
	run := func(options string) record {
		t.Helper()
		return recordsOf(t, generating(t, "", "--json --model "+model+" --image "+picture+" "+options).done(t))[0]
	}
	text := func(options string) string { return run(options).Text }
	base := run("")
	for _, options := range []string{"--beams 1", "--repetition-penalty 1.7", "--length-penalty -3 --min-new-tokens 0",
		"--max-new-tokens 3", "--no-repeat-ngram 1 --max-new-tokens 20", "--prompt what", "--question what",
		"--sample --seed 1", "--sample --beams 3 --seed 2", "--image-size 56", "--preset caption"} {
		if got := run(options); got.Text == base.Text && got.Texts[0].Score == base.Texts[0].Score {
			t.Errorf("%s changes nothing: %+v", options, got)
		}
	}
	if got := run("--min-new-tokens 7 --max-new-tokens 9"); len(got.Texts[0].Tokens) < 7 || len(got.Texts[0].Tokens) > 9 {
		t.Errorf("%d tokens, want 7 to 9", len(got.Texts[0].Tokens))
	}
	if got := run("--num-return 4"); len(got.Texts) != 4 || got.Texts[0].Score < got.Texts[3].Score ||
		got.Texts[0].Text == got.Texts[1].Text || got.Text != got.Texts[0].Text {
		t.Errorf("%+v", got)
	}
	if got := run("--num-return 3 --sample"); len(got.Texts) != 3 {
		t.Errorf("%+v", got)
	}
	drawn := text("--sample --seed 5")
	if again := text("--sample --seed 5"); again != drawn {
		t.Errorf("the same seed draws %q and %q", drawn, again)
	}
	if greedy := text("--beams 1"); text("--sample --top-k 1") != greedy ||
		text("--sample --top-p 0.000001 --temperature 3") != greedy {
		t.Error("only the most likely token can come, and another does")
	}
	if text("--sample --temperature 9 --top-k 0 --top-p 1") == text("--beams 1") {
		t.Error("at a high temperature the most likely tokens come")
	}
	paper, current := run("--len-rule paper --prompt what"), run("--prompt what")
	if paper.Texts[0].Score == current.Texts[0].Score {
		t.Errorf("both length rules give %g", paper.Texts[0].Score)
	}
	if got := run("--prompt abc --max-prompt-tokens 2"); got.Text != run("--prompt a").Text {
		t.Errorf("%q, not what follows the cut prompt", got.Text)
	}
	if got := run("--question what?"); got.Prompt != "Question: what? Answer:" {
		t.Errorf("prompt %q", got.Prompt)
	}
	early, late := run("--early-stopping --length-penalty 3"), run("--length-penalty 3")
	if early.Texts[0].LogProb < late.Texts[0].LogProb {
		t.Errorf("%+v, and %+v when all is searched", early, late)
	}
}

// TestGenerateManyPictures: a folder is answered in the order of names, whatever the batch is; a bad picture is named,
// the others are answered, and the exit code says so.
func TestGenerateManyPictures(t *testing.T) {
	model, dir := toymodel.Folder(t, naming.BLIP2T5), album(t, 6, 2)
	base := "--model " + model + " --image " + dir
	want := ""
	for _, batch := range []string{"1", "4"} {
		got := generating(t, "", base+" --sample --batch "+batch)
		if got.code != ExitFailure || strings.Count(got.out, "\n") != 5 || strings.Contains(got.out, "0002.png") ||
			!strings.Contains(got.err, "blip2: picture not answered") ||
			!strings.Contains(got.err, "COCO_val2014_000000000002.png") {
			t.Errorf("batch %s: exit code %d\n%s%s", batch, got.code, got.out, got.err)
		}
		if want == "" {
			want = got.out
		} else if got.out != want {
			t.Errorf("batch %s:\n%swant\n%s", batch, got.out, want)
		}
	}
	if first, _, _ := strings.Cut(want, "\t"); first != filepath.Join(dir, "COCO_val2014_000000000000.png") {
		t.Errorf("the first line is of %s", first)
	}
	json := generating(t, "", base+" --json --prompt a --prompt b")
	if lines := strings.Split(strings.TrimSpace(json.out), "\n"); json.code != ExitFailure || len(lines) != 11 ||
		strings.Count(json.out, `"error":`) != 1 {
		t.Errorf("exit code %d\n%s", json.code, json.out)
	}
}

// TestGenerateResults: a file of results is gone on with, refuses other settings, and loses nothing to a torn line.
func TestGenerateResults(t *testing.T) {
	model, dir := toymodel.Folder(t, naming.BLIP2OPT), album(t, 5, 3)
	out := filepath.Join(t.TempDir(), "results.jsonl")
	base := "--model " + model + " --image " + dir + " --out " + out
	if got := generating(t, "", base); got.code != ExitFailure || !strings.Contains(got.out, "wrote "+out+": 4 pictures") {
		t.Fatalf("exit code %d\n%s%s", got.code, got.out, got.err)
	}
	whole, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	records := recordsOf(t, string(whole))
	if len(records) != 4 || records[3].Image != filepath.Join(dir, "COCO_val2014_000000000004.png") ||
		records[0].Text == "" {
		t.Fatalf("%s", whole)
	}
	// A write that was cut off, and a picture that can be read now.
	lines := bytes.SplitAfter(whole, []byte("\n"))
	if err := os.WriteFile(out, slices.Concat(lines[0], lines[1], lines[2][:9]), 0o666); err != nil {
		t.Fatal(err)
	}
	toymodel.Picture(t, dir, "COCO_val2014_000000000003.png", 3)
	got := generating(t, "", base+" --batch 2")
	got.done(t)
	if !strings.Contains(got.err, "not complete") || !strings.Contains(got.err, "pictures=2") {
		t.Errorf("%s", got.err)
	}
	after, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if again := recordsOf(t, string(after)); len(again) != 5 || again[2].Image != records[2].Image ||
		again[2].Text != records[2].Text || !bytes.HasPrefix(after, slices.Concat(lines[0], lines[1])) {
		t.Errorf("%s", after)
	}
	if got := generating(t, "", base); got.code != ExitOK || strings.Contains(got.err, "model loaded") {
		t.Errorf("nothing is left to do: exit code %d, %s", got.code, got.err)
	}
	if got := generating(t, "", base+" --beams 2"); got.code != ExitFailure ||
		!strings.Contains(got.err, "line 1: it was made by another model") {
		t.Errorf("other settings: exit code %d, %s", got.code, got.err)
	}
}

// TestGenerateForeignFile: a file that holds no results, or more than these, stays as it is.
func TestGenerateForeignFile(t *testing.T) {
	out := filepath.Join(t.TempDir(), "results.jsonl")
	base := "--model " + toymodel.Folder(t, naming.BLIP2OPT) + " --image " + album(t, 1) + " --out " + out
	generating(t, "", base).done(t)
	whole, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"{\n", "notes", "notes\n", "\n", "{}", "[1]", `{"images":[`, "\x89PNG\r\n",
		string(whole) + "notes", string(whole) + "\n", string(whole) + `{"image":"a"` + "\n"} {
		if err := os.WriteFile(out, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		got := generating(t, "", base)
		if got.code != ExitFailure || !strings.Contains(got.err, out+", line ") ||
			!strings.Contains(got.err, "choose another file") || strings.Contains(got.err, "model loaded") {
			t.Errorf("%q: exit code %d, %s", text, got.code, got.err)
		}
		if after, err := os.ReadFile(out); err != nil || string(after) != text {
			t.Errorf("%q became %q, error %v", text, after, err)
		}
	}
}

// TestGenerateTwice: a file that another command is writing, or has written since this one began, is left to it.
func TestGenerateTwice(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("files are not locked there")
	}
	out := filepath.Join(t.TempDir(), "results.jsonl")
	base := "--model " + toymodel.Folder(t, naming.BLIP2OPT) + " --image " + album(t, 1) + " --out " + out
	generating(t, "", base).done(t)
	other := flock.New(out)
	if got, err := other.TryLock(); err != nil || !got {
		t.Fatalf("the file is still locked: %v", err)
	}
	got := generating(t, "", base)
	if got.code != ExitFailure || !strings.Contains(got.err, out) || !strings.Contains(got.err, "another command") {
		t.Errorf("exit code %d, %s", got.code, got.err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	generating(t, "", base).done(t)

	late := &resultFile{name: out} // found no file when it began
	if err := late.openFile(); err == nil || !strings.Contains(err.Error(), "meanwhile") {
		t.Errorf("the other's file is taken: %v", err)
	}
	if err := errors.Join(late.shut(), late.release()); err != nil {
		t.Error(err)
	}
}

// TestGenerateResumeOptions: what is drawn goes on, too; a picture of standard input is another one every time, and
// attention is drawn of a picture that is answered.
func TestGenerateResumeOptions(t *testing.T) {
	dir := t.TempDir()
	out, heat := filepath.Join(dir, "results.jsonl"), filepath.Join(dir, "attention.png")
	pictures := album(t, 2)
	base := "--model " + toymodel.Folder(t, naming.BLIP2OPT) + " --out " + out
	drawn := base + " --sample --seed 3 --temperature 0.7 --image " + pictures
	generating(t, "", drawn).done(t)
	if got := generating(t, "", drawn); got.code != ExitOK || !strings.Contains(got.err, "pictures=2") {
		t.Errorf("sampling: exit code %d, %s", got.code, got.err)
	}
	if got := generating(t, "", drawn+" --seed 4"); got.code != ExitFailure {
		t.Errorf("another seed: exit code %d, %s", got.code, got.err)
	}
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		name := filepath.Join(pictures, "COCO_val2014_00000000000"+string(rune('0'+i))+".png")
		picture, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		generating(t, string(picture), base+" --image -").done(t)
		one := base + " --image " + name
		generating(t, "", one).done(t)
		generating(t, "", one+" --show-attention "+heat).done(t)
		if _, err := os.Stat(heat); err != nil {
			t.Error(err)
		}
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	r := recordsOf(t, string(data))
	if len(r) != 4 || r[0].Image != "-" || r[2].Image != "-" || r[0].Text != r[1].Text || r[2].Text != r[3].Text ||
		r[0].Text == r[2].Text {
		t.Errorf("%s", data)
	}
}

// TestGenerateCOCO writes COCO's list; with bad pictures the lines stay to go on with.
func TestGenerateCOCO(t *testing.T) {
	model, dir := toymodel.Folder(t, naming.BLIPCaption), album(t, 3, 1)
	out := filepath.Join(t.TempDir(), "results.json")
	base := "--model " + model + " --tokenizer " + toymodel.Folder(t, naming.BLIP2Stage1) + "/vocab.txt --image " + dir +
		" --format coco --out " + out
	read := func() (list []cocoCaption) {
		data, err := os.ReadFile(out)
		if err == nil {
			err = json.Unmarshal(data, &list)
		}
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	if got := generating(t, "", base); got.code != ExitFailure {
		t.Fatalf("exit code %d: %s", got.code, got.err)
	}
	if list := read(); len(list) != 2 || list[0].ImageID != 0 || list[1].ImageID != 2 || !exists(out+partial) {
		t.Errorf("%+v", list)
	}
	toymodel.Picture(t, dir, "COCO_val2014_000000000001.png", 1)
	generating(t, "", base).done(t)
	if list := read(); len(list) != 3 || list[1].ImageID != 1 || exists(out+partial) {
		t.Errorf("%+v", list)
	}
	if got := generating(t, "", base); got.code != ExitUsage || !strings.Contains(got.err, "is there already") {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
	toymodel.Picture(t, dir, "other2.png", 1)
	if got := generating(t, "", base); got.code != ExitUsage || !strings.Contains(got.err, "000000000002.png and ") ||
		!strings.Contains(got.err, "both have the number 2") {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
	toymodel.Picture(t, dir, "nameless.png", 1)
	if got := generating(t, "", base); got.code != ExitUsage || !strings.Contains(got.err, "does not end with a number") {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
}

// TestGenerateChat: what was said stands in front of the next question; commands change picture and memory.
func TestGenerateChat(t *testing.T) {
	model, dir := toymodel.Folder(t, naming.BLIP2OPT), album(t, 2)
	first := filepath.Join(dir, "COCO_val2014_000000000000.png")
	second := filepath.Join(dir, "COCO_val2014_000000000001.png")
	questions := "what?\n\nwhy?\n/image no.png\n/huh\n/reset\nwhat?\n/image " + second + "\nwhat?\n" +
		strings.Repeat("a", 500) + "\n/quit\nlost\n"
	got := generating(t, questions, "--json --chat --max-new-tokens 3 --min-new-tokens 1 --model "+model+" --image "+first)
	got.done(t)
	var answers []chatAnswer
	for line := range strings.Lines(got.out) {
		var a chatAnswer
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatal(err)
		}
		answers = append(answers, a)
	}
	if len(answers) != 4 {
		t.Fatalf("%s%s", got.out, got.err)
	}
	want := "Question: what? Answer: " + strings.TrimRight(answers[0].Text, ".") + ". Question: why? Answer:"
	if answers[1].Prompt != want || answers[2].Prompt != "Question: what? Answer:" || answers[2].Text != answers[0].Text {
		t.Errorf("%+v", answers)
	}
	if answers[3].Image != second || answers[3].Prompt != answers[2].Prompt {
		t.Errorf("%+v", answers[3])
	}
	for _, want := range []string{"no.png", "unknown command", "question not answered", "has 519 tokens"} {
		if !strings.Contains(got.err, want) {
			t.Errorf("stderr %s want %s", got.err, want)
		}
	}
	// The oldest questions are forgotten before the model's context is full.
	many := generating(t, strings.Repeat("what is this here?\n", 12),
		"--json --chat --max-new-tokens 3 --model "+model+" --image "+first)
	if many.done(t); strings.Count(many.out, "\n") != 12 || !strings.Contains(many.err, "oldest question is forgotten") {
		t.Errorf("%s%s", many.out, many.err)
	}
	// What is cut off is never the question.
	cut := generating(t, "what is this?\nwhy?\nwho?\n"+strings.Repeat("b", 60)+"\n",
		"--json --chat --max-new-tokens 3 --max-prompt-tokens 30 --model "+model+" --image "+first)
	if cut.done(t); !strings.Contains(cut.out, `"prompt":"Question: who? Answer:"`) ||
		strings.Count(cut.err, "oldest question is forgotten") != 3 || strings.Count(cut.out, "\n") != 4 {
		t.Errorf("%s%s", cut.out, cut.err)
	}
	plain := generating(t, "what?\nwhy?", "--chat --beams 1 --stream --max-new-tokens 3 --model "+model+" --image "+first)
	if strings.Count(plain.done(t), "\n") != 2 {
		t.Errorf("%q", plain.out)
	}
}

// TestGenerateStream: a text that is shown as it is written is the text.
func TestGenerateStream(t *testing.T) {
	for _, network := range []string{naming.BLIP2OPT, naming.BLIP2T5, naming.BLIP2Stage1} {
		base := "--beams 1 --max-new-tokens 12 --model " + toymodel.Folder(t, network) + " --image " + album(t, 1)
		if got, want := generating(t, "", base+" --stream").done(t), generating(t, "", base).done(t); got != want {
			t.Errorf("%s: %q, want %q", network, got, want)
		}
	}
	picture, err := os.ReadFile(album(t, 1) + "/COCO_val2014_000000000000.png")
	if err != nil {
		t.Fatal(err)
	}
	base := "--model " + toymodel.Folder(t, naming.BLIP2OPT) + " --image "
	want := generating(t, "", base+album(t, 1)).done(t)
	if got := generating(t, string(picture), base+"-").done(t); got != want {
		t.Errorf("from standard input %q, want %q", got, want)
	}
}

// TestGenerateAttention draws a picture.
func TestGenerateAttention(t *testing.T) {
	out := filepath.Join(t.TempDir(), "attention.png")
	for _, layer := range []string{"last", "mean", "0"} {
		generating(t, "", "--model "+toymodel.Folder(t, naming.BLIP2T5)+" --image "+album(t, 1)+" --show-attention "+out+
			" --attention-layer "+layer).done(t)
		f, err := os.Open(out)
		if err != nil {
			t.Fatal(err)
		}
		img, err := png.Decode(f)
		if err != nil || img.Bounds().Dy() < 400 {
			t.Errorf("layer %s: %v", layer, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGenerateRun: a run of stage 1 captions with what its configuration knows.
func TestGenerateRun(t *testing.T) {
	d := newToyFolder(t)
	d.train(t, "--set", "run.dir="+d.path("runs"), "--set", "run.name=a", "--set", "train.steps=2", "--set",
		"eval.before=false").done(t)
	pictures := d.path(toydata.ImagesDir)
	got := recordsOf(t, generating(t, "", "--json --batch 3 --model "+d.path("runs", "a")+" --image "+pictures).done(t))
	if len(got) != toydata.TrainImages+toydata.HeldoutImages {
		t.Errorf("%d captions", len(got))
	}
	again := recordsOf(t, generating(t, "", "--json --model "+d.path("runs", "a", "checkpoints", "latest")+" --image "+
		got[0].Image).done(t))
	if again[0].Text != got[0].Text {
		t.Errorf("%q, want %q", again[0].Text, got[0].Text)
	}
}

// TestGenerateInterrupted: what is answered stays in the file, and the same command goes on.
func TestGenerateInterrupted(t *testing.T) {
	out := filepath.Join(t.TempDir(), "r.jsonl")
	args := []string{"generate", "--backend", "go", "--json", "--model", toymodel.Folder(t, naming.BLIP2OPT), "--image",
		album(t, 6), "--out", out, "--max-new-tokens", "3", "--min-new-tokens", "0"}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	app := &App{In: strings.NewReader(""), Out: io.Discard, Err: &trigger{text: "model loaded", pull: cancel}}
	if code := app.Run(ctx, args); code != ExitInterrupted {
		t.Errorf("exit code %d, want %d", code, ExitInterrupted)
	}
	generating(t, "", "", args[3:]...).done(t)
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	if records := recordsOf(t, string(data)); len(records) != 6 {
		t.Errorf("%d pictures are answered", len(records))
	}
	// On stdout, and said once.
	again, cancel := context.WithCancel(t.Context())
	defer cancel()
	errw := &trigger{text: "model loaded", pull: cancel}
	app = &App{In: strings.NewReader(""), Out: io.Discard, Err: errw}
	if code := app.Run(again, slices.Concat(args[:8], args[10:])); code != ExitFailure ||
		strings.Count(errw.String(), "context canceled") != 1 {
		t.Errorf("exit code %d: %s", code, errw.String())
	}
}
