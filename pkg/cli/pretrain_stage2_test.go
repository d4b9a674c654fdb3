package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/internal/toydata"
	"blip2/pkg/runlog"
	"blip2/pkg/weights"
)

// TestChain: stage 1, language models and stage 2 on top of both, by the commands that a user gives.
func TestChain(t *testing.T) {
	d := newToyFolder(t)
	if err := toydata.WriteStage2(string(d)); err != nil {
		t.Fatal(err)
	}
	if got := d.train(t, "--set", "run.name=one", "--set", "eval.retrieval=false", "--set", "train.steps=2",
		"--set", "optim.warmup_steps=0"); got.code != ExitOK {
		t.Fatalf("stage 1: exit code %d\n%s", got.code, got.err)
	}
	d.write(t, "lm.yaml", `seed: 3
out: lm
model: {vocab: 300, hidden: 16, layers: 1, heads: 2, ffn: 32, positions: 40}
data: {train: [{annotations: captions.json, images: images, split: train}]}
optim: {warmup_steps: 1}
train: {steps: 2, batch_size: 4}
`)
	lm := runApp(t, nil, "pretrain-lm", "--config", d.path("lm.yaml"), "--backend", "go")
	if lm.code != ExitOK || !strings.Contains(lm.out, "24 captions") || !strings.Contains(lm.out, d.path("lm")) {
		t.Fatalf("language model: exit code %d, %s\n%s", lm.code, lm.out, lm.err)
	}
	args := []string{"pretrain-stage2", "--config", d.path(toydata.OPTFile), "--set", "train.steps=3",
		"--set", "stage1=" + d.path("runs", "one"), "--set", "llm.path=" + d.path("lm")}
	got := runApp(t, nil, args...)
	if got.code != ExitOK {
		t.Fatalf("stage 2: exit code %d\n%s", got.code, got.err)
	}
	for _, want := range []string{"CIDEr", "of other pictures", "without pictures", "before training", "(12 pictures)",
		"  model   ", "  people  ", "report.html"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	again := runApp(t, nil, append(args, "--resume="+d.path("runs", "toy"), "--json")...)
	var summary runlog.Summary
	if err := json.Unmarshal([]byte(again.out), &summary); err != nil || summary.Steps != 3 ||
		summary.Captions[runlog.SplitTrain].Images != toydata.TrainImages {
		t.Errorf("resumed: %+v, error %v\n%s", summary, err, again.err)
	}
	t5 := runApp(t, nil, "pretrain-lm", "--config", d.path("lm.yaml"), "--backend", "go", "--set", "model.arch=t5",
		"--set", "out="+d.path("lm-t5"))
	if t5.code != ExitOK || !strings.Contains(t5.out, d.path("lm-t5")) {
		t.Fatalf("T5: exit code %d, %s\n%s", t5.code, t5.out, t5.err)
	}
	runApp(t, nil, "pretrain-stage2", "--config", d.path(toydata.T5File), "--set", "train.steps=2", "--set", "run.name=t5",
		"--set", "stage1="+d.path("runs", "one"), "--set", "llm.path="+d.path("lm-t5"), "--set", "eval.before=false").done(t)
	checkFailure(t, "no --config", runApp(t, nil, "pretrain-stage2"), ExitUsage, "--config")
	checkFailure(t, "no --config", runApp(t, nil, "pretrain-lm"), ExitUsage, "--config configs/quickstart_lm.yaml")
	checkFailure(t, "full", runApp(t, nil, "pretrain-lm", "--config", d.path("lm.yaml"), "--backend", "go"), ExitFailure,
		"out: ", "not empty")
	checkFailure(t, "stage-1 keys", runApp(t, nil, append(args, "--set", "text.vocab=v")...), ExitUsage, "text.vocab")
}

// TestConfigOfStage2: keys and resolved configuration of the other command.
func TestConfigOfStage2(t *testing.T) {
	keys := runApp(t, nil, "config", "keys", "--for", "pretrain-stage2", "llm")
	if keys.code != ExitOK || !strings.Contains(keys.out, "llm.loss_chunk") || strings.Contains(keys.out, "loss.itc") {
		t.Errorf("exit code %d, %s", keys.code, keys.out)
	}
	show := runApp(t, nil, "config", "show", "--for", "pretrain-stage2", "--set", "llm.loss_chunk=2k")
	if show.code != ExitOK || !strings.Contains(show.out, "loss_chunk: 2k") || !strings.Contains(show.out, "steps: 80k") {
		t.Errorf("exit code %d, %s", show.code, show.out)
	}
	for _, command := range []string{"keys", "show"} {
		checkFailure(t, command, runApp(t, nil, "config", command, "--for", "pretrain-stage3"), ExitUsage,
			"--for", "did you mean pretrain-stage")
	}
}

// TestOtherConfig: a configuration of another command is named as one, and so is the remedy.
func TestOtherConfig(t *testing.T) {
	dir := t.TempDir()
	one, two, lm := filepath.Join(dir, "1.yaml"), filepath.Join(dir, "2.yaml"), filepath.Join(dir, "lm.yaml")
	const data = "data: {train: [{annotations: a, images: b}]}\n"
	for path, text := range map[string]string{one: data + "text: {vocab: v}\nloss: {itm: 2}\n",
		two: data + "llm: {path: opt}\n", lm: data + "out: o\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ args, says string }{
		{"pretrain-stage1 --config " + two, "a configuration of pretrain-stage2, not of pretrain-stage1: start that command"},
		{"pretrain-stage2 --config " + one, "a configuration of pretrain-stage1, not of pretrain-stage2: start that command"},
		{"pretrain-lm --config " + one, "a configuration of pretrain-stage1, not of pretrain-lm: start that command"},
		{"pretrain-stage1 --config " + lm, "a configuration of pretrain-lm, not of pretrain-stage1"},
		{"plan --config " + two, "not of pretrain-stage1: add --for pretrain-stage2"},
		{"config show --config " + two, "not of pretrain-stage1: add --for pretrain-stage2"},
		{"bench stage1 --config " + two, "a configuration of pretrain-stage2"},
	} {
		checkFailure(t, tt.args, runApp(t, nil, strings.Fields(tt.args)...), ExitUsage, tt.says)
	}
	checkFailure(t, "a mistake", runApp(t, nil, "pretrain-stage1", "--config", two, "--set", "llm.path="), ExitUsage,
		"unknown key")
	checkFailure(t, "a GPU", runApp(t, nil, "plan", "--config", one, "--gpu", "a100"), ExitUsage,
		"did you mean A100-40G or A100-80G?")
}

// TestBenchStage2 measures small models behind published language models' names, and those of a configuration.
func TestBenchStage2(t *testing.T) {
	d := newToyFolder(t)
	if err := toydata.WriteStage2(string(d)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{toydata.OPTFile, toydata.T5File} {
		got := runApp(t, nil, "bench", "stage2", "--config", d.path(file), "--steps", "2", "--batch", "4",
			"--set", "train.accumulate=2")
		if got.code != ExitOK {
			t.Fatalf("exit code %d: %s", got.code, got.err)
		}
		for _, want := range []string{"language model", "frozen", "4 pairs", "median of 2", "LM head", "projection",
			"GFLOP/s"} {
			if !strings.Contains(got.out, want) {
				t.Errorf("no %q in\n%s", want, got.out)
			}
		}
	}
	for want, args := range map[string][]string{
		"not both":    {},
		"and not":     {"--model", "opt-125m", "--config", d.path(toydata.OPTFile)},
		"is unknown":  {"--model", "opt-126m"},
		"--steps 0":   {"--model", "opt-125m", "--steps", "0"},
		"--warmup -1": {"--model", "opt-125m", "--warmup", "-1"},
		"--batch -1":  {"--model", "opt-125m", "--batch", "-1"},
	} {
		checkFailure(t, want, runApp(t, nil, append([]string{"bench", "stage2"}, args...)...), ExitUsage, want)
	}
}

// TestConvertStage2Run: a run of stage 2 becomes a checkpoint of BLIP-2 with its language model and image encoder.
func TestConvertStage2Run(t *testing.T) {
	d := newToyFolder(t)
	if err := toydata.WriteStage2(string(d)); err != nil {
		t.Fatal(err)
	}
	one := []string{"pretrain-stage1", "--config", d.path(toydata.ConfigFile), "--set", "run.name=one", "--set",
		"eval.retrieval=false", "--set", "train.steps=1", "--set", "optim.warmup_steps=0"}
	if got := runApp(t, nil, one...); got.code != ExitOK {
		t.Fatalf("stage 1: %s", got.err)
	}
	got := runApp(t, nil, "pretrain-stage2", "--config", d.path(toydata.OPTFile), "--set", "train.steps=1", "--set",
		"optim.warmup_steps=0", "--set", "eval.captions=false", "--set", "stage1="+d.path("runs", "one"))
	if got.code != ExitOK {
		t.Fatalf("stage 2: %s", got.err)
	}
	out := runApp(t, nil, "weights", "convert", "--to", "lavis", "--out", d.path("whole"), d.path("runs", "toy"))
	if out.code != ExitOK {
		t.Fatalf("exit code %d: %s", out.code, out.err)
	}
	src, err := weights.OpenAny(d.path("whole"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	for _, name := range []string{"opt_proj.weight", "query_tokens", "visual_encoder.class_embedding",
		"opt_model.model.decoder.embed_tokens.weight"} {
		if _, err := src.Info(name); err != nil {
			t.Error(err)
		}
	}
}
