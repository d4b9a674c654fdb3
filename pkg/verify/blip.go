package verify

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/model/bert"
	"blip2/pkg/model/blip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/published"
)

// blipConfig are the config keys of a case of BLIP's captioner.
type blipConfig struct {
	ImageSize    int     `json:"image_size"`
	PatchSize    int     `json:"patch_size"`
	Width        int     `json:"vit_width"`
	VisionLayers int     `json:"vit_layers"`
	VisionHeads  int     `json:"vit_heads"`
	VisionEps    float64 `json:"vit_layer_norm_eps"`
	Vocab        int     `json:"vocab"`
	Hidden       int     `json:"hidden"`
	Layers       int     `json:"layers"`
	Heads        int     `json:"heads"`
	Intermediate int     `json:"intermediate"`
	Positions    int     `json:"positions"`
	LayerNormEps float64 `json:"layer_norm_eps"`
	PromptLength int     `json:"prompt_length"`
	BOS          int32   `json:"bos_token_id"`
	SEP          int32   `json:"sep_token_id"`
}

// model returns the captioner's configuration; a key that is missing shows as a value that cannot be.
func (c blipConfig) model() (blip.Config, error) {
	cfg := blip.Config{
		Vision: vit.Config{Arch: vit.BLIP, ImageSize: c.ImageSize, PatchSize: c.PatchSize, Width: c.Width,
			Layers: c.VisionLayers, Heads: c.VisionHeads, MLPRatio: 4, LayerNormEps: c.VisionEps},
		Hidden: c.Hidden, Layers: c.Layers, Heads: c.Heads, Intermediate: c.Intermediate, Vocab: c.Vocab,
		MaxPositions: c.Positions, LayerNormEps: c.LayerNormEps,
	}
	if err := cfg.Validate(); err != nil {
		return cfg, err
	}
	for key, id := range map[string]int32{"bos_token_id": c.BOS, "sep_token_id": c.SEP} {
		if id < 0 || int(id) >= c.Vocab {
			return cfg, fmt.Errorf("config: %s %d is none of the %d tokens", key, id, c.Vocab)
		}
	}
	return cfg, allPositive(map[string]float64{"vit_width": float64(c.Width), "vit_layers": float64(c.VisionLayers),
		"vit_layer_norm_eps": c.VisionEps, "vocab": float64(c.Vocab), "hidden": float64(c.Hidden),
		"intermediate": float64(c.Intermediate), "positions": float64(c.Positions), "layer_norm_eps": c.LayerNormEps,
		"prompt_length": float64(c.PromptLength)})
}

// blipCase is what the parts of a case of kind blip-caption work on.
type blipCase struct {
	*Case
	k       *checker
	config  blipConfig
	cfg     blip.Config
	set     tensorSet
	pixels  *tensors.Tensor
	images  *tensors.Tensor // features of the pictures, computed
	prompts [][]int32       // of each picture: [DEC] and the prompt's words
}

// blipCaption runs kind blip-caption: the captioner's numbers, its texts, and its twin under Hugging Face names.
func blipCaption(c *Case, k *checker) error {
	b := &blipCase{Case: c, k: k}
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	if err := c.config(&b.config); err != nil {
		return err
	}
	var err error
	if b.cfg, err = b.config.model(); err != nil {
		return err
	}
	if b.set, err = c.weights(nil); err != nil {
		return err
	}
	if b.pixels, err = c.floatInput("pixels"); err != nil {
		return err
	}
	if err := b.forward(); err != nil {
		return err
	}
	if err := b.write(); err != nil {
		return err
	}
	return b.twin()
}

// forward compares the image features, the logits of whole texts and what follows the prompt.
func (b *blipCase) forward() error {
	texts, err := b.idRows("text_ids", b.cfg.Vocab)
	if err != nil {
		return err
	}
	mask, err := b.maskInput("text_mask")
	if err != nil {
		return err
	}
	length := b.config.PromptLength
	if len(texts[0]) < length {
		return fmt.Errorf("%s: texts of %d tokens do not hold a prompt of %d", inputsFile, len(texts[0]), length)
	}
	for _, text := range texts {
		text[0] = b.config.BOS
		b.prompts = append(b.prompts, text[:length:length])
	}
	store, err := b.set.store(blip.Params(b.cfg))
	if err != nil {
		return err
	}
	backend, err := b.backend()
	if err != nil {
		return err
	}
	inputs := []*tensors.Tensor{b.pixels, matrix(texts), mask, matrix(b.prompts)}
	results, err := program{store: store, inputs: inputs,
		forward: func(scope *mlx.Scope, in []*Node) []output {
			features := blip.EncodeImage(scope, b.cfg, in[0])
			cross := blip.NewCross(scope, b.cfg, features)
			read := func(ids, mask *Node) *bert.Read {
				return blip.Decode(scope, b.cfg, cross, bert.Text{IDs: ids, Mask: mask})
			}
			whole, begun := read(in[1], in[2]), read(in[3], OnesLike(in[3]))
			return []output{
				{"image_embeds", features},
				{"logits", whereMask(blip.Logits(scope, b.cfg, whole.Hidden), in[2])},
				{"first_logits", blip.Logits(scope, b.cfg, begun.Last())},
			}
		}}.run(backend)
	if err != nil {
		return err
	}
	for _, r := range results {
		b.k.tensor(r.name, r.value)
		switch r.name {
		case "image_embeds":
			b.images = tensors.FromFlatDataAndDimensions(tensors.MustCopyFlatData[float32](r.value),
				r.value.Shape().Dimensions...)
		case "first_logits":
			b.nucleus(tensors.MustCopyFlatData[float32](r.value))
		}
	}
	return nil
}

// matrix makes a tensor of rows of equal length.
func matrix(rows [][]int32) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(slices.Concat(rows...), len(rows), len(rows[0]))
}

// nucleus compares the distribution that LAVIS draws a caption's first token from.
func (b *blipCase) nucleus(logits []float32) {
	var probs []float32
	for i, prompt := range b.prompts {
		scores := logits[i*b.cfg.Vocab:][:b.cfg.Vocab]
		generate.PenalizeRepetition(scores, prompt, 1.1)
		scores[b.config.SEP] = float32(math.Inf(-1))
		generate.Sampling{TopK: 50, TopP: 0.9}.Filter(scores, 1)
		probs = append(probs, generate.Softmax(scores)...)
	}
	b.k.floats("nucleus_probs", []int{len(b.prompts), b.cfg.Vocab}, probs)
}

// write repeats the recorded searches.
func (b *blipCase) write() error {
	var expected struct {
		Runs      []generateRun `json:"runs"`
		PaperRuns []generateRun `json:"paper_runs"`
	}
	if err := b.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	store, err := b.set.store(blip.Params(b.cfg))
	if err != nil {
		return err
	}
	defer store.Finalize()
	backend, err := b.backend()
	if err != nil {
		return err
	}
	captioner, err := generate.NewCachedProgram(backend, store,
		func(scope *mlx.Scope, in []*Node, room nn.Room) (*Node, []*Node, []*Node) {
			return blip.Prefill(scope, b.cfg, in[0], in[1], in[2], room)
		},
		func(scope *mlx.Scope, fixed, cache []*Node, parents, tokens *Node) (*Node, []*Node) {
			return blip.Advance(scope, b.cfg, fixed, cache, parents, tokens)
		})
	if err != nil {
		return err
	}
	defer captioner.Close()
	search := func(_ generateRun, o generate.Options) ([][]generate.Text, error) {
		return captioner.Continue(b.env.ctx, []*tensors.Tensor{b.images}, b.prompts, b.cfg.MaxPositions, o)
	}
	if err := b.k.generates("runs", expected.Runs, search); err != nil {
		return err
	}
	return b.k.generates("paper_runs", expected.PaperRuns, search)
}

// twin compares the folder hf/, a BlipForConditionalGeneration, with the case's weights and config: each form of the
// model gives the other bit for bit.
func (b *blipCase) twin() error {
	folder, file := filepath.Join(b.Dir, "hf"), filepath.Join(b.Dir, weightsFile)
	hf, err := published.Assemble(published.Parts{Main: folder})
	if err != nil {
		return fmt.Errorf("hf: %w", err)
	}
	defer hf.Close()
	if _, err := b.k.exports(hf, naming.LAVIS, file); err != nil {
		return err
	}
	lavis, err := published.Assemble(published.Parts{Main: file,
		Hints: published.Hints{VisionHeads: b.cfg.Vision.Heads, QFormerHeads: b.cfg.Heads}})
	if err != nil {
		return err
	}
	defer lavis.Close()
	if _, err := b.k.exports(lavis, naming.HuggingFace, folder); err != nil {
		return err
	}
	got, want := *hf.Spec.BLIP, b.cfg
	for _, v := range []*vit.Config{&got.Vision, &want.Vision} {
		v.MLPRatio = float64(v.MLPWidth()) / float64(v.Width) // one of several that give this width
	}
	equalLists(b.k, "hf: config.json", []blip.Config{got}, []blip.Config{want})
	equalLists(b.k, "hf: bos_token_id and sep_token_id", []int{hf.Spec.BOS, hf.Spec.EOS},
		[]int{int(b.config.BOS), int(b.config.SEP)})
	return nil
}
