package naming

// Reasons why a tensor of stage 1 ends there.
const (
	textSide  = "text side of the Q-Former, which stage 2 is without"
	firstHead = "head of stage 1"
)

// BridgeTables are the ways to name what stage 2 trains in front of a language model, "opt" or "t5": query tokens, the
// query side of the Q-Former, ln_vision and the projection (spec/stage2.md 1). They are for checkpoints of stage 1, of
// stage 2, and for BERT, from which training starts where stage 1 is left out.
func BridgeTables(llm string) []Table {
	lavis := compose("BLIP-2 under LAVIS names", queriesLAVIS(), projection(llm))
	hf := compose("BLIP-2 under Hugging Face names", queriesHF(), projectionHF(llm))
	for _, t := range []*Table{&lavis, &hf} {
		t.Fresh = append(t.Fresh, Exception{llm + "_proj.*", "new: the checkpoint is of stage 1, or of another language model"})
	}
	for _, other := range []string{"opt", "t5"} {
		if other != llm {
			lavis.Ignored = append(lavis.Ignored, Exception{other + "_proj.*", "projection to another language model"})
		}
	}
	bert := queriesBERT()
	bert.Fresh = append(bert.Fresh, Exception{llm + "_proj.*", "new"})
	return []Table{lavis, hf, bert}
}

// BridgeElsewhere are tensors that BridgeTables know and stage 2 has no use for.
func BridgeElsewhere() []Exception {
	return []Exception{
		{WordEmbeddings, textSide},
		{"Qformer.bert.embeddings.position_embeddings.weight", textSide},
		{qformerLayer + "intermediate.**", textSide},
		{qformerLayer + "output.**", textSide},
		{LMHead + "**", firstHead},
		{"vision_proj.*", firstHead},
		{"text_proj.*", firstHead},
		{"itm_head.*", firstHead},
		{"temp", firstHead},
	}
}

// queriesLAVIS is a whole checkpoint of stage 1 or 2 of which only the Q-Former is wanted.
func queriesLAVIS() Table {
	t := qformerLAVIS()
	t.Ignored = append(t.Ignored,
		Exception{VisionPrefix + "**", "image encoder, which is loaded by itself"},
		Exception{"opt_model.**", "language model, which llm.path gives"},
		Exception{"t5_model.**", "language model, which llm.path gives"})
	return t
}

// queriesHF is the same for transformers' Blip2ForImageTextRetrieval and Blip2ForConditionalGeneration.
func queriesHF() Table {
	t := compose("", qformerHF(), Table{Rules: []Rule{same("vision_model.post_layernorm.*", "ln_vision.*")}})
	t.Ignored = append(t.Ignored,
		Exception{"vision_model.embeddings.**", "image encoder, which is loaded by itself"},
		Exception{"vision_model.encoder.**", "image encoder, which is loaded by itself"},
		Exception{"language_model.**", "language model, which llm.path gives"})
	return t
}

// queriesBERT is the query side of a Q-Former made of BERT: its feed-forward networks become the queries', and there is
// no text side (spec/model.md 5.5).
func queriesBERT() Table {
	t := Table{
		Name:    BERTName,
		Respell: map[string]string{"gamma": "weight", "beta": "bias"},
		Ignored: []Exception{{"cls.**", "head of BERT, which stage 2 is without"}},
		Fresh: []Exception{
			{"query_tokens", "BERT has no query tokens"},
			{qformerLayer + "crossattention.**", "BERT has no cross-attention"},
			{"ln_vision.*", "starts at (1, 0)"},
		},
	}
	const ours = qformerLayer
	for _, prefix := range []string{"bert.", ""} {
		for _, name := range []string{"word_embeddings.weight", "position_embeddings.weight", "token_type_embeddings.weight"} {
			t.Ignored = append(t.Ignored, Exception{prefix + "embeddings." + name, textSide})
		}
		t.Ignored = append(t.Ignored,
			Exception{prefix + "embeddings.position_ids", buffer},
			Exception{prefix + "pooler.**", "pooler, which the Q-Former has not"})
		theirs := prefix + "encoder.layer.*."
		t.Rules = append(t.Rules,
			same(prefix+"embeddings.LayerNorm.*", "Qformer.bert.embeddings.LayerNorm.*"),
			same(theirs+"attention.**", ours+"attention.**"),
			same(theirs+"intermediate.**", ours+"intermediate_query.**"),
			same(theirs+"output.**", ours+"output_query.**"))
	}
	return t
}
