package naming

import "blip2/pkg/model/vit"

const (
	beside    = "not of the image encoder"
	textTower = "text tower of CLIP"
	towerEnd  = "final norm, which BLIP-2 leaves out"
	towerHead = "head, which BLIP-2 leaves out"
	buffer    = "buffer of position numbers"
)

// VisionPrefix is in front of the image encoder's names in LAVIS checkpoints and in the store.
const VisionPrefix = "visual_encoder."

// VisionTables are the ways to name BLIP-2's image encoder, alone in its file or inside a larger checkpoint, whose
// other tensors are then ignored.
func VisionTables() []Table {
	return []Table{
		clipOpenAI("CLIP under OpenAI's names", ""),
		inLAVIS(clipOpenAI("CLIP under LAVIS names", VisionPrefix)),
		clipVisionHF(),
		evaOriginal("EVA-CLIP under its own names", ""),
		inLAVIS(evaOriginal("EVA-CLIP under LAVIS names", VisionPrefix)),
		evaInHF(),
	}
}

// prefixed lists rules for tensors whose names differ in what stands before them.
func prefixed(theirs, ours string, names ...string) []Rule {
	var rules []Rule
	for _, name := range names {
		rules = append(rules, same(theirs+name, ours+name))
	}
	return rules
}

// clipOpenAI is the encoder of openai/CLIP, alone in its file or, with a prefix, in a checkpoint of LAVIS.
func clipOpenAI(name, prefix string) Table {
	return Table{Name: name, Arch: vit.CLIP,
		Rules: append(prefixed(prefix, VisionPrefix, "class_embedding", "positional_embedding", "conv1.weight", "ln_pre.*",
			"transformer.resblocks.*.ln_1.*", "transformer.resblocks.*.attn.in_proj_weight",
			"transformer.resblocks.*.attn.in_proj_bias", "transformer.resblocks.*.attn.out_proj.*",
			"transformer.resblocks.*.ln_2.*", "transformer.resblocks.*.mlp.c_fc.*",
			"transformer.resblocks.*.mlp.c_proj.*"), same("ln_vision.*", "ln_vision.*")),
		Ignored: []Exception{{prefix + "ln_post.*", towerEnd}, {prefix + "proj", towerHead}},
	}
}

// evaOriginal is the encoder of EVA-CLIP ViT-g, alone in its file or, with a prefix, in a checkpoint of LAVIS.
func evaOriginal(name, prefix string) Table {
	return Table{Name: name, Arch: vit.EVA,
		Rules: append(prefixed(prefix, VisionPrefix, "cls_token", "pos_embed", "patch_embed.proj.*", "blocks.*.norm1.*",
			"blocks.*.attn.qkv.weight", "blocks.*.attn.q_bias", "blocks.*.attn.v_bias", "blocks.*.attn.proj.*",
			"blocks.*.norm2.*", "blocks.*.mlp.fc1.*", "blocks.*.mlp.fc2.*"), same("ln_vision.*", "ln_vision.*")),
		Ignored: []Exception{{prefix + "norm.*", towerEnd}, {prefix + "fc_norm.*", towerEnd}, {prefix + "head.*", towerHead}},
	}
}

// inLAVIS ignores what stands beside the encoder in checkpoints of LAVIS.
func inLAVIS(t Table) Table {
	for _, name := range []string{"query_tokens", "Qformer.**", "vision_proj.*", "text_proj.*", "itm_head.*",
		"temp", "opt_proj.*", "t5_proj.*", "opt_model.**", "t5_model.**"} {
		t.Ignored = append(t.Ignored, Exception{name, beside})
	}
	return t
}

// clipBlockHF are the rules of a residual block of CLIP, text or vision: queries, keys and values are apart in
// transformers (spec/weights.md 7).
func clipBlockHF(theirs, ours string) []Rule {
	q, k, v := theirs+"self_attn.q_proj.", theirs+"self_attn.k_proj.", theirs+"self_attn.v_proj."
	return []Rule{
		same(theirs+"layer_norm1.*", ours+"ln_1.*"),
		rows(ours+"attn.in_proj_weight", q+"weight", k+"weight", v+"weight"),
		rows(ours+"attn.in_proj_bias", q+"bias", k+"bias", v+"bias"),
		same(theirs+"self_attn.out_proj.*", ours+"attn.out_proj.*"),
		same(theirs+"layer_norm2.*", ours+"ln_2.*"),
		same(theirs+"mlp.fc1.*", ours+"mlp.c_fc.*"),
		same(theirs+"mlp.fc2.*", ours+"mlp.c_proj.*"),
	}
}

// clipImageHF are the rules of CLIP's image encoder up to its last block.
func clipImageHF(ours string) []Rule {
	const embeddings = "vision_model.embeddings."
	return append([]Rule{
		same(embeddings+"class_embedding", ours+"class_embedding"),
		same(embeddings+"position_embedding.weight", ours+"positional_embedding"),
		same(embeddings+"patch_embedding.weight", ours+"conv1.weight"),
		same("vision_model.pre_layrnorm.*", ours+"ln_pre.*"), // spelt so in the published files
	}, clipBlockHF("vision_model.encoder.layers.*.", ours+"transformer.resblocks.*.")...)
}

// clipVisionHF is the image encoder in openai/clip-vit-*.
func clipVisionHF() Table {
	return Table{
		Name: "CLIP under Hugging Face names", Arch: vit.CLIP, Rules: clipImageHF(VisionPrefix),
		Ignored: []Exception{
			{"vision_model.embeddings.position_ids", buffer},
			{"vision_model.post_layernorm.*", towerEnd},
			{"visual_projection.weight", towerHead},
			{"text_model.**", textTower},
			{"text_projection.weight", textTower},
			{"logit_scale", "temperature of CLIP"},
		},
	}
}

// evaHF is the vision_model of Blip2ForConditionalGeneration and Blip2ForImageTextRetrieval (spec/weights.md 3). Early
// revisions have q_bias and v_bias apart.
func evaHF() Table {
	const theirs, ours = "vision_model.encoder.layers.*.", VisionPrefix + "blocks.*."
	return Table{
		Name: "EVA-CLIP in BLIP-2 under Hugging Face names", Arch: vit.EVA,
		Rules: []Rule{
			same("vision_model.embeddings.class_embedding", VisionPrefix+"cls_token"),
			same("vision_model.embeddings.position_embedding", VisionPrefix+"pos_embed"),
			same("vision_model.embeddings.patch_embedding.*", VisionPrefix+"patch_embed.proj.*"),
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
		Ignored: []Exception{{"vision_model.embeddings.position_ids", buffer}},
	}
}

// evaInHF is the image encoder in a BLIP-2 folder of Hugging Face, of which nothing else is wanted.
func evaInHF() Table {
	t := evaHF()
	for _, name := range []string{"query_tokens", "qformer.**", "embeddings.**", "language_projection.*",
		"language_model.**", "vision_projection.*", "text_projection.*", "itm_head.*"} {
		t.Ignored = append(t.Ignored, Exception{name, beside})
	}
	return t
}
