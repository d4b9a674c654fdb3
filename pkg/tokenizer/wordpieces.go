package tokenizer

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// wordPieces is WordPiece as a model among others: vocabulary, prefix of inner pieces and limits are free, and special
// tokens are not its concern.
type wordPieces struct {
	vocabulary
	unk      int32
	maxRunes int   // length above which a word is not split, but unk
	starts   *trie // all pieces
	inside   *trie // those with the prefix of inner pieces, without it
}

// maxWordLimit bounds the length in characters up to which a file may want words to be split.
const maxWordLimit = 1000

// newWordPieces takes the ids of all pieces, the piece for words that cannot be split, the prefix of pieces inside a
// word and the length in characters above which a word is not split.
func newWordPieces(ids map[string]int32, unk, prefix string, maxRunes int) (*wordPieces, error) {
	v, err := newVocabulary(ids)
	if err != nil {
		return nil, err
	}
	unkID, ok := ids[unk]
	switch {
	case !ok:
		return nil, fmt.Errorf("the unknown token %q is not in the vocabulary of %d pieces", unk, len(ids))
	case maxRunes < 0 || maxRunes > maxWordLimit:
		return nil, fmt.Errorf("words of up to %d characters are to be split; at most %d are accepted", maxRunes,
			maxWordLimit)
	}
	var starts, inside []trieKey
	for piece, id := range ids {
		starts = append(starts, trieKey{piece, id})
		if rest, ok := strings.CutPrefix(piece, prefix); ok {
			inside = append(inside, trieKey{rest, id})
		}
	}
	return &wordPieces{vocabulary: v, unk: unkID, maxRunes: maxRunes, starts: newTrie(starts),
		inside: newTrie(inside)}, nil
}

func (w *wordPieces) append(ids []int32, word string, _ bool) []int32 {
	if len(word) > w.maxRunes && utf8.RuneCountInString(word) > w.maxRunes {
		return append(ids, w.unk)
	}
	if id, ok := w.ids[word]; ok {
		return append(ids, id)
	}
	before, table := len(ids), w.starts
	for word != "" {
		id, n := table.longest(word)
		if n == 0 {
			return append(ids[:before], w.unk)
		}
		ids = append(ids, id)
		word, table = word[n:], w.inside
	}
	return ids
}

// parseVocabTxt reads BERT's vocab.txt: one piece per line, the id is the line number from 0. Of equal pieces the last
// counts.
func parseVocabTxt(data []byte) (map[string]int32, error) {
	ids := map[string]int32{}
	for line := int32(0); len(data) > 0; line++ {
		piece, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		piece = bytes.TrimSuffix(piece, []byte("\r"))
		if !utf8.Valid(piece) {
			return nil, fmt.Errorf("line %d is not UTF-8", line+1)
		}
		ids[string(piece)] = line
	}
	return ids, nil
}
