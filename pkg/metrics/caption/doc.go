// Package caption judges captions against reference captions as coco-caption (pycocoevalcap 1.2) does: BLEU-1 to 4,
// ROUGE-L and CIDEr-D, and through Scorer METEOR and SPICE. Texts are tokenised by package ptb. The functions are pure:
// they read no file; results and annotations are read by the functions that say so.
package caption
