package tokenizer

import (
	"strings"
	"sync"
	"unicode/utf8"
)

// clusterClass is a value of Unicode's property Grapheme_Cluster_Break, with Extended_Pictographic and
// Indic_Conjunct_Break=Consonant among them.
type clusterClass uint8

const (
	clusterAny clusterClass = iota
	clusterIsControl
	clusterIsExtend
	clusterIsSpacing
	clusterIsPrepend
	clusterIsPicture
	clusterIsConsonant
	clusterIsRegional
	clusterIsJoiner // U+200D
	clusterIsCR
	clusterIsLF
	clusterIsL // Hangul: leading consonant, vowel, trailing consonant, syllables
	clusterIsV
	clusterIsT
	clusterIsLV
	clusterIsLVT
)

// clusterTable holds the classes that are not computed, one after the other.
type clusterTable [clusterIsConsonant + 1][]runeRange

var loadClusters = sync.OnceValue(func() *clusterTable {
	table := &clusterTable{}
	for class, list := range map[clusterClass]string{
		clusterIsControl: clusterControl, clusterIsExtend: clusterExtend, clusterIsSpacing: clusterSpacing,
		clusterIsPrepend: clusterPrepend, clusterIsPicture: clusterPicture, clusterIsConsonant: clusterConsonant,
	} {
		for _, item := range strings.Fields(list) {
			table[class] = append(table[class], parseRange(item))
		}
	}
	return table
})

func (t *clusterTable) of(r rune) clusterClass {
	switch {
	case r == '\r':
		return clusterIsCR
	case r == '\n':
		return clusterIsLF
	case ' ' <= r && r < 0x7F:
		return clusterAny
	case r == 0x200D:
		return clusterIsJoiner
	case 0x1F1E6 <= r && r <= 0x1F1FF:
		return clusterIsRegional
	}
	if class := hangulClass(r); class != clusterAny {
		return class
	}
	for class := clusterIsControl; class <= clusterIsConsonant; class++ {
		if inRanges(t[class], r) {
			return class
		}
	}
	return clusterAny
}

// hangulClass includes the four vowels of Kirat Rai, which Unicode treats alike.
func hangulClass(r rune) clusterClass {
	switch {
	case 0x1100 <= r && r <= 0x115F, 0xA960 <= r && r <= 0xA97C:
		return clusterIsL
	case 0x1160 <= r && r <= 0x11A7, 0xD7B0 <= r && r <= 0xD7C6, r == 0x16D63, 0x16D67 <= r && r <= 0x16D6A:
		return clusterIsV
	case 0x11A8 <= r && r <= 0x11FF, 0xD7CB <= r && r <= 0xD7FB:
		return clusterIsT
	case 0xAC00 <= r && r <= 0xD7A3:
		if (r-0xAC00)%28 == 0 {
			return clusterIsLV
		}
		return clusterIsLVT
	}
	return clusterAny
}

// isLinker is Indic_Conjunct_Break=Linker, a virama that joins two consonants.
func isLinker(r rune) bool {
	switch r {
	case 0x94D, 0x9CD, 0xACD, 0xB4D, 0xC4D, 0xD4D:
		return true
	}
	return false
}

// clusterEnd is the length in bytes of the first extended grapheme cluster of s (Unicode 16, UAX 29), which must not
// be empty and starts at a boundary.
func (t *clusterTable) clusterEnd(s string) int {
	r, at := utf8.DecodeRuneInString(s)
	before := t.of(r)
	var state clusterState
	state.enter(before, r)
	for at < len(s) {
		r, n := utf8.DecodeRuneInString(s[at:])
		class := t.of(r)
		if state.breaks(before, class) {
			break
		}
		state.enter(class, r)
		before = class
		at += n
	}
	return at
}

// clusterState is what the rules that look back further than one character need.
type clusterState struct {
	regionals int  // regional indicators in a row (GB12, GB13)
	picture   bool // a picture and nothing but extensions since (GB11)
	joined    bool // the same and then U+200D
	consonant bool // a consonant and nothing but extensions and linkers since (GB9c)
	linker    bool // a linker among these
}

func (c *clusterState) enter(class clusterClass, r rune) {
	if class == clusterIsRegional {
		c.regionals++
	} else {
		c.regionals = 0
	}
	extends := class == clusterIsExtend || class == clusterIsJoiner
	c.joined = c.picture && class == clusterIsJoiner
	c.picture = class == clusterIsPicture || c.picture && class == clusterIsExtend
	switch {
	case class == clusterIsConsonant:
		c.consonant, c.linker = true, false
	case isLinker(r):
		c.linker = c.consonant
	case !extends || r == 0x200C:
		c.consonant, c.linker = false, false
	}
}

// breaks says whether there is a boundary between a character of class before, the last one entered, and one of class
// after.
func (c *clusterState) breaks(before, after clusterClass) bool {
	switch {
	case before == clusterIsCR && after == clusterIsLF: // GB3
		return false
	case endsLine(before), endsLine(after): // GB4, GB5
		return true
	case before == clusterIsL && (after == clusterIsL || after == clusterIsV || after == clusterIsLV ||
		after == clusterIsLVT): // GB6
		return false
	case (before == clusterIsLV || before == clusterIsV) && (after == clusterIsV || after == clusterIsT): // GB7
		return false
	case (before == clusterIsLVT || before == clusterIsT) && after == clusterIsT: // GB8
		return false
	case after == clusterIsExtend, after == clusterIsJoiner, after == clusterIsSpacing: // GB9, GB9a
		return false
	case before == clusterIsPrepend: // GB9b
		return false
	case after == clusterIsConsonant: // GB9c
		return !c.linker
	case before == clusterIsJoiner && after == clusterIsPicture: // GB11
		return !c.joined
	case before == clusterIsRegional && after == clusterIsRegional: // GB12, GB13
		return c.regionals%2 == 0
	}
	return true
}

func endsLine(class clusterClass) bool {
	return class == clusterIsControl || class == clusterIsCR || class == clusterIsLF
}
