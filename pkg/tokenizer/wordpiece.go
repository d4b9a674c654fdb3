// Package tokenizer turns text into the integer ids that the language models of BLIP-2 were trained on, and back.
//
// The Q-Former reads BERT's uncased WordPiece, OPT and GPT-2 byte-level BPE, CLIP a BPE with marks at the end of words,
// T5 and Flan-T5 a SentencePiece unigram model (spec/data.md §4). Load makes any of them from the files of a model, as
// Hugging Face's fast tokenizers are made from them: added tokens are taken out of the text, the rest is normalised,
// split into words and cut into pieces (see pipeline). Numbers, tables and order of operations are those of tokenizers
// 0.22.2 and transformers 4.57.6, of SentencePiece 0.2.3 where only its model file is there.
//
// WordPiece is BERT's tokenizer for training, as LAVIS has it: transformers' slow class. It differs from the fast one
// that Load makes only for characters that are unassigned or newer than Unicode 8, and for a few rare Chinese ones.
package tokenizer

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"
)

// maxWordRunes is the length above which BERT does not try to split a word and answers [UNK].
const maxWordRunes = 100

// continuation marks a piece that does not start a word.
const continuation = "##"

// WordPiece is BERT's uncased tokenizer. It is immutable after loading and safe for concurrent use.
type WordPiece struct {
	pieces   []string         // piece by id, as in the vocabulary file
	starts   map[string]int32 // pieces that start a word
	inside   map[string]int32 // pieces inside a word, without "##"
	longest  int              // length in bytes of the longest piece, "##" not counted
	maxRunes int              // length above which a word is not split, but [UNK]
	pad, unk int32
	cls, sep int32
	mask     int32
}

// LoadWordPiece reads a vocabulary file in BERT's form: one piece per line, the id is the line number from 0.
// [PAD], [UNK], [CLS], [SEP] and [MASK] are found by name and must be there.
func LoadWordPiece(path string) (*WordPiece, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: reading the WordPiece vocabulary: %w", err)
	}
	t, err := NewWordPiece(data)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %s is not a WordPiece vocabulary (one piece per line, as "+
			"bert-base-uncased's vocab.txt): %w", path, err)
	}
	return t, nil
}

// NewWordPiece builds the tokenizer from the contents of a vocabulary file (see LoadWordPiece).
func NewWordPiece(vocab []byte) (*WordPiece, error) {
	t := &WordPiece{starts: map[string]int32{}, inside: map[string]int32{}, maxRunes: maxWordRunes}
	for len(vocab) > 0 {
		line, rest, _ := bytes.Cut(vocab, []byte("\n"))
		vocab = rest
		piece := strings.TrimSuffix(string(line), "\r")
		if !utf8.ValidString(piece) || strings.ContainsAny(piece, " \t<") && len(piece) > maxWordRunes {
			return nil, fmt.Errorf("line %d is not a piece of text", len(t.pieces)+1)
		}
		t.add(piece)
	}
	for name, id := range map[string]*int32{
		"[PAD]": &t.pad, "[UNK]": &t.unk, "[CLS]": &t.cls, "[SEP]": &t.sep, "[MASK]": &t.mask,
	} {
		found, ok := t.starts[name]
		if !ok {
			return nil, fmt.Errorf("the piece %s is missing among its %d lines", name, len(t.pieces))
		}
		*id = found
	}
	return t, nil
}

func (t *WordPiece) add(piece string) {
	id := int32(len(t.pieces))
	t.pieces = append(t.pieces, piece)
	if rest, ok := strings.CutPrefix(piece, continuation); ok && rest != "" {
		t.inside[rest] = id
		t.longest = max(t.longest, len(rest))
		return
	}
	t.starts[piece] = id
	t.longest = max(t.longest, len(piece))
}

// VocabSize is the number of pieces in the vocabulary file, [DEC] not counted.
func (t *WordPiece) VocabSize() int { return len(t.pieces) }

// PadID is the id of [PAD].
func (t *WordPiece) PadID() int32 { return t.pad }

// UnkID is the id of [UNK].
func (t *WordPiece) UnkID() int32 { return t.unk }

// CLSID is the id of [CLS], the first token of every caption.
func (t *WordPiece) CLSID() int32 { return t.cls }

// SEPID is the id of [SEP], the last token of every caption.
func (t *WordPiece) SEPID() int32 { return t.sep }

// MaskID is the id of [MASK].
func (t *WordPiece) MaskID() int32 { return t.mask }

// DecID is the id of [DEC], the token that starts image-grounded text generation. BLIP-2 appends it to the
// vocabulary, so that it equals VocabSize; Encode never gives it.
func (t *WordPiece) DecID() int32 { return int32(len(t.pieces)) }

// Piece is the vocabulary entry of an id, "[DEC]" for DecID, and "" for ids outside the vocabulary.
func (t *WordPiece) Piece(id int32) string {
	switch {
	case id >= 0 && int(id) < len(t.pieces):
		return t.pieces[id]
	case id == t.DecID():
		return "[DEC]"
	}
	return ""
}

// Encode gives the ids of a text without special tokens. Names of special tokens in the text are ordinary text:
// a caption cannot forge a [SEP].
func (t *WordPiece) Encode(text string) []int32 {
	return t.appendIDs(nil, text, int(^uint(0)>>1))
}

// EncodeCaption gives [CLS] w1 … wk [SEP] [PAD]… of length maxLen (at least 2), cut on the right so that [SEP] stays
// the last token, and the mask that is 1 where the token is not padding (spec/stage1.md §1).
func (t *WordPiece) EncodeCaption(text string, maxLen int) (ids, mask []int32) {
	ids, mask = make([]int32, maxLen), make([]int32, maxLen)
	t.EncodeCaptionInto(ids, mask, text)
	return ids, mask
}

// EncodeCaptionInto is EncodeCaption into slices of the caller; their equal length is maxLen.
func (t *WordPiece) EncodeCaptionInto(ids, mask []int32, text string) {
	if len(ids) < 2 || len(ids) != len(mask) {
		panic(fmt.Sprintf("tokenizer: caption buffers of %d ids and %d mask values; need equal lengths of at least 2",
			len(ids), len(mask)))
	}
	ids[0] = t.cls
	used := t.appendIDs(ids[:1:len(ids)-1], text, len(ids)-2)
	n := copy(ids, used) // the last word may have outgrown the room before it was cut or became [UNK]
	ids[n] = t.sep
	for i := range ids {
		mask[i] = 1
		if i > n {
			ids[i], mask[i] = t.pad, 0
		}
	}
}

// appendIDs appends at most limit ids of text to ids.
func (t *WordPiece) appendIDs(ids []int32, text string, limit int) []int32 {
	end := len(ids) + limit
	if end < 0 { // limit was "no limit"
		end = limit
	}
	splitWords(text, func(word []byte) bool {
		ids = t.appendWord(ids, word)
		return len(ids) < end
	})
	return ids[:min(len(ids), end)]
}

// appendWord splits one word by greedy longest match from the left; a word with a part that is not in the vocabulary
// is one [UNK].
func (t *WordPiece) appendWord(ids []int32, word []byte) []int32 {
	if id, ok := t.starts[string(word)]; ok && len(word) <= t.maxRunes {
		return append(ids, id)
	}
	if len(word) > t.maxRunes && utf8.RuneCount(word) > t.maxRunes {
		return append(ids, t.unk)
	}
	before, table := len(ids), t.starts
	for at := 0; at < len(word); {
		id, n := longestMatch(table, word[at:], t.longest)
		if n == 0 {
			return append(ids[:before], t.unk)
		}
		ids = append(ids, id)
		at += n
		table = t.inside
	}
	return ids
}

// longestMatch finds the longest prefix of word in table and its length in bytes, 0 if there is none.
func longestMatch(table map[string]int32, word []byte, longest int) (id int32, n int) {
	for n = min(len(word), longest); n > 0; n-- {
		if n < len(word) && !utf8.RuneStart(word[n]) {
			continue
		}
		if id, ok := table[string(word[:n])]; ok {
			return id, n
		}
	}
	return 0, 0
}

// Decode gives the text of ids: pieces joined by spaces, "##" pieces joined to the word before, special tokens left
// out, and the spaces that BERT puts around English punctuation taken away as Hugging Face's decode does.
func (t *WordPiece) Decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		if id < 0 || int(id) >= len(t.pieces) || t.isSpecial(id) {
			continue
		}
		piece := t.pieces[id]
		rest, inside := strings.CutPrefix(piece, continuation)
		switch {
		case b.Len() == 0:
			b.WriteString(piece)
		case inside && rest != "":
			b.WriteString(rest)
		default:
			b.WriteByte(' ')
			b.WriteString(piece)
		}
	}
	return tidySpaces(b.String())
}

func (t *WordPiece) isSpecial(id int32) bool {
	return id == t.pad || id == t.unk || id == t.cls || id == t.sep || id == t.mask
}

// tidySpaces applies the reference's replacements one after the other: their order matters for strings such as " ' .".
func tidySpaces(s string) string {
	for _, r := range tidyRules {
		s = strings.ReplaceAll(s, r[0], r[1])
	}
	return s
}

// tidyRules are Hugging Face's clean_up_tokenization. Read only.
var tidyRules = [...][2]string{
	{" .", "."}, {" ?", "?"}, {" !", "!"}, {" ,", ","}, {" ' ", "'"},
	{" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
}

// tidyNotBefore is the place in tidyRules at which the decoder of WordPiece has a rule of its own.
const tidyNotBefore = 7
