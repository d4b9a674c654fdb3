package vqa

import (
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"blip2/pkg/tokenizer"
)

// Normalise is Punct, then DigitArticle.
func Normalise(s string) string { return DigitArticle(Punct(s)) }

// maxPeriods is how many periods Punct removes at most: the evaluators pass a flag, whose value is 32, in the place of
// the number of substitutions.
const maxPeriods = 32

// Punct removes punctuation as both evaluators do. Each of the 21 marks is deleted everywhere if it stands beside a
// space anywhere in s, or if s has a comma between digits anywhere; else it becomes a space everywhere. Then periods
// that no digit follows are deleted, the first 32 of them: what was meant is "not between digits", but the part of
// the expression that looks back is mistyped.
func Punct(s string) string {
	if !strings.ContainsAny(s, ".;/[]\"{}()=+\\_-><@`,?!") {
		return s
	}
	var deleted [utf8.RuneSelf]bool
	all := false
	for i := range len(s) {
		c := s[i]
		if !isPunct(c) {
			continue
		}
		if i > 0 && s[i-1] == ' ' || i+1 < len(s) && s[i+1] == ' ' {
			deleted[c] = true
		}
		if c == ',' && digitBefore(s[:i]) && digitAfter(s[i+1:]) {
			all = true
		}
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		switch c := s[i]; {
		case !isPunct(c):
			b.WriteByte(c)
		case !all && !deleted[c]:
			b.WriteByte(' ')
		}
	}
	return stripPeriods(b.String())
}

func stripPeriods(s string) string {
	if strings.IndexByte(s, '.') < 0 {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	left := maxPeriods
	for i := range len(s) {
		if s[i] == '.' && left > 0 && !digitAfter(s[i+1:]) {
			left--
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// isPunct says whether the byte is one of the evaluators' marks. Apostrophes, colons and the rest are none.
func isPunct(c byte) bool {
	switch c {
	case ';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!':
		return true
	}
	return false
}

func digitBefore(s string) bool {
	r, _ := utf8.DecodeLastRuneInString(s)
	return unicode.Is(unicode.Nd, r)
}

func digitAfter(s string) bool {
	r, _ := utf8.DecodeRuneInString(s)
	return unicode.Is(unicode.Nd, r)
}

// DigitArticle lower-cases and splits into words, writes the numbers none and zero to ten as digits, drops a, an and
// the, puts missing apostrophes into contractions, and joins by single spaces.
func DigitArticle(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 4)
	for word := range strings.FieldsFuncSeq(tokenizer.Lower(s), isSpace) {
		word = digit(word)
		if word == "a" || word == "an" || word == "the" {
			continue
		}
		if full, ok := contractions()[word]; ok {
			word = full
		}
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(word)
	}
	return b.String()
}

// digit writes a number word as digits.
func digit(word string) string {
	switch word {
	case "none", "zero":
		return "0"
	case "one":
		return "1"
	case "two":
		return "2"
	case "three":
		return "3"
	case "four":
		return "4"
	case "five":
		return "5"
	case "six":
		return "6"
	case "seven":
		return "7"
	case "eight":
		return "8"
	case "nine":
		return "9"
	case "ten":
		return "10"
	}
	return word
}

// contractions maps the spellings that the evaluators know to those with all apostrophes: "dont" to "don't". An entry
// is a value of theirs; its keys are what it becomes without one of its apostrophes. Their entries with a capital I
// can never be found, since words are lower-cased, and let's and she's stand for themselves.
var contractions = sync.OnceValue(func() map[string]string {
	const full = `ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't mightn't mustn't needn't
		oughtn't shan't shouldn't wasn't weren't won't wouldn't
		could've might've must've not've should've they've we've what've where've who've would've you've
		how'll it'll somebody'll someone'll something'll they'll what'll who'll why'll you'll
		there're they're what're why're you're
		he'd how'd it'd someone'd something'd there'd they'd where'd who'd you'd
		he's how's somebody's someone's that's there's what's when's where's who's why's
		ma'am o'clock 'twas y'all
		couldn't've hadn't've mightn't've shouldn't've wouldn't've
		he'd've it'd've she'd've somebody'd've someone'd've something'd've there'd've they'd've we'd've who'd've
		you'd've
		y'all'll y'all'd've 'ow's'at`
	table := map[string]string{"somebody'd": "somebodyd"} // the wrong way round in the evaluators
	for value := range strings.FieldsSeq(full) {
		for i := range len(value) {
			if value[i] == '\'' {
				table[value[:i]+value[i+1:]] = value
			}
		}
	}
	return table
})

// oneLine puts spaces in the place of newlines and tabs and strips white space at both ends.
func oneLine(s string) string {
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '\t' {
			s = strings.NewReplacer("\n", " ", "\t", " ").Replace(s)
			break
		}
	}
	return strings.TrimFunc(s, isSpace)
}

// isSpace is Python's str.isspace: what split and strip go by. The separators U+001C to U+001F are space there.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f
}

// maxRemembered bounds the memory of a judge: so many texts, and none longer than maxRememberedText bytes.
const (
	maxRemembered     = 1 << 17
	maxRememberedText = 64
)

// memory keeps normalised texts: a few thousand answers make up nearly all of a data set.
type memory struct{ both, marks map[string]string }

func newMemory() memory { return memory{map[string]string{}, map[string]string{}} }

func (m memory) normalise(s string) string { return remember(m.both, s, Normalise) }

func (m memory) punct(s string) string { return remember(m.marks, s, Punct) }

func remember(known map[string]string, s string, f func(string) string) string {
	if v, ok := known[s]; ok {
		return v
	}
	v := f(s)
	if len(s) <= maxRememberedText && len(known) < maxRemembered {
		known[s] = v
	}
	return v
}
