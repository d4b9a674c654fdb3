package stage2

import "blip2/pkg/training"

// FLOPs is the work of a part of a training step.
type FLOPs = training.FLOPs

// StepFLOPs counts the work of one training step on a batch of pictures with texts of the given lengths, by part:
// length is that of OPT's texts or T5's prefixes, outputLength that of T5's suffixes.
//
// Backwards, a product of two things that are computed or trained costs two of its size, one for the gradient of each.
// Through the frozen language model there is one for every product with a weight, which gets no gradient; what does not
// depend on the picture, such as the self-attention of T5's first decoder block, has none. What Recompute repeats is
// not counted: it is a price of memory, not work of the model.
func StepFLOPs(cfg Config, batch, length, outputLength int) []FLOPs {
	b, q := float64(batch), cfg.QFormer
	queries, hidden, encoder := float64(q.Queries), float64(q.Hidden), float64(q.EncoderWidth)
	tokens, layers, crossLayers := float64(cfg.Vision.Tokens()), float64(q.Layers), 0.0
	for i := range q.Layers {
		if q.HasCross(i) {
			crossLayers++
		}
	}
	vision := FLOPs{Part: "ViT", Forward: b * cfg.Vision.FLOPs()}
	if !cfg.FreezeVision {
		patch := float64(3 * cfg.Vision.PatchSize * cfg.Vision.PatchSize)
		vision.Backward = 2*vision.Forward - b*product(tokens-1, patch, float64(cfg.Vision.Width)) // pixels get none
	}
	layer := 4*product(queries, hidden, hidden) + 2*product(queries, hidden, queries) +
		2*product(queries, hidden, float64(q.Intermediate))
	cross := 2*product(queries, hidden, hidden) + 2*product(queries, hidden, tokens)
	parts := []FLOPs{
		vision,
		trained("cross-attention keys and values", b*crossLayers*2*product(tokens, encoder, hidden)),
		trained("Q-Former", b*(layers*layer+crossLayers*cross)),
		trained("projection", b*product(queries, hidden, float64(cfg.Width()))),
	}
	if cfg.OPT != nil {
		return append(parts, cfg.optFLOPs(batch, length)...)
	}
	return append(parts, cfg.t5FLOPs(batch, length, outputLength)...)
}

// optFLOPs is the language model's part.
func (c Config) optFLOPs(batch, length int) []FLOPs {
	b, all := float64(batch), c.QFormer.Queries+length
	model := b * c.OPT.FLOPs(all, all)
	attention := b * float64(c.OPT.Layers) * 2 * product(float64(all), float64(c.OPT.Hidden), float64(all))
	head := b * c.OPT.HeadFLOPs(length)
	return []FLOPs{{Part: "OPT", Forward: model, Backward: model + attention},
		{Part: "LM head", Forward: head, Backward: head}}
}

// t5FLOPs is the language model's part. In the decoder's first block nothing before the cross-attention depends on the
// picture, and in the cross-attention neither queries nor their gradient do.
func (c Config) t5FLOPs(batch, length, outputLength int) []FLOPs {
	b, all, out := float64(batch), float64(c.QFormer.Queries+length), float64(outputLength)
	l, d, inner := c.T5, float64(c.T5.Hidden), float64(c.T5.Heads*c.T5.HeadDim)
	encode := b * l.EncodeFLOPs(int(all))
	encodeAttention := b * float64(l.EncoderLayers) * 2 * product(all, inner, all)
	cross, decode := b*l.CrossFLOPs(int(all)), b*l.DecodeFLOPs(outputLength, outputLength, int(all))
	decodeAttention := b * float64(l.DecoderLayers) * 2 * (product(out, inner, out) + product(out, inner, all))
	selfWeights, selfMix := 4*product(out, d, inner), 2*product(out, inner, out)
	first := b * (selfWeights + 2*selfMix + product(out, d, inner) + product(out, inner, all))
	head := b * l.HeadFLOPs(outputLength)
	return []FLOPs{
		{Part: "T5 encoder", Forward: encode, Backward: encode + encodeAttention},
		{Part: "T5 cross-attention keys and values", Forward: cross, Backward: cross},
		{Part: "T5 decoder", Forward: decode, Backward: decode + decodeAttention - first},
		{Part: "LM head", Forward: head, Backward: head},
	}
}

// product is the work of [rows, inner] × [inner, columns].
func product(rows, inner, columns float64) float64 { return 2 * rows * inner * columns }

// trained is a part through which gradients flow into both factors of every product.
func trained(part string, forward float64) FLOPs {
	return FLOPs{Part: part, Forward: forward, Backward: 2 * forward}
}
