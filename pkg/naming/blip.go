package naming

const blipWords, blipHead = "text_decoder.bert.embeddings.word_embeddings.weight", "text_decoder.cls.predictions."

func blipTwins() []Twin {
	return []Twin{{blipWords, blipHead + "decoder.weight"}, {blipHead + "bias", blipHead + "decoder.bias"}}
}

// blipLAVIS is the captioner of BLIP as LAVIS and BLIP's own program name it (spec/weights.md 8).
func blipLAVIS() Table {
	return Table{Name: "BLIP captioner under LAVIS names", Twins: blipTwins(),
		Rules:   []Rule{same("visual_encoder.**", "visual_encoder.**"), same("text_decoder.**", "text_decoder.**")},
		Ignored: []Exception{{"text_decoder.bert.embeddings.position_ids", buffer}},
	}
}

// blipHF is BlipForConditionalGeneration.
func blipHF() Table {
	const theirs, ours = "vision_model.encoder.layers.*.", VisionPrefix + "blocks.*."
	return Table{Name: "BLIP captioner under Hugging Face names", Twins: blipTwins(),
		Rules: []Rule{
			same("vision_model.embeddings.class_embedding", VisionPrefix+"cls_token"),
			same("vision_model.embeddings.position_embedding", VisionPrefix+"pos_embed"),
			same("vision_model.embeddings.patch_embedding.*", VisionPrefix+"patch_embed.proj.*"),
			same(theirs+"layer_norm1.*", ours+"norm1.*"),
			same(theirs+"self_attn.qkv.*", ours+"attn.qkv.*"),
			same(theirs+"self_attn.projection.*", ours+"attn.proj.*"),
			same(theirs+"layer_norm2.*", ours+"norm2.*"),
			same(theirs+"mlp.**", ours+"mlp.**"),
			same("vision_model.post_layernorm.*", VisionPrefix+"norm.*"),
			same("text_decoder.**", "text_decoder.**"),
		},
		Ignored: []Exception{
			{"vision_model.embeddings.position_ids", buffer},
			{"text_decoder.bert.embeddings.position_ids", buffer},
		},
	}
}
