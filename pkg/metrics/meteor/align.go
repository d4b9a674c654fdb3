package meteor

import (
	"cmp"
	"slices"
)

// The matchers, in the order in which they look for matches.
const (
	exact = iota
	stemmed
	synonym
	paraphrased
	matchers
)

// weights are the matchers' weights of the task "rank" for English.
var weights = [matchers]float64{1, 0.6, 0.8, 0.6}

// beamSize is METEOR's number of partial alignments that are kept.
const beamSize = 40

// match says that words of the candidate and of the reference mean the same. Only paraphrases have more than one word.
type match struct {
	ref, refLen   int32
	cand, candLen int32
	matcher       int8
}

// bits is a set of small numbers.
type bits []uint64

func (b bits) overlaps(from, n int32) bool {
	for i := from; i < from+n; i++ {
		if b[i>>6]>>(i&63)&1 != 0 {
			return true
		}
	}
	return false
}

func (b bits) add(from, n int32) {
	for i := from; i < from+n; i++ {
		b[i>>6] |= 1 << (i & 63)
	}
}

// path is a partial alignment: what has been chosen for the words of the reference so far.
type path struct {
	used    bits  // words of the candidate
	last    int32 // number of the newest step in aligner.steps, -1 without any
	covered int32 // sum of the matches' gains
	chunks  int32 // chunks that are complete
	end     int32 // candidate word behind the newest match if that has just been made, else -1
	refEnd  int32 // reference word behind the newest match
	passed  int64 // sum of the distances of matches that this path came by
}

// step is a chosen match and the one before it.
type step struct {
	match match
	prev  int32
}

// choice is a way to go on from a path: by a match, or without one.
type choice struct {
	from, match     int32 // numbers in the beam and in the list of the reference word; match -1 is none
	covered, chunks int32
	passed          int64
}

// aligner finds the alignment of two sentences. Its slices are kept from one pair to the next.
type aligner struct {
	at      [][]match // by the reference word they begin with, in the order of the matchers
	steps   []step
	beam    []path
	next    []path
	choices []choice
	free    []bits // sets to use again
	fixed   []bool
}

// order is METEOR's: more words covered, then fewer chunks, then less passed by. Equal ones keep their order.
func order(a, b choice) int {
	if a.covered != b.covered {
		return cmp.Compare(b.covered, a.covered)
	}
	if a.chunks != b.chunks {
		return cmp.Compare(a.chunks, b.chunks)
	}
	return cmp.Compare(a.passed, b.passed)
}

// gain is what a match adds to the words covered: an exact one its two words, another one half of the words on each
// side, rounded down. Single words that are no exact match thus count as nothing, whatever the matcher's weight.
func gain(m match) int32 {
	if m.matcher == exact {
		return m.candLen + m.refLen
	}
	return m.candLen/2 + m.refLen/2
}

// align chooses among the matches in a.at, which is indexed by the words of the reference, for a candidate of n words.
// It returns the chosen matches in the order of the reference and the number of chunks.
//
// The search walks along the reference and keeps the beamSize best partial alignments. Its rules were found by running
// METEOR: matches that compete with no other are taken without an alternative; a path that declines a match is charged
// its distance |reference word − candidate word|, and so is every choice tried after it at the same word, while the
// choice itself is not charged; a chunk counts when it ends.
func (a *aligner) align(n int) (chosen []match, chunks int) {
	a.findFixed(n)
	a.steps = a.steps[:0]
	a.recycle(a.beam)
	a.beam = append(a.beam[:0], path{used: a.newBits(n), last: -1, end: -1})
	for ref := range a.at {
		a.expand(int32(ref))
		a.advance(int32(ref))
	}
	for i := range a.beam {
		if a.beam[i].end >= 0 {
			a.beam[i].chunks++
		}
	}
	slices.SortStableFunc(a.beam, func(x, y path) int {
		return order(choice{covered: x.covered, chunks: x.chunks, passed: x.passed},
			choice{covered: y.covered, chunks: y.chunks, passed: y.passed})
	})
	for s := a.beam[0].last; s >= 0; s = a.steps[s].prev {
		chosen = append(chosen, a.steps[s].match)
	}
	slices.Reverse(chosen)
	return chosen, int(a.beam[0].chunks)
}

// findFixed marks the reference words whose only match has no competitor on either side.
func (a *aligner) findFixed(n int) {
	refs, cands := make([]int32, len(a.at)), make([]int32, n)
	for _, list := range a.at {
		for _, m := range list {
			for i := range m.refLen {
				refs[m.ref+i]++
			}
			for i := range m.candLen {
				cands[m.cand+i]++
			}
		}
	}
	alone := func(counts []int32) bool { return !slices.ContainsFunc(counts, func(c int32) bool { return c != 1 }) }
	a.fixed = a.fixed[:0]
	for _, list := range a.at {
		a.fixed = append(a.fixed, len(list) == 1 && alone(refs[list[0].ref:][:list[0].refLen]) &&
			alone(cands[list[0].cand:][:list[0].candLen]))
	}
}

// expand lists the choices of all paths at a reference word and leaves the best.
func (a *aligner) expand(ref int32) {
	a.choices = a.choices[:0]
	for i := range a.beam {
		p := &a.beam[i]
		c := choice{from: int32(i), match: -1, covered: p.covered, chunks: p.chunks, passed: p.passed}
		if p.refEnd > ref { // inside a paraphrase
			a.choices = append(a.choices, c)
			continue
		}
		for k, m := range a.at[ref] {
			if p.used.overlaps(m.cand, m.candLen) {
				continue
			}
			taken := choice{int32(i), int32(k), c.covered + gain(m), p.chunks, c.passed}
			if p.end >= 0 && p.end != m.cand {
				taken.chunks++
			}
			a.choices = append(a.choices, taken)
			c.passed += int64(max(m.cand-m.ref, m.ref-m.cand))
		}
		if a.fixed[ref] {
			continue
		}
		if p.end >= 0 {
			c.chunks++
		}
		a.choices = append(a.choices, c)
		if len(a.choices) > 64*beamSize {
			a.prune()
		}
	}
	a.prune()
}

// prune sorts the choices and drops those beyond the beam.
func (a *aligner) prune() {
	slices.SortStableFunc(a.choices, order)
	a.choices = a.choices[:min(len(a.choices), beamSize)]
}

// advance makes the beam of the choices. The last choice that goes on from a path takes over its set of used words.
func (a *aligner) advance(ref int32) {
	var left [beamSize]int32
	for _, c := range a.choices {
		left[c.from]++
	}
	for i := range a.beam {
		if left[i] == 0 {
			a.free = append(a.free, a.beam[i].used)
		}
	}
	a.next = a.next[:0]
	for _, c := range a.choices {
		p := a.beam[c.from]
		if left[c.from]--; left[c.from] > 0 {
			p.used = append(a.newBits(0), p.used...)
		}
		p.covered, p.chunks, p.passed = c.covered, c.chunks, c.passed
		switch {
		case c.match >= 0:
			m := a.at[ref][c.match]
			p.used.add(m.cand, m.candLen)
			a.steps = append(a.steps, step{m, p.last})
			p.last, p.end, p.refEnd = int32(len(a.steps)-1), m.cand+m.candLen, ref+m.refLen
		case p.refEnd <= ref:
			p.end = -1
		}
		a.next = append(a.next, p)
	}
	a.beam, a.next = a.next, a.beam
}

// newBits returns an empty set for numbers below n; with n = 0 one without room, to append to.
func (a *aligner) newBits(n int) bits {
	var b bits
	if k := len(a.free); k > 0 {
		b, a.free = a.free[k-1][:0], a.free[:k-1]
	}
	for range (n + 63) / 64 {
		b = append(b, 0)
	}
	return b
}

// recycle keeps the sets of paths for later ones.
func (a *aligner) recycle(paths []path) {
	for i := range paths {
		a.free = append(a.free, paths[i].used)
	}
}
