package tokenizer

import (
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// splitWords runs BERT's basic tokenizer over text and calls yield with every word in turn until yield returns false.
// The slice passed to yield is valid only during the call.
//
// The order of the reference: control characters are dropped and white space unified, CJK characters isolated, the
// text split at white space, each word lower-cased, decomposed (NFD) and freed of non-spacing marks, and at last split
// at punctuation, every punctuation character being a word of its own.
func splitWords(text string, yield func(word []byte) bool) {
	var room [64]byte
	word := room[:0] // the lower-cased word so far
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c >= utf8.RuneSelf {
			// From the start of the present word on, the general path takes over.
			splitUnicode(text[i-len(word):], yield)
			return
		}
		class := asciiClass[c]
		if class == classWord {
			word = append(word, lowerASCII(c))
			continue
		}
		if class == classDrop && len(word) > 0 {
			// A dropped character would break the equality of lengths that the hand-over above relies on.
			splitUnicode(text[i-len(word):], yield)
			return
		}
		if len(word) > 0 {
			if !yield(word) {
				return
			}
			word = word[:0]
		}
		if class == classPunctuation && !yield(append(word, c)) {
			return
		}
	}
	if len(word) > 0 {
		yield(word)
	}
}

// splitUnicode is splitWords for any text.
func splitUnicode(text string, yield func(word []byte) bool) {
	var chunk []rune // characters between white space, cleaned
	flush := func() bool {
		if len(chunk) == 0 {
			return true
		}
		ok := splitChunk(string(chunk), yield)
		chunk = chunk[:0]
		return ok
	}
	for _, r := range text {
		switch {
		case isSpace(r):
			if !flush() {
				return
			}
		case r == 0 || r == utf8.RuneError || isControl(r):
			// Dropped without a break: "a\u200db" is one word.
		case isCJK(r):
			if !flush() {
				return
			}
			chunk = append(chunk, r)
			if !flush() {
				return
			}
		default:
			chunk = append(chunk, r)
		}
	}
	flush()
}

// splitChunk lower-cases a chunk without white space, character by character as the reference does (so that a capital
// sigma becomes σ at the end of a word, too), strips its accents and splits it at punctuation.
func splitChunk(chunk string, yield func(word []byte) bool) bool {
	var word []byte
	for _, r := range norm.NFD.String(lowerEach(chunk)) {
		if unicode.Is(unicode.Mn, r) {
			continue
		}
		if !isPunctuation(r) {
			word = utf8.AppendRune(word, r)
			continue
		}
		if len(word) > 0 && !yield(word) {
			return false
		}
		word = word[:0]
		if !yield(utf8.AppendRune(word, r)) {
			return false
		}
	}
	return len(word) == 0 || yield(word)
}

type class uint8

const (
	classWord class = iota
	classSpace
	classPunctuation
	classDrop
)

// asciiClass is what BERT does with each ASCII character. Read only.
var asciiClass = func() (table [utf8.RuneSelf]class) {
	for c := range table {
		switch r := rune(c); {
		case isSpace(r):
			table[c] = classSpace
		case isControl(r):
			table[c] = classDrop
		case isPunctuation(r):
			table[c] = classPunctuation
		}
	}
	return table
}()

func lowerASCII(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// isSpace counts the line and paragraph separators too: the reference splits at them with Python's str.split.
func isSpace(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r == ' ' || r >= utf8.RuneSelf && unicode.Is(unicode.Z, r)
}

// isControl says whether the reference drops the character: every category C*, unassigned ones included.
func isControl(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0x7f
	}
	return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Cs, unicode.Co) ||
		!unicode.In(r, unicode.L, unicode.M, unicode.N, unicode.P, unicode.S, unicode.Z)
}

// isPunctuation counts all ASCII that is neither letter, digit, space nor control, such as $ + < = > ^ ` | ~, which
// Unicode calls symbols.
func isPunctuation(r rune) bool {
	if r < utf8.RuneSelf {
		return '!' <= r && r <= '/' || ':' <= r && r <= '@' || '[' <= r && r <= '`' || '{' <= r && r <= '~'
	}
	return unicode.Is(unicode.P, r)
}

// isCJK covers the blocks of Chinese characters that BERT isolates; Japanese kana and Korean are words.
func isCJK(r rune) bool {
	return r >= 0x3400 && (r <= 0x4DBF || 0x4E00 <= r && r <= 0x9FFF || 0xF900 <= r && r <= 0xFAFF ||
		0x20000 <= r && r <= 0x2A6DF || 0x2A700 <= r && r <= 0x2B73F || 0x2B740 <= r && r <= 0x2B81F ||
		0x2B820 <= r && r <= 0x2CEAF || 0x2F800 <= r && r <= 0x2FA1F)
}
