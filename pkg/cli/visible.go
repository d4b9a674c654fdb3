package cli

import (
	"strconv"
	"strings"
	"unicode"
)

// visible writes the characters of a text that would steer a terminal, as names in a stranger's file may hold them, in
// the way that Go writes them in strings. Ends of lines and tabs stay.
func visible(text string) string {
	steers := func(r rune) bool { return r != '\n' && r != '\t' && !unicode.IsGraphic(r) }
	if strings.IndexFunc(text, steers) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if steers(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}
