package ptb

import (
	"strings"
	"unicode"
)

var (
	openQuotes  = strings.NewReplacer("&apos;", "`", "'", "`", `"`, "``", "&quot;", "``")
	closeQuotes = strings.NewReplacer("&apos;", "'", `"`, "''", "&quot;", "''")
	curlyQuotes = strings.NewReplacer("\u0091", "`", "\u2018", "`", "\u201B", "`", "\u2039", "`", "\u0092", "'",
		"\u2019", "'", "\u203A", "'", "\u0093", "``", "\u201C", "``", "\u00AB", "``", "\u0094", "''", "\u201D", "''",
		"\u00BB", "''")
	fractions  = strings.NewReplacer("\u00BC", "1/4", "\u00BD", "1/2", "\u00BE", "3/4", "\u2153", "1/3", "\u2154", "2/3")
	currencies = strings.NewReplacer("\u00A2", "cents", "\u00A3", "#", "\u0080", "$", "\u00A4", "$", "\u20A0", "$",
		"\u20AC", "$")
	roundBrackets = strings.NewReplacer("(", "-LRB-", ")", "-RRB-")
)

// rewrite makes the token of the text.
func rewrite(text string, r *rule) string {
	switch r.as {
	case hyphens:
		if text = strings.ReplaceAll(text, "\u00AD", ""); text == "" {
			return "-"
		}
	case opening:
		return curlyQuotes.Replace(openQuotes.Replace(text))
	case closing:
		return curlyQuotes.Replace(closeQuotes.Replace(text))
	case ampersand:
		for i := 0; i+5 <= len(text); i++ {
			if strings.EqualFold(text[i:i+5], "&amp;") {
				text = text[:i+1] + text[i+5:]
			}
		}
	case dash:
		return "--"
	case dashes:
		if len(text) == 3 || len(text) == 4 {
			return "--"
		}
	case ellipsis:
		return "..."
	case fraction:
		return fractions.Replace(text)
	case currency:
		return currencies.Replace(text)
	case spaces:
		return strings.ReplaceAll(text, " ", "\u00A0")
	case phone:
		return roundBrackets.Replace(strings.ReplaceAll(text, " ", "\u00A0"))
	case brackets:
		return roundBrackets.Replace(text)
	case literal:
		return r.text
	}
	return text
}

// lower is Java's String.toLowerCase: like strings.ToLower, but İ keeps its dot and a sigma that ends a word is final.
func lower(s string) string {
	if !strings.ContainsAny(s, "İΣ") {
		return strings.ToLower(s)
	}
	runes := []rune(s)
	var b strings.Builder
	for i, r := range runes {
		switch {
		case r == 'İ':
			b.WriteString("i\u0307")
		case r == 'Σ' && finalSigma(runes, i):
			b.WriteRune('ς')
		default:
			b.WriteRune(unicode.ToLower(r))
		}
	}
	return b.String()
}

// finalSigma says whether a cased letter stands before place i and none behind, marks and apostrophes not counted.
func finalSigma(runes []rune, i int) bool {
	cased := func(at, step int) bool {
		for at += step; 0 <= at && at < len(runes); at += step {
			if r := runes[at]; !ignorable(r) {
				return unicode.IsUpper(r) || unicode.IsLower(r) || unicode.IsTitle(r) ||
					unicode.In(r, unicode.Other_Lowercase, unicode.Other_Uppercase)
			}
		}
		return false
	}
	return cased(i, -1) && !cased(i, 1)
}

// ignorable says whether a character does not count where words end.
func ignorable(r rune) bool {
	switch r {
	case '\'', '.', ':', '^', '`', 0xA8, 0xAD, 0xAF, 0xB4, 0xB7, 0xB8, 0x2019, 0x2018, 0x2024, 0x2027:
		return true
	}
	return unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf, unicode.Lm, unicode.Sk)
}
