package tokenizer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// charsmap is a normalisation table that SentencePiece has compiled ("precompiled_charsmap"): a double-array trie of
// UTF-8 strings whose values are offsets into a blob of replacements that end with a zero byte.
//
// A unit of the trie is 32 bits: label (bits 0–7 and 31), a flag that the node has a leaf (8), the offset to its
// children (10–30, shifted left by 8 if bit 9 is set); the unit of a leaf is the value itself (bits 0–30).
type charsmap struct {
	widest int // bytes of the longest replacement
	units  []uint32
	blob   string
	alone  [utf8.RuneSelf]string // replacement of an ASCII character that stands alone
	mapped [utf8.RuneSelf]bool   // there is one
	begins [1 << 8]bool          // a key begins with this byte
}

// maxReplacement bounds the length in bytes of what one match is replaced by. The longest of Unicode's has 33.
const maxReplacement = 256

// newCharsmap reads the compiled form: size of the trie in bytes (little endian, 32 bits), trie, replacements.
func newCharsmap(data []byte) (*charsmap, error) {
	if len(data) < 4 {
		return nil, errors.New("the character map is shorter than its header of 4 bytes")
	}
	size := uint64(binary.LittleEndian.Uint32(data))
	if size%4 != 0 || size == 0 || size > uint64(len(data)-4) {
		return nil, fmt.Errorf("the character map declares a trie of %d bytes, but has %d bytes and needs whole "+
			"units of 4", size, len(data)-4)
	}
	m := &charsmap{units: make([]uint32, size/4), blob: string(data[4+size:])}
	for i := range m.units {
		m.units[i] = binary.LittleEndian.Uint32(data[4+4*i:])
	}
	if !utf8.ValidString(m.blob) {
		return nil, errors.New("the character map's replacements are not UTF-8")
	}
	for rest := m.blob; rest != ""; {
		entry, after, _ := strings.Cut(rest, "\x00")
		if len(entry) > maxReplacement {
			return nil, fmt.Errorf("the character map has a replacement of %d bytes; at most %d are accepted",
				len(entry), maxReplacement)
		}
		m.widest = max(m.widest, len(entry))
		rest = after
	}
	for b := 1; b < len(m.begins); b++ {
		_, m.begins[b] = m.step(unitOffset(m.units[0]), byte(b))
	}
	for c := range m.alone {
		m.alone[c], m.mapped[c] = m.shortest(string(rune(c)))
	}
	return m, nil
}

// walk calls found with the length and the value of every key that s begins with, shortest first, until it returns
// false. As in the reference, no key goes beyond a zero byte, and what points outside the trie ends the search.
func (m *charsmap) walk(s string, found func(length int, value uint32) bool) {
	const leafBit, valueBits = 1 << 8, 1<<31 - 1
	at := unitOffset(m.units[0])
	for i := 0; i < len(s) && s[i] != 0; i++ {
		unit, ok := m.step(at, s[i])
		if !ok {
			return
		}
		at ^= uint32(s[i]) ^ unitOffset(unit)
		if unit&leafBit == 0 {
			continue
		}
		if int64(at) >= int64(len(m.units)) || !found(i+1, m.units[at]&valueBits) {
			return
		}
	}
}

// step gives the unit that byte b leads to from a node whose children are at an offset.
func (m *charsmap) step(at uint32, b byte) (unit uint32, ok bool) {
	const labelBits = 1<<31 | 0xFF
	at ^= uint32(b)
	if int64(at) >= int64(len(m.units)) {
		return 0, false
	}
	unit = m.units[at]
	return unit, unit&labelBits == uint32(b)
}

func unitOffset(unit uint32) uint32 { return unit >> 10 << (unit & (1 << 9) >> 6) }

// replacement is the blob's string at an offset. One that lies outside or inside a character is no replacement.
func (m *charsmap) replacement(offset uint32) (string, bool) {
	if int64(offset) >= int64(len(m.blob)) || !utf8.RuneStart(m.blob[offset]) {
		return "", false
	}
	text, _, _ := strings.Cut(m.blob[offset:], "\x00")
	return text, true
}

// shortest gives the replacement of the shortest key that s begins with: Hugging Face's rule, applied to whole grapheme
// clusters and single characters.
func (m *charsmap) shortest(s string) (text string, ok bool) {
	m.walk(s, func(_ int, value uint32) bool {
		text, ok = m.replacement(value)
		return false
	})
	return text, ok
}

// longest gives the replacement of the longest key that s begins with and the key's length: SentencePiece's rule.
func (m *charsmap) longest(s string) (text string, length int) {
	m.walk(s, func(n int, value uint32) bool {
		if found, ok := m.replacement(value); ok {
			text, length = found, n
		}
		return true
	})
	return text, length
}

// precompiled is the normaliser Precompiled of Hugging Face's tokenizers: a grapheme cluster of less than 6 bytes that
// begins with a key is replaced as a whole, even if the key is only part of it; else every character is for itself.
type precompiled struct {
	table    *charsmap
	clusters *clusterTable
}

func (p precompiled) growth() float64 { return float64(max(p.table.widest, 1)) }

func (p precompiled) normalize(text string, _ bool) string {
	const longCluster = 6
	out := make([]byte, 0, len(text)+16)
	for i := 0; i < len(text); {
		if n := p.plainASCII(text[i:]); n > 0 {
			out = append(out, text[i:i+n]...)
			i += n
			continue
		}
		if c := text[i]; c < utf8.RuneSelf && p.standsAlone(text[i:]) {
			out = append(out, p.table.alone[c]...)
			i++
			continue
		}
		cluster := text[i : i+p.clusters.clusterEnd(text[i:])]
		i += len(cluster)
		if len(cluster) < longCluster {
			if to, ok := p.table.shortest(cluster); ok {
				out = append(out, to...)
				continue
			}
		}
		out = p.appendCharacters(out, cluster)
	}
	return string(out)
}

// plainASCII is the number of ASCII characters at the start of s that are clusters of their own and stay as they are.
func (p precompiled) plainASCII(s string) int {
	n := 0
	for n < len(s) && s[n] < utf8.RuneSelf && !p.table.mapped[s[n]] && p.standsAlone(s[n:]) {
		n++
	}
	return n
}

// standsAlone says that the ASCII character at the start of s is surely a cluster of its own.
func (p precompiled) standsAlone(s string) bool {
	return len(s) == 1 || s[1] < utf8.RuneSelf && s[1] != '\n'
}

func (p precompiled) appendCharacters(out []byte, cluster string) []byte {
	for len(cluster) > 0 {
		_, n := utf8.DecodeRuneInString(cluster)
		if to, ok := p.table.shortest(cluster[:n]); ok {
			out = append(out, to...)
		} else {
			out = append(out, cluster[:n]...)
		}
		cluster = cluster[n:]
	}
	return out
}
