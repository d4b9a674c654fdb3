package meteor

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Limits on one pair of sentences; within them an alignment takes a few seconds at most.
const (
	maxMatches = 4 << 20
	maxWords   = 1 << 20
)

// maxCached bounds the words whose properties are remembered.
const maxCached = 1 << 18

// lockPoll is how often a lock is tried.
const lockPoll = 100 * time.Millisecond

// word is what the matchers need to know of a word.
type word struct {
	id       int32 // the same for equal words
	stem     int32 // the same for equal stems
	function bool
	senses   []uint32 // rising
	label    uint32   // number in the paraphrase table's vocabulary
	known    bool     // it has one
}

// phrase is a place in a sentence where a phrase of the paraphrase table stands.
type phrase struct {
	node          uint32
	start, length int32
	paraphrases   []uint32 // nodes, in the table's order
}

// sentence is a normalised text.
type sentence struct {
	words    []*word
	phrases  []phrase
	byNode   []phrase // phrases, by node
	filter   [64]uint64
	function int
}

// pairing matches and aligns sentences. One goroutine uses it.
type pairing struct {
	index   *index
	cache   map[string]*word
	stems   map[string]int32
	aligner aligner
	byID    map[int32][]int32
	byStem  map[int32][]int32
	senseAt map[uint32][]int32
	matches int
}

func newPairing(x *index) *pairing {
	return &pairing{index: x, cache: map[string]*word{}, stems: map[string]int32{}}
}

// best scores a candidate against each of its references.
func (p *pairing) best(number int, g Segment) (best Stats, err error) {
	candidate, references := lineParts(g)
	if len(references) == 0 {
		return best, &NoReferenceError{number}
	}
	if len(p.cache) > maxCached || len(p.stems) > maxCached {
		clear(p.cache)
		clear(p.stems)
	}
	cand := p.sentence(candidate)
	for i, r := range references {
		stats, ok := p.score(cand, p.sentence(r))
		if !ok {
			return best, &TooLargeError{number, i}
		}
		if i == 0 || stats.Score() > best.Score() {
			best = stats
		}
	}
	return best, nil
}

// sentence normalises a text and looks its words and phrases up.
func (p *pairing) sentence(text string) *sentence {
	s := &sentence{}
	for _, w := range p.index.prefixes.normalize(text) {
		info := p.word(w)
		s.words = append(s.words, info)
		if info.function {
			s.function++
		}
	}
	for start := range s.words {
		node := uint32(0)
		for n, w := range s.words[start:] {
			if !w.known {
				break
			}
			if node = p.index.child(node, w.label); node == 0 {
				break
			}
			s.phrases = append(s.phrases, phrase{node, int32(start), int32(n + 1), p.index.paraphrases(node)})
			s.filter[node>>6&63] |= 1 << (node & 63)
		}
	}
	s.byNode = slices.Clone(s.phrases)
	slices.SortStableFunc(s.byNode, func(a, b phrase) int { return cmp.Compare(a.node, b.node) })
	return s
}

// word returns what is known of a word.
func (p *pairing) word(s string) *word {
	if w, ok := p.cache[s]; ok {
		return w
	}
	s = strings.Clone(s)
	w := &word{id: int32(len(p.cache)), function: p.index.function[s], senses: p.index.senses(s)}
	w.label, w.known = p.index.word(s)
	text := stem(s)
	number, ok := p.stems[text]
	if !ok {
		number = int32(len(p.stems))
		p.stems[text] = number
	}
	w.stem = number
	p.cache[s] = w
	return w
}

// score aligns a candidate with a reference. ok is false if there is too much to look at.
func (p *pairing) score(cand, ref *sentence) (s Stats, ok bool) {
	var chosen []match
	chunks := 0
	switch {
	case len(cand.words) > 0 && slices.Equal(cand.words, ref.words): // METEOR does not search here
		chosen, chunks = identity(len(cand.words)), 1
	case !p.match(cand, ref):
		return s, false
	default:
		chosen, chunks = p.aligner.align(len(cand.words))
	}
	s.CandLen, s.RefLen = float64(len(cand.words)), float64(len(ref.words))
	s.CandFunction, s.RefFunction, s.Chunks = float64(cand.function), float64(ref.function), float64(chunks)
	for _, m := range chosen {
		counts := &s.Matches[m.matcher]
		content, function := split(cand.words[m.cand:][:m.candLen])
		counts.CandContent, counts.CandFunction = counts.CandContent+content, counts.CandFunction+function
		content, function = split(ref.words[m.ref:][:m.refLen])
		counts.RefContent, counts.RefFunction = counts.RefContent+content, counts.RefFunction+function
		s.CandMatched += float64(m.candLen)
		s.RefMatched += float64(m.refLen)
	}
	return s, true
}

// identity matches every word with itself.
func identity(n int) []match {
	all := make([]match, n)
	for i := range all {
		all[i] = match{ref: int32(i), refLen: 1, cand: int32(i), candLen: 1}
	}
	return all
}

// split counts content and function words.
func split(words []*word) (content, function float64) {
	for _, w := range words {
		if w.function {
			function++
		} else {
			content++
		}
	}
	return content, function
}

// match lists all matches of two sentences by the first word of the reference: exact ones, then by stem, by synonym and
// by paraphrase, each from left to right in the candidate. Equal words are matched as exact alone. ok is false if there
// are too many.
func (p *pairing) match(cand, ref *sentence) (ok bool) {
	if len(cand.words) > maxWords || len(ref.words) > maxWords {
		return false
	}
	at := p.aligner.at
	if cap(at) < len(ref.words) {
		at = make([][]match, len(ref.words))
	}
	at = at[:len(ref.words)]
	for i := range at {
		at[i] = at[i][:0]
	}
	p.aligner.at, p.matches = at, 0
	return p.matchWords(cand, ref) && p.matchPhrases(cand, ref)
}

// add notes a match.
func (p *pairing) add(m match) (ok bool) {
	p.aligner.at[m.ref] = append(p.aligner.at[m.ref], m)
	p.matches++
	return p.matches <= maxMatches
}

// matchWords finds the matches of single words.
func (p *pairing) matchWords(cand, ref *sentence) (ok bool) {
	if len(cand.words)*len(ref.words) > 1<<14 {
		return p.matchLong(cand, ref)
	}
	for j, b := range ref.words {
		for matcher := exact; matcher <= synonym; matcher++ {
			for i, a := range cand.words {
				if matches(matcher, a, b) && !p.add(match{int32(j), 1, int32(i), 1, int8(matcher)}) {
					return false
				}
			}
		}
	}
	return true
}

// matches says whether a matcher takes two words for the same.
func matches(matcher int, a, b *word) bool {
	switch matcher {
	case exact:
		return a == b
	case stemmed:
		return a.stem == b.stem && a != b
	}
	return a != b && intersect(a.senses, b.senses)
}

// intersect says whether two rising lists have a value in common.
func intersect(a, b []uint32) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0] == b[0]:
			return true
		case a[0] < b[0]:
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return false
}

// matchLong is matchWords for long sentences: it goes through the words of the candidate that may match.
func (p *pairing) matchLong(cand, ref *sentence) (ok bool) {
	p.byID, p.byStem, p.senseAt = map[int32][]int32{}, map[int32][]int32{}, map[uint32][]int32{}
	entries := 0
	for i, w := range cand.words {
		p.byID[w.id] = append(p.byID[w.id], int32(i))
		p.byStem[w.stem] = append(p.byStem[w.stem], int32(i))
		for _, s := range w.senses {
			p.senseAt[s] = append(p.senseAt[s], int32(i))
		}
		if entries += len(w.senses); entries > 8*maxMatches {
			return false
		}
	}
	for j, b := range ref.words {
		var synonyms []int32
		for _, s := range b.senses {
			synonyms = append(synonyms, p.senseAt[s]...)
			if len(synonyms) > maxMatches {
				return false
			}
		}
		slices.Sort(synonyms)
		for matcher, list := range [][]int32{p.byID[b.id], p.byStem[b.stem], slices.Compact(synonyms)} {
			for _, i := range list {
				if matches(matcher, cand.words[i], b) && !p.add(match{int32(j), 1, i, 1, int8(matcher)}) {
					return false
				}
			}
		}
	}
	return true
}

// matchPhrases finds the matches of the paraphrase table: first those where the table has the words of the reference as
// the phrase and those of the candidate as its paraphrase, then the reverse; the paraphrases of a phrase come in the
// table's order, the places of each from left to right. A pair that the table has both ways matches twice.
func (p *pairing) matchPhrases(cand, ref *sentence) (ok bool) {
	for _, r := range ref.phrases {
		ok = p.occurrences(r, cand, func(c phrase) bool {
			return p.add(match{r.start, r.length, c.start, c.length, paraphrased})
		})
		if !ok {
			return false
		}
	}
	for _, c := range cand.phrases {
		ok = p.occurrences(c, ref, func(r phrase) bool {
			return p.add(match{r.start, r.length, c.start, c.length, paraphrased})
		})
		if !ok {
			return false
		}
	}
	return true
}

// occurrences calls f with the places in other where paraphrases of ph stand, until f returns false.
func (p *pairing) occurrences(ph phrase, other *sentence, f func(phrase) bool) (ok bool) {
	for _, node := range ph.paraphrases {
		if other.filter[node>>6&63]>>(node&63)&1 == 0 {
			continue
		}
		from, _ := slices.BinarySearchFunc(other.byNode, node, func(o phrase, n uint32) int {
			return cmp.Compare(o.node, n)
		})
		for ; from < len(other.byNode) && other.byNode[from].node == node; from++ {
			if !f(other.byNode[from]) {
				return false
			}
		}
	}
	return true
}
