package generate

import (
	"context"
	"fmt"
)

// Batch holds the texts of one step for a model that reads them from their first token. Its sizes take few values, so
// that programs compiled for fixed sizes are compiled rarely: places without a text repeat the first one.
type Batch struct {
	Rows    []int32 // [texts] row that each text belongs to
	IDs     []int32 // [texts, Length] prompt and tokens, then zeros
	Lengths []int32 // [texts] ids that count
	Length  int
}

// recompute is a Model that keeps nothing but ids: at every step, the logits of all texts are computed anew.
type recompute struct {
	prompts   [][]int32
	width     int // most texts per row
	maxLength int
	logits    func(ctx context.Context, b Batch) ([]float32, error)

	rows  []int32 // of each text
	texts [][]int32
}

// Recompute returns a Model without a cache: logits gets, at every step, all texts from their first token and returns
// the logits of their next ones, [texts, vocab]. The prompts are the model's own, which may be empty where something
// else stands in front of the texts; width is Options.Width, and no text may become longer than maxLength.
func Recompute(prompts [][]int32, width, maxLength int,
	logits func(ctx context.Context, b Batch) ([]float32, error)) Model {
	return &recompute{prompts: prompts, width: width, maxLength: maxLength, logits: logits}
}

func (r *recompute) Start(ctx context.Context) ([]float32, error) {
	r.rows, r.texts = make([]int32, len(r.prompts)), r.prompts
	for i := range r.rows {
		r.rows[i] = int32(i)
	}
	return r.next(ctx)
}

func (r *recompute) Step(ctx context.Context, parents []int, tokens []int32) ([]float32, error) {
	rows, texts := make([]int32, len(parents)), make([][]int32, len(parents))
	for i, parent := range parents {
		old := r.texts[parent]
		rows[i], texts[i] = r.rows[parent], append(old[:len(old):len(old)], tokens[i])
	}
	r.rows, r.texts = rows, texts
	return r.next(ctx)
}

// next computes the logits of the present texts.
func (r *recompute) next(ctx context.Context) ([]float32, error) {
	longest := 0
	for _, text := range r.texts {
		longest = max(longest, len(text))
	}
	if longest > r.maxLength {
		return nil, fmt.Errorf("a text of %d tokens is longer than the %d that the model knows", longest, r.maxLength)
	}
	places := len(r.prompts) * r.width
	if len(r.texts) > places {
		return nil, fmt.Errorf("%d texts for %d rows with %d each", len(r.texts), len(r.prompts), r.width)
	}
	b := Batch{Length: min(bucket(longest), r.maxLength), Rows: make([]int32, places), Lengths: make([]int32, places)}
	b.IDs = make([]int32, places*b.Length)
	for i := range places {
		text, row := r.texts[0], r.rows[0]
		if i < len(r.texts) {
			text, row = r.texts[i], r.rows[i]
		}
		b.Rows[i], b.Lengths[i] = row, int32(len(text))
		copy(b.IDs[i*b.Length:], text)
	}
	logits, err := r.logits(ctx, b)
	if err != nil {
		return nil, err
	}
	if len(logits)%places != 0 {
		return nil, fmt.Errorf("the model gave %d logits for %d texts", len(logits), places)
	}
	return logits[:len(logits)/places*len(r.texts)], nil
}

// smallestBucket is the shortest length that programs are compiled for.
const smallestBucket = 8

// bucket rounds a length up, so that programs are compiled for few lengths: to a power of two.
func bucket(length int) int {
	size := smallestBucket
	for size < length {
		size *= 2
	}
	return size
}
