package tokenizer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
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

// partJSON holds the fields of all supported normalizers, pre-tokenizers, post-processors and decoders.
type partJSON struct {
	Type string `json:"type"`

	Normalizers   []*partJSON `json:"normalizers"`   // Sequence
	Pretokenizers []*partJSON `json:"pretokenizers"` // Sequence
	Decoders      []*partJSON `json:"decoders"`      // Sequence

	CleanText          *bool        `json:"clean_text"`           // BertNormalizer
	HandleChineseChars *bool        `json:"handle_chinese_chars"` // BertNormalizer
	StripAccents       *bool        `json:"strip_accents"`        // BertNormalizer
	Lowercase          *bool        `json:"lowercase"`            // BertNormalizer
	StripLeft          bool         `json:"strip_left"`           // Strip
	StripRight         bool         `json:"strip_right"`          // Strip
	Charsmap           string       `json:"precompiled_charsmap"` // Precompiled
	Pattern            *patternJSON `json:"pattern"`              // Replace, Split
	Content            string       `json:"content"`              // Replace
	Behavior           string       `json:"behavior"`             // Split
	Invert             bool         `json:"invert"`               // Split
	AddPrefixSpace     *bool        `json:"add_prefix_space"`     // ByteLevel, Metaspace
	UseRegex           *bool        `json:"use_regex"`            // ByteLevel
	Replacement        string       `json:"replacement"`          // Metaspace
	PrependScheme      *string      `json:"prepend_scheme"`       // Metaspace
	Split              *bool        `json:"split"`                // Metaspace
	Prefix             string       `json:"prefix"`               // WordPiece decoder
	Cleanup            *bool        `json:"cleanup"`              // WordPiece decoder

	Single        []templatePieceJSON          `json:"single"`         // TemplateProcessing
	SpecialTokens map[string]templateTokenJSON `json:"special_tokens"` // TemplateProcessing
	Sep           *namedID                     `json:"sep"`            // BertProcessing, RobertaProcessing
	CLS           *namedID                     `json:"cls"`            // BertProcessing, RobertaProcessing
}

type patternJSON struct {
	String *string
	Regex  *string
}

type templatePieceJSON struct {
	SpecialToken *struct {
		ID string `json:"id"`
	}
	Sequence *struct {
		ID string `json:"id"`
	}
}

type templateTokenJSON struct {
	IDs []int32 `json:"ids"`
}

// namedID is a token as the pair of its name and id.
type namedID struct {
	name string
	id   int32
}

// UnmarshalJSON reads ["</s>", 2].
func (n *namedID) UnmarshalJSON(data []byte) error {
	var pair []json.RawMessage
	if err := json.Unmarshal(data, &pair); err != nil {
		return err
	}
	if len(pair) != 2 {
		return fmt.Errorf("a token is a pair of name and id, not %d values", len(pair))
	}
	return errors.Join(json.Unmarshal(pair[0], &n.name), json.Unmarshal(pair[1], &n.id))
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

// parseScore reads a number of JSON as the reference's library does, which is not always the nearest float64: the first
// digits that fit in 64 bits, as a float64, times or divided by a power of ten. Where two ways to cut a word have the
// same pieces, the last bit of their sums decides.
func parseScore(text string) (value float64, ok bool) {
	digits, negative := strings.CutPrefix(text, "-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' {
		return 0, false
	}
	mantissa, exponent := uint64(0), 0
	full, fraction := false, false
	rest := ""
	for i := range len(digits) {
		c := digits[i]
		if c == '.' {
			fraction = true
			continue
		}
		if c < '0' || c > '9' {
			rest = digits[i:]
			break
		}
		full = full || mantissa > (math.MaxUint64-uint64(c-'0'))/10
		switch {
		case full && !fraction:
			exponent++
		case !full:
			mantissa = 10*mantissa + uint64(c-'0')
			if fraction {
				exponent--
			}
		}
	}
	if rest != "" {
		shift, valid := parseExponent(rest)
		if !valid {
			return 0, false
		}
		exponent += shift
	}
	value = scale(float64(mantissa), exponent)
	if negative {
		value = -value
	}
	return value, !math.IsInf(value, 0)
}

// parseExponent reads "e-05".
func parseExponent(text string) (exponent int, ok bool) {
	if text[0] != 'e' && text[0] != 'E' {
		return 0, false
	}
	digits, negative := strings.CutPrefix(text[1:], "-")
	if !negative {
		digits = strings.TrimPrefix(digits, "+")
	}
	if digits == "" {
		return 0, false
	}
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return 0, false
		}
		exponent = min(10*exponent+int(c-'0'), 1<<20)
	}
	if negative {
		exponent = -exponent
	}
	return exponent, true
}

// scale multiplies value by a power of ten in the reference's order of operations.
func scale(value float64, exponent int) float64 {
	const largest = 308
	for ; exponent < -largest && value != 0; exponent += largest {
		value /= 1e308
	}
	switch {
	case value == 0:
		return 0
	case exponent < 0:
		return value / powerOfTen(-exponent)
	default:
		return value * powerOfTen(exponent)
	}
}

// powerOfTen is the float64 nearest to 10^n, which math.Pow10 does not always give.
func powerOfTen(n int) float64 {
	if n <= 22 {
		return math.Pow10(n) // exact
	}
	power, err := strconv.ParseFloat("1e"+strconv.Itoa(n), 64)
	if err != nil {
		return math.Inf(1)
	}
	return power
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

// normalizer makes the normalizer, nil for none.
func (p *partJSON) normalizer() (normalizer, error) {
	if p == nil {
		return nil, nil
	}
	switch p.Type {
	case "Sequence":
		list := make(normalizers, 0, len(p.Normalizers))
		for _, part := range p.Normalizers {
			n, err := part.normalizer()
			if err != nil {
				return nil, err
			}
			if n != nil {
				list = append(list, n)
			}
		}
		return list, nil
	case "BertNormalizer":
		n := bertNormalizer{cleanText: isTrue(p.CleanText, true), isolateCJK: isTrue(p.HandleChineseChars, true),
			lowercase: isTrue(p.Lowercase, true)}
		n.stripAccents = isTrue(p.StripAccents, n.lowercase)
		return n, nil
	case "NFC":
		return canonicalForm(norm.NFC), nil
	case "NFD":
		return canonicalForm(norm.NFD), nil
	case "Lowercase":
		return normalizeFunc{lowerEach, lowerGrowth}, nil
	case "Strip":
		return p.strip(), nil
	case "Replace":
		return p.replace()
	case "Precompiled":
		return newPrecompiled(p.Charsmap)
	}
	return nil, unsupported(p.Type, "BertNormalizer, NFC, NFD, Lowercase, Strip, Replace, Precompiled and Sequence")
}

func isTrue(value *bool, ifMissing bool) bool {
	if value == nil {
		return ifMissing
	}
	return *value
}

func (p *partJSON) strip() normalizer {
	left, right := p.StripLeft, p.StripRight
	return normalizeFunc{func(s string) string {
		if left {
			s = strings.TrimLeftFunc(s, unicode.IsSpace)
		}
		if right {
			s = strings.TrimRightFunc(s, unicode.IsSpace)
		}
		return s
	}, 1}
}

func canonicalForm(form norm.Form) normalizer {
	return normalizeFunc{func(s string) string { return canonical(s, form) }, canonicalGrowth}
}

func (p *partJSON) replace() (normalizer, error) {
	with := p.Content
	switch {
	case p.Pattern == nil:
	case p.Pattern.String != nil && *p.Pattern.String != "":
		from := *p.Pattern.String
		return replacer(func(s string) string { return strings.ReplaceAll(s, from, with) }, len(from), with), nil
	case p.Pattern.Regex == nil:
	case *p.Pattern.Regex == " {2,}":
		return replacer(func(s string) string { return collapse(s, with) }, 2, with), nil
	case *p.Pattern.Regex == `\s+`:
		return replacer(func(s string) string { return unifySpace(s, with) }, 1, with), nil
	default:
		return nil, fmt.Errorf("Replace with the regular expression %q is not supported; the tokenizers of BLIP-2 "+
			"use %q and %q", *p.Pattern.Regex, " {2,}", `\s+`)
	}
	return nil, errors.New("Replace has no pattern")
}

// replacer replaces matches of at least shortest bytes.
func replacer(apply func(string) string, shortest int, with string) normalizer {
	return normalizeFunc{apply, max(float64(len(with))/float64(shortest), 1)}
}

func newPrecompiled(encoded string) (normalizer, error) {
	data, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, fmt.Errorf("precompiled_charsmap: %w", err)
	}
	if len(data) == 0 {
		return nil, nil
	}
	table, err := newCharsmap(data)
	if err != nil {
		return nil, err
	}
	return precompiled{table, loadClusters()}, nil
}

// splitter makes the pre-tokenizer; none leaves the text whole.
func (p *partJSON) splitter() (splitter, error) {
	if p == nil {
		return splitters(nil), nil
	}
	switch p.Type {
	case "Sequence":
		list := make(splitters, 0, len(p.Pretokenizers))
		for _, part := range p.Pretokenizers {
			s, err := part.splitter()
			if err != nil {
				return nil, err
			}
			list = append(list, s)
		}
		return list, nil
	case "BertPreTokenizer":
		return bertSplitter{}, nil
	case "WhitespaceSplit":
		return spaceSplitter{}, nil
	case "ByteLevel":
		return byteLevelSplitter{prefixSpace: isTrue(p.AddPrefixSpace, true), whole: !isTrue(p.UseRegex, true),
			classes: loadWordClasses()}, nil
	case "Metaspace":
		mark, prefix, err := p.metaspace()
		return metaspace{mark: mark, prefix: prefix, whole: !isTrue(p.Split, true)}, err
	case "Split":
		return p.clipSplit()
	}
	return nil, unsupported(p.Type, "BertPreTokenizer, WhitespaceSplit, ByteLevel, Metaspace, Split and Sequence")
}

// hasByteLevel says whether the pre-tokenizer turns text into bytes.
func (p *partJSON) hasByteLevel() bool {
	if p == nil {
		return false
	}
	for _, part := range p.Pretokenizers {
		if part.hasByteLevel() {
			return true
		}
	}
	return p.Type == "ByteLevel"
}

// metaspace gives the mark and where it is put in front. Old files say add_prefix_space instead of prepend_scheme.
func (p *partJSON) metaspace() (mark string, prefix prefixScheme, err error) {
	scheme := "always"
	if p.PrependScheme != nil {
		scheme = *p.PrependScheme
	}
	switch scheme {
	case "always":
		prefix = prefixAlways
	case "first":
		prefix = prefixFirst
	case "never":
		prefix = prefixNever
	default:
		return "", 0, fmt.Errorf("prepend_scheme %q is not always, first or never", scheme)
	}
	if !isTrue(p.AddPrefixSpace, true) {
		if p.PrependScheme != nil && prefix != prefixNever {
			return "", 0, fmt.Errorf("add_prefix_space is false, but prepend_scheme is %q", scheme)
		}
		prefix = prefixNever
	}
	if utf8.RuneCountInString(p.Replacement) != 1 {
		return "", 0, fmt.Errorf("the replacement %q is not one character", p.Replacement)
	}
	return p.Replacement, prefix, nil
}

// clipWords is CLIP's regular expression; newer files have special tokens in front of it.
const clipWords = `'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+`

// clipLiterals are alternatives such as <\|endoftext\|>| in front of clipWords.
var clipLiterals = regexp.MustCompile(`^(?:<\\\|[a-z]+\\\|>\|)+$`)

func (p *partJSON) clipSplit() (splitter, error) {
	if p.Pattern == nil || p.Pattern.Regex == nil || !p.Invert || p.Behavior != "Removed" {
		return nil, errors.New("Split is supported only as CLIP uses it: a regular expression whose matches are kept")
	}
	front, ok := strings.CutSuffix(*p.Pattern.Regex, clipWords)
	if !ok || front != "" && !clipLiterals.MatchString(front) {
		return nil, fmt.Errorf("Split with the regular expression %q is not supported; CLIP's is %q",
			*p.Pattern.Regex, clipWords)
	}
	s := clipSplitter{classes: loadWordClasses()}
	for _, literal := range strings.Split(strings.ReplaceAll(front, `\|`, "\x00"), "|") {
		if literal != "" {
			s.literals = append(s.literals, strings.ReplaceAll(literal, "\x00", "|"))
		}
	}
	return s, nil
}

// template gives the ids around those of a single text.
func (p *partJSON) template() (template, error) {
	if p == nil {
		return template{}, nil
	}
	switch p.Type {
	case "ByteLevel":
		return template{}, nil
	case "BertProcessing", "RobertaProcessing":
		if p.CLS == nil || p.Sep == nil {
			return template{}, fmt.Errorf("%s needs cls and sep", p.Type)
		}
		return template{[]int32{p.CLS.id}, []int32{p.Sep.id}}, nil
	case "TemplateProcessing":
		return p.templateProcessing()
	}
	return template{}, unsupported(p.Type, "TemplateProcessing, BertProcessing, RobertaProcessing and ByteLevel")
}

func (p *partJSON) templateProcessing() (template, error) {
	var t template
	texts := 0
	for _, piece := range p.Single {
		switch {
		case piece.Sequence != nil && piece.Sequence.ID == "A":
			texts++
		case piece.SpecialToken != nil:
			token, ok := p.SpecialTokens[piece.SpecialToken.ID]
			if !ok {
				return t, fmt.Errorf("the template's token %q is not in special_tokens", piece.SpecialToken.ID)
			}
			if texts == 0 {
				t.before = append(t.before, token.IDs...)
			} else {
				t.after = append(t.after, token.IDs...)
			}
		default:
			return t, errors.New("the template has a part that is neither the text A nor a special token")
		}
	}
	if texts != 1 {
		return t, fmt.Errorf("the template has the text %d times, not once", texts)
	}
	return t, nil
}

// decoder makes the decoder, nil for none.
func (p *partJSON) decoder() (decoder, error) {
	if p == nil {
		return nil, nil
	}
	switch p.Type {
	case "Sequence":
		list := make(decoders, 0, len(p.Decoders))
		for _, part := range p.Decoders {
			d, err := part.decoder()
			if err != nil {
				return nil, err
			}
			if d != nil {
				list = append(list, d)
			}
		}
		return list, nil
	case "WordPiece":
		return wordPieceDecoder{prefix: p.Prefix, cleanUp: isTrue(p.Cleanup, true)}, nil
	case "ByteLevel":
		return byteLevelDecoder{}, nil
	case "Metaspace":
		mark, prefix, err := p.metaspace()
		return metaspaceDecoder{mark, prefix}, err
	case "ByteFallback":
		return byteFallbackDecoder{}, nil
	case "Fuse":
		return fuseDecoder{}, nil
	}
	return nil, unsupported(p.Type, "WordPiece, ByteLevel, Metaspace, ByteFallback, Fuse and Sequence")
}
