package tokenizer

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Load makes the tokenizer of a model.
//
// path is a folder in Hugging Face's layout, or one of its files alone: tokenizer.json; vocab.txt (BERT); vocab.json,
// with merges.txt beside it (GPT-2, OPT, CLIP); spiece.model (T5); or OpenAI's bpe_simple_vocab_16e6.txt.gz (CLIP). In
// a folder, tokenizer.json counts before the vocabulary files, and tokenizer_config.json, special_tokens_map.json and
// added_tokens.json say which tokens are special or have been added. The tokenizers are those of Hugging Face's fast
// classes, except that spiece.model alone gives SentencePiece's own ids.
func Load(path string) (Tokenizer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	var p *pipeline
	if info.IsDir() {
		p, err = loadFolder(path)
	} else {
		p, err = loadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("tokenizer: %w", err)
	}
	return p, nil
}

// maxFile bounds the size in bytes of a file, unpacked if it is compressed. The largest in use has 3 MB.
const maxFile = 128 << 20

// readFile reads a file of limited size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readLimited(f, maxFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

func readLimited(r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("it has more than %d bytes, which no tokenizer file needs", limit)
	}
	return data, err
}

// readOptional reads a file of a folder, nil if it is not there.
func readOptional(dir, name string) ([]byte, error) {
	data, err := readFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// loadFolder decides by the files that are there.
func loadFolder(dir string) (*pipeline, error) {
	var texts [3][]byte
	for i, name := range []string{fileConfig, fileSpecial, fileAdded} {
		var err error
		if texts[i], err = readOptional(dir, name); err != nil {
			return nil, err
		}
	}
	c, err := parseConfig(texts[0], texts[1], texts[2])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	data, err := readOptional(dir, fileTokenizer)
	if err != nil {
		return nil, err
	}
	if data != nil {
		p, err := fromTokenizerJSON(data, c)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fileTokenizer), err)
		}
		return p, nil
	}
	return loadVocabulary(dir, c)
}

// vocabularyFiles are the files that a tokenizer can be made from when there is no tokenizer.json.
type vocabularyFiles struct {
	kinds []kind
	names []string
}

func vocabularies() []vocabularyFiles {
	return []vocabularyFiles{
		{[]kind{kindBERT}, []string{fileVocabTxt}},
		{[]kind{kindGPT2, kindCLIP}, []string{fileVocabJSON, fileMerges}},
		{[]kind{kindT5}, []string{fileSpiece}},
		{[]kind{kindCLIP}, []string{fileCLIPMerges}},
	}
}

func (v vocabularyFiles) in(dir string) bool {
	for _, name := range v.names {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// loadVocabulary makes the tokenizer of a folder without tokenizer.json.
func loadVocabulary(dir string, c *hfConfig) (*pipeline, error) {
	want, named := classes[c.class]
	if !named && c.class != "" && c.class != "PreTrainedTokenizer" {
		return nil, fmt.Errorf("%s: %s names the class %s, of which only a %s could be read, and there is none",
			dir, fileConfig, c.class, fileTokenizer)
	}
	var found []vocabularyFiles
	var looked []string
	for _, v := range vocabularies() {
		if named && !slices.Contains(v.kinds, want) {
			continue
		}
		looked = append(looked, strings.Join(v.names, " with "))
		if v.in(dir) {
			found = append(found, v)
		}
	}
	switch {
	case len(found) == 0:
		wanted := ""
		if named {
			wanted = fmt.Sprintf(" for the class %s of its %s", c.class, fileConfig)
		}
		return nil, fmt.Errorf("%s has no tokenizer%s: looked for %s, then %s", dir, wanted, fileTokenizer,
			strings.Join(looked, ", "))
	case len(found) > 1:
		return nil, fmt.Errorf("%s has the files of two tokenizers, %s and %s, and no %s that says which one is meant "+
			"(tokenizer_class); name one file", dir, strings.Join(found[0].names, " with "),
			strings.Join(found[1].names, " with "), fileConfig)
	}
	p, err := loadNamed(dir, found[0].names[0], c)
	if err == nil && named && p.kind() != want {
		err = fmt.Errorf("%s names the class %s, but the vocabulary is one of %s", fileConfig, c.class, p.kind())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, found[0].names[0]), err)
	}
	return p, nil
}

// loadNamed makes the tokenizer of a vocabulary file of a known name.
func loadNamed(dir, name string, c *hfConfig) (*pipeline, error) {
	data, err := readFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	switch name {
	case fileVocabTxt:
		return fromVocabTxt(data, c)
	case fileVocabJSON:
		merges, err := readFile(filepath.Join(dir, fileMerges))
		if err != nil {
			return nil, err
		}
		return fromVocabJSON(data, merges, c)
	case fileSpiece:
		return fromSentencePiece(data, c)
	}
	return fromCLIPMerges(data, c)
}

// loadFile makes the tokenizer of a single file by what is in it.
func loadFile(path string) (*pipeline, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(nil, nil, nil)
	if err != nil {
		return nil, err
	}
	p, err := fromFile(path, data, c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

func fromFile(path string, data []byte, c *hfConfig) (*pipeline, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\x1f\x8b")):
		return fromCLIPMerges(data, c)
	case bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{")):
		var parts struct {
			Model json.RawMessage `json:"model"`
		}
		// A vocab.json may have a piece named "model", but its value is a number.
		if err := json.Unmarshal(data, &parts); err == nil && bytes.HasPrefix(parts.Model, []byte("{")) {
			return fromTokenizerJSON(data, c)
		}
		merges, err := readFile(filepath.Join(filepath.Dir(path), fileMerges))
		if err != nil {
			return nil, fmt.Errorf("it is a vocabulary of BPE, whose merges must lie beside it: %w", err)
		}
		return fromVocabJSON(data, merges, c)
	case utf8.Valid(data):
		return fromVocabTxt(data, c)
	}
	return fromSentencePiece(data, c)
}

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
