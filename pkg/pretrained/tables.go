package pretrained

import (
	"strconv"

	"blip2/pkg/model"
	"blip2/pkg/model/vit"
)

// part is a group of the model's tensors that is loaded from one checkpoint. Its names are LAVIS's.
type part struct {
	what    string // for messages
	absence string // why a checkpoint may be without it, for messages
	params  []model.Param
	formats []format
	arch    string // of the image encoder; empty for the Q-Former
	// setting names the configuration that the part's sizes come from.
	setting string
	// layers is the pattern of tensors in numbered layers of which a file may have more than the model.
	layers string
	used   int
	// elsewhere are tensors of the model that formats know, but that this part leaves alone.
	elsewhere []exception
	// twins are names that a file may hold beside, or in place of, another that is the same tensor.
	twins []twin
}

// format is one way to name the tensors of a checkpoint.
type format struct {
	name string
	arch string // of the image encoder in it; empty for the Q-Former
	// respell replaces the last component of the file's names before they are looked up.
	respell map[string]string
	// rules map names of the file to LAVIS names; the first that matches counts.
	rules []rule
	// ignored are names of the file that the model has no use for. They are tried before the rules.
	ignored []exception
	// copies says that a tensor of the model which the file lacks starts as a copy of another: from, to.
	copies []rule
	// fresh are tensors of the model that this format never has: they keep their initialisation.
	fresh []exception
	// optional are groups of tensors of the model of which a file of this format has all or none.
	optional []exception
	// adapters fit tensors whose shape in the file may differ from the model's, by LAVIS name.
	adapters map[string]adapter
}

// exception is a pattern of names with the reason for treating them apart.
type exception struct{ pattern, reason string }

// twin are the LAVIS names of one tensor that two modules share.
type twin struct{ name, other string }

const (
	beside    = "not of the image encoder"
	textTower = "text tower of CLIP"
	towerEnd  = "final norm, which BLIP-2 leaves out"
	towerHead = "head, which BLIP-2 leaves out"
	buffer    = "buffer of position numbers"
)

// visionPrefix is in front of the image encoder's names in LAVIS checkpoints and in the store.
const visionPrefix = "visual_encoder."

// visionPart is the image encoder.
func visionPart(cfg vit.Config) part {
	p := part{
		what:    "image encoder",
		absence: " (BLIP-2 checkpoints have none where it was frozen: give the encoder's own file)",
		setting: "vision", params: model.Prefixed(visionPrefix, vit.Params(cfg)), arch: cfg.Arch, used: cfg.Layers,
		layers: visionPrefix + "blocks.*.**",
		formats: []format{
			bareCLIP("CLIP under OpenAI's names", ""),
			bareCLIP("CLIP under LAVIS names", visionPrefix),
			clipOfHuggingFace(),
			bareEVA("EVA-CLIP under its own names", ""),
			bareEVA("EVA-CLIP under LAVIS names", visionPrefix),
			evaOfHuggingFace(),
		},
		elsewhere: []exception{{"ln_vision.*", "trained with the Q-Former, not part of the frozen encoder"}},
	}
	if cfg.Arch == vit.CLIP {
		p.layers = visionPrefix + "transformer.resblocks.*.**"
	}
	for i := range p.formats {
		p.formats[i].adapters = map[string]adapter{
			visionPrefix + cfg.PositionName(): positionTable{cfg},
		}
	}
	return p
}

// bareCLIP is the encoder of openai/CLIP, alone in its file or, with a prefix, in a checkpoint of LAVIS.
func bareCLIP(name, prefix string) format {
	return inLAVIS(prefix, format{name: name, arch: vit.CLIP, ignored: []exception{
		{prefix + "ln_post.*", towerEnd},
		{prefix + "proj", towerHead},
	}}, "class_embedding", "positional_embedding", "conv1.weight", "ln_pre.*",
		"transformer.resblocks.*.ln_1.*", "transformer.resblocks.*.attn.in_proj_weight",
		"transformer.resblocks.*.attn.in_proj_bias", "transformer.resblocks.*.attn.out_proj.*",
		"transformer.resblocks.*.ln_2.*", "transformer.resblocks.*.mlp.c_fc.*", "transformer.resblocks.*.mlp.c_proj.*")
}

// bareEVA is the encoder of EVA-CLIP ViT-g, alone in its file or, with a prefix, in a checkpoint of LAVIS.
func bareEVA(name, prefix string) format {
	return inLAVIS(prefix, format{name: name, arch: vit.EVA, ignored: []exception{
		{prefix + "norm.*", towerEnd},
		{prefix + "fc_norm.*", towerEnd},
		{prefix + "head.*", towerHead},
	}}, "cls_token", "pos_embed", "patch_embed.proj.*", "blocks.*.norm1.*", "blocks.*.attn.qkv.weight",
		"blocks.*.attn.q_bias", "blocks.*.attn.v_bias", "blocks.*.attn.proj.*", "blocks.*.norm2.*",
		"blocks.*.mlp.fc1.*", "blocks.*.mlp.fc2.*")
}

// inLAVIS adds the encoder's names, which stand in the file behind the prefix, and what stands beside the encoder.
func inLAVIS(prefix string, f format, names ...string) format {
	for _, name := range names {
		f.rules = append(f.rules, same(prefix+name, visionPrefix+name))
	}
	f.rules = append(f.rules, same("ln_vision.*", "ln_vision.*"))
	if prefix != "" {
		for _, name := range []string{"query_tokens", "Qformer.**", "vision_proj.*", "text_proj.*", "itm_head.*",
			"temp", "opt_proj.*", "t5_proj.*", "opt_model.**", "t5_model.**"} {
			f.ignored = append(f.ignored, exception{name, beside})
		}
	}
	return f
}

// clipOfHuggingFace is openai/clip-vit-*: queries, keys and values apart (spec/weights.md 7).
func clipOfHuggingFace() format {
	const theirs, ours = "vision_model.encoder.layers.*.", visionPrefix + "transformer.resblocks.*."
	const q, k, v = theirs + "self_attn.q_proj.", theirs + "self_attn.k_proj.", theirs + "self_attn.v_proj."
	return format{
		name: "CLIP under Hugging Face names", arch: vit.CLIP,
		rules: []rule{
			same("vision_model.embeddings.class_embedding", visionPrefix+"class_embedding"),
			same("vision_model.embeddings.position_embedding.weight", visionPrefix+"positional_embedding"),
			same("vision_model.embeddings.patch_embedding.weight", visionPrefix+"conv1.weight"),
			same("vision_model.pre_layrnorm.*", visionPrefix+"ln_pre.*"), // spelt so in the published files
			same(theirs+"layer_norm1.*", ours+"ln_1.*"),
			rows(ours+"attn.in_proj_weight", q+"weight", k+"weight", v+"weight"),
			rows(ours+"attn.in_proj_bias", q+"bias", k+"bias", v+"bias"),
			same(theirs+"self_attn.out_proj.*", ours+"attn.out_proj.*"),
			same(theirs+"layer_norm2.*", ours+"ln_2.*"),
			same(theirs+"mlp.fc1.*", ours+"mlp.c_fc.*"),
			same(theirs+"mlp.fc2.*", ours+"mlp.c_proj.*"),
		},
		ignored: []exception{
			{"vision_model.embeddings.position_ids", buffer},
			{"vision_model.post_layernorm.*", towerEnd},
			{"visual_projection.weight", towerHead},
			{"text_model.**", textTower},
			{"text_projection.weight", textTower},
			{"logit_scale", "temperature of CLIP"},
		},
	}
}

// evaOfHuggingFace is the vision_model of Blip2ForConditionalGeneration and Blip2ForImageTextRetrieval
// (spec/weights.md 3). Early revisions have q_bias and v_bias apart.
func evaOfHuggingFace() format {
	const theirs, ours = "vision_model.encoder.layers.*.", visionPrefix + "blocks.*."
	f := format{
		name: "EVA-CLIP in BLIP-2 under Hugging Face names", arch: vit.EVA,
		rules: []rule{
			same("vision_model.embeddings.class_embedding", visionPrefix+"cls_token"),
			same("vision_model.embeddings.position_embedding", visionPrefix+"pos_embed"),
			same("vision_model.embeddings.patch_embedding.*", visionPrefix+"patch_embed.proj.*"),
			same(theirs+"layer_norm1.*", ours+"norm1.*"),
			same(theirs+"self_attn.qkv.weight", ours+"attn.qkv.weight"),
			qkvBias(theirs+"self_attn.qkv.bias", ours+"attn.q_bias", ours+"attn.v_bias"),
			same(theirs+"self_attn.q_bias", ours+"attn.q_bias"),
			same(theirs+"self_attn.v_bias", ours+"attn.v_bias"),
			same(theirs+"self_attn.projection.*", ours+"attn.proj.*"),
			same(theirs+"layer_norm2.*", ours+"norm2.*"),
			same(theirs+"mlp.fc1.*", ours+"mlp.fc1.*"),
			same(theirs+"mlp.fc2.*", ours+"mlp.fc2.*"),
			same("vision_model.post_layernorm.*", "ln_vision.*"),
		},
		ignored: []exception{{"vision_model.embeddings.position_ids", buffer}},
	}
	for _, name := range []string{"query_tokens", "qformer.**", "embeddings.**", "language_projection.*",
		"language_model.**", "vision_projection.*", "text_projection.*", "itm_head.*"} {
		f.ignored = append(f.ignored, exception{name, beside})
	}
	return f
}

// Names of the Q-Former's tensors that need special care.
const (
	wordEmbeddings = "Qformer.bert.embeddings.word_embeddings.weight"
	lmHead         = "Qformer.cls.predictions."
	qformerLayer   = "Qformer.bert.encoder.layer.*."
)

// qformerPart is all of a stage-1 model but its image encoder.
func qformerPart(params []model.Param, seed int64) part {
	return part{
		what: "Q-Former", setting: "qformer", params: params,
		formats: []format{bert(seed), stage1OfLAVIS()},
		twins: []twin{
			{wordEmbeddings, lmHead + "decoder.weight"},
			{lmHead + "bias", lmHead + "decoder.bias"},
		},
	}
}

// bert is BERT under Hugging Face names, old (gamma, beta) or new, with its LM head or without (spec/weights.md 4).
func bert(seed int64) format {
	grow := vocabulary{added: 1, seed: seed}
	f := format{
		name:    "BERT under Hugging Face names",
		respell: map[string]string{"gamma": "weight", "beta": "bias"},
		copies: []rule{
			same(qformerLayer+"intermediate.**", qformerLayer+"intermediate_query.**"),
			same(qformerLayer+"output.**", qformerLayer+"output_query.**"),
		},
		fresh: []exception{
			{"query_tokens", "BERT has no query tokens"},
			{qformerLayer + "crossattention.**", "BERT has no cross-attention"},
			{"vision_proj.*", "head of stage 1"},
			{"text_proj.*", "head of stage 1"},
			{"itm_head.*", "head of stage 1"},
			{"temp", "ITC temperature"},
			{"ln_vision.*", "starts at (1, 0)"},
		},
		optional: []exception{{lmHead + "**", "the file has no LM head"}},
		adapters: map[string]adapter{wordEmbeddings: grow, lmHead + "bias": grow},
		ignored:  []exception{{"cls.seq_relationship.*", "next-sentence head"}},
		rules:    []rule{same("cls.predictions.**", lmHead+"**")},
	}
	for _, prefix := range []string{"bert.", ""} {
		f.ignored = append(f.ignored,
			exception{prefix + "pooler.**", "pooler, which the Q-Former has not"},
			exception{prefix + "embeddings.token_type_embeddings.weight", "the Q-Former adds no token types"},
			exception{prefix + "embeddings.position_ids", buffer})
		f.rules = append(f.rules,
			same(prefix+"embeddings.**", "Qformer.bert.embeddings.**"),
			same(prefix+"encoder.**", "Qformer.bert.encoder.**"))
	}
	return f
}

// stage1OfLAVIS is a state dict of Blip2Qformer (spec/weights.md 2), or a checkpoint of this program.
func stage1OfLAVIS() format {
	f := format{
		name:     "stage-1 checkpoint under LAVIS names",
		adapters: map[string]adapter{wordEmbeddings: vocabulary{}, lmHead + "bias": vocabulary{}},
		ignored: []exception{
			{"Qformer.bert.embeddings.position_ids", buffer},
			{visionPrefix + "**", "image encoder, which vision.weights loads"},
		},
	}
	for _, name := range []string{"query_tokens", "ln_vision.*", "Qformer.**", "vision_proj.*", "text_proj.*",
		"itm_head.*", "temp"} {
		f.rules = append(f.rules, same(name, name))
	}
	return f
}

// surplus says whether the tensor is of a layer beyond those that the model uses.
func (p part) surplus(name string) bool {
	if p.layers == "" {
		return false
	}
	wild, ok := match(p.layers, name)
	if !ok {
		return false
	}
	layer, err := strconv.Atoi(wild[0])
	return err == nil && layer >= p.used
}
