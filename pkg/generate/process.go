package generate

import (
	"errors"
	"math"
	"slices"
)

// minusInf is the score of a token that cannot come.
var minusInf = float32(math.Inf(-1))

// process turns the logits of a text's next token into the scores that tokens are chosen by, in the reference's order:
// with several beams log-probabilities (not normalised again afterwards), with one the logits themselves; then the
// penalty for repetitions, bans, and the filter of what may be drawn. normalized says that the scores are
// log-probabilities already; then all of them are no numbers if one logit was none.
func (o Options) process(scores []float32, prompt, tokens []int32, normalized bool) error {
	if normalized {
		if scores[0] != scores[0] {
			return errors.New("a logit is not a number or infinite: the model or its weights are broken")
		}
	} else if err := logSoftmax(scores, o.Beams > 1); err != nil {
		return err
	}
	ids := append(prompt[:len(prompt):len(prompt)], tokens...)
	if o.RepetitionPenalty != 0 && o.RepetitionPenalty != 1 {
		PenalizeRepetition(scores, ids, o.RepetitionPenalty)
	}
	if o.NoRepeatNGram > 0 {
		banNGrams(scores, ids, o.NoRepeatNGram)
	}
	if len(tokens) < o.MinNewTokens {
		scores[o.EOS] = minusInf
	}
	if o.Sampling != nil {
		o.Sampling.Filter(scores, o.minKept())
	}
	return nil
}

// logSoftmax turns logits into log-probabilities, in place; unless wanted, it only makes sure that they are numbers.
// The sum is taken in double precision, the rest in single precision like the reference's.
func logSoftmax(scores []float32, wanted bool) error {
	largest := minusInf
	for _, v := range scores {
		if v > largest {
			largest = v
		} else if v != v {
			return errors.New("a logit is not a number: the model or its weights are broken")
		}
	}
	if math.IsInf(float64(largest), 0) {
		return errors.New("the largest logit is infinite: the model or its weights are broken")
	}
	if !wanted {
		return nil
	}
	var sum float64
	for _, v := range scores {
		sum += math.Exp(float64(v - largest))
	}
	logSum := float32(math.Log(sum))
	for i, v := range scores {
		scores[i] = v - largest - logSum
	}
	return nil
}

// PenalizeRepetition makes the tokens among ids less likely, each once: a score below 0 is multiplied with the penalty,
// another divided by it.
func PenalizeRepetition(scores []float32, ids []int32, penalty float64) {
	p := float32(penalty)
	penalized := make([]float32, len(ids))
	for i, id := range ids {
		if penalized[i] = scores[id] / p; scores[id] < 0 {
			penalized[i] = scores[id] * p
		}
	}
	for i, id := range ids {
		scores[id] = penalized[i]
	}
}

// banNGrams makes every token impossible that would complete an n-gram of ids for the second time.
func banNGrams(scores []float32, ids []int32, n int) {
	last := len(ids) - (n - 1) // where the n-gram begins that the next token completes
	for begin := 0; begin < last; begin++ {
		if slices.Equal(ids[begin:begin+n-1], ids[last:]) {
			scores[ids[begin+n-1]] = minusInf
		}
	}
}
