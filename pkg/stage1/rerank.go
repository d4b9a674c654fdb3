package stage1

import (
	"context"
	"math"

	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/retrieval"
)

// pair is a picture with a text.
type pair struct{ image, text int }

// rerank scores the candidates of every picture and text by ITM and fills in I2T and T2I. A pair that is a
// candidate in both directions is computed once. Without candidates the cosines are the scores.
func (e *Evaluator) rerank(ctx context.Context, set RankSet, r *Ranking, meter Meter) error {
	images, texts := set.NumImages(), set.NumTexts()
	r.I2T = retrieval.Matrix(images, texts, retrieval.NotRanked)
	r.T2I = retrieval.Matrix(texts, images, retrieval.NotRanked)
	if e.kTest == 0 {
		r.I2T, r.T2I = r.Cosine, retrieval.Transpose(r.Cosine)
		return nil
	}
	logits := make(map[pair][2]float32)
	var pairs []pair
	want := func(p pair) {
		if _, known := logits[p]; !known {
			logits[p] = [2]float32{}
			pairs = append(pairs, p)
		}
	}
	i2t := make([][]int, images)
	for i, row := range r.Cosine {
		i2t[i] = retrieval.TopK(row, e.kTest)
		for _, t := range i2t[i] {
			want(pair{i, t})
		}
	}
	t2i := make([][]int, texts)
	for t, row := range retrieval.Transpose(r.Cosine) {
		t2i[t] = retrieval.TopK(row, e.kTest)
		for _, i := range t2i[t] {
			want(pair{i, t})
		}
	}
	w := &work{advance: meter("matching", blocks(len(pairs), e.batch))}
	if err := e.matchPairs(ctx, set, r, pairs, logits, w); err != nil {
		return err
	}
	for i, candidates := range i2t {
		for _, t := range candidates {
			r.I2T[i][t] = logits[pair{i, t}][1] + r.Cosine[i][t]
		}
	}
	for t, candidates := range t2i {
		for _, i := range candidates {
			r.T2I[t][i] = logits[pair{i, t}][1] + r.Cosine[i][t]
		}
	}
	return nil
}

// matchCandidates is how many texts compete for a picture's best match.
const matchCandidates = 16

// Match is the text that fits a picture best by ITM.
type Match struct {
	Text int     // index in the set
	Prob float64 // ITM probability, 0 to 1
}

// BestMatches returns the best match of each of the given pictures among the texts nearest to it by cosine.
func (e *Evaluator) BestMatches(ctx context.Context, set RankSet, r *Ranking, pictures []int) (
	[]Match, error) {
	logits := make(map[pair][2]float32)
	var pairs []pair
	for _, i := range pictures {
		for _, t := range retrieval.TopK(r.Cosine[i], max(e.kTest, matchCandidates)) {
			pairs = append(pairs, pair{i, t})
		}
	}
	if err := e.matchPairs(ctx, set, r, pairs, logits, &work{advance: func(int) {}}); err != nil {
		return nil, err
	}
	best := make(map[int]Match, len(pictures))
	for _, p := range pairs { // in order, so that equal scores do not depend on the map
		l := logits[p]
		prob := 1 / (1 + math.Exp(float64(l[0]-l[1])))
		if m, ok := best[p.image]; !ok || prob > m.Prob {
			best[p.image] = Match{p.text, prob}
		}
	}
	out := make([]Match, len(pictures))
	for i, p := range pictures {
		out[i] = best[p]
	}
	return out, nil
}

// matchPairs computes the ITM logits of the pairs.
func (e *Evaluator) matchPairs(ctx context.Context, set RankSet, r *Ranking, pairs []pair,
	logits map[pair][2]float32, w *work) error {
	size := e.tokenSize()
	length := e.cfg.MaxTextLen
	for lo := 0; lo < len(pairs); lo += e.batch {
		block := pairs[lo:min(lo+e.batch, len(pairs))]
		embeds := make([]float32, e.batch*size)
		ids, mask := make([]int32, e.batch*length), make([]int32, e.batch*length)
		for i, p := range block {
			copy(embeds[i*size:], r.embeds[p.image*size:][:size])
			textIDs, textMask := set.Texts(p.text, p.text+1)
			copy(ids[i*length:], textIDs)
			copy(mask[i*length:], textMask)
		}
		out, err := call(ctx, e.match, e.embedsTensor(embeds),
			tensors.FromFlatDataAndDimensions(ids, e.batch, length), tensors.FromFlatDataAndDimensions(mask, e.batch, length))
		if err != nil {
			return err
		}
		for i, p := range block {
			logits[p] = [2]float32{out[0][2*i], out[0][2*i+1]}
		}
		w.add()
	}
	return nil
}

func (e *Evaluator) embedsTensor(values []float32) *tensors.Tensor {
	return tensors.FromFlatDataAndDimensions(values, e.batch, e.cfg.Vision.Tokens(), e.cfg.Vision.Width)
}
