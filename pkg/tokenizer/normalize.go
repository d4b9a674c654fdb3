package tokenizer

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// normalizer rewrites a text before it is split into words. first says whether the text starts where the whole text
// does, and not behind an added token. What it returns is valid UTF-8 if text is.
type normalizer interface {
	normalize(text string, first bool) string
	// growth is how many times as long as a text its normal form can be at most, short texts aside.
	growth() float64
}

// maxGrowth bounds growth, so that a file cannot make texts explode. T5's normaliser has 50.
const maxGrowth = 1000

// normalizers are applied in order.
type normalizers []normalizer

func (list normalizers) normalize(text string, first bool) string {
	for _, n := range list {
		text = n.normalize(text, first)
	}
	return text
}

func (list normalizers) growth() float64 {
	factor := 1.0
	for _, n := range list {
		factor *= n.growth()
	}
	return factor
}

// normalizeFunc is a normalizer that does not care where the text starts.
type normalizeFunc struct {
	apply  func(text string) string
	factor float64 // see normalizer.growth
}

func (f normalizeFunc) normalize(text string, _ bool) string { return f.apply(text) }

func (f normalizeFunc) growth() float64 { return f.factor }

// bertNormalizer is BertNormalizer of Hugging Face's tokenizers. It differs from splitWords, which follows BERT's
// original tokenizer, in the order (accents are stripped before lower-casing), in a gap of its CJK blocks, in what it
// does with unassigned characters (it keeps them) and in the version of Unicode.
type bertNormalizer struct {
	cleanText, isolateCJK, stripAccents, lowercase bool
}

func (b bertNormalizer) normalize(text string, _ bool) string {
	if b.cleanText || b.isolateCJK {
		text = b.clean(text)
	}
	if b.stripAccents {
		text = dropMarks(canonical(text, norm.NFD))
	}
	if b.lowercase {
		text = lowerEach(text)
	}
	return text
}

// growth: spaces around a Chinese character make 5 bytes of 3, the decomposition of one character at most 3 times as
// many bytes, lower-casing one and a half.
func (b bertNormalizer) growth() float64 { return 2 * canonicalGrowth * lowerGrowth }

// What normal forms and lower-casing can do to the length of a text.
const (
	canonicalGrowth = 3
	lowerGrowth     = 1.5
)

// clean drops control characters, unifies white space and puts spaces around Chinese characters.
func (b bertNormalizer) clean(text string) string {
	classes := loadBERTClasses()
	out := make([]byte, 0, len(text)+len(text)/8)
	for _, r := range text {
		switch {
		case b.cleanText && r != '\t' && r != '\n' && r != '\r' && classes.other.has(r):
		case b.cleanText && unicode.IsSpace(r):
			out = append(out, ' ')
		case b.isolateCJK && isFastCJK(r):
			out = utf8.AppendRune(append(out, ' '), r)
			out = append(out, ' ')
		default:
			out = utf8.AppendRune(out, r)
		}
	}
	return string(out)
}

// dropMarks removes non-spacing marks.
func dropMarks(text string) string {
	marks := loadBERTClasses().mark
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf && marks.has(r) {
			return -1
		}
		return r
	}, text)
}

// canonical is the normal form NFC or NFD by the rules of Unicode 9. golang.org/x/text does it, except where newer
// characters take part or where it would break a long row of marks with U+034F.
func canonical(text string, form norm.Form) string {
	if isASCII(text) {
		return text
	}
	const breaker = "\u034F"
	out := form.String(text)
	newer := loadNewer()
	if strings.Count(out, breaker) == strings.Count(text, breaker) && strings.IndexFunc(text, newer.has) < 0 {
		return out
	}
	runes := decompose(text, newer)
	if form == norm.NFC {
		runes = compose(runes, newer)
	}
	return string(runes)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// decompose gives the canonical decomposition of text, marks in canonical order.
func decompose(text string, newer *runeSet) []rune {
	var out []rune
	for _, r := range text {
		if newer.has(r) {
			out = append(out, r)
			continue
		}
		out = append(out, []rune(norm.NFD.String(string(r)))...)
	}
	for lo := 0; lo < len(out); lo++ {
		if combiningClass(out[lo], newer) == 0 {
			continue
		}
		hi := lo + 1
		for hi < len(out) && combiningClass(out[hi], newer) != 0 {
			hi++
		}
		slices.SortStableFunc(out[lo:hi], func(a, b rune) int {
			return int(combiningClass(a, newer)) - int(combiningClass(b, newer))
		})
		lo = hi
	}
	return out
}

// compose joins starters with the marks that follow them, by the algorithm of Unicode's canonical composition. It
// works in place.
func compose(runes []rune, newer *runeSet) []rune {
	out := runes[:0]
	starter := -1    // index in out
	last := uint8(0) // class of the last character kept behind the starter
	for _, r := range runes {
		class := combiningClass(r, newer)
		if starter >= 0 && (last < class || last == 0 && starter == len(out)-1) && !newer.has(r) {
			if joined, ok := composePair(out[starter], r); ok && !newer.has(out[starter]) {
				out[starter] = joined
				continue
			}
		}
		if class == 0 {
			starter = len(out)
		}
		last = class
		out = append(out, r)
	}
	return out
}

func combiningClass(r rune, newer *runeSet) uint8 {
	if r < 0x300 || newer.has(r) {
		return 0
	}
	return norm.NFD.PropertiesString(string(r)).CCC()
}

// composePair gives the character that is canonically equivalent to a and b together, if composition allows it.
func composePair(a, b rune) (rune, bool) {
	joined := norm.NFC.String(string(a) + string(b))
	r, n := utf8.DecodeRuneInString(joined)
	return r, n == len(joined)
}

// collapse is the normaliser Replace for the pattern " {2,}": every row of at least two spaces becomes with.
func collapse(text, with string) string {
	at := strings.Index(text, "  ")
	if at < 0 {
		return text
	}
	var b strings.Builder
	for at >= 0 {
		b.WriteString(text[:at])
		b.WriteString(with)
		text = strings.TrimLeft(text[at:], " ")
		at = strings.Index(text, "  ")
	}
	b.WriteString(text)
	return b.String()
}

// unifySpace is the normaliser Replace for the pattern \s+: every row of white space becomes with.
func unifySpace(text, with string) string {
	var b strings.Builder
	for {
		at := strings.IndexFunc(text, unicode.IsSpace)
		if at < 0 {
			break
		}
		b.WriteString(text[:at])
		b.WriteString(with)
		text = strings.TrimLeftFunc(text[at:], unicode.IsSpace)
	}
	if b.Len() == 0 {
		return text
	}
	b.WriteString(text)
	return b.String()
}

// clipNormalizer is CLIP's: NFC, single spaces, small letters. The reference does not repair broken text with ftfy, as
// OpenAI's own code does.
func clipNormalizer() normalizer {
	return normalizers{canonicalForm(norm.NFC),
		normalizeFunc{func(s string) string { return unifySpace(s, " ") }, 1}, normalizeFunc{lowerEach, lowerGrowth}}
}
