package tokenizer

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// splitter cuts a normalised text into the words that the model sees and calls yield with each in order until it
// returns false; it returns false then, too. first says whether the text starts where the whole text does. Words are
// never empty.
type splitter interface {
	split(text string, first bool, yield func(word string) bool) bool
}

// splitters are applied one to the words of the other.
type splitters []splitter

func (list splitters) split(text string, first bool, yield func(word string) bool) bool {
	switch len(list) {
	case 0:
		return text == "" || yield(text)
	case 1:
		return list[0].split(text, first, yield)
	}
	return list[0].split(text, first, func(word string) bool {
		ok := list[1:].split(word, first, yield)
		first = false
		return ok
	})
}

// bertSplitter is BertPreTokenizer: it splits at white space, and punctuation characters are words of their own.
type bertSplitter struct{}

func (bertSplitter) split(text string, _ bool, yield func(word string) bool) bool {
	punctuation := loadBERTClasses().punctuation
	start := 0
	for i, r := range text {
		space := unicode.IsSpace(r)
		if !space && !punctuation.has(r) {
			continue
		}
		if start < i && !yield(text[start:i]) {
			return false
		}
		start = i + utf8.RuneLen(r)
		if !space && !yield(text[i:start]) {
			return false
		}
	}
	return start == len(text) || yield(text[start:])
}

// spaceSplitter is WhitespaceSplit: it splits at white space.
type spaceSplitter struct{}

func (spaceSplitter) split(text string, _ bool, yield func(word string) bool) bool {
	for {
		text = strings.TrimLeftFunc(text, unicode.IsSpace)
		if text == "" {
			return true
		}
		end := strings.IndexFunc(text, unicode.IsSpace)
		if end < 0 {
			end = len(text)
		}
		if !yield(text[:end]) {
			return false
		}
		text = text[end:]
	}
}

// byteLevelSplitter is the splitting part of ByteLevel: GPT-2's regular expression
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//
// by hand, as Go's regular expressions cannot look ahead.
type byteLevelSplitter struct {
	prefixSpace bool // put a space in front of a text that does not start with one
	whole       bool // do not split
	classes     *wordClasses
}

func (b byteLevelSplitter) split(text string, _ bool, yield func(word string) bool) bool {
	if text == "" {
		return true
	}
	if b.prefixSpace && text[0] != ' ' {
		text = " " + text
	}
	if b.whole {
		return yield(text)
	}
	for len(text) > 0 {
		n := b.classes.nextWord(text)
		if !yield(text[:n]) {
			return false
		}
		text = text[n:]
	}
	return true
}

// nextWord is the length of what GPT-2's regular expression matches at the start of s, which must not be empty.
func (c *wordClasses) nextWord(s string) int {
	if n := contraction(s); n > 0 {
		return n
	}
	class, n := c.of(s)
	if s[0] == ' ' && len(s) > 1 {
		if next, m := c.of(s[1:]); next != wordSpace {
			return 1 + c.run(s[1:], next, m)
		}
	}
	if class != wordSpace {
		return c.run(s, class, n)
	}
	end, last := n, n // of the white space, and the length of its last character
	for end < len(s) {
		next, m := c.of(s[end:])
		if next != wordSpace {
			break
		}
		end, last = end+m, m
	}
	if end < len(s) && end > last {
		return end - last // the last white space belongs to the next word
	}
	return end
}

// run extends a match of n bytes over the characters of the same class that follow.
func (c *wordClasses) run(s string, class wordClass, n int) int {
	for n < len(s) {
		next, m := c.of(s[n:])
		if next != class {
			break
		}
		n += m
	}
	return n
}

// contraction is the length of 's, 't, 're, 've, 'm, 'll or 'd at the start of s, 0 for anything else.
func contraction(s string) int {
	if len(s) < 2 || s[0] != '\'' {
		return 0
	}
	switch s[1] {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(s) > 2 {
		switch s[1:3] {
		case "re", "ve", "ll":
			return 3
		}
	}
	return 0
}

// clipSplitter keeps what CLIP's regular expression matches and drops the rest:
//
//	's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
type clipSplitter struct {
	literals []string // alternatives in front of all others, such as <|endoftext|>
	classes  *wordClasses
}

func (c clipSplitter) split(text string, _ bool, yield func(word string) bool) bool {
	for len(text) > 0 {
		n := c.literal(text)
		if n == 0 {
			n = contraction(text)
		}
		if n == 0 {
			var class wordClass
			class, n = c.classes.of(text)
			if class == wordSpace {
				text = text[n:]
				continue
			}
			if class != wordNumber {
				n = c.classes.run(text, class, n)
			}
		}
		if !yield(text[:n]) {
			return false
		}
		text = text[n:]
	}
	return true
}

func (c clipSplitter) literal(text string) int {
	for _, s := range c.literals {
		if strings.HasPrefix(text, s) {
			return len(s)
		}
	}
	return 0
}

// spaceMark is the character that stands for a space in SentencePiece's vocabularies.
const spaceMark = "\u2581"

// metaspace is the pre-tokenizer Metaspace: spaces become a mark, and a word starts at every mark.
type metaspace struct {
	mark   string
	prefix prefixScheme
	whole  bool // do not split
}

// prefixScheme says which texts get a mark in front when they do not start with one.
type prefixScheme uint8

const (
	prefixAlways prefixScheme = iota
	prefixFirst               // only the one that starts where the whole text does
	prefixNever
)

func (m metaspace) split(text string, first bool, yield func(word string) bool) bool {
	if text == "" {
		return true
	}
	text = strings.ReplaceAll(text, " ", m.mark)
	if (m.prefix == prefixAlways || m.prefix == prefixFirst && first) && !strings.HasPrefix(text, m.mark) {
		text = m.mark + text
	}
	if m.whole {
		return yield(text)
	}
	for {
		_, size := utf8.DecodeRuneInString(text)
		end := strings.Index(text[size:], m.mark)
		if end < 0 {
			return yield(text)
		}
		if !yield(text[:size+end]) {
			return false
		}
		text = text[size+end:]
	}
}
