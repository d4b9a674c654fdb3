package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// completeStage2 has what a training needs.
const completeStage2 = "llm: {path: opt}\nstage1: run\nvision: {weights: g.pth}\n" +
	"data: {train: [{annotations: a.json, images: img}]}\n"

func loadStage2Text(t *testing.T, text string, set ...string) (*Stage2, *Sources, error) {
	t.Helper()
	dir := files(t, map[string]string{"c.yaml": text})
	return LoadStage2(LoadOptions{Path: filepath.Join(dir, "c.yaml"), Set: set})
}

// TestStage2DefaultsAreThePaper: spec/training.md 1.
func TestStage2DefaultsAreThePaper(t *testing.T) {
	c, src, err := loadStage2Text(t, completeStage2)
	if err != nil {
		t.Fatal(err)
	}
	if c.Train.Steps != 80_000 || c.Train.BatchSize != 1920 || c.Optim.LR != 1e-4 || c.Optim.MinLR != 5e-5 ||
		c.Optim.WarmupSteps != 2000 || c.Optim.WarmupLR != 1e-6 || c.Optim.Betas != [2]float64{0.9, 0.98} ||
		c.Optim.WeightDecay != 0.05 || c.Text.MaxLen != 32 || c.Vision.ImageSize != 224 || !c.Vision.Freeze ||
		c.QFormer.Dropout != 0.1 || !c.LLM.Dropout || c.LLM.LossChunk != Auto || c.Text.Prefix != "random" ||
		c.Text.SplitUnit != "word" || c.Text.Prompt != "" {
		t.Errorf("%+v", c)
	}
	if len(src.Warnings) != 0 {
		t.Errorf("warnings %v", src.Warnings)
	}
}

// TestStage2ReadsBack: the resolved file gives the same configuration and hash.
func TestStage2ReadsBack(t *testing.T) {
	c, _, err := loadStage2Text(t, completeStage2, "llm.loss_chunk=4k", "llm.dtype=bf16", "text.split_unit=token",
		"text.prefix=empty", "eval.beams=3", "qformer.preset=bert-base", "vision.preset=clip-vit-l14")
	if err != nil {
		t.Fatal(err)
	}
	back, _, err := loadStage2Text(t, string(c.YAML()))
	if err != nil || !reflect.DeepEqual(c, back) || c.Hash() != back.Hash() {
		t.Errorf("%+v\n%+v\nerror %v", c, back, err)
	}
	other, _, err := loadStage2Text(t, string(c.YAML()), "llm.loss_chunk=auto", "llm.remat=true", "eval.beams=1")
	if err != nil || other.Hash() != c.Hash() {
		t.Errorf("what does not change the arithmetic changes the hash, error %v", err)
	}
	other, _, err = loadStage2Text(t, string(c.YAML()), "text.prefix=random")
	if err != nil || other.Hash() == c.Hash() {
		t.Errorf("text.prefix does not change the hash, error %v", err)
	}
	if m := Map(DefaultStage2())["llm"].(map[string]any); m["loss_chunk"] != "auto" {
		t.Errorf("JSON has loss_chunk %v", m["loss_chunk"])
	}
}

// TestStage2Mistakes are named.
func TestStage2Mistakes(t *testing.T) {
	for want, text := range map[string]string{
		"llm.path: is required":                   "data: {train: [{annotations: a, images: b}]}",
		"not from both":                           completeStage2 + "qformer: {weights: bert}",
		"is not a count":                          strings.Replace(completeStage2, "path: opt", "path: opt, loss_chunk: many", 1),
		"loss_chunk":                              strings.Replace(completeStage2, "path: opt", "path: opt, loss_chunck: 1", 1),
		"min_tokens 9 is more than max_tokens 5":  completeStage2 + "eval: {min_tokens: 9, max_tokens: 5}",
		"hidden 768 is not a multiple of heads 7": completeStage2 + "qformer: {heads: 7}",
		"min_lr 0.001 is above lr 0.0001":         completeStage2 + "optim: {min_lr: 1e-3}",
		"is no score of this training":            completeStage2 + "checkpoint: {best: train/i2t_r1}",
		"no pictures for heldout/cider":           completeStage2 + "checkpoint: {best: heldout/cider}",
		"text.split_unit":                         completeStage2 + "text: {split_unit: letter}",
		"unknown key":                             completeStage2 + "text: {vocab: v.txt}",
	} {
		_, _, err := loadStage2Text(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nerror %v, want one that says %q", text, err, want)
		}
	}
	_, src, err := loadStage2Text(t, strings.Replace(completeStage2, "stage1: run\n", "", 1))
	if err != nil || len(src.Warnings) != 1 || !strings.Contains(src.Warnings[0], "random weights") {
		t.Errorf("warnings %v, error %v", src.Warnings, err)
	}
}

// TestStage2Configs: the files of the project load, with the paper's batch sizes, and say what style.md asks for.
func TestStage2Configs(t *testing.T) {
	for name, batch := range map[string]int{"pretrain_stage2_opt2.7b": 1920, "pretrain_stage2_opt6.7b": 1920,
		"pretrain_stage2_flant5xl": 1520, "pretrain_stage2_flant5xxl": 1520, "ablation_no_stage1_opt6.7b": 1920,
		"ablation_no_stage1_flant5xl": 1520, "quickstart_stage2": 50, "quickstart_stage2_t5": 50} {
		path := filepath.Join("..", "..", "configs", name+".yaml")
		c, src, err := LoadStage2(LoadOptions{Path: path})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Train.BatchSize != batch || len(src.Warnings) != 0 {
			t.Errorf("%s: batch %d, warnings %v", name, c.Train.BatchSize, src.Warnings)
		}
		if without := strings.HasPrefix(name, "ablation"); without != (c.Stage1 == "") {
			t.Errorf("%s: stage1 is %q", name, c.Stage1)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"blip2 pretrain-stage2 --config configs/", "# Hardware: ", "Wall time"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s does not say %q", name, want)
			}
		}
	}
	for name, arch := range map[string]string{"quickstart_lm.yaml": LMOPT, "quickstart_lm_t5.yaml": LMT5} {
		c, _, err := LoadLM(LoadOptions{Path: filepath.Join("..", "..", "configs", name)})
		if err != nil || c.Model.Arch != arch {
			t.Errorf("%s: %+v, error %v", name, c, err)
		}
	}
}
