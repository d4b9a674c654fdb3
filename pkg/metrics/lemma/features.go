package lemma

import (
	"strconv"
	"unicode/utf8"

	"blip2/pkg/tokenizer"
)

// word is a token and what the word lists know of it.
type word struct {
	text, lower string
	marks       [5]byte // '0' or '1' each: see look
}

// look marks a token: it is a verb; an irregular form of one; an irregular form of a noun; a regular form of a verb;
// and it ends in s.
func (t *tables) look(text string) word {
	w := word{text: text, lower: tokenizer.Lower(text)}
	lemma := t.verbs.lemma(w.lower, w.lower)
	_, irregularVerb := t.verbs.exceptions[w.lower]
	_, irregularNoun := t.nouns.exceptions[w.lower]
	for i, flag := range []bool{t.verbs.words[w.lower], irregularVerb, irregularNoun,
		lemma != w.lower && t.verbs.words[lemma], w.lower != "" && w.lower[len(w.lower)-1] == 's'} {
		w.marks[i] = bit(flag)
	}
	return w
}

func bit(flag bool) byte {
	if flag {
		return '1'
	}
	return '0'
}

// features sums the weights of what can be seen of a token. Names of features are as train/train.py writes them: a
// letter, a space and a value.
type features struct {
	t     *tables
	words []word
	key   []byte
	total [kinds]int
}

// kind decides what becomes of token i.
func (f *features) kind(i int) kind {
	f.total = f.t.bias
	w, n := f.words[i], len(f.words)
	before, after := "<", ">"
	if i > 0 {
		before = f.words[i-1].lower
	}
	if i+1 < n {
		after = f.words[i+1].lower
	}
	marks, last2 := string(w.marks[:]), tail(w.lower, 2)
	ends := string([]byte{bit(i == 0), bit(i == n-1)})
	place := strconv.Itoa(min(n, 4)) + strconv.Itoa(min(i, 3))
	f.add('b')
	f.add('w', w.lower)
	f.add('e', w.lower, " ", ends)
	f.add('p', before)
	f.add('a', after)
	f.add('n', place)
	f.add('h', string(shape(w.text)), ends)
	f.add('i', last2, ends)
	f.add('m', marks)
	f.add('k', marks, last2)
	f.add('l', marks, place)
	for k := 1; k <= 4 && longer(w.lower, k); k++ {
		f.add('s', tail(w.lower, k))
	}
	if n > 1 {
		f.add('q', tail(before, 3))
		f.add('c', tail(after, 3))
		f.add('r', last2, " ", tail(before, 3))
		f.add('d', last2, " ", tail(after, 3))
		f.add('o', f.marks(i-1), tail(w.lower, 1))
		f.add('f', f.marks(i+1), tail(w.lower, 1))
	}
	best := keep
	for k := keep; k < kinds; k++ {
		if f.total[k] > f.total[best] {
			best = k
		}
	}
	return best
}

// marks are those of token i; beyond the ends none is set.
func (f *features) marks(i int) string {
	if i < 0 || i >= len(f.words) {
		return "00000"
	}
	return string(f.words[i].marks[:])
}

// add adds the weights of the feature of that letter and value. Only the constant feature has no value.
func (f *features) add(letter byte, value ...string) {
	f.key = append(f.key[:0], letter)
	if len(value) > 0 {
		f.key = append(f.key, ' ')
	}
	for _, v := range value {
		f.key = append(f.key, v...)
	}
	if weights, ok := f.t.weights[string(f.key)]; ok {
		for k, w := range weights {
			f.total[k] += int(w)
		}
	}
}

// tail is the last n characters.
func tail(s string, n int) string {
	at := len(s)
	for ; n > 0 && at > 0; n-- {
		_, size := utf8.DecodeLastRuneInString(s[:at])
		at -= size
	}
	return s[at:]
}

// longer says whether s has more than n characters.
func longer(s string, n int) bool { return len(tail(s, n)) < len(s) }
