package verify

import (
	"fmt"
	"slices"
	"strings"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/stage1"
)

// onlyForTraining says whether a stage-1 model computes features without the tensor: the LM head and the temperature.
func onlyForTraining(name string) bool {
	return name == "temp" || strings.HasPrefix(name, "Qformer.cls.")
}

// featureParams lists the tensors that features are computed from, and the names of the others.
func featureParams(cfg stage1.Config) (used []model.Param, unused []string) {
	for _, p := range stage1.Params(cfg) {
		if onlyForTraining(p.Name) {
			unused = append(unused, p.Name)
		} else {
			used = append(used, p)
		}
	}
	return used, unused
}

// stage1Features runs kind stage1-features: the features of LAVIS's extract_features, which cuts no text, and the
// answers of its matcher, which cuts texts to max_txt_len.
func stage1Features(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config stage1Config
	var expected struct {
		MatchClass *int `json:"itm_match_class"`
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if n := expected.MatchClass; n != nil && *n != stage1.MatchClass {
		return fmt.Errorf("%s: itm_match_class is %d, that of the model %d", expectedFile, *n, stage1.MatchClass)
	}
	cfg, err := config.model()
	if err != nil {
		return err
	}
	params, unused := featureParams(cfg)
	set, err := c.weights(unused)
	if err != nil {
		return err
	}
	store, err := set.store(params)
	if err != nil {
		return err
	}
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return err
	}
	texts, err := c.texts()
	if err != nil {
		return err
	}
	cut := texts.cut(cfg.MaxTextLen, int32(cfg.SEPID))
	backend, err := c.backend()
	if err != nil {
		return err
	}
	results, err := program{store: store,
		inputs: []*tensors.Tensor{pixels, texts.idTensor(), texts.maskTensor(), cut.idTensor(), cut.maskTensor()},
		forward: func(scope *mlx.Scope, in []*Node) []output {
			f := stage1.ExtractFeatures(scope, cfg, in[0], in[1], in[2])
			embeds, feats := stage1.ImageFeatures(scope, cfg, in[0])
			logits := stage1.MatchLogits(scope, cfg, embeds, in[3], in[4])
			text := InsertAxes(stage1.TextFeatures(scope, cfg, in[3], in[4]), 1)
			return []output{{"image_embeds", f.Image}, {"image_embeds_proj", f.ImageProj}, {"text_embeds", f.Text},
				{"text_embeds_proj", f.TextProj}, {"multimodal_embeds", f.Multimodal}, {"itm_logits", logits},
				{"itm_probs", Softmax(logits, -1)}, {"itc", ReduceMax(Einsum("bqe,bte->bqt", feats, text), 1)}}
		}}.run(backend)
	if err != nil {
		return err
	}
	for _, r := range results {
		if strings.HasPrefix(r.name, "text_embeds") {
			k.maskedTensor(r.name, r.value, texts.mask)
			continue
		}
		k.tensor(r.name, r.value)
	}
	return nil
}

// textBatch is a batch of texts, padded to one length.
type textBatch struct {
	rows, length int
	ids, mask    []int32
}

// texts reads the inputs text_ids and text_mask.
func (c *Case) texts() (textBatch, error) { return c.textsNamed("text_ids", "text_mask") }

// textsNamed reads texts and their mask from the inputs of these names.
func (c *Case) textsNamed(idName, maskName string) (textBatch, error) {
	ids, values, err := c.intInput(idName)
	if err != nil {
		return textBatch{}, err
	}
	mask, maskValues, err := c.intInput(maskName)
	if err != nil {
		return textBatch{}, err
	}
	dims := ids.Shape().Dimensions
	if len(dims) != 2 || !slices.Equal(dims, mask.Shape().Dimensions) {
		return textBatch{}, fmt.Errorf("%s: %s has shape %v and %s %v", inputsFile, idName, dims,
			maskName, mask.Shape().Dimensions)
	}
	return textBatch{dims[0], dims[1], values, maskValues}, nil
}

// cut returns the texts with at most length tokens, of which the last is end where one was cut.
func (t textBatch) cut(length int, end int32) textBatch {
	if length >= t.length {
		return t
	}
	out := textBatch{rows: t.rows, length: length}
	for row := range t.rows {
		ids := slices.Clone(t.ids[row*t.length:][:length])
		if t.mask[row*t.length+length] == 1 {
			ids[length-1] = end
		}
		out.ids = append(out.ids, ids...)
		out.mask = append(out.mask, t.mask[row*t.length:][:length]...)
	}
	return out
}

func (t textBatch) idTensor() *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(t.ids, t.rows, t.length)
}

func (t textBatch) maskTensor() *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(t.mask, t.rows, t.length)
}

// maskedTensor compares a tensor whose rows — all axes but the last — count only where the mask is 1.
func (k *checker) maskedTensor(name string, got *tensors.Tensor, mask []int32) {
	dims := got.Shape().Dimensions
	values := tensors.MustCopyFlatData[float32](got)
	width := dims[len(dims)-1]
	if len(values) != len(mask)*width {
		k.problem("%s: shape %v does not fit a mask of %d", name, dims, len(mask))
		return
	}
	want, ok := k.take(name, dims)
	if !ok {
		return
	}
	recorded, err := want.Float32s()
	if err != nil {
		k.problem("%v", err)
		return
	}
	for row, m := range mask {
		if m == 0 { // compared as equal
			copy(values[row*width:][:width], recorded[row*width:])
		}
	}
	compareFloats(k, name, dims, values, recorded)
}
