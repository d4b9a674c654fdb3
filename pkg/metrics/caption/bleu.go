package caption

import "math"

// The reference adds these to keep divisions apart from zero.
const (
	bleuTiny  = 1e-15
	bleuSmall = 1e-9
)

// bleuStats are the counts behind BLEU, of one picture or summed over many.
type bleuStats struct {
	words, reference int // of the candidate, and the effective length of the references
	guessed, correct [maxN]int
}

func (b *bleuStats) add(o bleuStats) {
	b.words += o.words
	b.reference += o.reference
	for n := range maxN {
		b.guessed[n] += o.guessed[n]
		b.correct[n] += o.correct[n]
	}
}

// scores returns BLEU-1 to 4.
func (b *bleuStats) scores() (scores [maxN]float64) {
	product := 1.0
	for n := range maxN {
		product *= (float64(b.correct[n]) + bleuTiny) / (float64(b.guessed[n]) + bleuSmall)
		scores[n] = math.Pow(product, 1/float64(n+1))
	}
	if ratio := (float64(b.words) + bleuTiny) / (float64(b.reference) + bleuSmall); ratio < 1 {
		for n := range scores {
			scores[n] *= math.Exp(1 - 1/ratio)
		}
	}
	return scores
}

// BLEU computes BLEU-1 to 4 with the closest length of a reference (the shorter of two equally close): one score of
// the corpus for each, from its summed counts, and those of the pictures, without smoothing (spec/evaluation.md 3.2).
func BLEU(images []Image) [maxN]Score { return bleu(newCorpus(images)) }

func bleu(c *corpus) (scores [maxN]Score) {
	stats := make([]bleuStats, len(c.candidates))
	parallel(len(stats), func(i int) { stats[i] = imageBLEU(&c.candidates[i], c.references[i]) })
	var total bleuStats
	for n := range scores {
		scores[n].Images = make([]float64, len(stats))
	}
	for i := range stats {
		total.add(stats[i])
		for n, v := range stats[i].scores() {
			scores[n].Images[i] = v
		}
	}
	for n, v := range total.scores() {
		scores[n].Corpus = v
	}
	return scores
}

// imageBLEU counts one picture: an n-gram of the candidate is right as often as the reference that has most of it.
func imageBLEU(candidate *sequence, references []sequence) bleuStats {
	b := bleuStats{words: candidate.words}
	for i, r := range references {
		near, best := abs(r.words-b.words), abs(b.reference-b.words)
		if i == 0 || near < best || near == best && r.words < b.reference {
			b.reference = r.words
		}
	}
	at := make([]int, len(references))
	for n := range maxN {
		b.guessed[n] = max(0, b.words-n)
		clear(at)
		for _, g := range candidate.grams[n] {
			most := int32(0)
			for k := range references {
				row := references[k].grams[n]
				for at[k] < len(row) && row[at[k]].id < g.id {
					at[k]++
				}
				if at[k] < len(row) && row[at[k]].id == g.id {
					most = max(most, row[at[k]].count)
				}
			}
			b.correct[n] += int(min(most, g.count))
		}
	}
	return b
}

func abs(n int) int { return max(n, -n) }
