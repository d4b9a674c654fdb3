package tokenizer

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// sentencePiece is what a model file of SentencePiece ("spiece.model") says; see its sentencepiece_model.proto.
type sentencePiece struct {
	pieces                 []spPiece
	modelType              uint64 // 1: unigram
	whitespaceAsSuffix     bool
	byteFallback           bool
	charsmap               []byte
	addDummyPrefix         bool
	removeExtraWhitespaces bool
	escapeWhitespaces      bool
	denormalises           bool
}

type spPiece struct {
	piece string
	score float32
	kind  uint64
}

// Types of pieces.
const (
	spNormal      = 1
	spUnknown     = 2
	spControl     = 3
	spUserDefined = 4
	spUnused      = 5
	spByte        = 6
)

const spUnigramModel = 1

// gapPiece, with the type unused, takes up an id.
const gapPiece = "\x00"

// parseSentencePiece reads a model file.
func parseSentencePiece(data []byte) (*sentencePiece, error) {
	m := &sentencePiece{modelType: spUnigramModel, addDummyPrefix: true, removeExtraWhitespaces: true,
		escapeWhitespaces: true}
	err := eachField(data, func(f protoField) error {
		if f.number > 5 || f.number == 4 { // self tests and extensions
			return nil
		}
		if err := f.as(wireBytes); err != nil {
			return err
		}
		switch f.number {
		case 1:
			return m.addPiece(f.data)
		case 2:
			return m.readTrainer(f.data)
		case 3:
			return m.readNormalizer(f.data)
		default:
			m.denormalises = m.denormalises || hasCharsmap(f.data)
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	if len(m.pieces) == 0 {
		return nil, errors.New("it has no pieces")
	}
	return m, nil
}

func (m *sentencePiece) addPiece(data []byte) error {
	p := spPiece{kind: spNormal}
	err := eachField(data, func(f protoField) error {
		switch f.number {
		case 1:
			p.piece = string(f.data)
			return f.as(wireBytes)
		case 2:
			p.score = f.float()
			return f.as(wireFixed4)
		case 3:
			p.kind = f.value
			return f.as(wireVarint)
		}
		return nil
	})
	number := len(m.pieces)
	switch {
	case err != nil:
		return fmt.Errorf("piece %d: %w", number, err)
	case len(p.piece) > maxPiece:
		return fmt.Errorf("piece %d has %d bytes; at most %d are accepted", number, len(p.piece), maxPiece)
	case p.piece == gapPiece && p.kind == spUnused:
	case p.piece == "" || !utf8.ValidString(p.piece) || strings.Contains(p.piece, "\x00"):
		return fmt.Errorf("piece %d is %q: it must not be empty, must be UTF-8 and without zero bytes", number,
			p.piece)
	case math.IsNaN(float64(p.score)) || math.IsInf(float64(p.score), 0):
		return fmt.Errorf("piece %d has the score %v", number, p.score)
	case number >= maxID:
		return fmt.Errorf("it has more than %d pieces", maxID)
	}
	m.pieces = append(m.pieces, p)
	return nil
}

func (m *sentencePiece) readTrainer(data []byte) error {
	err := eachField(data, func(f protoField) error {
		switch f.number {
		case 3:
			m.modelType = f.value
		case 24:
			m.whitespaceAsSuffix = f.value != 0
		case 35:
			m.byteFallback = f.value != 0
		default:
			return nil
		}
		return f.as(wireVarint)
	})
	if err != nil {
		return fmt.Errorf("trainer_spec: %w", err)
	}
	return nil
}

func (m *sentencePiece) readNormalizer(data []byte) error {
	err := eachField(data, func(f protoField) error {
		switch f.number {
		case 2:
			m.charsmap = f.data
			return f.as(wireBytes)
		case 3:
			m.addDummyPrefix = f.value != 0
		case 4:
			m.removeExtraWhitespaces = f.value != 0
		case 5:
			m.escapeWhitespaces = f.value != 0
		default:
			return nil
		}
		return f.as(wireVarint)
	})
	if err != nil {
		return fmt.Errorf("normalizer_spec: %w", err)
	}
	return nil
}

// hasCharsmap says whether a NormalizerSpec changes anything.
func hasCharsmap(spec []byte) bool {
	found := false
	err := eachField(spec, func(f protoField) error {
		found = found || f.number == 2 && len(f.data) > 0
		return nil
	})
	return found || err != nil
}

// model builds the unigram model: only normal and user-defined pieces are found in a text, the latter always, where
// they fit.
func (m *sentencePiece) model() (*unigram, error) {
	switch {
	case m.modelType != spUnigramModel:
		return nil, fmt.Errorf("it is a SentencePiece model of type %d; only unigram models (type 1), such as T5's, "+
			"can be used", m.modelType)
	case m.denormalises:
		return nil, errors.New("it has a denormalizer_spec, which is not supported")
	}
	u := &unigram{unk: noValue, single: true, scores: make([]float64, len(m.pieces)),
		vocabulary: vocabulary{make([]string, len(m.pieces)), make(map[string]int32, len(m.pieces))}}
	lowest := float32(math.MaxFloat32)
	for _, p := range m.pieces {
		if p.kind == spNormal {
			lowest = min(lowest, p.score)
		}
	}
	u.unkScore = float64(lowest - unkPenalty)
	var keys []trieKey
	for i, p := range m.pieces {
		id := int32(i)
		if p.piece == gapPiece {
			continue
		}
		if other, ok := u.ids[p.piece]; ok {
			return nil, fmt.Errorf("the pieces %d and %d are both %q", other, id, p.piece)
		}
		u.pieces[i], u.ids[p.piece], u.scores[i] = p.piece, id, float64(p.score)
		switch p.kind {
		case spUnknown:
			if u.unk != noValue {
				return nil, fmt.Errorf("the pieces %d and %d are both for unknown characters", u.unk, id)
			}
			u.unk = id
		case spUserDefined:
			u.scores[i] = float64(float32(0.1 * float64(len(p.piece)-1)))
			keys = append(keys, trieKey{p.piece, id})
		case spNormal:
			keys = append(keys, trieKey{p.piece, id})
		}
	}
	if m.byteFallback {
		u.bytes = u.byteIDs()
		if missing := slices.Index(u.bytes[:], noValue); missing >= 0 {
			return nil, fmt.Errorf("it has byte_fallback, but no piece %s", bytePiece(byte(missing)))
		}
	} else if u.unk == noValue {
		return nil, errors.New("it has no piece for unknown characters")
	}
	u.trie = newTrie(keys)
	u.room.New = func() any { return new(viterbiRoom) }
	return u, nil
}

// spNormalizer is SentencePiece's normaliser. Spaces become marks; one is put in front (or behind).
type spNormalizer struct {
	table       *charsmap // nil: no character is replaced
	userDefined *trie     // pieces that are kept as they are; nil if there are none
	everywhere  bool      // the mark is put in front behind added tokens, too, even if there is no space
	spec        *sentencePiece
}

// normalizer gives the file's normaliser. everywhere is T5's "legacy" behaviour: see spNormalizer.
func (m *sentencePiece) normalizer(everywhere bool) (*spNormalizer, error) {
	n := &spNormalizer{everywhere: everywhere, spec: m}
	if len(m.charsmap) > 0 {
		table, err := newCharsmap(m.charsmap)
		if err != nil {
			return nil, err
		}
		n.table = table
	}
	var keys []trieKey
	for i, p := range m.pieces {
		if p.kind == spUserDefined {
			keys = append(keys, trieKey{p.piece, int32(i)})
		}
	}
	if len(keys) > 0 {
		n.userDefined = newTrie(keys)
	}
	return n, nil
}

func (n *spNormalizer) growth() float64 {
	if n.table == nil {
		return float64(len(spaceMark))
	}
	return float64(max(n.table.widest, 1) * len(spaceMark))
}

func (n *spNormalizer) normalize(text string, first bool) string {
	trim := n.spec.removeExtraWhitespaces
	dummy := first || n.everywhere
	for trim && text != "" {
		to, size := n.prefix(text)
		if to != " " {
			break
		}
		text, dummy = text[size:], true
	}
	if text == "" {
		return ""
	}
	space := " "
	if n.spec.escapeWhitespaces {
		space = spaceMark
	}
	dummy = dummy && n.spec.addDummyPrefix
	out := make([]byte, 0, len(text)+len(text)/2+len(space))
	if dummy && !n.spec.whitespaceAsSuffix {
		out = append(out, space...)
	}
	afterSpace := trim
	for text != "" {
		to, size := n.prefix(text)
		text = text[size:]
		if afterSpace {
			to = strings.TrimLeft(to, " ")
		}
		if to != "" {
			out = appendSpaced(out, to, space)
			afterSpace = trim && to[len(to)-1] == ' '
		}
	}
	for trim && bytes.HasSuffix(out, []byte(space)) {
		out = out[:len(out)-len(space)]
	}
	if dummy && n.spec.whitespaceAsSuffix {
		out = append(out, space...)
	}
	return string(out)
}

// appendSpaced appends text with its spaces written as space.
func appendSpaced(out []byte, text, space string) []byte {
	for i := 0; i < len(text); i++ {
		if text[i] == ' ' {
			out = append(out, space...)
		} else {
			out = append(out, text[i])
		}
	}
	return out
}

// prefix gives what the start of text, which must not be empty, is replaced by and how long that start is.
func (n *spNormalizer) prefix(text string) (to string, size int) {
	if n.userDefined != nil {
		if _, size := n.userDefined.longest(text); size > 0 {
			return text[:size], size
		}
	}
	if n.table != nil {
		if n.table.begins[text[0]] {
			if to, size := n.table.longest(text); size > 0 {
				return to, size
			}
		}
	}
	_, size = utf8.DecodeRuneInString(text)
	return text[:size], size
}
