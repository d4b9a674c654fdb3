package stage1

import (
	"context"
	"fmt"

	"github.com/gomlx/gomlx/core/tensors"
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

// captionBlock writes captions for at most a batch of pictures, one token of each per round.
func (e *Evaluator) captionBlock(ctx context.Context, r *Ranking, pictures []int) ([][]int32, error) {
	size, length := e.tokenSize(), e.cfg.MaxTextLen
	embeds := make([]float32, e.batch*size)
	for i, p := range pictures {
		copy(embeds[i*size:], r.embeds[p*size:][:size])
	}
	ids, mask := make([]int32, e.batch*length), make([]int32, e.batch*length)
	for i := range e.batch {
		ids[i*length], mask[i*length] = int32(e.cfg.BOSID), 1
	}
	captions := make([][]int32, len(pictures))
	ended := make([]bool, len(pictures))
	for at := 0; at < length-1 && anyOpen(ended); at++ {
		next, err := e.round(ctx, embeds, ids, mask)
		if err != nil {
			return nil, err
		}
		for i := range pictures {
			token := next[i*length+at]
			if ended[i] || token == int32(e.cfg.SEPID) {
				ended[i] = true
				continue
			}
			captions[i] = append(captions[i], token)
			ids[i*length+at+1], mask[i*length+at+1] = token, 1
		}
	}
	return captions, nil
}

func anyOpen(ended []bool) bool {
	for _, e := range ended {
		if !e {
			return true
		}
	}
	return false
}

// round asks for the next token after every position: [batch·L].
func (e *Evaluator) round(ctx context.Context, embeds []float32, ids, mask []int32) ([]int32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	length := e.cfg.MaxTextLen
	args := []*tensors.Tensor{e.embedsTensor(embeds), tensors.FromFlatDataAndDimensions(ids, e.batch, length),
		tensors.FromFlatDataAndDimensions(mask, e.batch, length)}
	out, err := e.next.Call(args[0], args[1], args[2])
	for _, a := range args {
		a.MustFinalizeAll()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.next.Name(), err)
	}
	defer out[0].MustFinalizeAll()
	return tensors.CopyFlatData[int32](out[0])
}
