package generate

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
)

// absent is the score of a place that no text fills; the reference works with it as with any number.
const absent float32 = -1e9

// candidate is a running text with one more token.
type candidate struct {
	sum    float32 // of the log-probabilities
	key    float64 // what candidates are chosen by
	parent int     // number of the running text
	token  int32
}

// pool is a row's beams: which texts run on and which are kept.
type pool interface {
	// update takes the candidates of a step, best first, each a running text with its nth token, and returns the texts
	// that run on. done says that none of them can make a difference any more.
	update(running []hypothesis, candidates []candidate, n int) (next []hypothesis, done bool)
	// texts returns the best finished texts, best first; running are those that were cut off at the greatest length.
	texts(running []hypothesis) []Text
}

// beams is the search with several beams.
type beams struct {
	options Options
	open    []hypothesis // the last step's texts, also when done
	done    bool
	pool    pool
	rng     *rand.Rand // nil: candidates are not drawn
}

func newBeams(o Options, row, prompt int, start []hypothesis) *beams {
	// All beams start from the prompt, but only one of them counts.
	for k := 1; k < len(start); k++ {
		start[k].sum = absent
	}
	b := &beams{options: o, open: start}
	if o.LenRule == LenRulePaper {
		b.pool = &paperPool{options: o, prompt: prompt, worst: math.Inf(1)}
	} else {
		b.pool = newCurrentPool(o)
	}
	if o.Sampling != nil {
		b.rng = o.Sampling.rng(row, 0)
	}
	return b
}

func (b *beams) running() []hypothesis {
	if b.done {
		return nil
	}
	return b.open
}

func (b *beams) advance(scores [][]float32, n int) {
	b.open, b.done = b.pool.update(b.open, b.candidates(scores), n)
}

func (b *beams) texts() []Text {
	texts := b.pool.texts(b.running())
	return texts[:min(len(texts), max(b.options.Return, 1))]
}

// candidates returns the 2·K best continuations, best first, equals in the order of texts and tokens; or, when tokens
// are drawn, as many different ones drawn one after the other.
func (b *beams) candidates(scores [][]float32) []candidate {
	size := 2 * len(b.open)
	best := make([]candidate, 0, size+1)
	for k, h := range b.open {
		for token, score := range scores[k] {
			sum := score + h.sum
			key := float64(sum)
			if b.rng != nil && sum != minusInf {
				// The order of keys with Gumbel noise is that of drawing without putting back.
				key -= math.Log(-math.Log(1 - b.rng.Float64()))
			}
			if len(best) == size && !(key > best[size-1].key) {
				continue
			}
			at, _ := slices.BinarySearchFunc(best, key, func(c candidate, key float64) int {
				if c.key >= key {
					return -1 // behind its equals
				}
				return 1
			})
			best = slices.Insert(best, at, candidate{sum, key, k, int32(token)})
			best = best[:min(len(best), size)]
		}
	}
	return best
}

// lengthPower is n^λ, which sums are divided by.
func (o Options) lengthPower(n int) float64 { return math.Pow(float64(n), o.LengthPenalty) }

// currentPool follows LenRuleCurrent. It keeps K places, filled or not, and works in single precision throughout.
type currentPool struct {
	options Options
	places  []place
}

// place holds a kept text.
type place struct {
	text   hypothesis
	score  float32
	filled bool
}

func newCurrentPool(o Options) *currentPool {
	p := &currentPool{options: o, places: make([]place, o.Beams)}
	for i := range p.places {
		p.places[i].score = absent
	}
	return p
}

func (p *currentPool) update(running []hypothesis, candidates []candidate, n int) ([]hypothesis, bool) {
	k, last := p.options.Beams, n == p.options.MaxNewTokens
	power := float32(p.options.lengthPower(n))
	next, kept := make([]place, 0, len(candidates)), slices.Clone(p.places)
	for rank, c := range candidates {
		ends := last || c.token == p.options.EOS
		h := running[c.parent].extend(c.token, c.sum)
		if finished := ends && rank < k && c.sum > minusInf; finished {
			kept = append(kept, place{h, c.sum / power, true})
		} else {
			kept = append(kept, place{h, c.sum/power + absent, false})
		}
		if ends {
			h.sum += absent
		}
		next = append(next, place{text: h, score: h.sum})
	}
	p.places = bestPlaces(kept, k)
	next = bestPlaces(next, k)
	out := make([]hypothesis, len(next))
	for i, x := range next {
		out[i] = x.text
	}
	return out, last || p.done(next[0].score, next[0].score/power)
}

// done says whether no text that runs on can better the kept ones; sum and best are the sum and the score of the best
// of them.
func (p *currentPool) done(sum, best float32) bool {
	full, improvable := true, false
	worst := p.places[len(p.places)-1].score
	for _, x := range p.places {
		full = full && x.filled
		if x.filled {
			improvable = improvable || best > worst
		} else {
			improvable = improvable || max(sum, best) > absent
		}
	}
	return !improvable || full && p.options.EarlyStopping
}

// texts are those of all places, the reference's empty ones included: bans may leave less than K texts to fill them.
func (p *currentPool) texts([]hypothesis) []Text {
	var out []Text
	for _, x := range p.places {
		out = append(out, p.options.text(x.text, float64(x.score)))
	}
	return out
}

// bestPlaces returns the k best places, best first, equals in their order. Filled ones come before empty ones even
// where a length penalty brings their scores below absent: the reference forgets such texts and gives empty ones.
func bestPlaces(places []place, k int) []place {
	slices.SortStableFunc(places, func(a, b place) int {
		if a.filled != b.filled {
			if a.filled {
				return -1
			}
			return 1
		}
		return cmp.Compare(b.score, a.score)
	})
	return places[:min(k, len(places))]
}

// text is the result for a text with the given score. The numbers of a text that became impossible are the least of
// single precision, because JSON has no infinity.
func (o Options) text(h hypothesis, score float64) Text {
	return Text{Tokens: h.tokens, Ended: len(h.tokens) > 0 && h.tokens[len(h.tokens)-1] == o.EOS,
		LogProb: max(float64(h.sum), -math.MaxFloat32), Score: max(score, -math.MaxFloat32)}
}
