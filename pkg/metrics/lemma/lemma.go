// Package lemma writes answers the way OK-VQA's are compared: nouns and verbs as their lemmas, everything else as it
// is, tokens joined by single spaces (spec/evaluation.md 2). "two dogs playing" becomes "two dog play".
//
// The reference is LAVIS's call of spaCy 3.8 with its small English model. The tokenizer and the rules of that are
// here whole, with the word lists that they consult. Its neural tagger is not: a linear model stands in for it that
// learnt spaCy's choices on the distinct answers of 60,000 questions of VQA v2, from the word, its ends, its place,
// its neighbours and the word lists. train/train.py is how. When the answers of A-OKVQA val and the usual list of
// 3,129 answers (5,422 in all) are kept from training, 97.7 % of them come out equal, and 97.4 % of those that
// change. The weights that are built in saw the answers of that list that occur in VQA v2; of the 1,553 of A-OKVQA
// that do not occur there 96.5 % come out equal, and 95.8 % of those that change.
//
// # Data and licences
//
// data/nouns.txt.gz, noun-exceptions, verbs and verb-exceptions are excerpts of spaCy's lemmatiser tables (MIT,
// ExplosionAI), made from WordNet 3.0 (WordNet licence); tokens.txt.gz holds the tokenizer's exceptions of spaCy (MIT);
// weights.txt.gz was trained by this project on the answers of VQA v2 (CC BY 4.0). data/NOTICE has the texts.
package lemma

import (
	"strings"
	"unicode"
)

// Lemmatizer writes answers with lemmas. It is safe for concurrent use.
type Lemmatizer struct{ t *tables }

// New returns a lemmatizer with the built-in tables, which are unpacked once per process.
func New() *Lemmatizer { return &Lemmatizer{load()} }

// Lemmatize returns the answer with the lemmas of its nouns and verbs. It takes any text, in time that grows with its
// length alone.
func (l *Lemmatizer) Lemmatize(answer string) string {
	words := l.t.tokens(answer)
	known := make([]word, len(words))
	for i, text := range words {
		known[i] = l.t.look(text)
	}
	var b strings.Builder
	b.Grow(len(answer) + 8)
	f := features{t: l.t, words: known}
	for i, w := range known {
		if i > 0 {
			b.WriteByte(' ')
		}
		switch f.kind(i) {
		case keep:
			b.WriteString(w.text)
		case base:
			b.WriteString(w.lower)
		case noun:
			b.WriteString(l.t.nouns.lemma(w.lower, w.text))
		case verb:
			b.WriteString(l.t.verbs.lemma(w.lower, w.text))
		}
	}
	return b.String()
}

// kind is what becomes of a token.
type kind int

const (
	keep  kind = iota // no noun and no verb
	base              // a noun or verb in its base form: lower-cased
	noun              // the lemma of a noun
	verb              // the lemma of a verb
	kinds = 4
)

// rule replaces an end of a word.
type rule struct{ old, new string }

// rules are the ways in which a part of speech is inflected.
type rules struct {
	rules      []rule
	words      map[string]bool   // lemmas, where it matters to know them
	exceptions map[string]string // irregular forms
}

// lemma returns the lemma of a lower-cased word: what the exceptions say, else the form of the last rule that leads to
// a known word, else the form of the first rule, else the text as it is.
func (r *rules) lemma(lower, text string) string {
	if form, ok := r.exceptions[lower]; ok {
		return form
	}
	first, known := "", ""
	for _, rule := range r.rules {
		stem, ok := strings.CutSuffix(lower, rule.old)
		if !ok || stem+rule.new == "" {
			continue
		}
		form := stem + rule.new
		if first == "" {
			first = form
		}
		if r.words[form] {
			known = form
		}
	}
	switch {
	case known != "":
		return known
	case first != "":
		return first
	}
	return text
}

func nounRules() []rule {
	return []rule{{"s", ""}, {"ses", "s"}, {"ves", "f"}, {"xes", "x"}, {"zes", "z"}, {"ches", "ch"}, {"shes", "sh"},
		{"men", "man"}, {"ies", "y"}}
}

func verbRules() []rule {
	return []rule{{"s", ""}, {"ies", "y"}, {"es", "e"}, {"es", ""}, {"ed", "e"}, {"ed", ""}, {"ing", "e"}, {"ing", ""}}
}

// shape is the writing of a word: U all capitals, C a capital first, m capitals elsewhere, d digits, l the rest.
func shape(text string) byte {
	upper, lower, first, digits := false, false, false, true
	for i, r := range text {
		digits = digits && '0' <= r && r <= '9'
		lower = lower || unicode.IsLower(r)
		if unicode.IsUpper(r) {
			upper, first = true, first || i == 0
		}
	}
	switch {
	case upper && !lower:
		return 'U'
	case upper && first:
		return 'C'
	case upper:
		return 'm'
	case digits:
		return 'd'
	}
	return 'l'
}
