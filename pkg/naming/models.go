package naming

// The networks whose whole checkpoints are read and written. A name is also what "blip2 weights" calls it.
const (
	BLIP2Stage1 = "blip2-stage1" // Blip2Qformer of LAVIS, Blip2ForImageTextRetrieval of transformers
	BLIP2OPT    = "blip2-opt"    // Blip2OPT, Blip2ForConditionalGeneration
	BLIP2T5     = "blip2-t5"     // Blip2T5, Blip2ForConditionalGeneration
	OPT         = "opt"          // OPTForCausalLM
	T5          = "t5"           // T5ForConditionalGeneration
	CLIP        = "clip"         // CLIPModel
	BLIPCaption = "blip-caption" // BlipCaption of LAVIS, BlipForConditionalGeneration
	BERT        = "bert"         // BertForMaskedLM, BertForPreTraining
	EVAViT      = "eva-vit"      // eva_vit_g.pth
	CLIPViT     = "clip-vit"     // clip_vit_L.pth
)

// The publishers whose names are known.
const (
	LAVIS       = "lavis"
	HuggingFace = "hf"
	Original    = "original" // the network's own first publication
)

// Model is a network together with the ways to name a whole checkpoint of it.
type Model struct {
	Name   string
	Tables map[string]Table // by publisher
}

// Models lists the networks that are known. Their names of tensors are LAVIS's or those of the first publication. Where
// two know a file's names equally well the first counts: a stage-1 checkpoint is one of stage 2 without a projection.
func Models() []Model {
	eva, clip := evaOriginal("", VisionPrefix), clipOpenAI("", VisionPrefix)
	return []Model{
		{BLIP2Stage1, map[string]Table{
			LAVIS:       compose("BLIP-2 stage 1 under LAVIS names", eva, clip, qformerLAVIS()),
			HuggingFace: compose("BLIP-2 for retrieval under Hugging Face names", evaHF(), qformerHF()),
		}},
		{BLIP2OPT, map[string]Table{
			LAVIS: compose("BLIP-2 with OPT under LAVIS names", eva, clip, qformerLAVIS(), projection("opt"),
				llm(OPT, "opt_model.", "opt_model.")),
			HuggingFace: compose("BLIP-2 with OPT under Hugging Face names", evaHF(), qformerHF(), projectionHF("opt"),
				llm(OPT, "language_model.", "opt_model.")),
		}},
		{BLIP2T5, map[string]Table{
			LAVIS: compose("BLIP-2 with T5 under LAVIS names", eva, clip, qformerLAVIS(), projection("t5"),
				llm(T5, "t5_model.", "t5_model.")),
			HuggingFace: compose("BLIP-2 with T5 under Hugging Face names", evaHF(), qformerHF(), projectionHF("t5"),
				llm(T5, "language_model.", "t5_model.")),
		}},
		{OPT, map[string]Table{HuggingFace: llm(OPT, "", "")}},
		{T5, map[string]Table{HuggingFace: llm(T5, "", "")}},
		{CLIP, map[string]Table{HuggingFace: clipHF(), Original: clipOriginal()}},
		{BLIPCaption, map[string]Table{LAVIS: blipLAVIS(), HuggingFace: blipHF()}},
		{BERT, map[string]Table{HuggingFace: bert()}},
		{EVAViT, map[string]Table{Original: evaOriginal("EVA-CLIP under its own names", "")}},
		{CLIPViT, map[string]Table{Original: clipOpenAI("CLIP's image encoder under OpenAI's names", "")}},
	}
}

// Find returns the network of that name.
func Find(name string) (Model, bool) {
	for _, m := range Models() {
		if m.Name == name {
			return m, true
		}
	}
	return Model{}, false
}
