package naming

// Names of the Q-Former's tensors that need special care.
const (
	WordEmbeddings = "Qformer.bert.embeddings.word_embeddings.weight"
	LMHead         = "Qformer.cls.predictions."
	qformerLayer   = "Qformer.bert.encoder.layer.*."
)

// BERTName is the name of the table of BERT, which lacks a row for [DEC].
const BERTName = "BERT under Hugging Face names"

// QFormerTables are the ways to name all of a stage-1 model but its image encoder.
func QFormerTables() []Table { return []Table{bert(), stage1LAVIS(), stage1HF()} }

func qformerTwins() []Twin {
	return []Twin{{WordEmbeddings, LMHead + "decoder.weight"}, {LMHead + "bias", LMHead + "decoder.bias"}}
}

// bert is BERT under Hugging Face names, old (gamma, beta) or new, with its LM head or without (spec/weights.md 4).
func bert() Table {
	t := Table{
		Name:    BERTName,
		Respell: map[string]string{"gamma": "weight", "beta": "bias"},
		Twins:   qformerTwins(),
		Copies: []Rule{
			same(qformerLayer+"intermediate.**", qformerLayer+"intermediate_query.**"),
			same(qformerLayer+"output.**", qformerLayer+"output_query.**"),
		},
		Fresh: []Exception{
			{"query_tokens", "BERT has no query tokens"},
			{qformerLayer + "crossattention.**", "BERT has no cross-attention"},
			{"vision_proj.*", "head of stage 1"},
			{"text_proj.*", "head of stage 1"},
			{"itm_head.*", "head of stage 1"},
			{"temp", "ITC temperature"},
			{"ln_vision.*", "starts at (1, 0)"},
		},
		Optional: []Exception{{LMHead + "**", "the file has no LM head"}},
		Ignored:  []Exception{{"cls.seq_relationship.*", "next-sentence head"}},
		Rules:    []Rule{same("cls.predictions.**", LMHead+"**")},
	}
	for _, prefix := range []string{"bert.", ""} {
		t.Ignored = append(t.Ignored,
			Exception{prefix + "pooler.**", "pooler, which the Q-Former has not"},
			Exception{prefix + "embeddings.token_type_embeddings.weight", "the Q-Former adds no token types"},
			Exception{prefix + "embeddings.position_ids", buffer})
		t.Rules = append(t.Rules,
			same(prefix+"embeddings.**", "Qformer.bert.embeddings.**"),
			same(prefix+"encoder.**", "Qformer.bert.encoder.**"))
	}
	return t
}

// qformerLAVIS is the Q-Former with all that LAVIS trains beside it, in a state dict of LAVIS or a checkpoint of this
// program (spec/weights.md 2).
func qformerLAVIS() Table {
	t := Table{
		Name:    "stage-1 checkpoint under LAVIS names",
		Twins:   qformerTwins(),
		Ignored: []Exception{{"Qformer.bert.embeddings.position_ids", buffer}},
	}
	for _, name := range []string{"query_tokens", "ln_vision.*", "Qformer.**", "vision_proj.*", "text_proj.*",
		"itm_head.*", "temp"} {
		t.Rules = append(t.Rules, same(name, name))
	}
	return t
}

// stage1LAVIS is a stage-1 checkpoint of which the image encoder is not wanted.
func stage1LAVIS() Table {
	t := qformerLAVIS()
	t.Ignored = append(t.Ignored, Exception{VisionPrefix + "**", "image encoder, which vision.weights loads"})
	return t
}

// qformerHF is the Q-Former of BLIP-2 in transformers; the text side and the heads are those of
// Blip2ForImageTextRetrieval, which keeps neither the temperature nor the LM head (spec/weights.md 3).
func qformerHF() Table {
	const theirs, ours = "qformer.encoder.layer.*.", qformerLayer
	lost := []Exception{
		{LMHead + "**", "transformers has no LM head on the Q-Former"},
		{"temp", "transformers does not keep the ITC temperature"},
	}
	return Table{
		Name: "BLIP-2 under Hugging Face names",
		Rules: []Rule{
			same("query_tokens", "query_tokens"),
			same("qformer.layernorm.*", "Qformer.bert.embeddings.LayerNorm.*"),
			same("embeddings.word_embeddings.weight", WordEmbeddings),
			same("embeddings.position_embeddings.weight", "Qformer.bert.embeddings.position_embeddings.weight"),
			same(theirs+"attention.attention.**", ours+"attention.self.**"),
			same(theirs+"attention.output.**", ours+"attention.output.**"),
			same(theirs+"crossattention.attention.**", ours+"crossattention.self.**"),
			same(theirs+"crossattention.output.**", ours+"crossattention.output.**"),
			same(theirs+"intermediate_query.**", ours+"intermediate_query.**"),
			same(theirs+"output_query.**", ours+"output_query.**"),
			same(theirs+"intermediate.**", ours+"intermediate.**"),
			same(theirs+"output.**", ours+"output.**"),
			same("vision_projection.*", "vision_proj.*"),
			same("text_projection.*", "text_proj.*"),
			same("itm_head.*", "itm_head.*"),
		},
		Ignored: []Exception{{"embeddings.position_ids", buffer}, {"qformer.embeddings.position_ids", buffer}},
		Dropped: lost,
		Fresh:   lost,
	}
}

// stage1HF is Blip2ForImageTextRetrieval of which the image encoder is not wanted.
func stage1HF() Table {
	t := compose("BLIP-2 for retrieval under Hugging Face names", qformerHF(), Table{Rules: []Rule{
		same("vision_model.post_layernorm.*", "ln_vision.*")}})
	t.Ignored = append(t.Ignored,
		Exception{"vision_model.embeddings.**", "image encoder, which vision.weights loads"},
		Exception{"vision_model.encoder.**", "image encoder, which vision.weights loads"})
	return t
}
