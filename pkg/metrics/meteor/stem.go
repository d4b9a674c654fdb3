package meteor

import (
	"slices"
	"strings"
	"unicode/utf16"
)

// The English stemmer of the Snowball project ("Porter 2", snowballstem.org/algorithms/english/stemmer.html) as it was
// when METEOR 1.5 was made: words work on UTF-16 units, as Java's strings do.

// irregularStems are words with a stem of their own.
var irregularStems = map[string]string{
	"skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl", "gently": "gentl",
	"ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl", "sky": "sky", "news": "news", "howe": "howe",
	"atlas": "atlas", "cosmos": "cosmos", "bias": "bias", "andes": "andes",
}

// fixedStems are words that stay as step 1a left them.
var fixedStems = []string{"inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"}

// stem returns the Snowball stem of a word.
func stem(word string) string {
	if s, ok := irregularStems[word]; ok {
		return s
	}
	units := utf16.Encode([]rune(word))
	if len(units) <= 2 {
		return word
	}
	s := stemmer{w: units}
	s.prelude()
	s.regions()
	s.dropPossessive()
	s.step1a()
	if !slices.Contains(fixedStems, s.text()) {
		s.step1b()
		s.step1c()
		s.replace(step2Suffixes, s.r1, s.step2)
		s.replace(step3Suffixes, s.r1, s.step3)
		s.replace(step4Suffixes, s.r2, s.step4)
		s.step5()
	}
	if s.marked {
		return strings.ReplaceAll(s.text(), "Y", "y")
	}
	return s.text()
}

// stemmer is a word on its way to its stem. A y that is a consonant is written Y.
type stemmer struct {
	w      []uint16
	r1, r2 int  // where the regions begin
	marked bool // there is a consonant y
}

func (s *stemmer) text() string { return string(utf16.Decode(s.w)) }

// isVowel says whether a unit is one of a e i o u y.
func isVowel(c uint16) bool {
	switch c {
	case 'a', 'e', 'i', 'o', 'u', 'y':
		return true
	}
	return false
}

// ends says whether the word ends in suffix.
func (s *stemmer) ends(suffix string) bool {
	n := len(s.w) - len(suffix)
	if n < 0 {
		return false
	}
	for i := range len(suffix) {
		if s.w[n+i] != uint16(suffix[i]) {
			return false
		}
	}
	return true
}

// cut takes n units from the end and puts with there.
func (s *stemmer) cut(n int, with string) {
	s.w = s.w[:len(s.w)-n]
	for i := range len(with) {
		s.w = append(s.w, uint16(with[i]))
	}
}

// hasVowel says whether the first n units have a vowel.
func (s *stemmer) hasVowel(n int) bool { return slices.ContainsFunc(s.w[:n], isVowel) }

// prelude takes an apostrophe away in front and marks consonants y.
func (s *stemmer) prelude() {
	if s.w[0] == '\'' {
		s.w = s.w[1:]
	}
	if len(s.w) > 0 && s.w[0] == 'y' {
		s.w[0], s.marked = 'Y', true
	}
	for i := 1; i < len(s.w); i++ {
		if s.w[i] == 'y' && isVowel(s.w[i-1]) {
			s.w[i], s.marked = 'Y', true
		}
	}
}

// after returns the place behind the first consonant that follows a vowel, looking from i on.
func (s *stemmer) after(i int) int {
	for ; i < len(s.w) && !isVowel(s.w[i]); i++ {
	}
	for ; i < len(s.w); i++ {
		if !isVowel(s.w[i]) {
			return i + 1
		}
	}
	return len(s.w)
}

// regions finds R1 and R2.
func (s *stemmer) regions() {
	s.r1 = -1
	for _, p := range []string{"gener", "commun", "arsen"} {
		if len(s.w) >= len(p) && (&stemmer{w: s.w[:len(p)]}).ends(p) {
			s.r1 = len(p)
		}
	}
	if s.r1 < 0 {
		s.r1 = s.after(0)
	}
	s.r2 = s.after(s.r1)
}

// dropPossessive is step 0.
func (s *stemmer) dropPossessive() {
	for _, suffix := range []string{"'s'", "'s", "'"} {
		if s.ends(suffix) {
			s.cut(len(suffix), "")
			return
		}
	}
}

// step1a treats plurals.
func (s *stemmer) step1a() {
	switch {
	case s.ends("sses"):
		s.cut(2, "")
	case s.ends("ied"), s.ends("ies"):
		if len(s.w) > 4 {
			s.cut(2, "")
		} else {
			s.cut(1, "")
		}
	case s.ends("us"), s.ends("ss"):
	case s.ends("s"):
		if len(s.w) > 2 && s.hasVowel(len(s.w)-2) {
			s.cut(1, "")
		}
	}
}

// step1b treats past tenses and participles.
func (s *stemmer) step1b() {
	for _, suffix := range []string{"eedly", "ingly", "edly", "eed", "ing", "ed"} {
		if !s.ends(suffix) {
			continue
		}
		n := len(s.w) - len(suffix)
		switch {
		case suffix[:2] == "ee":
			if n >= s.r1 {
				s.cut(len(suffix)-2, "")
			}
		case s.hasVowel(n):
			s.cut(len(suffix), "")
			s.repairEnd()
		}
		return
	}
}

// repairEnd gives back what step 1b took too much.
func (s *stemmer) repairEnd() {
	n := len(s.w)
	switch {
	case s.ends("at"), s.ends("bl"), s.ends("iz"):
		s.cut(0, "e")
	case n > 1 && s.w[n-1] == s.w[n-2] && strings.ContainsRune("bdfgmnprt", rune(s.w[n-1])):
		s.cut(1, "")
	case s.r1 >= n && s.shortSyllable(n):
		s.cut(0, "e")
	}
}

// shortSyllable says whether the first n units end in a short syllable: a vowel between consonants of which the last is
// not w, x or Y, or a vowel at the beginning before a consonant.
func (s *stemmer) shortSyllable(n int) bool {
	switch {
	case n < 2 || isVowel(s.w[n-1]) || !isVowel(s.w[n-2]):
		return false
	case n == 2:
		return true
	}
	c := s.w[n-1]
	return !isVowel(s.w[n-3]) && c != 'w' && c != 'x' && c != 'Y'
}

// step1c makes i of y behind a consonant.
func (s *stemmer) step1c() {
	n := len(s.w)
	if n > 2 && (s.w[n-1] == 'y' || s.w[n-1] == 'Y') && !isVowel(s.w[n-2]) {
		s.w[n-1] = 'i'
	}
}

// Suffixes of the steps, the longer before those they end in.
var (
	step2Suffixes = [][2]string{
		{"ational", "ate"}, {"fulness", "ful"}, {"iveness", "ive"}, {"ization", "ize"}, {"ousness", "ous"},
		{"biliti", "ble"}, {"lessli", "less"}, {"tional", "tion"},
		{"alism", "al"}, {"aliti", "al"}, {"ation", "ate"}, {"entli", "ent"}, {"fulli", "ful"}, {"iviti", "ive"},
		{"ousli", "ous"},
		{"abli", "able"}, {"alli", "al"}, {"anci", "ance"}, {"ator", "ate"}, {"enci", "ence"}, {"izer", "ize"},
		{"bli", "ble"}, {"ogi", "og"}, {"li", ""},
	}
	step3Suffixes = [][2]string{
		{"ational", "ate"}, {"tional", "tion"}, {"alize", "al"}, {"ative", ""}, {"icate", "ic"}, {"iciti", "ic"},
		{"ical", "ic"}, {"ness", ""}, {"ful", ""},
	}
	step4Suffixes = [][2]string{
		{"ement", ""}, {"able", ""}, {"ance", ""}, {"ence", ""}, {"ible", ""}, {"ment", ""}, {"ant", ""}, {"ate", ""},
		{"ent", ""}, {"ion", ""}, {"ism", ""}, {"iti", ""}, {"ive", ""}, {"ize", ""}, {"ous", ""}, {"al", ""},
		{"er", ""}, {"ic", ""},
	}
)

// replace exchanges the longest suffix of a table that fits, if it lies in the region and the step allows it for the
// part before it, which has n units.
func (s *stemmer) replace(table [][2]string, region int, allows func(suffix string, n int) bool) {
	for _, row := range table {
		if !s.ends(row[0]) {
			continue
		}
		if n := len(s.w) - len(row[0]); n >= region && allows(row[0], n) {
			s.cut(len(row[0]), row[1])
		}
		return
	}
}

func (s *stemmer) step2(suffix string, n int) bool {
	switch suffix {
	case "ogi":
		return n > 0 && s.w[n-1] == 'l'
	case "li":
		return n > 0 && s.w[n-1] < 0x80 && strings.ContainsRune("cdeghkmnrt", rune(s.w[n-1]))
	}
	return true
}

func (s *stemmer) step3(suffix string, n int) bool { return suffix != "ative" || n >= s.r2 }

func (s *stemmer) step4(suffix string, n int) bool {
	return suffix != "ion" || n > 0 && (s.w[n-1] == 's' || s.w[n-1] == 't')
}

// step5 drops a last e or l.
func (s *stemmer) step5() {
	n := len(s.w) - 1
	switch {
	case s.ends("e"):
		if n >= s.r2 || n >= s.r1 && !s.shortSyllable(n) {
			s.cut(1, "")
		}
	case s.ends("l"):
		if n >= s.r2 && n > 0 && s.w[n-1] == 'l' {
			s.cut(1, "")
		}
	}
}
