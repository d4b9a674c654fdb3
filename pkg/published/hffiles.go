package published

import (
	"encoding/json"
	"fmt"

	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// Ids of the published tokenizers, for models whose vocabulary is large enough to be theirs.
const (
	optNewline    = 50118 // "\n", which ends a caption
	optImageToken = 50265 // first id behind OPT's tokens
	t5ImageToken  = 32100 // first id behind T5's tokens
)

// object is a JSON object; keys are written in order, as transformers writes them.
type object map[string]any

// HFFiles returns the configuration files with which transformers reads a folder of the network: config.json,
// generation_config.json and preprocessor_config.json where the network has them, and processor_config.json.
// dtype is that of the tensors.
func HFFiles(s Spec, dtype weights.DType) (map[string][]byte, error) {
	config, err := s.hfConfig()
	if err != nil {
		return nil, err
	}
	config["torch_dtype"] = torchName(dtype)
	files := map[string]object{configFile: config}
	if g := s.hfGeneration(); g != nil {
		files["generation_config.json"] = g
	}
	if v := s.vision(); v != nil {
		files["preprocessor_config.json"] = s.hfProcessor(v.ImageSize)
	}
	if s.ImageToken != nil {
		files["processor_config.json"] = object{"num_query_tokens": s.QFormer.Queries, "processor_class": "Blip2Processor"}
	}
	out := map[string][]byte{}
	for name, content := range files {
		raw, err := json.MarshalIndent(content, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = append(raw, '\n')
	}
	return out, nil
}

// torchName is PyTorch's name of a type.
func torchName(dtype weights.DType) string {
	switch dtype {
	case weights.BF16:
		return "bfloat16"
	case weights.F16:
		return "float16"
	}
	return "float32"
}

// withPublishedTokens adds the ids of the published tokenizers that the Spec leaves open: the token that ends a caption
// and the one that stands for the picture's queries, where the vocabulary has room for them.
func (s Spec) withPublishedTokens() Spec {
	at := func(id, rows int) *int {
		if id >= rows {
			return nil
		}
		return &id
	}
	switch {
	case s.OPT != nil:
		if s.EOS == 0 && s.Model == naming.BLIP2OPT && s.OPT.Vocab > optNewline {
			s.EOS = optNewline
		}
		if s.ImageToken == nil && s.Model == naming.BLIP2OPT {
			s.ImageToken = at(optImageToken, s.OPT.Vocab)
		}
	case s.T5 != nil && s.ImageToken == nil && s.Model == naming.BLIP2T5:
		s.ImageToken = at(t5ImageToken, s.T5.Vocab)
	}
	return s
}

// hfConfig is the content of config.json.
func (s Spec) hfConfig() (object, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	switch s.Model {
	case naming.BLIP2Stage1, naming.BLIP2OPT, naming.BLIP2T5:
		return s.hfBLIP2()
	case naming.OPT:
		o := hfOPT(*s.OPT, s.EOS)
		o["architectures"] = []string{"OPTForCausalLM"}
		return o, nil
	case naming.T5:
		o := hfT5(*s.T5)
		o["architectures"] = []string{"T5ForConditionalGeneration"}
		return o, nil
	case naming.CLIP:
		return s.hfCLIP(), nil
	case naming.BLIPCaption:
		return s.hfBLIP(), nil
	}
	return nil, fmt.Errorf("transformers has no folder of its own for %s", s.Model)
}

func (s Spec) hfBLIP2() (object, error) {
	if s.Vision.Arch != vit.EVA {
		return nil, fmt.Errorf("BLIP-2 in transformers has EVA's image encoder only, this one is %s: keep LAVIS's form",
			s.Vision.Arch)
	}
	vision := hfVision(*s.Vision, "blip_2_vision_model", "gelu")
	vision["qkv_bias"] = true
	o := object{
		"model_type": "blip-2", "num_query_tokens": s.QFormer.Queries, "initializer_factor": 1.0,
		"initializer_range": 0.02, "vision_config": vision, "qformer_config": s.hfQFormer(),
		"image_token_index": s.ImageToken, "image_text_hidden_size": 256,
	}
	switch s.Model {
	case naming.BLIP2OPT:
		o["text_config"], o["use_decoder_only_language_model"] = hfOPT(*s.OPT, s.EOS), true
	case naming.BLIP2T5:
		text := hfT5(*s.T5)
		text["bos_token_id"] = 1
		o["text_config"], o["use_decoder_only_language_model"], o["is_encoder_decoder"] = text, false, true
	default:
		o["image_text_hidden_size"] = s.EmbedDim
		o["architectures"] = []string{"Blip2ForImageTextRetrieval"}
		return o, nil
	}
	o["architectures"] = []string{"Blip2ForConditionalGeneration"}
	return o, nil
}

func hfVision(v vit.Config, modelType, act string) object {
	return object{
		"model_type": modelType, "hidden_size": v.Width, "intermediate_size": v.MLPWidth(), "num_hidden_layers": v.Layers,
		"num_attention_heads": v.Heads, "image_size": v.ImageSize, "patch_size": v.PatchSize, "hidden_act": act,
		"layer_norm_eps": v.LayerNormEps, "attention_dropout": 0.0, "initializer_range": 1e-10,
	}
}

func (s Spec) hfQFormer() object {
	q := s.QFormer
	o := hfBERT(*q)
	o["model_type"] = "blip_2_qformer"
	o["cross_attention_frequency"] = q.CrossAttentionFreq
	o["encoder_hidden_size"] = q.EncoderWidth
	o["use_qformer_text_input"] = s.QFormerText
	if !s.QFormerText { // tables that are not in the folder: the library's sizes, which it does not allocate
		o["vocab_size"], o["max_position_embeddings"] = 30522, 512
	}
	return o
}

// hfBERT are the keys of a BERT-like configuration.
func hfBERT(q qformer.Config) object {
	return object{
		"vocab_size": q.Vocab, "hidden_size": q.Hidden, "num_hidden_layers": q.Layers, "num_attention_heads": q.Heads,
		"intermediate_size": q.Intermediate, "max_position_embeddings": q.MaxPositions, "hidden_act": "gelu",
		"layer_norm_eps": q.LayerNormEps, "hidden_dropout_prob": q.Dropout, "attention_probs_dropout_prob": q.Dropout,
		"initializer_range": 0.02, "position_embedding_type": "absolute",
	}
}

func hfOPT(c opt.Config, eos int) object {
	if eos == 0 {
		eos = 2
	}
	return object{
		"model_type": "opt", "vocab_size": c.Vocab, "hidden_size": c.Hidden, "num_hidden_layers": c.Layers,
		"num_attention_heads": c.Heads, "ffn_dim": c.FFN, "max_position_embeddings": c.Positions,
		"word_embed_proj_dim": c.EmbedWidth(), "do_layer_norm_before": !c.PostNorm, "activation_function": "relu",
		"_remove_final_layer_norm": false, "enable_bias": true, "layer_norm_elementwise_affine": true,
		"dropout": c.Dropout, "attention_dropout": c.AttentionDropout, "layerdrop": 0.0, "init_std": 0.02,
		"bos_token_id": 2, "eos_token_id": eos, "pad_token_id": 1, "use_cache": true, "tie_word_embeddings": true,
	}
}

func hfT5(c t5.Config) object {
	return object{
		"model_type": "t5", "vocab_size": c.Vocab, "d_model": c.Hidden, "d_kv": c.HeadDim, "d_ff": c.FFN,
		"num_layers": c.EncoderLayers, "num_decoder_layers": c.DecoderLayers, "num_heads": c.Heads,
		"relative_attention_num_buckets": c.Buckets, "relative_attention_max_distance": c.MaxDistance,
		"dropout_rate": c.Dropout, "layer_norm_epsilon": c.RMSNormEps, "initializer_factor": 1.0,
		"feed_forward_proj": "gated-gelu", "dense_act_fn": string(c.Activation), "is_gated_act": true,
		"tie_word_embeddings": false, "is_encoder_decoder": true, "decoder_start_token_id": 0, "eos_token_id": 1,
		"pad_token_id": 0, "use_cache": true,
	}
}

func (s Spec) hfCLIP() object {
	c := s.CLIP
	vision := hfVision(c.Image, "clip_vision_model", "quick_gelu")
	vision["projection_dim"] = c.Embed
	return object{
		"model_type": "clip", "architectures": []string{"CLIPModel"}, "projection_dim": c.Embed,
		"initializer_factor": 1.0, "logit_scale_init_value": 2.6592, "vision_config": vision,
		"text_config": object{
			"model_type": "clip_text_model", "vocab_size": c.Text.Vocab, "hidden_size": c.Text.Width,
			"intermediate_size": c.Text.MLP, "num_hidden_layers": c.Text.Layers, "num_attention_heads": c.Text.Heads,
			"max_position_embeddings": c.Text.Context, "hidden_act": "quick_gelu", "layer_norm_eps": c.Text.LayerNormEps,
			// With end id 2, the library pools at the largest id, as OpenAI's program does.
			"projection_dim": c.Embed, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1,
		},
	}
}

func (s Spec) hfBLIP() object {
	b := s.BLIP
	text := hfBERT(qformer.Config{Vocab: b.Vocab, Hidden: b.Hidden, Layers: b.Layers, Heads: b.Heads,
		Intermediate: b.Intermediate, MaxPositions: b.MaxPositions, LayerNormEps: b.LayerNormEps})
	text["model_type"], text["encoder_hidden_size"], text["is_decoder"] = "blip_text_model", b.Vision.Width, true
	bos, sep := s.BOS, s.EOS
	if bos == 0 {
		bos = b.Vocab - 2 // [DEC] and [ENC] are the last two
	}
	if sep == 0 {
		sep = 102
	}
	text["bos_token_id"], text["eos_token_id"], text["sep_token_id"], text["pad_token_id"] = bos, sep, sep, 0
	return object{
		"model_type": "blip", "architectures": []string{"BlipForConditionalGeneration"}, "text_config": text,
		"vision_config": hfVision(b.Vision, "blip_vision_model", "gelu"), "projection_dim": 512,
		"image_text_hidden_size": 256, "initializer_factor": 1.0, "initializer_range": 0.02,
	}
}

// hfGeneration is the content of generation_config.json, nil where nothing is generated.
func (s Spec) hfGeneration() object {
	switch {
	case s.OPT != nil:
		eos := s.EOS
		if eos == 0 {
			eos = 2
		}
		return object{"_from_model_config": true, "bos_token_id": 2, "eos_token_id": eos, "pad_token_id": 1}
	case s.T5 != nil:
		o := object{"_from_model_config": true, "decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0}
		if s.Model == naming.BLIP2T5 {
			o["bos_token_id"] = 1
		}
		return o
	}
	return nil
}

// hfProcessor is the content of preprocessor_config.json: how pictures become pixels.
func (s Spec) hfProcessor(size int) object {
	o := object{
		"do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true, "resample": 3,
		"rescale_factor": 1.0 / 255, "image_mean": []float64{0.48145466, 0.4578275, 0.40821073},
		"image_std":            []float64{0.26862954, 0.26130258, 0.27577711},
		"image_processor_type": "BlipImageProcessor", "processor_class": "Blip2Processor",
		"size": object{"height": size, "width": size},
	}
	switch s.Model {
	case naming.BLIPCaption:
		o["processor_class"] = "BlipProcessor"
	case naming.CLIP:
		o["image_processor_type"], o["processor_class"] = "CLIPImageProcessor", "CLIPProcessor"
		o["size"], o["do_center_crop"] = object{"shortest_edge": size}, true
		o["crop_size"] = object{"height": size, "width": size}
	}
	return o
}
