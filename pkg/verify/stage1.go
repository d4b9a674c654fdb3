package verify

import (
	"fmt"
	"math"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/qformer"
	"blip2/pkg/stage1"
)

// stage1Config are the config keys of all cases of a stage-1 model.
type stage1Config struct {
	visionConfig
	FreezeVit      bool     `json:"freeze_vit"`
	Queries        int      `json:"num_query_tokens"`
	CrossFreq      int      `json:"cross_attention_freq"`
	Vocab          int      `json:"qformer_vocab"`
	Hidden         int      `json:"qformer_hidden"`
	Layers         int      `json:"qformer_layers"`
	Heads          int      `json:"qformer_heads"`
	Intermediate   int      `json:"qformer_intermediate"`
	Positions      int      `json:"qformer_positions"`
	LayerNormEps   float64  `json:"qformer_layer_norm_eps"`
	EmbedDim       int      `json:"embed_dim"`
	MaxTextLen     int      `json:"max_txt_len"`
	PadID          int      `json:"pad_token_id"`
	CLSID          int      `json:"cls_token_id"`
	SEPID          int      `json:"sep_token_id"`
	BOSID          int      `json:"bos_token_id"`
	LabelSmoothing *float64 `json:"label_smoothing"` // only where there are losses
	ITCGatherGrad  bool     `json:"itc_gather_grad"`
	Replicas       int      `json:"replicas"`
}

// model returns the configuration of the model and its losses, without dropout and with the released code's weights
// of hard negatives.
func (s stage1Config) model() (stage1.Config, error) {
	encoder, err := s.encoder()
	if err != nil {
		return stage1.Config{}, err
	}
	cfg := stage1.Config{
		Vision: encoder, FreezeVision: s.FreezeVit, LNVisionEps: s.LNVisionEps,
		QFormer: qformer.Config{Hidden: s.Hidden, Layers: s.Layers, Heads: s.Heads, Intermediate: s.Intermediate,
			Queries: s.Queries, CrossAttentionFreq: s.CrossFreq, EncoderWidth: s.Width, Vocab: s.Vocab,
			MaxPositions: s.Positions, LayerNormEps: s.LayerNormEps},
		EmbedDim: s.EmbedDim, MaxTextLen: s.MaxTextLen,
		PadID: s.PadID, CLSID: s.CLSID, SEPID: s.SEPID, BOSID: s.BOSID,
		ITCGatherGrad: s.ITCGatherGrad, HardNegatives: stage1.NegativesMaskedSoftmax,
		ITCWeight: 1, ITMWeight: 1, ITGWeight: 1, Replicas: s.Replicas,
	}
	if s.LabelSmoothing != nil {
		cfg.LabelSmoothing = *s.LabelSmoothing
	}
	if err := cfg.Validate(); err != nil {
		return cfg, err
	}
	return cfg, allPositive(map[string]float64{"num_query_tokens": float64(s.Queries), "qformer_vocab": float64(s.Vocab),
		"qformer_hidden": float64(s.Hidden), "qformer_layers": float64(s.Layers), "embed_dim": float64(s.EmbedDim),
		"qformer_intermediate": float64(s.Intermediate), "qformer_positions": float64(s.Positions),
		"qformer_layer_norm_eps": s.LayerNormEps, "max_txt_len": float64(s.MaxTextLen)})
}

// stage1Forward runs kind stage1-forward: the losses of one batch, what leads to them, and all gradients.
func stage1Forward(c *Case, k *checker) error { return stage1Losses(c, k, stage1Scalars, 1, 1) }

// stage1Replicas runs kind stage1-replicas: the same for the parts of a batch that several data-parallel processes
// have.
func stage1Replicas(c *Case, k *checker) error {
	return stage1Losses(c, k, stage1Vectors, 2, math.MaxInt32)
}

// stage1Losses runs a batch of the given least and greatest number of replicas; losses names its losses.
func stage1Losses(c *Case, k *checker, losses func(*stage1.Outputs) []output, least, most int) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config stage1Config
	var expected struct {
		Trainable *int `json:"trainable"`
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if config.LabelSmoothing == nil || config.Replicas < least || config.Replicas > most {
		return fmt.Errorf("config: label_smoothing must be given and replicas be %d to %d", least, most)
	}
	cfg, err := config.model()
	if err != nil {
		return err
	}
	trainable := stage1.TrainableParams(cfg)
	if n := expected.Trainable; n != nil {
		equalLists(k, "trainable", []int{len(trainable)}, []int{*n})
	}
	set, err := c.weights(nil)
	if err != nil {
		return err
	}
	store, err := set.store(stage1.Params(cfg))
	if err != nil {
		return err
	}
	batch, err := c.stage1Batch()
	if err != nil {
		return err
	}
	backend, err := c.backend()
	if err != nil {
		return err
	}
	if rows := batch.inputs[0].Shape().Dimensions[0]; rows%config.Replicas != 0 {
		return fmt.Errorf("%s: %d rows are not the same number for each of %d replicas", inputsFile, rows, config.Replicas)
	}
	results, err := program{store: store, inputs: batch.inputs, loss: meanLoss, trainable: trainable,
		forward: func(scope *mlx.Scope, in []*Node) []output {
			o := stage1.Forward(scope, cfg, batch.nodes(in), nil)
			return append(append(stage1Outputs(o), losses(o)...), output{meanLoss, o.Loss})
		}}.run(backend)
	if err != nil {
		return err
	}
	for _, r := range results {
		switch r.name {
		case meanLoss: // only the gradients' source
		case "lm_logits":
			k.lmLogits(r.value, batch.ids, cfg)
		default:
			k.tensor(r.name, r.value)
		}
	}
	return nil
}

// meanLoss is the output whose gradients are recorded: the mean of the replicas' losses.
const meanLoss = "mean loss"

// stage1Scalars names the losses of a batch.
func stage1Scalars(o *stage1.Outputs) []output {
	return []output{{"loss_itc", o.LossITC}, {"loss_itm", o.LossITM}, {"loss_lm", o.LossLM}, {"loss", o.Loss}}
}

// stage1Vectors names the losses of every replica.
func stage1Vectors(o *stage1.Outputs) []output {
	r := o.Replicas
	return []output{{"loss_itc", r.ITC}, {"loss_itm", r.ITM}, {"loss_lm", r.LM}, {"loss", r.Sum}}
}

// stage1Outputs names what leads to the losses as the recorded cases do.
func stage1Outputs(o *stage1.Outputs) []output {
	return []output{
		{"image_embeds", o.ImageEmbeds}, {"query_hidden", o.QueryHidden}, {"text_cls_hidden", o.TextCLSHidden},
		{"image_feats", o.ImageFeats}, {"text_feat", o.TextFeat}, {"sim_i2t", o.SimI2T}, {"sim_t2i", o.SimT2I},
		{"weights_i2t", o.WeightsI2T}, {"weights_t2i", o.WeightsT2I}, {"itm_query_hidden", o.ITMQueryHidden},
		{"itm_logits", o.ITMLogits}, {"lm_logits", o.LMLogits},
	}
}

// lmLogits compares the logits [B, L−1, V] where the next token is not padding; only these are recorded, pictures
// first, then in time: [n, V].
func (k *checker) lmLogits(logits *tensors.Tensor, ids []int32, cfg stage1.Config) {
	dims := logits.Shape().Dimensions
	batch, steps, vocab := dims[0], dims[1], dims[2]
	all := tensors.MustCopyFlatData[float32](logits)
	var kept []float32
	for b := range batch {
		for t := range steps {
			if next := ids[b*(steps+1)+t+1]; int(next) != cfg.PadID {
				row := (b*steps + t) * vocab
				kept = append(kept, all[row:row+vocab]...)
			}
		}
	}
	k.floats("lm_logits", []int{len(kept) / vocab, vocab}, kept)
}

// stage1Batch is a batch with the negatives that the reference drew.
type stage1Batch struct {
	inputs   []*tensors.Tensor
	ids      []int32 // of the texts, [B·L]
	imageIDs bool    // the last input is image_id
}

func (c *Case) stage1Batch() (*stage1Batch, error) {
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return nil, err
	}
	b := &stage1Batch{inputs: []*tensors.Tensor{pixels}}
	names := []string{"text_ids", "text_mask", "neg_image", "neg_text"}
	f, err := c.inputs()
	if err != nil {
		return nil, err
	}
	if f.Has("image_id") {
		b.imageIDs = true
		names = append(names, "image_id")
	}
	for _, name := range names {
		t, values, err := c.intInput(name)
		if err != nil {
			return nil, err
		}
		if name == "text_ids" {
			b.ids = values
		}
		b.inputs = append(b.inputs, t)
	}
	return b, nil
}

// nodes arranges the graph's inputs, in the order of b.inputs, as a batch.
func (b *stage1Batch) nodes(in []*Node) stage1.Batch {
	batch := stage1.Batch{Pixels: in[0], TextIDs: in[1], TextMask: in[2], NegImage: in[3], NegText: in[4]}
	if b.imageIDs {
		batch.ImageID = in[5]
	}
	return batch
}
