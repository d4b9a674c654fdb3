package meteor

import (
	"bufio"
	"bytes"
	"strings"
	"unicode"
)

// prefixes are the words after which a period is no end of a sentence; the value says "only before a digit".
type prefixes map[string]bool

// parsePrefixes reads nonbreaking/english.prefixes of the jar: a word a line, perhaps followed by #NUMERIC_ONLY#;
// other lines with # are comments.
func parsePrefixes(data []byte) prefixes {
	p := prefixes{}
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		word, numeric := strings.TrimSpace(lines.Text()), false
		if before, _, found := strings.Cut(word, "#NUMERIC_ONLY#"); found {
			word, numeric = strings.TrimSpace(before), true
		}
		if word != "" && !strings.HasPrefix(word, "#") {
			p[word] = numeric
		}
	}
	return p
}

// isLetter says whether METEOR's normaliser takes a character for a letter: Latin up to U+017E, Cyrillic and phonetic
// extensions. Everything else but digits and a few marks becomes a word of its own.
func isLetter(r rune) bool {
	switch {
	case r < 0x80:
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
	case r <= 0x17e:
		return r >= 0xc0 && r != 0xd7 && r != 0xf7
	case 0x400 <= r && r <= 0x527, 0x1d00 <= r && r <= 0x1d7f:
		return true
	}
	return 0xa640 <= r && r <= 0xa66e || 0xa67e <= r && r <= 0xa697
}

// isDigit says whether r is one of 0 to 9.
func isDigit(r rune) bool { return '0' <= r && r <= '9' }

// isAlnum says whether r is a letter or a digit.
func isAlnum(r rune) bool { return isLetter(r) || isDigit(r) }

// isBlank says whether r becomes a space.
func isBlank(r rune) bool {
	switch r {
	case '\t', '\f', ' ', 0xa0, 0x202f, 0x205f, 0x3000:
		return true
	}
	return 0x2000 <= r && r <= 0x200a
}

// normalize returns the words that "-l en -norm" makes of a line: punctuation spelled in one way, tokenized as the
// Moses tokenizer of 2010 does, hyphenated words taken apart, acronyms without their periods, all in lower case.
func (p prefixes) normalize(line string) []string {
	if plainWords(line) {
		return strings.Fields(line)
	}
	s := spellPunctuation(line)
	s = isolateSymbols(s)
	s = isolateDots(s)
	s = splitHyphens(s)
	s = isolateCommas(s)
	s = splitApostrophes(s)
	words := p.splitPeriods(strings.FieldsFunc(string(s), func(r rune) bool { return r == ' ' }))
	for i, w := range words {
		words[i] = lower(w)
	}
	return trimControls(words)
}

// plainWords says whether a line holds small ASCII letters, digits and spaces only, which are left as they are.
func plainWords(line string) bool {
	for i := range len(line) {
		if c := line[i]; c != ' ' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return true
}

// trimControls takes control characters away at both ends of the whole, as Java's trim does.
func trimControls(words []string) []string {
	control := func(r rune) bool { return r <= ' ' }
	for len(words) > 0 {
		if words[0] = strings.TrimLeftFunc(words[0], control); words[0] != "" {
			break
		}
		words = words[1:]
	}
	for n := len(words) - 1; n >= 0; n-- {
		if words[n] = strings.TrimRightFunc(words[n], control); words[n] != "" {
			break
		}
		words = words[:n]
	}
	return words
}

// spellPunctuation writes quotation marks, dashes and spaces in their ASCII forms.
func spellPunctuation(line string) []rune {
	out := make([]rune, 0, len(line)+16)
	in := []rune(line)
	for i := 0; i < len(in); i++ {
		r := in[i]
		switch {
		case isBlank(r):
			out = append(out, ' ')
		case r == 0x2018 || r == 0x2019:
			out = append(out, '\'')
		case r == 0x201c || r == 0x201d:
			out = append(out, '"')
		case r == 0x2013:
			out = append(out, ' ', '-', ' ')
		case r == '-' && i+1 < len(in) && in[i+1] == '-':
			out = append(out, '-')
			i++
		default:
			out = append(out, r)
		}
	}
	return out
}

// isolateSymbols puts spaces around every character that is no letter, digit, white space or one of . ' ` , -
// and then writes ` as ' and ” as ".
func isolateSymbols(in []rune) []rune {
	out := make([]rune, 0, len(in)+16)
	for _, r := range in {
		switch {
		case isAlnum(r), r == ' ', r == '.', r == '\'', r == ',', r == '-', r == 0xb:
			out = append(out, r)
		case r == '`':
			out = append(out, '\'')
		default:
			out = append(out, ' ', r, ' ')
		}
	}
	in, out = out, make([]rune, 0, len(out)+16)
	for i := 0; i < len(in); i++ {
		if in[i] == '\'' && i+1 < len(in) && in[i+1] == '\'' {
			out = append(out, ' ', '"', ' ')
			i++
			continue
		}
		out = append(out, in[i])
	}
	return out
}

// isolateDots puts spaces around runs of two and more periods.
func isolateDots(in []rune) []rune {
	out := make([]rune, 0, len(in)+8)
	for i := 0; i < len(in); {
		n := 0
		for i+n < len(in) && in[i+n] == '.' {
			n++
		}
		switch {
		case n > 1:
			out = append(out, ' ')
			out = append(out, in[i:i+n]...)
			out = append(out, ' ')
			i += n
		default:
			out = append(out, in[i])
			i++
		}
	}
	return out
}

// splitHyphens replaces a hyphen between word characters by a space. A character that stood right of one hyphen is not
// looked at again as the left of the next: a-b-c becomes a b-c.
func splitHyphens(in []rune) []rune {
	return replaceTriples(in, func(a, b, c rune) []rune {
		if b == '-' && (isAlnum(a) || a == '.') && isAlnum(c) {
			return []rune{' '}
		}
		return nil
	})
}

// replaceTriples walks from left to right over triples of characters; where f returns something, it takes the place of
// the middle one and the walk goes on behind the third.
func replaceTriples(in []rune, f func(a, b, c rune) []rune) []rune {
	out := make([]rune, 0, len(in)+8)
	i := 0
	for i+2 < len(in) {
		middle := f(in[i], in[i+1], in[i+2])
		out = append(out, in[i])
		if middle == nil {
			i++
			continue
		}
		out = append(append(out, middle...), in[i+2])
		i += 3
	}
	return append(out, in[i:]...)
}

// padded puts a space before and behind, so that every character has neighbours.
func padded(in []rune) []rune {
	out := append(make([]rune, 0, len(in)+2), ' ')
	return append(append(out, in...), ' ')
}

// isolateCommas puts spaces around commas that do not stand between digits.
func isolateCommas(in []rune) []rune {
	in = padded(in)
	rule := func(left, right bool) {
		in = replaceTriples(in, func(a, b, c rune) []rune {
			if b == ',' && isDigit(a) == left && isDigit(c) == right {
				return []rune(" , ")
			}
			return nil
		})
	}
	rule(false, false)
	rule(true, false)
	rule(false, true)
	return in
}

// splitApostrophes separates apostrophes, which stay with the letters behind them if letters stand on both sides.
func splitApostrophes(in []rune) []rune {
	in = padded(in)
	rule := func(with string, fits func(a, c rune) bool) {
		in = replaceTriples(in, func(a, b, c rune) []rune {
			if b == '\'' && fits(a, c) {
				return []rune(with)
			}
			return nil
		})
	}
	rule(" ' ", func(a, c rune) bool { return !isLetter(a) && !isLetter(c) })
	rule(" ' ", func(a, c rune) bool { return !isAlnum(a) && isLetter(c) })
	rule(" ' ", func(a, c rune) bool { return isLetter(a) && !isLetter(c) })
	rule(" '", func(a, c rune) bool { return isLetter(a) && isLetter(c) })
	rule(" '", func(a, c rune) bool { return isDigit(a) && c == 's' })
	return in
}

// splitPeriods separates the period at the end of a word, unless the word is an acronym (which loses all its periods),
// a known abbreviation, or is followed by a small ASCII letter.
func (p prefixes) splitPeriods(in []string) []string {
	out := make([]string, 0, len(in)+1)
	for i, w := range in {
		stem, ends := strings.CutSuffix(w, ".")
		if !ends || strings.Trim(w, ".") == "" || strings.HasSuffix(stem, ".") {
			out = append(out, w)
			continue
		}
		next := byte(0)
		if i+1 < len(in) {
			next = in[i+1][0]
		}
		numeric, known := p[stem]
		switch {
		case strings.Contains(stem, ".") && strings.ContainsFunc(stem, isLetter):
			out = append(out, strings.ReplaceAll(stem, ".", ""))
		case known && !numeric, 'a' <= next && next <= 'z', known && isDigit(rune(next)):
			out = append(out, w)
		default:
			out = append(out, stem, ".")
		}
	}
	return out
}

// lower is Java's toLowerCase for single words.
func lower(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && (s[i] < 'A' || s[i] > 'Z' && s[i] < 0x80)
	}
	if plain {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if r == 0x130 { // capital I with a dot has no single small letter
			b.WriteString("i̇")
			continue
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}
