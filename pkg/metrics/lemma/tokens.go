package lemma

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// tokens splits a text as spaCy's English tokenizer does: at white space, then marks off both ends of each piece, then
// inside it. White space beyond single spaces is a token of its own.
func (t *tables) tokens(text string) []string {
	var out []string
	for len(text) > 0 {
		end := strings.IndexFunc(text, unicode.IsSpace)
		if end < 0 {
			end = len(text)
		}
		if end > 0 {
			out = t.piece(out, text[:end])
			text = strings.TrimPrefix(text[end:], " ")
		}
		space := len(text) - len(strings.TrimLeftFunc(text, unicode.IsSpace))
		if space > 0 {
			out = append(out, text[:space])
			text = text[space:]
		}
	}
	return out
}

// maxSpecial is at least as long as the longest string in the table, in bytes: longer ones need not be looked up,
// which keeps long pieces from being hashed once per mark.
const maxSpecial = 32

// isSpecial returns the tokens of a string that is split by the table.
func (t *tables) isSpecial(s string) ([]string, bool) {
	if len(s) > maxSpecial {
		return nil, false
	}
	tokens, ok := t.special[s]
	return tokens, ok
}

// piece appends the tokens of a text without white space: those of its parts, and where parts in a row make up a string
// of the table, the tokens of that, such as the smiley of "cat:)".
func (t *tables) piece(out []string, s string) []string {
	parts := t.split(s)
	for i := 0; i < len(parts); {
		n, tokens := t.longestRun(parts[i:])
		if n == 0 {
			out = append(out, parts[i])
			i++
			continue
		}
		out = append(out, tokens...)
		i += n
	}
	return out
}

// longestRun is the greatest number of parts at the start that make up a string of the table which, without the table,
// is split into just these parts; and its tokens. It is 0 if there is none.
func (t *tables) longestRun(parts []string) (n int, tokens []string) {
	var key []byte
	for i, part := range parts[:min(len(parts), t.longest)] {
		if key = append(append(key, part...), 0); len(key) > 2*maxSpecial {
			break
		}
		if text, ok := t.runs[string(key)]; ok && i > 0 {
			n, tokens = i+1, t.special[text]
		}
	}
	return n, tokens
}

// findRuns finds the strings of the table that are split into several parts without it.
func (t *tables) findRuns() {
	plain := &tables{}
	t.runs = map[string]string{}
	for text := range t.special {
		parts := plain.split(text)
		if len(parts) < 2 {
			continue
		}
		t.longest = max(t.longest, len(parts))
		t.runs[strings.Join(parts, "\x00")+"\x00"] = text
	}
}

// split takes marks off both ends of a text without white space and then splits inside it, until the rest is a string
// of the table.
func (t *tables) split(s string) []string {
	var out, suffixes []string // suffixes from the end
	for s != "" {
		if _, ok := t.isSpecial(s); ok {
			break
		}
		pre := prefix(s)
		if _, ok := t.isSpecial(s[pre:]); pre > 0 && ok {
			out, s = append(out, s[:pre]), s[pre:]
			break
		}
		suf := suffix(s[pre:])
		if _, ok := t.isSpecial(s[:len(s)-suf]); suf > 0 && ok {
			suffixes, s = append(suffixes, s[len(s)-suf:]), s[:len(s)-suf]
			break
		}
		if pre == 0 && suf == 0 {
			break
		}
		if pre > 0 {
			out = append(out, s[:pre])
		}
		if suf > 0 {
			suffixes = append(suffixes, s[len(s)-suf:])
		}
		s = s[pre : len(s)-suf]
	}
	if tokens, ok := t.isSpecial(s); ok {
		out = append(out, tokens...)
	} else if s != "" {
		out = inside(out, s)
	}
	for i := len(suffixes) - 1; i >= 0; i-- {
		out = append(out, suffixes[i])
	}
	return out
}

// inside splits what is left of a piece at the marks inside it.
func inside(out []string, s string) []string {
	if isAddress(s) {
		return append(out, s)
	}
	start := 0
	before := rune(-1)
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		if n := infix(before, s[i:]); n > 0 {
			if i > start {
				out = append(out, s[start:i], s[i:i+n])
				start = i + n
			}
			before, _ = utf8.DecodeLastRuneInString(s[i : i+n])
			i += n
			continue
		}
		before, i = r, i+size
	}
	if start < len(s) {
		out = append(out, s[start:])
	}
	return out
}

// isAddress says whether a piece is the address of a web page or of a person, which stays whole.
func isAddress(s string) bool {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "http://"), "https://")
	host, _, _ := strings.Cut(s, "/")
	dot := strings.LastIndexByte(host, '.')
	if dot < 1 || strings.ContainsAny(host, ",:") {
		return false
	}
	switch host[dot+1:] {
	case "com", "org", "net", "edu", "gov", "info", "tv", "co", "uk", "us", "ca", "de", "fr", "it":
		return true
	}
	return strings.HasPrefix(host, "www.")
}

// infix is the length of the mark at the start of s that splits a piece after the character before; 0 if there is none.
func infix(before rune, s string) int {
	r, size := utf8.DecodeRuneInString(s)
	if n := dots(s); n > 1 {
		return n
	}
	if r == '…' || unicode.Is(unicode.So, r) {
		return size
	}
	after, _ := utf8.DecodeRuneInString(s[size:])
	word := unicode.IsLetter(before) || isDigit(before)
	switch {
	case strings.ContainsRune("+-*^", r) && isDigit(before) && (isDigit(after) || after == '-'),
		r == '.' && (unicode.IsLower(before) || isQuote(before)) && (unicode.IsUpper(after) || isQuote(after)),
		r == ',' && unicode.IsLetter(before) && unicode.IsLetter(after),
		strings.ContainsRune(":<>=/", r) && word && unicode.IsLetter(after):
		return size
	}
	if !word {
		return 0
	}
	for _, hyphen := range []string{"-", "–", "—", "--", "---", "——", "~"} {
		if rest, ok := strings.CutPrefix(s, hyphen); ok {
			if r, _ := utf8.DecodeRuneInString(rest); unicode.IsLetter(r) {
				return len(hyphen)
			}
		}
	}
	return 0
}

// prefix is the length of the mark to take off the start of a piece.
func prefix(s string) int {
	r, size := utf8.DecodeRuneInString(s)
	after, _ := utf8.DecodeRuneInString(s[size:])
	switch {
	case strings.ContainsRune("§%=—–", r), isPunct(r), isQuote(r), isCurrency(r), unicode.Is(unicode.So, r):
		return size
	case r == '+' && !isDigit(after):
		return size
	case r == '.' && dots(s) > 1:
		return dots(s)
	}
	for _, currency := range []string{"US$", "C$", "A$"} {
		if strings.HasPrefix(s, currency) {
			return len(currency)
		}
	}
	return 0
}

// suffix is the length of the mark to take off the end of a piece: the longest that fits.
func suffix(s string) int {
	r, size := utf8.DecodeLastRuneInString(s)
	before, beforeSize := utf8.DecodeLastRuneInString(s[:len(s)-size])
	switch {
	case s == "":
		return 0
	case r == '.':
		if n := len(s) - len(strings.TrimRight(s, ".")); n > 1 {
			return n
		}
		beyond, _ := utf8.DecodeLastRuneInString(s[:len(s)-size-beforeSize])
		if endsSentence(before, beyond) {
			return size
		}
		return 0
	case r == '…' && before == '…':
		return size + beforeSize
	case (r == 's' || r == 'S') && (before == '\'' || before == '’'):
		return size + beforeSize
	}
	if n := unit(s); n > 0 {
		return n
	}
	if isPunct(r) || isQuote(r) || r == '—' || r == '–' || unicode.Is(unicode.So, r) || r == '+' && isDigit(before) {
		return size
	}
	return 0
}

// endsSentence says whether a period after these two characters, the nearer one first, is a token.
func endsSentence(before, beyond rune) bool {
	return isDigit(before) || unicode.IsLower(before) || strings.ContainsRune("%²-+|", before) || isPunct(before) ||
		isQuote(before) || unicode.IsUpper(before) && unicode.IsUpper(beyond) ||
		beyond == '°' && strings.ContainsRune("FCK", before)
}

// unit is the length of a unit or currency after a digit at the end of s: the longest.
func unit(s string) int {
	longest := 0
	for _, u := range units {
		if len(u) <= longest {
			continue
		}
		if rest, ok := strings.CutSuffix(s, u); ok && rest != "" && isDigit(rune(rest[len(rest)-1])) {
			longest = len(u)
		}
	}
	return longest
}

var units = strings.Fields(`km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s
	km/h kmh mph hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % $ £ € ¥ US$ C$ A$ ₹ ₩`)

// dots is the length of the run of periods at the start of s.
func dots(s string) int { return len(s) - len(strings.TrimLeft(s, ".")) }

func isDigit(r rune) bool { return '0' <= r && r <= '9' }

func isCurrency(r rune) bool { return unicode.Is(unicode.Sc, r) && r != '¢' }

func isPunct(r rune) bool {
	return strings.ContainsRune("…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪", r)
}

func isQuote(r rune) bool {
	return strings.ContainsRune("'\"”“`‘´’‚„»«「」『』（）〔〕【】《》〈〉⟦⟧", r)
}
