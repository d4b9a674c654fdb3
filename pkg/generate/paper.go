package generate

import (
	"cmp"
	"math"
	"slices"
)

// paperPool follows LenRulePaper: at most K finished texts, in the order in which they came, scored in double
// precision.
type paperPool struct {
	options Options
	prompt  int // tokens of the prompt, which lengths count
	kept    []finished
	worst   float64 // lowest score of kept; +Inf without any
}

// finished is a text with its score.
type finished struct {
	text  hypothesis
	score float64
}

func (p *paperPool) update(running []hypothesis, candidates []candidate, n int) ([]hypothesis, bool) {
	k, length := p.options.Beams, p.prompt+n-1
	var next []hypothesis
	for rank, c := range candidates {
		h := running[c.parent].extend(c.token, c.sum)
		if c.token != p.options.EOS {
			next = append(next, h)
		} else if rank < k {
			p.add(h, length)
		}
		if len(next) == k {
			break
		}
	}
	if len(p.kept) < k {
		return next, false
	}
	best := float64(candidates[0].sum) / p.options.lengthPower(length)
	return next, p.options.EarlyStopping || p.worst >= best
}

// add keeps a text whose score is its sum divided by length^λ, if it is among the K best.
func (p *paperPool) add(h hypothesis, length int) {
	score := float64(h.sum) / p.options.lengthPower(length)
	if len(p.kept) == p.options.Beams && !(score > p.worst) {
		return
	}
	p.kept = append(p.kept, finished{h, score})
	if len(p.kept) > p.options.Beams {
		drop := 0
		for i, f := range p.kept {
			if f.score < p.kept[drop].score {
				drop = i
			}
		}
		p.kept = slices.Delete(p.kept, drop, drop+1)
	}
	p.worst = math.Inf(1)
	for _, f := range p.kept {
		p.worst = min(p.worst, f.score)
	}
}

func (p *paperPool) texts(running []hypothesis) []Text {
	for _, h := range running {
		p.add(h, p.prompt+len(h.tokens))
	}
	// Among equals the one that was added later comes first.
	kept := slices.Clone(p.kept)
	slices.Reverse(kept)
	slices.SortStableFunc(kept, func(a, b finished) int { return cmp.Compare(b.score, a.score) })
	out := make([]Text, len(kept))
	for i, f := range kept {
		out[i] = p.options.text(f.text, f.score)
	}
	return out
}
