package tokenizer

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is a token that is looked for in the text before the model splits it, with Hugging Face's options.
type addedToken struct {
	content    string
	singleWord bool // not between letters, digits or _
	lstrip     bool // takes the white space on its left with it
	rstrip     bool // and on its right
	normalized bool // looked for, normalised itself, in the normalised text; else in the text as it is
	special    bool // left out by Decode on request, and not looked for in literal text
}

// addedTokens is Hugging Face's added vocabulary. It is immutable after seal.
type addedTokens struct {
	byID    map[int32]addedToken
	ids     map[string]int32
	special map[string]bool
	// The order in which tokens were first added, special ones apart. As in the reference, whether a token is looked
	// for in the normalised text is settled by its first, all else by its last definition.
	specials, plain   []addedToken
	raw, normalisedIn *trie
	normalise         func(string) string
	end               int32 // the id behind all added ones
}

func newAddedTokens(normalise func(string) string) *addedTokens {
	return &addedTokens{byID: map[int32]addedToken{}, ids: map[string]int32{}, special: map[string]bool{},
		normalise: normalise}
}

// add gives the token the id that its content has already, among the added tokens or in the model, or else the next
// free one, and returns it.
func (a *addedTokens) add(token addedToken, m model) int32 {
	isNew := token.special && !a.special[token.content]
	if isNew {
		a.special[token.content] = true
		a.specials = append(a.specials, token)
	}
	id, ok := a.id(token.content, m)
	if !ok {
		id = max(a.end, m.size())
	}
	if known, ok := a.byID[id]; ok && known == token {
		return id
	}
	a.ids[token.content] = id
	a.byID[id] = token
	a.end = max(a.end, id+1)
	if !a.special[token.content] {
		a.plain = append(a.plain, token)
	}
	return id
}

func (a *addedTokens) id(content string, m model) (int32, bool) {
	if id, ok := a.ids[content]; ok {
		return id, true
	}
	return m.id(content)
}

// seal builds the tries; nothing can be added afterwards.
func (a *addedTokens) seal() {
	var raw, normalised []trieKey
	for _, token := range slices.Concat(a.specials, a.plain) {
		id := a.ids[token.content]
		if !token.normalized {
			raw = append(raw, trieKey{token.content, id})
			continue
		}
		normalised = append(normalised, trieKey{a.normalise(token.content), id})
	}
	if len(raw) > 0 {
		a.raw = newTrie(raw)
	}
	if len(normalised) > 0 {
		a.normalisedIn = newTrie(normalised)
	}
}

// split calls text with every stretch between tokens of t in s and token with their ids, in order, until one of them
// returns false. start is the offset of the stretch in s. With literal, special tokens are text.
func (a *addedTokens) split(t *trie, s string, literal bool, text func(part string, start int) bool,
	token func(id int32) bool) bool {
	if t == nil {
		return text(s, 0)
	}
	done := 0 // what is before has been handed on
	for at := 0; at < len(s); {
		if t.root[s[at]] == noNode {
			at++
			continue
		}
		id, n := t.longest(s[at:])
		if n == 0 {
			at++
			continue
		}
		start, end := at, at+n
		at = end
		known := a.byID[id]
		if literal && a.special[known.content] || known.singleWord && (endsInWord(s[:start]) || startsWord(s[end:])) {
			continue
		}
		if known.lstrip {
			start = max(len(strings.TrimRightFunc(s[:start], unicode.IsSpace)), done)
		}
		if known.rstrip {
			end = len(s) - len(strings.TrimLeftFunc(s[end:], unicode.IsSpace))
		}
		if done < start && !text(s[done:start], done) || !token(id) {
			return false
		}
		done = end
	}
	return done == len(s) && done > 0 || text(s[done:], done)
}

func endsInWord(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return n > 0 && isWordCharacter(r)
}

func startsWord(s string) bool {
	r, n := utf8.DecodeRuneInString(s)
	return n > 0 && isWordCharacter(r)
}

// isWordCharacter is \w of Unicode's regular expressions.
func isWordCharacter(r rune) bool { return loadWordClasses().letter.has(r) || loadInWord().has(r) }

// check says whether an id that a file declares for a token is the one it got.
func (a *addedTokens) check(token addedToken, declared, got int32) error {
	if declared == got {
		return nil
	}
	return fmt.Errorf("the added token %q is declared with id %d, but gets %d from the vocabulary and the tokens "+
		"before it", token.content, declared, got)
}
