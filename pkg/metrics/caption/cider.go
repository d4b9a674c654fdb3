package caption

import "math"

// ciderSigma is the standard deviation, in bigrams, of CIDEr-D's penalty for another length.
const ciderSigma = 6

// CIDErD computes CIDEr-D with n-grams of 1 to 4 words: the mean over n and over the references of the cosine between
// tf-idf vectors, the candidate's clipped to the reference's, times a penalty for another length (counted in bigrams),
// times 10. The score of the corpus is the mean. Document frequencies are those of these references, or of df if it is
// not nil (spec/evaluation.md 3.4).
func CIDErD(images []Image, df *DocumentFrequency) Score { return ciderD(newCorpus(images), df) }

func ciderD(c *corpus, df *DocumentFrequency) Score {
	idf := c.idf()
	if df != nil {
		idf = df.idf(c)
	}
	s := Score{Images: make([]float64, len(c.candidates))}
	parallel(len(s.Images), func(i int) {
		candidate := newTFIDF(&c.candidates[i], idf)
		sum := 0.0
		for k := range c.references[i] {
			reference := newTFIDF(&c.references[i][k], idf)
			for _, v := range candidate.similarity(&reference, idf) {
				sum += v
			}
		}
		s.Images[i] = sum / maxN / float64(len(c.references[i])) * 10
	})
	s.Corpus = mean(s.Images)
	return s
}

// idf is the weight of every n-gram: ln(pictures) − ln(pictures with a reference that has it), at least one.
func (c *corpus) idf() []float64 {
	frequency, last := make([]int32, c.table.used), make([]int32, c.table.used)
	for i, references := range c.references {
		for k := range references {
			for _, row := range references[k].grams {
				for _, g := range row {
					if last[g.id] != int32(i+1) {
						last[g.id] = int32(i + 1)
						frequency[g.id]++
					}
				}
			}
		}
	}
	all := math.Log(float64(len(c.references)))
	logs := make([]float64, len(c.references)+1) // most frequencies are small
	for f := range logs {
		logs[f] = all - math.Log(max(1, float64(f)))
	}
	idf := make([]float64, len(frequency))
	for id, f := range frequency {
		idf[id] = logs[f]
	}
	return idf
}

// tfidf is a text's vector; the weights are counts times idf.
type tfidf struct {
	text *sequence
	norm [maxN]float64
}

func newTFIDF(s *sequence, idf []float64) tfidf {
	v := tfidf{text: s}
	for n, row := range s.grams {
		sum := 0.0
		for _, g := range row {
			w := float64(g.count) * idf[g.id]
			sum += w * w
		}
		v.norm[n] = math.Sqrt(sum)
	}
	return v
}

// similarity is the clipped cosine to a reference for each n, with the penalty.
func (v *tfidf) similarity(reference *tfidf, idf []float64) (out [maxN]float64) {
	delta := float64(bigrams(v.text) - bigrams(reference.text))
	penalty := math.Exp(-delta * delta / (2 * ciderSigma * ciderSigma))
	for n, row := range v.text.grams {
		other, at := reference.text.grams[n], 0
		for _, g := range row {
			for at < len(other) && other[at].id < g.id {
				at++
			}
			if at == len(other) {
				break
			}
			if other[at].id == g.id {
				w := float64(other[at].count) * idf[g.id]
				out[n] += min(float64(g.count)*idf[g.id], w) * w
			}
		}
		if v.norm[n] != 0 && reference.norm[n] != 0 {
			out[n] /= v.norm[n] * reference.norm[n]
		}
		out[n] *= penalty
	}
	return out
}

// bigrams is what the reference takes for the length of a text.
func bigrams(s *sequence) int { return max(0, s.words-1) }
