package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// complete holds the keys that a file must have.
const complete = "text: {vocab: vocab.txt}\ndata:\n  train:\n    - {annotations: a.json, images: img}\n"

// files writes the given files and returns their folder.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range contents {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// loadText loads c.yaml with the text; extra options may be given.
func loadText(t *testing.T, text string, opts LoadOptions) (*Stage1, *Sources, error) {
	t.Helper()
	opts.Dir = files(t, map[string]string{"c.yaml": text})
	opts.Path = "c.yaml"
	opts.Parsers = map[string]func(string) (string, error){"backend": func(s string) (string, error) {
		if s == "tpu" {
			return "", errors.New("no such thing as tpu")
		}
		return strings.ToLower(s), nil
	}}
	return LoadStage1(opts)
}

func TestDefaultsAreThePaper(t *testing.T) {
	got, src, err := loadText(t, complete, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultStage1()
	dir := filepath.Dir(got.Text.Vocab)
	want.Run.Dir = filepath.Join(dir, "runs")
	want.Text.Vocab = filepath.Join(dir, "vocab.txt")
	want.Data.Train = []DataSource{{Annotations: filepath.Join(dir, "a.json"), Images: filepath.Join(dir, "img")}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if src.Name() != "c" || len(src.Files) != 1 {
		t.Errorf("sources %+v", src)
	}
	if got.Optim.LR != 1e-4 || got.Train.Steps != 250_000 || got.Train.BatchSize != 2320 ||
		got.Optim.WarmupSteps != 2000 || got.Optim.Betas != [2]float64{0.9, 0.98} || got.Vision.Layers != 23 {
		t.Errorf("defaults differ from the paper: %+v", got)
	}
}

// mistakes are files with one mistake each; every text must occur in the message.
var mistakes = []struct {
	name, yaml string
	want       []string
}{
	{"unknown key", "optim:\n  lr: 1e-3\n  shedule: cosine\n",
		[]string{"c.yaml:3: optim.shedule: unknown key", "did you mean optim.schedule?", "keys in optim: lr, min_lr"}},
	{"unknown section", "optimizer: {}\n",
		[]string{"c.yaml:1: optimizer: unknown key", "optim", "keys at the top level"}},
	{"key in the wrong section", "seed: 1\nbatch_size: 4\n",
		[]string{"c.yaml:2: batch_size", "did you mean train.batch_size?"}},
	{"far from everything", "optim:\n  zzzzzzzzzzzz: 1\n", []string{"c.yaml:2: optim.zzzzzzzzzzzz", "the nearest is"}},
	{"misspelt extends", "extend: a.yaml\n", []string{"c.yaml:1: extend: unknown key", "did you mean extends?"}},
	{"key in a list", "data:\n  heldout:\n  - {annotations: a, image: b}\n",
		[]string{"c.yaml:3: data.heldout[0].image: unknown key", "did you mean data.heldout[0].images?"}},
	{"text for a number", "optim:\n  lr: fast\n", []string{"c.yaml:2: optim.lr: want a number, got the text \"fast\""}},
	{"quoted number", "optim:\n  lr: \"1e-4\"\n", []string{"optim.lr: want a number, got the text \"1e-4\""}},
	{"infinite number", "optim: {lr: .inf}\n", []string{"optim.lr: want a number, got .inf"}},
	{"huge number", "optim: {lr: 1e999}\n", []string{"optim.lr: want a number, got the text \"1e999\""}},
	{"not a number", "loss: {itc: .nan}\n", []string{"loss.itc: want a number, got .nan"}},
	{"fraction for a whole number", "train: {batch_size: 2.5}\n",
		[]string{"train.batch_size: want a whole number, got 2.5"}},
	{"overlong whole number", "seed: 99999999999999999999\n",
		[]string{"seed: want a whole number, got 99999999999999999999"}},
	{"octal stays decimal or fails", "seed: 0o17\n", []string{"seed: want a whole number, got 0o17"}},
	{"number for a text", "run:\n  name: 2024\n",
		[]string{"c.yaml:2: run.name: want text, got 2024; put it in quotes"}},
	{"text for a switch", "data: {exif: \"yes\"}\n", []string{"data.exif: want true or false, got the text \"yes\""}},
	{"no value", "optim:\n  lr:\n", []string{"c.yaml:2: optim.lr: want a number, got no value"}},
	{"section for a value", "optim: {lr: {a: 1}}\n", []string{"optim.lr: want a number, got a section"}},
	{"value for a section", "optim: 3\n", []string{"c.yaml:1: optim: want a section with keys, got 3"}},
	{"value for a list", "data: {heldout: coco}\n", []string{"data.heldout: want a list", "got the text \"coco\""}},
	{"empty list entry", "data:\n  heldout:\n  -\n",
		[]string{"data.heldout[0]: the entry is empty", "annotations, questions, images"}},
	{"list at the top", "- a\n", []string{"c.yaml:1: want a section with keys, got a list of 1 entry"}},
	{"short pair", "optim: {betas: [0.9]}\n", []string{"optim.betas: want a list of 2 numbers such as [0.9, 0.98]"}},
	{"wrong part of a pair", "optim: {betas: [0.9, x]}\n", []string{"optim.betas[1]: want a number"}},
	{"pair out of range", "optim: {betas: [0.9, 1]}\n",
		[]string{"optim.betas[1]: must be at least 0, below 1, not 1"}},
	{"out of range", "optim:\n  lr: 0\n", []string{"c.yaml:2: optim.lr: must be above 0, at most 10, not 0"}},
	{"negative count", "train: {steps: -5}\n", []string{"train.steps: must be at least 1, not -5"}},
	{"not a count", "train: {steps: lots}\n", []string{"train.steps: \"lots\" is not a count", "250k"}},
	{"not a duration", "train: {max_time: 5}\n", []string{"train.max_time: \"5\" is not a duration", "90s"}},
	{"negative duration", "train: {max_time: -5s}\n", []string{"train.max_time: must be at least 0, not -5s"}},
	{"share over one", "data: {max_bad_share: 150%}\n",
		[]string{"data.max_bad_share: must be 0 to 1, not 150%"}},
	{"not one of", "optim: {schedule: cosin}\n",
		[]string{"optim.schedule: must be one of cosine, lavis, constant, not \"cosin\"; did you mean cosine?"}},
	{"unknown preset", "vision: {preset: clip-vit-b16}\n",
		[]string{"vision.preset: must be one of \"\", clip-vit-l14", "clip-vit-l14?"}},
	{"no devices", "devices: 0\n", []string{`devices: "0" is not a number of devices; write auto, or 1 to 1024`}},
	{"devices that cannot share a batch", "devices: 3\ntrain: {batch_size: 50}\n",
		[]string{"cannot be shared evenly by 3 devices; the nearest that can are 48 and 51"}},
	{"devices that cannot share a micro-batch", "devices: 4\ntrain: {batch_size: 48, accumulate: 8}\n",
		[]string{"48 in 8 micro-batches cannot be shared evenly by 4 devices; the nearest that can are 32 and 64"}},
	{"uneven replicas", "loss: {replicas: 7}\ntrain: {batch_size: 50}\n",
		[]string{"c.yaml:1: loss.replicas", "does not make 7 equal parts"}},
	{"replicas of the whole batch",
		"loss: {replicas: 3}\ntrain: {batch_size: 64, accumulate: 4, contrastive_accumulation: true}\n",
		[]string{"loss.replicas", "batch_size 64 in 1 micro-batches does not make 3 equal parts"}},
	{"batch of one", "train: {batch_size: 1}\n", []string{"train.batch_size: must be 2 to 1048576, not 1"}},
	{"duplicate key", "seed: 1\nseed: 2\n",
		[]string{"c.yaml:2: seed: the key stands twice; the first one is in line 1"}},
	{"merge key", "a: &a {lr: 1}\noptim:\n  <<: *a\n", []string{"YAML merge keys are not supported"}},
	{"not YAML", "optim:\n\tlr: 1\n", []string{"c.yaml:2: not YAML"}},
	{"unclosed", "optim: {lr: 1\n", []string{"c.yaml:", "not YAML"}},
	{"two documents", "seed: 1\n---\nseed: 2\n", []string{"c.yaml:", "second YAML document"}},
	{"unknown anchor", "optim: *none\n", []string{"c.yaml", "not YAML", "none"}},
	{"binary", "\x00\x01\x02", []string{"c.yaml", "not YAML"}},
	{"refused by a parser", "backend: tpu\n", []string{"c.yaml:1: backend: no such thing as tpu"}},
	{"NUL in a path", "text: {vocab: \"a\\0b\"}\n", []string{"text.vocab: the text \"a\\x00b\" is not valid"}},

	{"patches", "vision:\n  patch_size: 14\n  image_size: 100\n",
		[]string{"c.yaml:3: vision.image_size: image_size 100 is not a multiple of patch_size 14",
			"the nearest are 98 and 112"}},
	{"a picture smaller than a patch", "vision: {patch_size: 14, image_size: 5}\n",
		[]string{"image_size 5 is not a multiple of patch_size 14; the smallest is 14"}},
	{"no MLP", "vision: {mlp_ratio: 1e-4}\n",
		[]string{"c.yaml:1: vision.mlp_ratio: mlp_ratio 0.0001 of width 1024 leaves the MLP no hidden feature"}},
	{"best by a score that there is not", "checkpoint: {best: heldout/cider}\n",
		[]string{"c.yaml:1: checkpoint.best: \"heldout/cider\" is no score of this training", "i2t_r1"}},
	{"best by a set that there is not", "checkpoint: {best: val/i2t_r1}\n",
		[]string{"checkpoint.best", "train/ or heldout/"}},
	{"micro-batches", "train: {batch_size: 10, accumulate: 3}\n",
		[]string{"train.accumulate: batch_size 10 cannot be cut into 3 equal micro-batches"}},
	{"micro-batch size", "train: {batch_size: 10, micro_batch_size: 20}\n",
		[]string{"train.micro_batch_size: batch_size 10 is not a multiple of micro_batch_size 20"}},
	{"two numbers of micro-batches", "train: {batch_size: 12, micro_batch_size: 3, accumulate: 3}\n",
		[]string{"train.accumulate: 3 micro-batches of 3 are not the batch_size 12"}},
	{"micro-batches of one", "train: {batch_size: 12, accumulate: 12}\n",
		[]string{"train.accumulate: micro-batches of one pair have no negatives for ITM", "contrastive_accumulation"}},
	{"micro-batches and replicas", "train: {batch_size: 12, accumulate: 4}\nloss: {replicas: 2}\n",
		[]string{"loss.replicas: batch_size 12 in 4 micro-batches does not make 2 equal parts of each"}},
	{"nothing to accumulate", "train: {contrastive_accumulation: true}\n",
		[]string{"train.contrastive_accumulation: there is nothing to accumulate: give train.micro_batch_size"}},
	{"nothing to couple",
		"train: {batch_size: 4, accumulate: 2, contrastive_accumulation: true}\nloss: {itc: 0, itm: 0}\n",
		[]string{"train.contrastive_accumulation: is for ITC and the negatives of ITM"}},
	{"loss scale", "optim: {loss_scale: -2}\n", []string{"optim.loss_scale: \"-2\" is not a loss scale", "dynamic"}},
	{"layer decay", "optim: {layer_decay: 0}\n", []string{"optim.layer_decay: must be above 0, at most 1, not 0"}},
	{"unknown recipe", "preset: lavi\n", []string{"preset: must be one of \"\", lavis", "did you mean lavis?"}},
	{"vision heads", "vision:\n  heads: 15\n",
		[]string{"c.yaml:2: vision.heads: width 1024 is not a multiple of heads 15"}},
	{"vision width", "vision:\n  width: 1000\n",
		[]string{"c.yaml:2: vision.width: width 1000 is not a multiple of heads 16"}},
	{"q-former heads", "qformer:\n  hidden: 100\n",
		[]string{"c.yaml:2: qformer.hidden: hidden 100 is not a multiple of heads 12"}},
	{"text length", "text: {max_len: 600}\n", []string{"text.max_len: max_len 600 is more than the 512 rows"}},
	{"positions", "qformer: {max_positions: 16}\n",
		[]string{"qformer.max_positions: max_len 32 is more than the 16 rows"}},
	{"no loss", "loss: {itc: 0, itm: 0, itg: 0}\n", []string{"c.yaml:1: loss.itc: all objectives have weight 0"}},
	{"crop order", "data:\n  augment: {crop_scale: [1, 0.5]}\n",
		[]string{"c.yaml:2: data.augment.crop_scale: want the smaller"}},
	{"min_lr", "optim:\n  min_lr: 1e-3\n", []string{"c.yaml:2: optim.min_lr: min_lr 0.001 is above lr 0.0001"}},
	{"lr below min_lr", "optim:\n  lr: 5e-6\n", []string{"c.yaml:2: optim.lr: min_lr 1e-05 is above lr 5e-06"}},
	{"warmup_lr", "optim: {warmup_lr: 1e-3}\n", []string{"optim.warmup_lr: warmup_lr 0.001 is above lr 0.0001"}},
	{"warm-up", "train:\n  steps: 1k\n",
		[]string{"c.yaml:2: train.steps: warmup_steps 2000 is more than train.steps 1000"}},
	{"run name", "run: {name: ../x}\n", []string{"run.name: \"../x\" must be a plain folder name"}},
}

func TestMistakesAreNamed(t *testing.T) {
	for _, tt := range mistakes {
		t.Run(tt.name, func(t *testing.T) {
			// Partial: the files hold nothing but the mistake, so that line numbers are plain to see.
			_, _, err := loadText(t, tt.yaml, LoadOptions{Partial: true})
			var bad *Error
			if !errors.As(err, &bad) {
				t.Fatalf("error %v, want a *config.Error", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is\n%v\nwant it to contain\n%s", err, want)
				}
			}
			if len(bad.Problems) > 2 || strings.Contains(err.Error(), "\n\n") {
				t.Errorf("one mistake gave %d problems: %v", len(bad.Problems), err)
			}
		})
	}
}

func TestAllMistakesAtOnce(t *testing.T) {
	text := "sed: 1\noptim:\n  lr: x\n  betas: [1]\ntrain: {batch_size: 0}\ndata: {train: [{images: a}]}\n"
	_, _, err := loadText(t, text, LoadOptions{
		Env: []string{"BLIP2_TRAIN_STEPS=many"},
		Set: []string{"vision.arch=vgg", "nope"},
	})
	var bad *Error
	if !errors.As(err, &bad) {
		t.Fatal(err)
	}
	for _, want := range []string{"the configuration has 9 mistakes",
		"c.yaml:1: sed: unknown key; did you mean seed?", "c.yaml:3: optim.lr", "c.yaml:4: optim.betas",
		"c.yaml:5: train.batch_size", "c.yaml:6: data.train[0].annotations: is required",
		"environment variable BLIP2_TRAIN_STEPS: train.steps", "--set vision.arch=vgg: vision.arch",
		"--set nope: want key=value", "c.yaml: text.vocab: is required: WordPiece"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error is\n%v\nwant it to contain\n%s", err, want)
		}
	}
}

func TestPrecedence(t *testing.T) {
	dir := files(t, map[string]string{
		"c.yaml":    "extends: base.yaml\noptim: {lr: 2e-4}\n" + complete,
		"base.yaml": "seed: 7\noptim: {lr: 3e-4, eps: 1e-7}\n",
	})
	opts := LoadOptions{Path: "c.yaml", Dir: dir}
	step := func(want float64, origin string) {
		t.Helper()
		c, src, err := LoadStage1(opts)
		if err != nil {
			t.Fatal(err)
		}
		if c.Optim.LR != want || src.Of("optim.lr").String() != origin {
			t.Errorf("lr is %g from %q, want %g from %q", c.Optim.LR, src.Of("optim.lr"), want, origin)
		}
		if c.Seed != 7 || src.Of("seed").String() != "base.yaml:1" || c.Optim.Eps != 1e-7 {
			t.Errorf("the extended file is lost: seed %d from %s, eps %g", c.Seed, src.Of("seed"), c.Optim.Eps)
		}
	}
	step(2e-4, "c.yaml:2")
	opts.Env = []string{"BLIP2_OPTIM_LR=4e-4", "BLIP2_OPTIM_EPS=", "OPTIM_EPS=1"}
	step(4e-4, "environment variable BLIP2_OPTIM_LR")
	opts.Set = []string{"optim.lr=9", "optim.lr=5e-4"}
	step(5e-4, "--set optim.lr=5e-4")
	opts.Overrides = map[string]string{"optim.lr": "6e-4"}
	step(6e-4, "--optim.lr 6e-4")
}

func TestPathsStartFromTheirSource(t *testing.T) {
	dir := files(t, map[string]string{
		"configs/sub/c.yaml": "extends: ../base.yaml\nvision: {weights: w.safetensors}\n" +
			"text: {vocab: /abs/./vocab.txt}\n",
		"configs/base.yaml": "data: {train: [{annotations: ../data/a.json, images: ./img}]}\n",
	})
	c, src, err := LoadStage1(LoadOptions{Path: "configs/sub/c.yaml", Dir: dir,
		Set: []string{"qformer.weights=bert.bin"}, Env: []string{"BLIP2_RUN_DIR=out/../runs2"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range [][2]string{
		{c.Vision.Weights, filepath.Join(dir, "configs/sub/w.safetensors")},
		{c.Text.Vocab, "/abs/vocab.txt"},
		{c.Data.Train[0].Annotations, filepath.Join(dir, "data/a.json")},
		{c.Data.Train[0].Images, filepath.Join(dir, "configs/img")},
		{c.QFormer.Weights, filepath.Join(dir, "bert.bin")},
		{c.Run.Dir, filepath.Join(dir, "runs2")},
	} {
		if tt[0] != tt[1] {
			t.Errorf("path is %s, want %s", tt[0], tt[1])
		}
	}
	if want := []string{"configs/base.yaml", "configs/sub/c.yaml"}; !reflect.DeepEqual(src.Files, want) {
		t.Errorf("files %v, want %v", src.Files, want)
	}
}

func TestExtendsMistakes(t *testing.T) {
	dir := files(t, map[string]string{
		"self.yaml": "extends: self.yaml\n", "b.yaml": "extends: a.yaml\n",
		"a.yaml":    "seed: 1\nextends: sub/../b.yaml\n",
		"gone.yaml": "\nextends: nowhere.yaml\n", "kind.yaml": "extends: [a.yaml]\n", "empty.yaml": "extends:\n",
		"broken.yaml": "extends: bad.yaml\n", "bad.yaml": "seed: [\n",
		"huge.yaml": "# " + strings.Repeat("x", maxFileSize), "deep0.yaml": complete,
	})
	for i := 1; i <= maxExtends; i++ {
		path, text := fmt.Sprintf("deep%d.yaml", i), fmt.Sprintf("extends: deep%d.yaml\n", i-1)
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"self.yaml":   "self.yaml:1: extends: the files extend one another in a circle: self.yaml -> self.yaml",
		"a.yaml":      "extends: the files extend one another in a circle: a.yaml -> b.yaml -> a.yaml",
		"gone.yaml":   "gone.yaml:2: extends: open " + filepath.Join(dir, "nowhere.yaml") + ": no such file",
		"kind.yaml":   "kind.yaml:1: extends: want the path of a configuration file",
		"empty.yaml":  "empty.yaml:1: extends: want the path of a configuration file",
		"broken.yaml": "bad.yaml:", "huge.yaml": "larger than", ".": "is a folder",
		"missing.yaml": "--config missing.yaml: open", "deep16.yaml": "more than 16 files",
	} {
		_, _, err := LoadStage1(LoadOptions{Path: path, Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "required") && path != "kind.yaml" && path != "empty.yaml" {
			t.Errorf("%s: missing keys are reported although a file was not read: %v", path, err)
		}
	}
	if _, _, err := LoadStage1(LoadOptions{Path: "deep15.yaml", Dir: dir}); err != nil {
		t.Errorf("a chain of %d files: %v", maxExtends, err)
	}
}

func TestSet(t *testing.T) {
	c, _, err := loadText(t, complete, LoadOptions{Set: []string{
		"train.steps=250k", "optim.betas=[0.8, 0.9]", "optim.betas[1]=0.95", "run.name=2024",
		`text.prompt="a photo of "`,
		"data.train[0].images=pictures", "data.train[1].annotations=b.json", "data.train[1].images=b",
		"data.heldout=[{annotations: h.json, images: h, split: test}]", "vision={width: 64, heads: 4}",
		"data.max_bad_share=5%", "train.max_time=1h30m", "backend=Go", "data.train[0].split=a: b # c",
	}})
	if err != nil {
		t.Fatal(err)
	}
	if c.Train.Steps != 250_000 || c.Optim.Betas != [2]float64{0.8, 0.95} || c.Run.Name != "2024" ||
		c.Text.Prompt != "a photo of " || len(c.Data.Train) != 2 ||
		filepath.Base(c.Data.Train[0].Images) != "pictures" || filepath.Base(c.Data.Train[0].Annotations) != "a.json" ||
		filepath.Base(c.Data.Train[1].Images) != "b" || c.Data.Heldout[0].Split != "test" ||
		c.Vision.Width != 64 || c.Vision.Layers != 23 || c.Data.MaxBadShare != 0.05 ||
		c.Train.MaxTime.Std().Minutes() != 90 || c.Backend != "go" || c.Data.Train[0].Split != "a: b # c" {
		t.Errorf("got %+v", c)
	}
	for set, want := range map[string]string{
		"optim.lrr=1": "--set optim.lrr=1: optim.lrr: unknown key; did you mean optim.lr?",
		"lr=1":        "did you mean optim.lr?",
		"optim.lr":    "want key=value", "=1": "bad key", "optim.lr=": "want a number, got no value",
		"optim.lr.x=1":           "optim.lr is a number and has no keys",
		"data.train[5].images=x": "data.train: has 1 entries, so there is no index 5",
		"data.train[x].images=x": "bad index", "seed[0]=1": "seed: is a whole number and takes no index",
		"optim.betas[2]=1": "has 2 entries", "extends=a.yaml": "--config", "optim.lr=[": "not YAML",
		"optim=1": "want a section", "data.train[1].split=x": "data.train[1].annotations: is required",
		"run.name=\xff": "not valid UTF-8",
	} {
		_, _, err := loadText(t, complete, LoadOptions{Set: []string{set}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--set %s: error %v, want %q", set, err, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	env := []string{"BLIP2_OPTIM_WARMUP_STEPS=1k", "BLIP2_DATA=/somewhere", "BLIP2_GOLDEN=x", "BLIP2_CACHE_DIR=x",
		"BLIP2_QUIET=1", "BLIP2_LOG_LEVEL=debug", "BLIP2_OPTIM_WARMUP_STEP=5", "BLIP2_ZZZZZZZZZZZZZZZZZ=1",
		"HOME=/x", "BLIP2_SEED=3",
		`BLIP2_DATA_HELDOUT=[{annotations: h.json, images: h}]`, "BLIP2_TEXT_PROMPT=12"}
	c, src, err := loadText(t, complete+"vision: {weights: w}\n", LoadOptions{Env: env})
	if err != nil {
		t.Fatal(err)
	}
	if c.Optim.WarmupSteps != 1000 || c.Seed != 3 || len(c.Data.Heldout) != 1 || c.Text.Prompt != "12" {
		t.Errorf("got %+v", c)
	}
	if len(src.Warnings) != 2 || !strings.Contains(src.Warnings[0], "BLIP2_OPTIM_WARMUP_STEP has no meaning") ||
		!strings.Contains(src.Warnings[0], "did you mean BLIP2_OPTIM_WARMUP_STEPS?") ||
		!strings.Contains(src.Warnings[1], "BLIP2_ZZZZZZZZZZZZZZZZZ") {
		t.Errorf("warnings %q", src.Warnings)
	}
}

func TestPresets(t *testing.T) {
	load := func(text string, set ...string) *Stage1 {
		t.Helper()
		c, _, err := loadText(t, text, LoadOptions{Set: set, Partial: true})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	eva := Vision{Preset: "eva-vit-g14", Arch: "eva", ImageSize: 224, PatchSize: 14, Width: 1408, Layers: 39, Heads: 16,
		MLPRatio: 4.3637, LayerNormEps: 1e-6, LNVisionEps: 1e-5, InitStd: 0.02, Freeze: true}
	if c := load("vision: {preset: eva-vit-g14}\n"); c.Vision != eva {
		t.Errorf("got %+v, want %+v", c.Vision, eva)
	}
	clip := DefaultStage1().Vision
	clip.Preset = "clip-vit-l14"
	if c := load("vision: {preset: clip-vit-l14}\n"); c.Vision != clip {
		t.Errorf("got %+v, want %+v", c.Vision, clip)
	}
	bert := DefaultStage1().QFormer
	bert.Preset = "bert-base"
	if c := load("qformer: {hidden: 64, preset: bert-base}\n", "qformer.preset=bert-base"); c.QFormer != bert {
		t.Errorf("got %+v, want %+v", c.QFormer, bert)
	}
	if c := load("vision: {layers: 6, preset: eva-vit-g14}\n"); c.Vision.Layers != 6 || c.Vision.Width != 1408 {
		t.Errorf("a key beside the preset does not override it: %+v", c.Vision)
	}
	if c := load("vision: {preset: eva-vit-g14}\n", "vision.layers=6"); c.Vision.Layers != 6 || c.Vision.Width != 1408 {
		t.Errorf("a stronger source does not override the preset: %+v", c.Vision)
	}
	if c := load("vision: {layers: 6}\n", "vision.heads=8", "vision={preset: eva-vit-g14}"); c.Vision.Layers != 39 ||
		c.Vision.Heads != 8 {
		t.Errorf("a preset does not override a weaker source: %+v", c.Vision)
	}
}

// TestLAVISPreset: the recipe of the released code (spec/training.md 1), which sections' presets and keys beside it
// override, and which overrides weaker sources.
func TestLAVISPreset(t *testing.T) {
	load := func(text string, set ...string) *Stage1 {
		t.Helper()
		c, _, err := loadText(t, text, LoadOptions{Set: set, Partial: true})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	want := DefaultStage1()
	want.Preset = "lavis"
	want.Optim.Schedule, want.Optim.DecayRule, want.Optim.WarmupSteps = "lavis", "lavis", 5000
	want.Optim.Betas = [2]float64{0.9, 0.999}
	got := load("preset: lavis\n")
	got.Run.Dir = want.Run.Dir
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	c := load("preset: lavis\noptim: {warmup_steps: 7}\nvision: {preset: eva-vit-g14}\n")
	if c.Optim.WarmupSteps != 7 || c.Optim.Schedule != "lavis" || c.Vision.Width != 1408 {
		t.Errorf("keys beside the preset do not override it: %+v", c)
	}
	c = load("optim: {betas: [0.5, 0.5], grad_clip: 3}\nloss: {itg: 0}\n", "preset=lavis", "optim.lr=5e-5")
	if c.Optim.Betas[1] != 0.999 || c.Optim.GradClip != 0 || c.Optim.LR != 5e-5 || c.Loss.ITG != 0 {
		t.Errorf("a preset of flags does not override the file, or overrides more: %+v", c)
	}
}

// TestMicroBatches: either key says in how many parts a batch is cut.
func TestMicroBatches(t *testing.T) {
	for set, want := range map[string]int{"train.accumulate=1": 1, "train.accumulate=4": 4,
		"train.micro_batch_size=3": 4, "train.micro_batch_size=12": 1} {
		c, _, err := loadText(t, "train: {batch_size: 12}\n", LoadOptions{Set: []string{set}, Partial: true})
		if err != nil || c.Train.MicroBatches() != want {
			t.Errorf("%s: %d, want %d, error %v", set, c.Train.MicroBatches(), want, err)
		}
	}
}

func TestAliasesAndEmptySections(t *testing.T) {
	text := "text: {vocab: &v vocab.txt}\nrun:\noptim:\n  # nothing\nvision: {weights: *v}\n" +
		"data:\n  train: &t [{annotations: a, images: b}]\n  heldout: *t\n"
	c, _, err := loadText(t, text, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if c.Vision.Weights != c.Text.Vocab || !reflect.DeepEqual(c.Data.Train, c.Data.Heldout) {
		t.Errorf("aliases are lost: %+v", c)
	}
	if _, _, err := loadText(t, "data:\n  train: &a [*a]\n", LoadOptions{}); err == nil {
		t.Error("a list that contains itself was accepted")
	}
	if _, _, err := loadText(t, "", LoadOptions{Partial: true}); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	for _, tt := range mistakes {
		f.Add(tt.yaml)
	}
	f.Add(complete)
	f.Add(string(DefaultStage1().YAML()))
	f.Fuzz(func(t *testing.T, text string) {
		node, err := parseDocument([]byte(text))
		if err != nil {
			return
		}
		c := DefaultStage1()
		root := reflect.ValueOf(c).Elem()
		d := &decoder{root: root.Type(), sources: &Sources{origins: map[string]Origin{}}, failed: map[string]bool{}}
		d.assign(root, assignment{node: node, place: place{dir: "/"}})
	})
}
