package naming

// llm is a language model of transformers (spec/weights.md 5 and 6), with prefixes in front of the file's and the
// model's names: facebook/opt-* and google/flan-t5-* alone, or inside a checkpoint of BLIP-2.
func llm(model, theirs, ours string) Table {
	if model == T5 {
		return t5Table(theirs, ours)
	}
	return optTable(theirs, ours)
}

// LLMTables are the ways to name a language model, OPT or T5, that stands alone in its checkpoint or in a folder of
// BLIP-2; its tensors get the prefix of the model.
func LLMTables(model, prefix string) []Table {
	alone := llm(model, "", prefix)
	inHF := llm(model, "language_model.", prefix)
	inHF.Name += ", in a BLIP-2 folder"
	for _, name := range []string{"vision_model.**", "query_tokens", "qformer.**", "embeddings.**",
		"language_projection.*"} {
		inHF.Ignored = append(inHF.Ignored, Exception{name, "not of the language model"})
	}
	return []Table{alone, inHF}
}

// optTable is OPTForCausalLM. Some published files lack the leading "model.".
func optTable(theirs, ours string) Table {
	t := Table{
		Name:  "OPT under Hugging Face names",
		Rules: []Rule{same(theirs+"model.decoder.**", ours+"model.decoder.**")},
		Twins: []Twin{{ours + "model.decoder.embed_tokens.weight", ours + "lm_head.weight"}},
	}
	if theirs == "" {
		t.Rules = append(t.Rules, same("decoder.**", ours+"model.decoder.**"))
	}
	t.Rules = append(t.Rules, same(theirs+"lm_head.weight", ours+"lm_head.weight"))
	return t
}

// t5Table is T5ForConditionalGeneration with an output layer of its own.
func t5Table(theirs, ours string) Table {
	return Table{
		Name: "T5 under Hugging Face names",
		Rules: []Rule{
			same(theirs+"shared.weight", ours+"shared.weight"),
			same(theirs+"encoder.**", ours+"encoder.**"),
			same(theirs+"decoder.**", ours+"decoder.**"),
			same(theirs+"lm_head.weight", ours+"lm_head.weight"),
		},
		Ignored: []Exception{{theirs + "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
			"cross-attention of T5 has no positions; some files hold this unused table"}},
		Twins: []Twin{
			{ours + "shared.weight", ours + "encoder.embed_tokens.weight"},
			{ours + "shared.weight", ours + "decoder.embed_tokens.weight"},
		},
	}
}

// projection is the linear layer from the Q-Former to the language model, as LAVIS names it.
func projection(llm string) Table { return Table{Rules: []Rule{same(llm+"_proj.*", llm+"_proj.*")}} }

// projectionHF is the same layer in transformers.
func projectionHF(llm string) Table {
	return Table{Rules: []Rule{same("language_projection.*", llm+"_proj.*")}}
}
