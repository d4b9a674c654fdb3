package verify

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/model/nn"
	"blip2/pkg/published"
	"blip2/pkg/stage2"
	"blip2/pkg/tokenizer"
)

// pixelTolerance is one level of an 8-bit sample after normalisation, by which resized pictures may differ.
var pixelTolerance = tolerance{atol: 0.016}

// folder is a published folder of a case, with what reads pictures and texts for it.
type folder struct {
	*Case
	k         *checker
	model     *published.Assembly
	processor published.ImageProcessor
	tokenizer tokenizer.Tokenizer
	pixels    *tensors.Tensor // those recorded
}

// openFolder opens the folder model/ of the case, checks what its processor makes of the pictures, and reads the
// recorded pixels, with which the model is fed.
func (c *Case) openFolder(k *checker, pictures ...string) (*folder, error) {
	if err := c.requireOutputs(k); err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Dir, "model")
	f := &folder{Case: c, k: k}
	var err error
	if f.model, err = published.Assemble(published.Parts{Main: dir}); err != nil {
		return nil, err
	}
	if f.processor, err = published.ReadProcessor(dir, f.model.Spec); err != nil {
		return nil, err
	}
	if f.tokenizer, err = tokenizer.Load(dir); err != nil {
		return nil, err
	}
	var values []float32
	for _, name := range pictures {
		img, err := c.picture(name)
		if err != nil {
			return nil, err
		}
		pixels, err := f.processor.Pixels(img)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		values = append(values, pixels...)
	}
	size := f.processor.Size
	shape := []int{len(pictures), 3, size, size}
	recorded, err := k.outputs.Tensor("pixel_values")
	if err != nil {
		return nil, err
	}
	own := k.tol
	k.tol = pixelTolerance
	k.floats("pixel_values", shape, values)
	k.tol = own
	if !slices.Equal(recorded.Shape, shape) {
		return nil, fmt.Errorf("pixel_values has shape %v, the folder's processor gives %v", recorded.Shape, shape)
	}
	if values, err = recorded.Float32s(); err != nil {
		return nil, err
	}
	f.pixels = tensors.FromFlatDataAndDimensions(values, shape...)
	return f, nil
}

// hfITM runs kind hf-itm: a folder of Blip2ForImageTextRetrieval, from pictures and texts to how well they match.
func hfITM(c *Case, k *checker) error {
	var expected struct {
		Texts []struct {
			Text string  `json:"text"`
			IDs  []int32 `json:"ids"`
		} `json:"texts"`
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	f, err := c.openFolder(k, "image0.png", "image1.png")
	if err != nil {
		return err
	}
	defer f.model.Close()
	var rows [][]int32
	for _, t := range expected.Texts {
		ids := f.tokenizer.Encode(t.Text, tokenizer.EncodeOptions{})
		equalLists(k, fmt.Sprintf("ids of %q", t.Text), ids, t.IDs)
		rows = append(rows, ids)
	}
	var texts textBatch
	texts.rows = len(rows)
	texts.ids, texts.mask, texts.length = tokenizer.Pad(rows, 0, f.tokenizer.Special().Pad, tokenizer.Right)
	backend, err := c.backend()
	if err != nil {
		return err
	}
	m, err := matchAll(f.model, backend, f.pixels, texts)
	if err != nil {
		return err
	}
	k.tensor("itm_logits", m.logits)
	k.tensor("itc", m.cosine)
	k.tensor("image_embeds", m.images)
	k.tensor("text_embeds", m.texts)
	return nil
}

// folderPrompt is one prompt of kind hf-folder with what follows it.
type folderPrompt struct {
	Prompt       string  `json:"prompt"`
	IDs          []int32 `json:"ids"`
	ProcessorIDs []int32 `json:"processor_ids"`
	Generated    []int32 `json:"generated"`
	Greedy       []int32 `json:"greedy"`
	Text         string  `json:"text"`
	Score        float64 `json:"score"`
	Ended        bool    `json:"ended"`

	generateRun // options; the fields above are its result
}

// hfFolder runs kind hf-folder: a folder of Blip2ForConditionalGeneration, from picture and prompt to text.
func hfFolder(c *Case, k *checker) error {
	var expected struct {
		Prompts []folderPrompt `json:"prompts"`
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	f, err := c.openFolder(k, "image.png")
	if err != nil {
		return err
	}
	defer f.model.Close()
	cfg, err := stage2.NewConfig(f.model.Spec)
	if err != nil {
		return err
	}
	prompts := make([]stage2.Prompts, len(expected.Prompts))
	for i, p := range expected.Prompts {
		ids := f.tokenizer.Encode(p.Prompt, tokenizer.EncodeOptions{})
		equalLists(k, fmt.Sprintf("prompts[%d].ids", i), ids, p.IDs)
		if p.ProcessorIDs != nil {
			equalLists(k, fmt.Sprintf("prompts[%d].processor_ids", i), f.processorIDs(ids), p.ProcessorIDs)
		}
		prompts[i] = cfg.NewPrompts([][]int32{ids})
	}
	if err := f.firstLogits(cfg, prompts); err != nil {
		return err
	}
	return f.answers(cfg, prompts, expected.Prompts)
}

// processorIDs puts as many image tokens as there are queries in front of the ids, where the folder has such a token.
func (f *folder) processorIDs(ids []int32) []int32 {
	spec := f.model.Spec
	if spec.ImageToken == nil {
		return ids
	}
	return append(slices.Repeat([]int32{int32(*spec.ImageToken)}, spec.QFormer.Queries), ids...)
}

// firstLogits compares the projected queries and what the language model says of the token behind every prompt.
func (f *folder) firstLogits(cfg stage2.Config, prompts []stage2.Prompts) error {
	store := mlx.NewStore()
	if err := f.model.Fill(store, nil); err != nil {
		return err
	}
	inputs := []*tensors.Tensor{f.pixels}
	for _, p := range prompts {
		inputs = append(inputs, tensors.FromFlatDataAndDimensions(p.IDs, 1, p.Length),
			tensors.FromFlatDataAndDimensions(p.Mask, 1, p.Length))
	}
	return f.compareProgram(f.k, program{store: store, inputs: inputs, forward: func(scope *mlx.Scope, in []*Node) []output {
		outputs := []output{{"query_embeds", stage2.QueryEmbeds(scope, cfg, in[0])}}
		for i := range prompts {
			logits, _, _ := cfg.Decoder().Prefill(scope, []*Node{in[0], in[1+2*i], in[2+2*i]}, nn.Room{Texts: 1})
			outputs = append(outputs, output{fmt.Sprintf("last_logits/%d", i), logits})
		}
		return outputs
	}})
}

// answers compares the texts that follow the prompts.
func (f *folder) answers(cfg stage2.Config, prompts []stage2.Prompts, expected []folderPrompt) error {
	store := mlx.NewStore()
	defer store.Finalize()
	if err := f.model.Fill(store, nil); err != nil {
		return err
	}
	backend, err := f.backend()
	if err != nil {
		return err
	}
	g, err := stage2.NewGenerator(backend, store, cfg)
	if err != nil {
		return err
	}
	defer g.Close()
	for i, p := range expected {
		where := fmt.Sprintf("prompts[%d]", i)
		o := p.options()
		o.EOS = int32(f.model.Spec.EOS)
		texts, err := g.Generate(f.env.ctx, f.pixels, prompts[i], o)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		text := texts[0][0]
		equalLists(f.k, where+".generated", text.Tokens, p.Generated)
		equalLists(f.k, where+".text", []string{strings.TrimSpace(f.tokenizer.Decode(text.Tokens, true))}, []string{p.Text})
		equalLists(f.k, where+".ended", []bool{text.Ended}, []bool{p.Ended})
		compareFloats(f.k, where+".score", nil, []float64{text.Score}, []float64{p.Score})
		texts, err = g.Generate(f.env.ctx, f.pixels, prompts[i], generate.Options{MaxNewTokens: o.MaxNewTokens,
			MinNewTokens: o.MinNewTokens, EOS: o.EOS, RepetitionPenalty: o.RepetitionPenalty})
		if err != nil {
			return fmt.Errorf("%s: greedily: %w", where, err)
		}
		equalLists(f.k, where+".greedy", texts[0][0].Tokens, p.Greedy)
	}
	return nil
}
