package caption

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode"
)

// maxN is the length of the longest n-grams that count.
const maxN = 4

// gram is an n-gram of one text: its number in the corpus and how often it occurs.
type gram struct{ id, count int32 }

// sequence is one text as numbers.
type sequence struct {
	words int          // by white space, as BLEU and CIDEr count
	grams [maxN][]gram // n-grams of n+1 words, each once, by number
	line  []int32      // tokens between single spaces, as ROUGE-L takes them: at least one, which may be empty
}

// corpus is all texts of a run as numbers.
type corpus struct {
	candidates []sequence
	references [][]sequence
	words      map[string]int32
	table      gramTable
}

// newCorpus numbers words and n-grams in the order in which they come.
func newCorpus(images []Image) *corpus {
	c := &corpus{candidates: make([]sequence, len(images)), references: make([][]sequence, len(images)),
		words: map[string]int32{}}
	for i, im := range images {
		c.candidates[i] = c.sequence(im.Candidate)
		c.references[i] = make([]sequence, len(im.References))
		for k, r := range im.References {
			c.references[i][k] = c.sequence(r)
		}
	}
	parallel(len(images), func(i int) {
		c.candidates[i].count()
		for k := range c.references[i] {
			c.references[i][k].count()
		}
	})
	return c
}

// word returns the number of a word.
func (c *corpus) word(w string) int32 {
	id, ok := c.words[w]
	if !ok {
		id = int32(len(c.words))
		c.words[w] = id
	}
	return id
}

// sequence numbers one text; its n-grams are not counted yet.
func (c *corpus) sequence(text string) sequence {
	var s sequence
	for rest, more := text, true; more; {
		var token string
		token, rest, more = strings.Cut(rest, " ")
		s.line = append(s.line, c.word(token))
	}
	ids := s.line
	if text == "" || strings.IndexFunc(text, otherSpace) >= 0 || strings.Contains(text, "  ") ||
		text[0] == ' ' || text[len(text)-1] == ' ' {
		ids = nil
		for _, w := range strings.FieldsFunc(text, pythonSpace) {
			ids = append(ids, c.word(w))
		}
	}
	s.words = len(ids)
	prefixes := ids
	for n := range min(maxN, len(ids)) {
		row := make([]gram, len(ids)-n)
		next := make([]int32, len(row))
		for i := range row {
			key := uint64(n)<<60 | uint64(ids[i+n])
			if n > 0 {
				key |= uint64(prefixes[i]) << 30
			}
			next[i] = c.table.id(key)
			row[i] = gram{next[i], 1}
		}
		s.grams[n], prefixes = row, next
	}
	return s
}

// count makes the n-grams a set with counts.
func (s *sequence) count() {
	for n, row := range s.grams {
		slices.SortFunc(row, func(a, b gram) int { return int(a.id) - int(b.id) })
		kept := row[:0]
		for _, g := range row {
			if last := len(kept) - 1; last >= 0 && kept[last].id == g.id {
				kept[last].count++
			} else {
				kept = append(kept, g)
			}
		}
		s.grams[n] = kept
	}
}

// pythonSpace is what Python's str.split takes for white space.
func pythonSpace(r rune) bool { return unicode.IsSpace(r) || 0x1C <= r && r <= 0x1F }

// otherSpace is white space that is not a space.
func otherSpace(r rune) bool { return r != ' ' && pythonSpace(r) }

// gramTable numbers n-grams; a key is the number of the n-gram without its last word, and that word. It is a hash table
// with open addressing: a tenth of the time of a map, and most of CIDEr's.
type gramTable struct {
	keys []uint64 // key+1; 0 is free
	ids  []int32
	used int32
}

func (t *gramTable) id(key uint64) int32 {
	if 2*int(t.used) >= len(t.keys) {
		t.grow()
	}
	mask := uint64(len(t.keys) - 1)
	for at := hash(key) & mask; ; at = (at + 1) & mask {
		switch t.keys[at] {
		case key + 1:
			return t.ids[at]
		case 0:
			t.keys[at], t.ids[at] = key+1, t.used
			t.used++
			return t.used - 1
		}
	}
}

func (t *gramTable) grow() {
	old := *t
	t.keys, t.ids = make([]uint64, max(1<<12, 2*len(old.keys))), make([]int32, max(1<<12, 2*len(old.keys)))
	mask := uint64(len(t.keys) - 1)
	for i, key := range old.keys {
		if key == 0 {
			continue
		}
		at := hash(key-1) & mask
		for t.keys[at] != 0 {
			at = (at + 1) & mask
		}
		t.keys[at], t.ids[at] = key, old.ids[i]
	}
}

// hash mixes all bits of the key into the low ones.
func hash(key uint64) uint64 {
	key *= 0x9E3779B97F4A7C15
	key ^= key >> 32
	key *= 0xD6E8FEB86659FD93
	return key ^ key>>32
}

// parallel calls f for 0 to n-1 from as many goroutines as there are processors.
func parallel(n int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w * n / workers; i < (w+1)*n/workers; i++ {
				f(i)
			}
		})
	}
	wg.Wait()
}

// mean is the mean of the values; NaN if there are none.
func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(len(values))
}
