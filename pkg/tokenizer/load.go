package tokenizer

import (
	"bytes"
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
