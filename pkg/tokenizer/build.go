package tokenizer

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// kind is the family that a pipeline belongs to.
func (p *pipeline) kind() kind {
	switch m := p.model.(type) {
	case *wordPieces:
		return kindBERT
	case *unigram:
		return kindT5
	case *bytePairs:
		if m.suffix != "" {
			return kindCLIP
		}
		return kindGPT2
	}
	return kindUnknown
}

// fromTokenizerJSON makes the tokenizer of a tokenizer.json and applies the configuration to it as the class that it
// names does.
func fromTokenizerJSON(data []byte, c *hfConfig) (*pipeline, error) {
	p, err := parseTokenizerJSON(data)
	if err != nil {
		return nil, err
	}
	k := p.kind()
	want, named := classes[c.class]
	if named && want != k {
		return nil, fmt.Errorf("%s names the class %s, but the model in %s is one of %s", fileConfig, c.class,
			fileTokenizer, k)
	}
	if named {
		if n, ok := p.normalizer.(bertNormalizer); ok && k == kindBERT {
			n.lowercase = isTrue(c.lowerCase, true)
			n.isolateCJK = isTrue(c.chineseChars, true)
			n.stripAccents = isTrue(c.stripAccents, n.lowercase)
			p.normalizer = n
		}
		if k == kindT5 {
			c.extra = c.sentinels()
		}
	}
	if s, ok := p.splitter.(byteLevelSplitter); ok && c.present {
		s.prefixSpace = isTrue(c.addPrefix, false)
		p.splitter = s
	}
	p.cleanUp = isTrue(c.cleanUp, false)
	p.setNames(c, p.guessNames(k, named))
	if err := p.addTokens(c, k, named, false); err != nil {
		return nil, err
	}
	p.finish()
	return p, nil
}

// guessNames gives the special tokens of a class, or those of OPT if the class is not named and they are all there.
func (p *pipeline) guessNames(k kind, named bool) specialNames {
	if !named && k == kindGPT2 && p.isOPT() {
		return optNames()
	}
	return k.defaultNames()
}

// isOPT says whether a vocabulary of byte-level BPE has the order that OPT took over from fairseq.
func (p *pipeline) isOPT() bool {
	for id, name := range []string{"<s>", "<pad>", "</s>", "<unk>"} {
		if got, ok := p.model.id(name); !ok || got != int32(id) {
			return false
		}
	}
	return true
}

// complete adds the tokens and the template, the names of the tokens before and after a text, to a pipeline that was
// made from vocabulary files.
func (p *pipeline) complete(c *hfConfig, k kind, before, after string) error {
	p.added = newAddedTokens(p.normalise)
	if err := p.addTokens(c, k, classes[c.class] == k, true); err != nil {
		return err
	}
	for _, end := range []struct {
		name string
		ids  *[]int32
	}{{before, &p.template.before}, {after, &p.template.after}} {
		if end.name == "" {
			continue
		}
		id, ok := p.ID(end.name)
		if !ok {
			return fmt.Errorf("the special token %q is not in the vocabulary", end.name)
		}
		*end.ids = []int32{id}
	}
	p.finish()
	return nil
}

// fromVocabTxt makes BERT's tokenizer.
func fromVocabTxt(data []byte, c *hfConfig) (*pipeline, error) {
	ids, err := parseVocabTxt(data)
	if err != nil {
		return nil, err
	}
	p := &pipeline{splitter: bertSplitter{}, decoder: wordPieceDecoder{continuation, true},
		cleanUp: isTrue(c.cleanUp, true)}
	lower := isTrue(c.lowerCase, true)
	p.normalizer = bertNormalizer{cleanText: true, isolateCJK: isTrue(c.chineseChars, true), lowercase: lower,
		stripAccents: isTrue(c.stripAccents, lower)}
	p.setNames(c, kindBERT.defaultNames())
	if p.model, err = newWordPieces(ids, p.names.unk, continuation, maxWordRunes); err != nil {
		return nil, fmt.Errorf("it is not a vocabulary of WordPiece (one piece per line): %w", err)
	}
	return p, p.complete(c, kindBERT, p.names.cls, p.names.sep)
}

// fromVocabJSON makes the tokenizer of GPT-2, OPT or CLIP from vocab.json and merges.txt.
func fromVocabJSON(data, merges []byte, c *hfConfig) (*pipeline, error) {
	var ids map[string]int32
	if err := json.Unmarshal(data, &ids); err != nil {
		return nil, err
	}
	pairs, err := parseMerges(merges)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileMerges, err)
	}
	if _, ok := ids["!"+clipSuffix]; ok {
		return clipPipeline(ids, pairs, c)
	}
	p := &pipeline{decoder: byteLevelDecoder{}, cleanUp: isTrue(c.cleanUp, false),
		splitter: byteLevelSplitter{prefixSpace: isTrue(c.addPrefix, false), classes: loadWordClasses()}}
	if p.model, err = newBytePairs(bpeConfig{vocab: ids, merges: pairs}); err != nil {
		return nil, err
	}
	named := c.class != ""
	p.setNames(c, p.guessNames(kindGPT2, named))
	before := ""
	if c.addBOS || !named && p.isOPT() {
		before = p.names.bos
	}
	return p, p.complete(c, kindGPT2, before, "")
}

// parseMerges reads merges.txt: a version line, then two pieces per line.
func parseMerges(data []byte) ([][2]string, error) {
	var pairs [][2]string
	for number := 1; len(data) > 0; number++ {
		line, rest, _ := bytes.Cut(data, []byte("\n"))
		data = rest
		text := strings.TrimSuffix(string(line), "\r")
		if text == "" || number == 1 && strings.HasPrefix(text, "#version") {
			continue
		}
		left, right, ok := strings.Cut(text, " ")
		if !ok || left == "" || right == "" || strings.Contains(right, " ") || !utf8.ValidString(text) {
			return nil, fmt.Errorf("line %d, %.60q, is not two pieces with a space between", number, text)
		}
		pairs = append(pairs, [2]string{left, right})
	}
	return pairs, nil
}

// clipSuffix ends the pieces of CLIP at the end of a word.
const clipSuffix = "</w>"

// CLIP's vocabulary: the bytes, the bytes at the end of a word, what the merges give, and the two special tokens.
const (
	clipVocabulary = 49408
	clipMerges     = clipVocabulary - 2*256 - 2
)

// clipPipeline makes CLIP's tokenizer.
func clipPipeline(ids map[string]int32, pairs [][2]string, c *hfConfig) (*pipeline, error) {
	p := &pipeline{decoder: byteLevelDecoder{}, cleanUp: isTrue(c.cleanUp, false), wordEnd: clipSuffix,
		splitter: clipSplitter{classes: loadWordClasses()}}
	p.normalizer = clipNormalizer()
	p.setNames(c, kindCLIP.defaultNames())
	pairs = pairs[:min(len(pairs), clipMerges)] // the reference reads no more of a longer file
	var err error
	p.model, err = newBytePairs(bpeConfig{vocab: ids, merges: pairs, unk: p.names.unk, suffix: clipSuffix})
	if err != nil {
		return nil, err
	}
	return p, p.complete(c, kindCLIP, p.names.bos, p.names.eos)
}

// fromCLIPMerges makes CLIP's tokenizer from OpenAI's file, which implies the vocabulary and has more merges than are
// used.
func fromCLIPMerges(data []byte, c *hfConfig) (*pipeline, error) {
	unpacked, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	text, err := readLimited(unpacked, maxFile)
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitN(text, []byte("\n"), clipMerges+2)
	if len(lines) < clipMerges+1 {
		return nil, fmt.Errorf("it has %d lines; CLIP's list of merges has a title and at least %d merges", len(lines),
			clipMerges)
	}
	pairs, err := parseMerges(bytes.Join(lines[1:clipMerges+1], []byte("\n")))
	if err != nil {
		return nil, err
	}
	ids := make(map[string]int32, clipVocabulary)
	add := func(piece string) {
		if _, ok := ids[piece]; !ok {
			ids[piece] = int32(len(ids))
		}
	}
	for _, end := range []string{"", clipSuffix} {
		for _, printable := range []bool{true, false} {
			for b, r := range byteRunes {
				if (rune(b) == r) == printable {
					add(string(r) + end)
				}
			}
		}
	}
	for _, pair := range pairs {
		add(pair[0] + pair[1])
	}
	add(startOfText)
	add(endOfText)
	return clipPipeline(ids, pairs, c)
}

// fromSentencePiece makes T5's tokenizer from spiece.model.
func fromSentencePiece(data []byte, c *hfConfig) (*pipeline, error) {
	file, err := parseSentencePiece(data)
	if err != nil {
		return nil, fmt.Errorf("it is not a model of SentencePiece: %w", err)
	}
	m, err := file.model()
	if err != nil {
		return nil, err
	}
	n, err := file.normalizer(c.legacy)
	if err != nil {
		return nil, err
	}
	c.extra = c.sentinels()
	for i := range c.extraIDs { // the reference puts them behind the pieces, the last one first
		m.extend(fmt.Sprintf("<extra_id_%d>", c.extraIDs-1-i))
	}
	p := &pipeline{model: m, normalizer: n, splitter: splitters(nil), cleanUp: isTrue(c.cleanUp, false)}
	p.decoder = decoders{byteFallbackDecoder{each: true}, metaspaceDecoder{spaceMark, prefixAlways}}
	for i, piece := range file.pieces {
		if piece.kind == spControl {
			id := int32(i)
			c.added = append(c.added, addedTokenJSON{ID: &id, Content: piece.piece, Special: true})
		}
	}
	p.setNames(c, kindT5.defaultNames())
	return p, p.complete(c, kindT5, "", p.names.eos)
}
