package tokenizer

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// runeSet is a set of code points: a bit for each of the first plane, ranges above it. It is immutable.
type runeSet struct {
	low  [1 << 16 / 64]uint64
	high []runeRange
}

type runeRange struct{ first, last rune }

// newRuneSet reads a list of code points and ranges in hexadecimal, such as "41-5a 61-7a aa", in ascending order.
func newRuneSet(list string) *runeSet {
	set := &runeSet{}
	for _, item := range strings.Fields(list) {
		r := parseRange(item)
		for c := r.first; c <= min(r.last, 1<<16-1); c++ {
			set.low[c/64] |= 1 << (c % 64)
		}
		if r.last >= 1<<16 {
			set.high = append(set.high, r)
		}
	}
	return set
}

func parseRange(item string) runeRange {
	first, last, ok := strings.Cut(item, "-")
	if !ok {
		last = first
	}
	lo, errLo := strconv.ParseUint(first, 16, 21)
	hi, errHi := strconv.ParseUint(last, 16, 21)
	if errLo != nil || errHi != nil {
		panic("tokenizer: bad table entry " + item) // the tables are constants
	}
	return runeRange{rune(lo), rune(hi)}
}

func (s *runeSet) has(r rune) bool {
	if uint32(r) < 1<<16 {
		return s.low[r/64]>>(r%64)&1 != 0
	}
	return inRanges(s.high, r)
}

func inRanges(ranges []runeRange, r rune) bool {
	_, ok := slices.BinarySearchFunc(ranges, r, func(x runeRange, r rune) int {
		switch {
		case x.last < r:
			return -1
		case x.first > r:
			return 1
		}
		return 0
	})
	return ok
}

// wordClasses are the classes of GPT-2's and CLIP's regular expressions. White space is the same in every version of
// Unicode since 4.1 but for U+180E, and is Go's.
type wordClasses struct{ letter, number *runeSet }

var loadWordClasses = sync.OnceValue(func() *wordClasses {
	return &wordClasses{newRuneSet(unicode16Letter), newRuneSet(unicode16Number)}
})

type wordClass uint8

const (
	wordLetter wordClass = iota
	wordNumber
	wordSpace
	wordOther
)

// of gives the class of the first character of s, which must not be empty, and its length in bytes.
func (c *wordClasses) of(s string) (wordClass, int) {
	if b := s[0]; b < utf8.RuneSelf {
		return asciiWordClass[b], 1
	}
	r, n := utf8.DecodeRuneInString(s)
	switch {
	case c.letter.has(r):
		return wordLetter, n
	case c.number.has(r):
		return wordNumber, n
	case unicode.IsSpace(r):
		return wordSpace, n
	}
	return wordOther, n
}

// asciiWordClass is the class of each ASCII character. Read only.
var asciiWordClass = func() (table [utf8.RuneSelf]wordClass) {
	for c := range table {
		switch r := rune(c); {
		case 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z':
			table[c] = wordLetter
		case '0' <= r && r <= '9':
			table[c] = wordNumber
		case unicode.IsSpace(r):
			table[c] = wordSpace
		default:
			table[c] = wordOther
		}
	}
	return table
}()

// bertClasses are the classes of BERT's fast tokenizer.
type bertClasses struct{ mark, punctuation, other *runeSet }

var loadBERTClasses = sync.OnceValue(func() *bertClasses {
	return &bertClasses{newRuneSet(unicode8Mark), newRuneSet(unicode8Punctuation), newRuneSet(unicode8Other)}
})

// isFastCJK is isCJK as the fast tokenizer has it: without U+2B820 to U+2B91F.
func isFastCJK(r rune) bool { return isCJK(r) && (r < 0x2B820 || r > 0x2B91F) }

// lowerEach lower-cases every character on its own, by Unicode 17 and without the rule of the final sigma; İ becomes i
// and U+0307. The reference's normalisers do so, other than Python (see Lower).
func lowerEach(s string) string {
	at := strings.IndexFunc(s, func(r rune) bool { return r == 'İ' || lowerRune(r) != r })
	if at < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 8)
	b.WriteString(s[:at])
	for _, r := range s[at:] {
		if r == 'İ' {
			b.WriteString("i\u0307")
			continue
		}
		b.WriteRune(lowerRune(r))
	}
	return b.String()
}

// lowerRune adds the pairs of Unicode 16 and 17 to those of Go's tables.
func lowerRune(r rune) rune {
	if r < utf8.RuneSelf {
		return rune(lowerASCII(byte(r)))
	}
	switch {
	case r == 0x1C89, r == 0xA7CC, r == 0xA7CE, r == 0xA7D2, r == 0xA7D4, r == 0xA7DA:
		return r + 1
	case r == 0xA7CB:
		return 0x264
	case r == 0xA7DC:
		return 0x19B
	case 0x10D50 <= r && r <= 0x10D65:
		return r + 0x20
	case 0x16EA0 <= r && r <= 0x16EB8:
		return r + 0x1B
	}
	return unicode.ToLower(r)
}

// validUTF8 replaces what is not UTF-8 by U+FFFD, one for every longest piece that could have begun a character, as
// Python's and Rust's lossy decoders do.
func validUTF8(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string(appendValid(make([]byte, 0, len(s)+16), s))
}

// appendValid appends s to dst as validUTF8 would give it.
func appendValid(dst []byte, s string) []byte {
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r != utf8.RuneError || n > 1 {
			dst = append(dst, s[:n]...)
			s = s[n:]
			continue
		}
		dst = append(dst, "\uFFFD"...)
		s = s[brokenLength(s):]
	}
	return dst
}

// brokenLength is the length of the longest prefix of s, which begins with a byte that starts no character, that
// could be the start of one; at least 1.
func brokenLength(s string) int {
	want, lo, hi := 0, byte(0x80), byte(0xBF)
	switch b := s[0]; {
	case 0xC2 <= b && b <= 0xDF:
		want = 1
	case b == 0xE0:
		want, lo = 2, 0xA0
	case b == 0xED:
		want, hi = 2, 0x9F
	case 0xE1 <= b && b <= 0xEF:
		want = 2
	case b == 0xF0:
		want, lo = 3, 0x90
	case b == 0xF4:
		want, hi = 3, 0x8F
	case 0xF1 <= b && b <= 0xF3:
		want = 3
	}
	n := 1
	for ; n <= want && n < len(s) && lo <= s[n] && s[n] <= hi; n++ {
		lo, hi = 0x80, 0xBF
	}
	return n
}

var loadNewer = sync.OnceValue(func() *runeSet { return newRuneSet(afterUnicode9) })

var loadInWord = sync.OnceValue(func() *runeSet { return newRuneSet(unicode16InWord) })
