package tokenizer

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

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

// maxParts bounds the number of parts of a sequence, each of which looks at the whole text. CLIP has 3.
const maxParts = 32

// count is the number of parts, those of sequences included.
func (p *partJSON) count() int {
	if p == nil {
		return 0
	}
	n := 1
	for _, list := range [][]*partJSON{p.Normalizers, p.Pretokenizers, p.Decoders} {
		for _, part := range list {
			n += part.count()
		}
	}
	return n
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
		return nil, fmt.Errorf("a Replace with the regular expression %q is not supported; the tokenizers of BLIP-2 "+
			"use %q and %q", *p.Pattern.Regex, " {2,}", `\s+`)
	}
	return nil, errors.New("a Replace has no pattern")
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
		return nil, errors.New("a Split is supported only as CLIP uses it: a regular expression whose matches are kept")
	}
	front, ok := strings.CutSuffix(*p.Pattern.Regex, clipWords)
	if !ok || front != "" && !clipLiterals.MatchString(front) {
		return nil, fmt.Errorf("a Split with the regular expression %q is not supported; CLIP's is %q",
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
