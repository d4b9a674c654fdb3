package toydata

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/t5"
	"blip2/pkg/naming"
	"blip2/pkg/published"
	"blip2/pkg/tokenizer"
	"blip2/pkg/weights"
)

// Folders of the language models in the toy's folder, and configurations of stage 2 that read them.
const (
	OPTDir  = "opt"
	T5Dir   = "t5"
	OPTFile = "stage2-opt.yaml"
	T5File  = "stage2-t5.yaml"
)

// llmSeed is that of the language models' weights.
const llmSeed = 5

// WriteStage2 puts two language models of random weights with their tokenizers, an OPT and a T5, and a configuration of
// stage 2 for each, into the folder that Write has filled.
func WriteStage2(dir string) error {
	captions := captionTexts()
	files, err := tokenizer.TrainBPE(captions, 300)
	if err != nil {
		return err
	}
	optConfig := opt.Config{Vocab: 320, Hidden: 16, Layers: 1, Heads: 2, FFN: 24, Positions: 40, LayerNormEps: 1e-5,
		InitializerRange: 0.2, Dropout: 0.1}
	if err := writeLLM(filepath.Join(dir, OPTDir), published.Spec{Model: naming.OPT, OPT: &optConfig},
		opt.Params(optConfig), files); err != nil {
		return err
	}
	words, err := tokenizer.TrainUnigram(captions, 300)
	if err != nil {
		return err
	}
	t5Config := t5.Config{Vocab: 128, Hidden: 16, HeadDim: 8, Heads: 2, FFN: 24, EncoderLayers: 1, DecoderLayers: 1,
		Activation: nn.GELU, Buckets: 8, MaxDistance: 16, RMSNormEps: 1e-6, Dropout: 0.1}
	if err := writeLLM(filepath.Join(dir, T5Dir), published.Spec{Model: naming.T5, T5: &t5Config}, t5.Params(t5Config),
		words); err != nil {
		return err
	}
	for name, llm := range map[string]string{OPTFile: OPTDir, T5File: T5Dir} {
		text := strings.NewReplacer("LLM", llm).Replace(stage2Text)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// stage2Text is a complete configuration of stage 2; paths are relative to its folder.
const stage2Text = `seed: 3
backend: go
vision:
  {arch: clip, image_size: 16, patch_size: 8, width: 16, layers: 1, heads: 2, mlp_ratio: 2, layer_norm_eps: 1e-5,
  initializer_range: 0.2, freeze: true}
qformer: {hidden: 24, layers: 2, heads: 2, intermediate: 32, query_tokens: 3, dropout: 0.1, initializer_range: 0.2}
llm: {path: LLM}
text: {max_len: 16}
data:
  train: [{annotations: captions.json, images: images, split: train, name: toys}]
  heldout: [{annotations: captions.json, images: images, split: heldout, name: new toys}]
  augment: {crop_scale: [0.7, 1]}
optim: {lr: 3e-3, min_lr: 1e-4, warmup_lr: 1e-4, warmup_steps: 2}
train: {steps: 10, batch_size: 6, log_every: 1}
checkpoint: {every: 4, keep_last: 3}
eval: {batch_size: 5, prompt: a picture, beams: 2, max_tokens: 6, before: true}
report: {gallery: 4}
run: {dir: runs, name: toy}
`

// captionTexts are all captions with their newlines.
func captionTexts() []string {
	var out []string
	for _, c := range colours {
		for _, s := range shapes {
			out = append(out, fmt.Sprintf("a %s %s\n", c, s),
				fmt.Sprintf("the picture of one %s is %s\n", s, c))
		}
	}
	return out
}

// writeLLM writes a folder in Hugging Face's layout with weights drawn from their Init.
func writeLLM(dir string, spec published.Spec, params []model.Param, tokenizer map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	files, err := published.HFFiles(spec, weights.F32)
	if err != nil {
		return err
	}
	for _, list := range []map[string][]byte{files, tokenizer} {
		for name, data := range list {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
				return err
			}
		}
	}
	var tensors []weights.Tensor
	for _, p := range params {
		tensors = append(tensors, weights.FromFloat32(p.Name, p.Shape, model.Draw(p, llmSeed)))
	}
	return weights.Write(filepath.Join(dir, "model.safetensors"), tensors, nil)
}
