package naming

// clipOriginal is the whole of CLIP, image and text, as openai/CLIP names it.
func clipOriginal() Table {
	t := Table{Name: "CLIP under OpenAI's names"}
	for _, name := range []string{"visual.**", "transformer.resblocks.**", "token_embedding.weight",
		"positional_embedding", "ln_final.*", "text_projection", "logit_scale"} {
		t.Rules = append(t.Rules, same(name, name))
	}
	for _, name := range []string{"input_resolution", "context_length", "vocab_size"} {
		t.Ignored = append(t.Ignored, Exception{name, "a size, which the shapes tell too"})
	}
	return t
}

// clipHF is CLIPModel of transformers. OpenAI stores both projections as [in, out], transformers as [out, in].
func clipHF() Table {
	t := Table{
		Name:  "CLIP under Hugging Face names",
		Rules: append(clipImageHF("visual."), clipBlockHF("text_model.encoder.layers.*.", "transformer.resblocks.*.")...),
		Ignored: []Exception{
			{"vision_model.embeddings.position_ids", buffer},
			{"text_model.embeddings.position_ids", buffer},
		},
	}
	t.Rules = append(t.Rules,
		same("vision_model.post_layernorm.*", "visual.ln_post.*"),
		transposed("visual_projection.weight", "visual.proj"),
		same("text_model.embeddings.token_embedding.weight", "token_embedding.weight"),
		same("text_model.embeddings.position_embedding.weight", "positional_embedding"),
		same("text_model.final_layer_norm.*", "ln_final.*"),
		transposed("text_projection.weight", "text_projection"),
		same("logit_scale", "logit_scale"))
	return t
}
