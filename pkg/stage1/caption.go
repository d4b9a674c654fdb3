package stage1

import (
	"context"

	"blip2/pkg/generate"
)

// Captions writes a caption for each of the given pictures of a ranked set, greedily: token ids between [DEC] and
// [SEP], at most MaxTextLen−1 of them.
func (e *Evaluator) Captions(ctx context.Context, r *Ranking, pictures []int) ([][]int32, error) {
	out := make([][]int32, 0, len(pictures))
	for lo := 0; lo < len(pictures); lo += e.batch {
		block, err := e.captionBlock(ctx, r, pictures[lo:min(lo+e.batch, len(pictures))])
		if err != nil {
			return nil, err
		}
		out = append(out, block...)
	}
	return out, nil
}

// captionBlock writes captions for at most a batch of pictures; places without one are computed along.
func (e *Evaluator) captionBlock(ctx context.Context, r *Ranking, pictures []int) ([][]int32, error) {
	size := e.tokenSize()
	embeds := make([]float32, e.batch*size)
	for i, p := range pictures {
		copy(embeds[i*size:], r.embeds[p*size:][:size])
	}
	features := e.embedsTensor(embeds)
	defer features.MustFinalizeAll()
	encoded, err := e.captioner.Encode(ctx, features)
	if err != nil {
		return nil, err
	}
	defer encoded.MustFinalizeAll()
	texts, err := e.captioner.Write(ctx, encoded, nil, generate.Options{MaxNewTokens: e.cfg.MaxTextLen - 1})
	if err != nil {
		return nil, err
	}
	captions := make([][]int32, len(pictures))
	for i := range pictures {
		captions[i] = texts[i][0].Words()
	}
	return captions, nil
}
