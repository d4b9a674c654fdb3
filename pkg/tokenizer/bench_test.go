package tokenizer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// benchFolders are real vocabularies by name, below the shared folder.
var benchFolders = map[string]string{
	"bert": "data/tokenizers/bert-base-uncased", "opt": "golden/hf-folder-opt/model", "gpt2-like": "data/tokenizers/opt",
	"clip": "data/tokenizers/clip/bpe_simple_vocab_16e6.txt.gz", "t5": "data/tokenizers/t5",
}

func loadShared(t testing.TB, name string) Tokenizer {
	t.Helper()
	tok, err := Load(filepath.Join(filepath.Dir(dataDir(t)), benchFolders[name]))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// benchTexts are real captions, one long text, and one word without end.
func benchTexts(b *testing.B) map[string][]string {
	b.Helper()
	var images []struct {
		Captions []string `json:"captions"`
	}
	readJSON(b, &images, filepath.Join(dataDir(b), "flickr8k-mini", "captions.json"))
	var captions []string
	for _, image := range images[:400] {
		captions = append(captions, image.Captions...)
	}
	var long struct {
		Text string `json:"text"`
	}
	data, err := os.ReadFile(filepath.Join(dataDir(b), "tokenizers", "golden", "t5_base_encoded.json"))
	if err != nil {
		b.Fatal(err)
	}
	if err := json.Unmarshal(data, &long); err != nil {
		b.Fatal(err)
	}
	return map[string][]string{
		"captions": captions,
		"long":     {strings.Repeat(long.Text+"\n", 1<<20/len(long.Text))},
		"unicode":  {strings.Repeat("Ein café über naïve Ideen: 日本語の写真、кошка на столе 🐶! ", 4000)},
		"one-word": {strings.Repeat("abracadabra", 1<<20/11)},
	}
}

func BenchmarkEncode(b *testing.B) {
	all := benchTexts(b)
	for _, name := range []string{"bert", "opt", "clip", "t5"} {
		tok := loadShared(b, name)
		for _, kind := range []string{"captions", "long", "unicode", "one-word"} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				size := 0
				for _, text := range all[kind] {
					size += len(text)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					for _, text := range all[kind] {
						tok.Encode(text, EncodeOptions{})
					}
				}
			})
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	captions := benchTexts(b)["captions"]
	for _, name := range []string{"bert", "opt", "clip", "t5"} {
		tok := loadShared(b, name)
		b.Run(name, func(b *testing.B) {
			var rows [][]int32
			size := 0
			for _, text := range captions {
				rows = append(rows, tok.Encode(text, EncodeOptions{}))
				size += len(text)
			}
			b.SetBytes(int64(size))
			for b.Loop() {
				for _, row := range rows {
					tok.Decode(row, true)
				}
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, name := range []string{"bert", "opt", "clip", "t5"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				loadShared(b, name)
			}
		})
	}
}
