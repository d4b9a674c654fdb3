package caption

import "math/bits"

// rougeBeta weighs recall against precision.
const rougeBeta = 1.2

// ROUGEL computes ROUGE-L: from the longest common subsequence of tokens, with the best precision and the best recall
// of any reference, each for itself. An empty text is one empty token. The score of the corpus is the mean
// (spec/evaluation.md 3.3).
func ROUGEL(images []Image) Score { return rougeL(newCorpus(images)) }

func rougeL(c *corpus) Score {
	s := Score{Images: make([]float64, len(c.candidates))}
	parallel(len(s.Images), func(i int) {
		candidate := c.candidates[i].line
		precision, recall := 0.0, 0.0
		for _, r := range c.references[i] {
			common := float64(commonSubsequence(candidate, r.line))
			precision = max(precision, common/float64(len(candidate)))
			recall = max(recall, common/float64(len(r.line)))
		}
		if precision != 0 && recall != 0 {
			s.Images[i] = (1 + rougeBeta*rougeBeta) * precision * recall / (recall + rougeBeta*rougeBeta*precision)
		}
	})
	s.Corpus = mean(s.Images)
	return s
}

// commonSubsequence returns the length of the longest common subsequence, 64 cells of the usual table at a time: bit j
// of row is clear where the length grows at word j of a (Hyyrö 2004, Bit-parallel LCS-length computation revisited).
func commonSubsequence(a, b []int32) int {
	if len(a) > len(b) {
		a, b = b, a
	}
	if len(a) <= 64 {
		return shortSubsequence(a, b)
	}
	size := (len(a) + 63) / 64
	places := map[int32][]int{}
	for j, w := range a {
		places[w] = append(places[w], j)
	}
	full := map[int32][]uint64{} // the hits of words so frequent that setting them anew would take longer than the row
	for w, at := range places {
		if len(at) > size {
			full[w] = setBits(make([]uint64, size), at)
		}
	}
	row, scratch := make([]uint64, size), make([]uint64, size)
	for k := range row {
		row[k] = ^uint64(0)
	}
	for _, w := range b {
		at, ok := places[w]
		if !ok {
			continue
		}
		hits, frequent := full[w]
		if !frequent {
			hits = setBits(scratch, at)
		}
		carry := uint64(0)
		for k, v := range row {
			u := v & hits[k]
			var sum uint64
			sum, carry = bits.Add64(v, u, carry)
			row[k] = sum | v&^u
		}
		if !frequent {
			for _, j := range at {
				scratch[j/64] = 0
			}
		}
	}
	n := 0
	for j := range a {
		n += int(^row[j/64] >> (j % 64) & 1)
	}
	return n
}

// setBits sets the bits at the places.
func setBits(row []uint64, at []int) []uint64 {
	for _, j := range at {
		row[j/64] |= 1 << (j % 64)
	}
	return row
}

// shortSubsequence is commonSubsequence where a has at most 64 words.
func shortSubsequence(a, b []int32) int {
	row := ^uint64(0)
	for _, w := range b {
		hits := uint64(0)
		for j, x := range a {
			if x == w {
				hits |= 1 << j
			}
		}
		u := row & hits
		row = (row + u) | row&^u
	}
	return bits.OnesCount64(^row & (1<<len(a) - 1))
}
