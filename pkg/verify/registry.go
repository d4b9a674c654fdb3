package verify

import (
	"maps"
	"slices"
)

// handler computes what a case asks for and hands every result to the checker. The error it returns says why it could
// not go on; differences are the checker's business.
type handler func(c *Case, k *checker) error

// handlers returns the kinds that are built.
func handlers() map[string]handler {
	return map[string]handler{
		"blip-caption":        blipCaption,
		"caption-metrics":     captionMetrics,
		"clip-text-image":     clipTextImage,
		"generate":            generateTexts,
		"gqa-accuracy":        gqaAccuracy,
		"hf-convert":          hfConvert,
		"hf-folder":           hfFolder,
		"hf-itm":              hfITM,
		"image-decode":        imageDecode,
		"image-normalize":     imageNormalize,
		"image-resize":        imageResize,
		"lavis-pth":           lavisPth,
		"lr-groups":           lrGroups,
		"lr-schedule":         lrSchedule,
		"nocaps-split":        nocapsSplit,
		"opt-lm":              optLM,
		"ptb-tokenize":        ptbTokenize,
		"qformer-init":        qformerInit,
		"randaugment":         randAugment,
		"random-resized-crop": randomResizedCrop,
		"retrieval-metrics":   retrievalMetrics,
		"retrieval-rerank":    rerank,
		"sampling-filter":     samplingFilter,
		"stage1-caption":      stage1Caption,
		"stage1-features":     stage1Features,
		"stage1-forward":      stage1Forward,
		"stage1-replicas":     stage1Replicas,
		"stage1-train":        stage1Train,
		"stage2-opt":          stage2Loss,
		"stage2-t5":           stage2Loss,
		"t5-seq2seq":          t5Seq2Seq,
		"text-process":        textProcess,
		"vit-clip":            vision,
		"vit-eva":             vision,
		"vqa-accuracy":        vqaAccuracy,
		"vqa-lemmatize":       vqaLemmatize,
	}
}

// Kinds returns the kinds that are built, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(handlers())) }

// PendingKinds returns the kinds that are recorded but not built yet, sorted. Their cases are shown as pending. The
// list only shrinks.
func PendingKinds() []string {
	return []string{}
}
