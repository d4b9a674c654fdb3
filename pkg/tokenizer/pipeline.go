package tokenizer

import (
	"slices"
	"strings"
)

// pipeline is a tokenizer of Hugging Face's design: added tokens are taken out of the text, the rest is normalised,
// split into words and cut into pieces by the model; a template puts the model's own tokens around the ids.
type pipeline struct {
	added      *addedTokens
	normalizer normalizer
	splitter   splitter
	model      model
	template   template
	decoder    decoder // nil: pieces are joined by spaces
	cleanUp    bool    // take spaces before punctuation away
	wordEnd    string  // CLIP: what its pieces end with at the end of a word, a space in decoded text
	names      specialNames
	special    SpecialIDs
	// plainWords is the model if splitWords gives the words of an ASCII text: BERT's usual normaliser and splitter.
	plainWords *wordPieces
}

// template are the ids before and after those of the text.
type template struct{ before, after []int32 }

// specialNames are the special tokens by their names in Hugging Face's configuration files.
type specialNames struct{ bos, eos, pad, unk, cls, sep, mask string }

// finish settles what follows from the parts.
func (p *pipeline) finish() {
	p.added.seal()
	find := func(name string) int32 {
		if id, ok := p.ID(name); ok && name != "" {
			return id
		}
		return -1
	}
	p.special = SpecialIDs{BOS: find(p.names.bos), EOS: find(p.names.eos), Pad: find(p.names.pad),
		Unk: find(p.names.unk), CLS: find(p.names.cls), SEP: find(p.names.sep), Mask: find(p.names.mask)}
	if u, ok := p.model.(*unigram); ok {
		u.special = make([]bool, len(u.pieces))
		for content := range p.added.special {
			if id := p.added.ids[content]; int(id) < len(u.special) {
				u.special[id] = true
			}
		}
	}
	words, isWordPiece := p.model.(*wordPieces)
	_, isBERT := p.splitter.(bertSplitter)
	n, isPlain := p.normalizer.(bertNormalizer)
	if isWordPiece && isBERT && isPlain && n.cleanText && n.lowercase && p.added.normalisedIn == nil {
		p.plainWords = words
	}
}

func (p *pipeline) Encode(text string, o EncodeOptions) []int32 {
	before, after := p.template.before, p.template.after
	if o.NoSpecial {
		before, after = nil, nil
	}
	ids := make([]int32, len(before), len(before)+len(after)+len(text)/3+1)
	copy(ids, before)
	limit := -1
	if o.MaxLength > 0 {
		limit = max(o.MaxLength-len(before)-len(after), 0)
	}
	e := encoding{pipeline: p, ids: ids, literal: o.Literal, limit: limit}
	if o.CutLeft {
		e.limit = -1
	}
	if e.limit != 0 {
		e.text(validUTF8(text))
	}
	ids = e.ids
	if n := len(ids) - len(before); limit >= 0 && n > limit {
		if o.CutLeft {
			ids = slices.Delete(ids, len(before), len(ids)-limit)
		}
		ids = ids[:len(before)+limit]
	}
	ids = append(ids, after...)
	if o.MaxLength > 0 && len(ids) > o.MaxLength {
		ids = ids[:o.MaxLength]
	}
	return ids
}

// encoding is one text on its way.
type encoding struct {
	*pipeline
	ids     []int32
	literal bool
	limit   int // number of ids of the text that are enough; -1 for all
	start   int // length of ids before the text, set by text
}

// text appends the ids of a whole text.
func (e *encoding) text(text string) {
	e.start = len(e.ids)
	e.added.split(e.added.raw, text, e.literal, func(part string, start int) bool {
		return e.part(part, start == 0)
	}, e.token)
}

// token appends an added token.
func (e *encoding) token(id int32) bool {
	e.ids = append(e.ids, id)
	return e.more()
}

// more says whether ids are still wanted.
func (e *encoding) more() bool { return e.limit < 0 || len(e.ids)-e.start < e.limit }

// part appends the ids of a stretch between the added tokens that are found in the text as it is.
func (e *encoding) part(text string, first bool) bool {
	if text == "" {
		return true
	}
	if e.plainWords != nil && isASCII(text) {
		splitWords(text, func(word []byte) bool {
			e.ids = e.plainWords.append(e.ids, string(word), e.literal)
			return e.more()
		})
		return e.more()
	}
	if e.normalizer != nil {
		text = e.normalizer.normalize(text, first)
	}
	return e.added.split(e.added.normalisedIn, text, e.literal, func(part string, start int) bool {
		return e.words(part, first && start == 0)
	}, e.token)
}

func (e *encoding) words(text string, first bool) bool {
	if text == "" {
		return true
	}
	return e.splitter.split(text, first, func(word string) bool {
		e.ids = e.model.append(e.ids, word, e.literal)
		return e.more()
	})
}

func (p *pipeline) Decode(ids []int32, skipSpecial bool) string {
	pieces := make([]string, 0, len(ids))
	for _, id := range ids {
		piece, ok := p.Piece(id)
		if !ok || skipSpecial && p.added.special[piece] {
			continue
		}
		pieces = append(pieces, piece)
	}
	between := " "
	if p.decoder != nil {
		pieces, between = p.decoder.decode(pieces), ""
	}
	text := strings.Join(pieces, between)
	if p.wordEnd != "" {
		text = strings.TrimFunc(strings.ReplaceAll(text, p.wordEnd, " "), isPythonSpace)
	}
	if p.cleanUp {
		text = tidySpaces(text)
	}
	return text
}

func (p *pipeline) Piece(id int32) (string, bool) {
	if token, ok := p.added.byID[id]; ok {
		return token.content, true
	}
	return p.model.piece(id)
}

func (p *pipeline) ID(piece string) (int32, bool) { return p.added.id(piece, p.model) }

func (p *pipeline) VocabSize() int { return int(max(p.model.end(), p.added.end)) }

func (p *pipeline) Special() SpecialIDs { return p.special }
