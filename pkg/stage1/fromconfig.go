package stage1

import (
	"blip2/pkg/config"
	"blip2/pkg/model/qformer"
	"blip2/pkg/tokenizer"
	"blip2/pkg/training"
)

// Vocabulary is what the model must know of the tokenizer.
type Vocabulary struct {
	Size               int // V: word pieces, [DEC] included as the last id
	Pad, CLS, SEP, DEC int // ids of the special tokens
}

// VocabularyOf returns the vocabulary of a tokenizer: its pieces and [DEC] behind them.
func VocabularyOf(t *tokenizer.WordPiece) Vocabulary {
	return Vocabulary{Size: t.VocabSize() + 1, Pad: int(t.PadID()), CLS: int(t.CLSID()), SEP: int(t.SEPID()),
		DEC: int(t.DecID())}
}

// BERTVocabulary returns the vocabulary of bert-base-uncased with [DEC] (spec/model.md 5): 30,523 ids. It serves
// where sizes matter and no text is read.
func BERTVocabulary() Vocabulary {
	return Vocabulary{Size: 30523, Pad: 0, CLS: 101, SEP: 102, DEC: 30522}
}

// NewConfig returns the model that a configuration describes, for texts of the given vocabulary. What belongs to the
// device is left to the caller: Compute.
func NewConfig(c *config.Stage1, vocab Vocabulary) Config {
	v, q, l := c.Vision, c.QFormer, c.Loss
	return Config{
		Vision:       training.NewVision(v),
		FreezeVision: v.Freeze,
		LNVisionEps:  v.LNVisionEps,
		QFormer: qformer.Config{Hidden: q.Hidden, Layers: q.Layers, Heads: q.Heads, Intermediate: q.Intermediate,
			Queries: q.QueryTokens, CrossAttentionFreq: q.CrossAttentionFreq, EncoderWidth: v.Width, Vocab: vocab.Size,
			MaxPositions: q.MaxPositions, LayerNormEps: q.LayerNormEps, Dropout: q.Dropout,
			InitializerRange: q.InitStd},
		EmbedDim:    q.EmbedDim,
		Temperature: l.Temperature,

		MaxTextLen: c.Text.MaxLen,
		PadID:      vocab.Pad,
		CLSID:      vocab.CLS,
		SEPID:      vocab.SEP,
		BOSID:      vocab.DEC,

		LabelSmoothing: l.LabelSmoothing,
		ITCGatherGrad:  l.ITCGatherGrad,
		HardNegatives:  l.HardNegatives,
		ITCWeight:      l.ITC,
		ITMWeight:      l.ITM,
		ITGWeight:      l.ITG,
		Replicas:       l.Replicas,
		ImageIDs:       l.ImageIDs,

		MicroBatches: c.Train.MicroBatches(),
		Coupled:      c.Train.ContrastiveAccumulation,
	}
}
