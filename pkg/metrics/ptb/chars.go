package ptb

import (
	"fmt"
	"strings"
	"unicode"
)

// The reference's tables know Unicode 6: letters that came later are no letters to it.
var (
	laterLetters = []uint16{0x037F, 0x037F, 0x0528, 0x052F, 0x0560, 0x0560, 0x0588, 0x0588, 0x05EF, 0x05EF,
		0x0860, 0x088F, 0x08A1, 0x08A1, 0x08AD, 0x08C9, 0x0978, 0x0978, 0x0980, 0x0980, 0x09FC, 0x09FC,
		0x0AF9, 0x0AF9, 0x0C34, 0x0C34, 0x0C5A, 0x0C5D, 0x0C80, 0x0C80, 0x0CDC, 0x0CDD, 0x0D04, 0x0D04,
		0x0D54, 0x0D56, 0x0D5F, 0x0D5F, 0x0E86, 0x0E86, 0x0E89, 0x0E89, 0x0E8C, 0x0E8C, 0x0E8E, 0x0E93,
		0x0E98, 0x0E98, 0x0EA0, 0x0EA0, 0x0EA8, 0x0EA9, 0x0EAC, 0x0EAC, 0x13F5, 0x13F5, 0x13F8, 0x13FD,
		0x16F1, 0x16F8, 0x170D, 0x170D, 0x171F, 0x171F, 0x1878, 0x1878, 0x191D, 0x191E, 0x19B0, 0x19C0,
		0x19C8, 0x19C9, 0x1B4C, 0x1B4C, 0x1C80, 0x1CBF, 0x1CF2, 0x1CF3, 0x1CFA, 0x1CFA, 0x2C2F, 0x2C2F,
		0x2C5F, 0x2C5F, 0x312E, 0x312F, 0x31BB, 0x31BF, 0x4DB6, 0x4DBF, 0x9FCD, 0x9FFF, 0xA698, 0xA69D,
		0xA78F, 0xA78F, 0xA794, 0xA79F, 0xA7AB, 0xA7F7, 0xA8FD, 0xA8FE, 0xA9E0, 0xA9FE, 0xAA7E, 0xAA7F,
		0xAB30, 0xABBF}
	laterDigits = []uint16{0x0DE6, 0x0DEF, 0xA9F0, 0xA9F9}
	// formerLetters have become marks since, and Cherokee has become a script of capitals.
	formerLetters = []uint16{0x1885, 0x1886}
	laterCapitals = append([]uint16{0x13A0, 0x13F4}, laterLetters...)
)

// signs are letters to the reference although Unicode does not count them as such: accents, vowel signs, tone marks and
// some punctuation of several scripts. The last of them is the soft hyphen.
const signs = `\x{2C2}-\x{2C5}\x{2D2}-\x{2DF}\x{2E5}-\x{2EB}\x{2ED}\x{2EF}-\x{36F}\x{375}\x{378}\x{379}\x{384}\x{385}` +
	`\x{3F6}\x{483}-\x{487}\x{55A}-\x{55F}\x{591}-\x{5BD}\x{5BF}\x{5C1}\x{5C2}\x{5C4}\x{5C5}\x{5C7}` +
	`\x{615}-\x{61A}\x{64B}-\x{65E}\x{670}\x{6D6}-\x{6E4}\x{6E7}-\x{6ED}\x{6FD}\x{6FE}\x{70F}\x{711}` +
	`\x{730}-\x{74C}\x{7A6}-\x{7B0}\x{7EB}-\x{7F3}\x{900}-\x{903}\x{93C}\x{93E}-\x{94E}\x{951}-\x{955}` +
	`\x{962}\x{963}\x{981}-\x{983}\x{9BC}\x{9BE}-\x{9C4}\x{9C7}\x{9C8}\x{9CB}-\x{9CD}\x{9D7}\x{9E2}\x{9E3}` +
	`\x{A01}-\x{A03}\x{A3C}\x{A3E}-\x{A4F}\x{A81}-\x{A83}\x{ABC}\x{ABE}-\x{ACF}\x{B82}\x{BBE}-\x{BC2}` +
	`\x{BC6}-\x{BC8}\x{BCA}-\x{BCD}\x{C01}-\x{C03}\x{C3E}-\x{C56}\x{D3E}-\x{D44}\x{D46}-\x{D48}\x{E31}` +
	`\x{E34}-\x{E3A}\x{E47}-\x{E4E}\x{EB1}\x{EB4}-\x{EBC}\x{EC8}-\x{ECD}\x{AD}`

// letters, digits and capitals are the inside of character classes: what the reference takes for such, of the 16-bit
// characters. Beyond them nothing is a letter.
var (
	letters  = classOf(unicode.L, laterLetters) + pairs(formerLetters)
	digits   = classOf(unicode.Nd, laterDigits) + `\x{7C0}-\x{7C9}`
	capitals = classOf(unicode.Lu, laterCapitals) + `\x{2160}-\x{216F}\x{24B6}-\x{24CF}`
)

// classOf writes the 16-bit characters of the table that were there in Unicode 6.
func classOf(table *unicode.RangeTable, later []uint16) string {
	known := func(r rune) bool {
		for i := 0; i < len(later); i += 2 {
			if rune(later[i]) <= r && r <= rune(later[i+1]) {
				return false
			}
		}
		return unicode.Is(table, r)
	}
	var b strings.Builder
	for r := rune(0); r <= 0xFFFF; r++ {
		if !known(r) {
			continue
		}
		first := r
		for r < 0xFFFF && known(r+1) {
			r++
		}
		fmt.Fprintf(&b, `\x{%X}-\x{%X}`, first, r)
	}
	return b.String()
}

func pairs(ranges []uint16) string {
	var b strings.Builder
	for i := 0; i < len(ranges); i += 2 {
		fmt.Fprintf(&b, `\x{%X}-\x{%X}`, ranges[i], ranges[i+1])
	}
	return b.String()
}
