package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// tokenizerJSON is tokenizer.json of Hugging Face's tokenizers, as far as the tokenizers of BLIP-2 use it. A part of
// another type is an error that names it.
type tokenizerJSON struct {
	AddedTokens   []addedTokenJSON `json:"added_tokens"`
	Normalizer    *partJSON        `json:"normalizer"`
	PreTokenizer  *partJSON        `json:"pre_tokenizer"`
	PostProcessor *partJSON        `json:"post_processor"`
	Decoder       *partJSON        `json:"decoder"`
	Model         *modelJSON       `json:"model"`
}

// addedTokenJSON is an added token in tokenizer.json and, without the id, in tokenizer_config.json.
type addedTokenJSON struct {
	ID         *int32 `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized *bool  `json:"normalized"`
	Special    bool   `json:"special"`
}

func (a addedTokenJSON) token() addedToken {
	normalized := !a.Special
	if a.Normalized != nil {
		normalized = *a.Normalized
	}
	return addedToken{content: a.Content, singleWord: a.SingleWord, lstrip: a.LStrip, rstrip: a.RStrip,
		normalized: normalized, special: a.Special}
}

// modelJSON holds the fields of all supported models.
type modelJSON struct {
	Type         string          `json:"type"`
	Vocab        json.RawMessage `json:"vocab"`
	Merges       mergesJSON      `json:"merges"`
	UnkToken     string          `json:"unk_token"`
	UnkID        *int            `json:"unk_id"`
	Prefix       *string         `json:"continuing_subword_prefix"`
	MaxChars     *int            `json:"max_input_chars_per_word"`
	Suffix       string          `json:"end_of_word_suffix"`
	Dropout      float64         `json:"dropout"`
	FuseUnk      bool            `json:"fuse_unk"`
	ByteFallback bool            `json:"byte_fallback"`
	IgnoreMerges bool            `json:"ignore_merges"`
}

// mergesJSON are merges as "a b" or, all of them, ["a","b"].
type mergesJSON [][2]string

// UnmarshalJSON reads either form.
func (m *mergesJSON) UnmarshalJSON(data []byte) error {
	var texts []string
	if json.Unmarshal(data, &texts) == nil {
		*m = make(mergesJSON, len(texts))
		for i, text := range texts {
			left, right, ok := strings.Cut(text, " ")
			if !ok || strings.Contains(right, " ") {
				return fmt.Errorf("the merge %q is not two pieces with a space between", text)
			}
			(*m)[i] = [2]string{left, right}
		}
		return nil
	}
	var pairs [][]string
	if err := json.Unmarshal(data, &pairs); err != nil {
		return err
	}
	*m = make(mergesJSON, len(pairs))
	for i, pair := range pairs {
		if len(pair) != 2 {
			return fmt.Errorf("merge %d has %d pieces, not 2", i+1, len(pair))
		}
		(*m)[i] = [2]string(pair)
	}
	return nil
}

// UnmarshalJSON reads ["▁the", -3.9].
func (s *scoredPiece) UnmarshalJSON(data []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("an entry of the vocabulary is a pair of piece and score, not %d values", len(pair))
	}
	if err := json.Unmarshal(pair[0], &s.piece); err != nil {
		return err
	}
	var ok bool
	if s.score, ok = parseScore(string(pair[1])); !ok {
		return fmt.Errorf("the score %.40s is not a number that can be used", pair[1])
	}
	return nil
}

// parseTokenizerJSON builds the pipeline of a tokenizer.json. Its names of special tokens are still to be set, and
// further tokens may be added before finish.
func parseTokenizerJSON(data []byte) (*pipeline, error) {
	var file tokenizerJSON
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	if file.Model == nil {
		return nil, errors.New(`there is no "model" in it`)
	}
	for _, part := range []*partJSON{file.Normalizer, file.PreTokenizer, file.Decoder} {
		if n := part.count(); n > maxParts {
			return nil, fmt.Errorf("a sequence of %d parts; at most %d are accepted", n, maxParts)
		}
	}
	p := &pipeline{}
	var err error
	if p.model, err = file.Model.build(); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	if p.normalizer, err = file.Normalizer.normalizer(); err != nil {
		return nil, fmt.Errorf("normalizer: %w", err)
	}
	if p.normalizer != nil && p.normalizer.growth() > maxGrowth {
		return nil, fmt.Errorf("normalizer: it could make a text %.3g times as long; at most %d are accepted",
			p.normalizer.growth(), maxGrowth)
	}
	if p.splitter, err = file.PreTokenizer.splitter(); err != nil {
		return nil, fmt.Errorf("pre_tokenizer: %w", err)
	}
	if p.template, err = file.PostProcessor.template(); err != nil {
		return nil, fmt.Errorf("post_processor: %w", err)
	}
	if p.decoder, err = file.Decoder.decoder(); err != nil {
		return nil, fmt.Errorf("decoder: %w", err)
	}
	if b, ok := p.model.(*bytePairs); ok {
		if !file.PreTokenizer.hasByteLevel() {
			return nil, errors.New("pre_tokenizer: a BPE model without ByteLevel is none of BLIP-2's and not supported")
		}
		p.wordEnd = b.suffix
	}
	p.added = newAddedTokens(p.normalise)
	for _, entry := range file.AddedTokens {
		if err := p.addDeclared(entry.token(), entry.ID); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// normalise normalises the content of an added token.
func (p *pipeline) normalise(content string) string {
	if p.normalizer == nil {
		return content
	}
	return p.normalizer.normalize(content, true)
}

// addDeclared adds a token that must get the id that a file declares for it.
func (p *pipeline) addDeclared(token addedToken, declared *int32) error {
	if token.content == "" {
		return nil // the reference skips it
	}
	if len(token.content) > maxPiece {
		return fmt.Errorf("the added token %.40q… has %d bytes; at most %d are accepted", token.content,
			len(token.content), maxPiece)
	}
	got := p.added.add(token, p.model)
	if declared == nil {
		return nil
	}
	return p.added.check(token, *declared, got)
}

// build makes the model; files of old versions do not name its type.
func (m *modelJSON) build() (model, error) {
	kind := m.Type
	switch isList := strings.HasPrefix(strings.TrimLeft(string(m.Vocab), " \t\r\n"), "["); {
	case kind != "":
	case isList:
		kind = "Unigram"
	case m.Merges != nil:
		kind = "BPE"
	default:
		kind = "WordPiece"
	}
	switch kind {
	case "WordPiece":
		return m.wordPiece()
	case "BPE":
		return m.bytePairs()
	case "Unigram":
		var vocab []scoredPiece
		if err := json.Unmarshal(m.Vocab, &vocab); err != nil {
			return nil, fmt.Errorf("vocab: %w", err)
		}
		if m.UnkID == nil {
			return nil, errors.New("it has no unk_id")
		}
		return newUnigram(vocab, *m.UnkID, m.ByteFallback)
	}
	return nil, unsupported(kind, "WordPiece, BPE and Unigram")
}

func unsupported(kind, supported string) error {
	return fmt.Errorf("the type %q is not supported; the tokenizers of BLIP-2 use %s", kind, supported)
}

func (m *modelJSON) wordPiece() (model, error) {
	var ids map[string]int32
	if err := json.Unmarshal(m.Vocab, &ids); err != nil {
		return nil, fmt.Errorf("vocab: %w", err)
	}
	unk, prefix, limit := m.UnkToken, continuation, maxWordRunes
	if unk == "" {
		unk = "[UNK]"
	}
	if m.Prefix != nil {
		prefix = *m.Prefix
	}
	if m.MaxChars != nil {
		limit = *m.MaxChars
	}
	return newWordPieces(ids, unk, prefix, limit)
}

func (m *modelJSON) bytePairs() (model, error) {
	switch {
	case m.Dropout != 0:
		return nil, fmt.Errorf("dropout %g would make ids random", m.Dropout)
	case m.ByteFallback:
		return nil, errors.New("byte_fallback of a BPE model is not supported: byte-level BPE does not need it")
	case m.Prefix != nil && *m.Prefix != "":
		return nil, fmt.Errorf("continuing_subword_prefix %q of a BPE model is not supported", *m.Prefix)
	}
	c := bpeConfig{unk: m.UnkToken, suffix: m.Suffix, fuseUnk: m.FuseUnk, ignoreMerges: m.IgnoreMerges,
		merges: m.Merges}
	if err := json.Unmarshal(m.Vocab, &c.vocab); err != nil {
		return nil, fmt.Errorf("vocab: %w", err)
	}
	return newBytePairs(c)
}
