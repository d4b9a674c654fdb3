package tokenizer

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// writeFolder makes a folder of files.
func writeFolder(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Small vocabularies: OPT's order with the bytes a, b and space; CLIP's with a and b.
const (
	optVocab   = `{"<s>":0,"<pad>":1,"</s>":2,"<unk>":3,"a":4,"b":5,"Ġ":6,"ab":7,"Ġab":8}`
	optMerges  = "#version: 0.2\na b\nĠ ab\n"
	clipVocab  = `{"!</w>":0,"a":1,"b":2,"a</w>":3,"b</w>":4,"ab</w>":5,"<|startoftext|>":6,"<|endoftext|>":7}`
	clipPairs  = "#version: 0.2\na b</w>\n"
	gptVocab   = `{"a":0,"b":1,"ab":2,"<|endoftext|>":3}`
	gptMerges  = "#version: 0.2\na b\n"
	bertConfig = `{"tokenizer_class":"BertTokenizer"}`
)

// spieceOf is a model file of SentencePiece with pieces "piece\x00type" and falling scores.
func spieceOf(pieces ...string) string {
	var out []byte
	field := func(dst []byte, number int, data []byte) []byte {
		dst = append(dst, byte(number<<3|wireBytes), byte(len(data)))
		return append(dst, data...)
	}
	for i, text := range pieces {
		piece, kind, _ := strings.Cut(text, "\x00")
		body := field(nil, 1, []byte(piece))
		body = append(body, 2<<3|wireFixed4, 0, 0, byte(i), 0xC0) // about -2
		if kind != "" {
			body = append(body, 3<<3|wireVarint, kind[0])
		}
		out = field(out, 1, body)
	}
	return string(out)
}

func t5Spiece() string {
	return spieceOf("<pad>\x00\x03", "</s>\x00\x03", "<unk>\x00\x02", "▁", "▁a", "a", "b", "ab")
}

// TestLoadFolders loads every layout that is understood.
func TestLoadFolders(t *testing.T) {
	jsons := tokenizerJSONs()
	for _, tt := range []struct {
		name  string
		files map[string]string
		path  string // of a file, for loading it alone
		text  string
		want  []int32
		size  int
	}{
		{"vocab.txt", map[string]string{fileVocabTxt: toyVocab}, "", "A dog [SEP]", []int32{2, 5, 6, 3, 3}, 20},
		{"any vocab.txt", map[string]string{"bert.txt": toyVocab}, "bert.txt", "dogs", []int32{2, 6, 7, 3}, 20},
		{"OPT", map[string]string{fileVocabJSON: optVocab, fileMerges: optMerges}, "", "ab ab<pad>",
			[]int32{2, 7, 8, 1}, 9},
		{"OPT's vocabulary alone", map[string]string{fileVocabJSON: optVocab, fileMerges: optMerges}, fileVocabJSON,
			"b", []int32{2, 5}, 9},
		{"GPT-2", map[string]string{fileVocabJSON: gptVocab, fileMerges: gptMerges}, "", "aab<|endoftext|>",
			[]int32{0, 2, 3}, 4},
		{"CLIP", map[string]string{fileVocabJSON: clipVocab, fileMerges: clipPairs}, "", "AB a?", []int32{6, 5, 3, 7, 7}, 8},
		{"T5", map[string]string{fileSpiece: t5Spiece()}, "", "ab a<extra_id_0>", []int32{3, 7, 4, 107, 1}, 108},
		{"any spiece.model", map[string]string{"x.bin": t5Spiece()}, "x.bin", "a", []int32{4, 1}, 108},
		{"T5 with 2 sentinels", map[string]string{fileSpiece: t5Spiece(),
			fileConfig: `{"tokenizer_class":"T5Tokenizer","extra_ids":2}`}, "", "a<extra_id_1>", []int32{4, 8, 1}, 10},
		{"tokenizer.json", map[string]string{fileTokenizer: jsons["bert"]}, "", "ab[S]", []int32{2, 1, 3, 2, 2}, 5},
		{"any tokenizer.json", map[string]string{"x.json": jsons["t5"]}, "x.json", "a", []int32{2, 1}, 5},
		{"tokenizer.json counts first", map[string]string{fileTokenizer: jsons["bpe"], fileVocabTxt: toyVocab}, "", "ab",
			[]int32{3, 2}, 5},
		{"added_tokens.json", map[string]string{fileVocabTxt: toyVocab, fileAdded: `{"<image>":21,"[DEC]":20}`,
			fileSpecial: `{"bos_token":"[DEC]"}`}, "", "<image>a[DEC]", []int32{2, 21, 5, 20, 3}, 22},
		{"added_tokens_decoder", map[string]string{fileVocabTxt: toyVocab, fileAdded: `{"ignored":77}`,
			fileConfig: `{"tokenizer_class":"BertTokenizerFast","added_tokens_decoder":
			{"20":{"content":"<image>","special":true,"lstrip":true}}}`}, "", "a <image>", []int32{2, 5, 20, 3}, 21},
		{"extra special token", map[string]string{fileTokenizer: jsons["bpe"],
			fileConfig: `{"extra_special_tokens":{"image_token":"<image>"}}`}, "", "<image>ab", []int32{5, 2}, 6},
		{"two vocabularies and a class", map[string]string{fileVocabTxt: toyVocab, fileSpiece: t5Spiece(),
			fileConfig: bertConfig}, "", "a", []int32{2, 5, 3}, 20},
		{"special token with options", map[string]string{fileVocabJSON: optVocab, fileMerges: optMerges,
			fileConfig: `{"tokenizer_class":"GPT2Tokenizer","add_bos_token":true,"bos_token":{"content":"</s>"},
			"eos_token":"</s>","unk_token":"</s>","pad_token":null,"add_prefix_space":true}`}, "", "ab</s>", []int32{2, 8, 2}, 9},
	} {
		path := filepath.Join(writeFolder(t, tt.files), tt.path)
		tok, err := Load(path)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := tok.Encode(tt.text, EncodeOptions{}); !slices.Equal(got, tt.want) || tok.VocabSize() != tt.size {
			t.Errorf("%s: %q gives %v of %d ids, want %v of %d", tt.name, tt.text, got, tok.VocabSize(), tt.want, tt.size)
		}
	}
}

// TestLoadNames checks that errors name the file or folder and what is wrong.
func TestLoadNames(t *testing.T) {
	jsons := tokenizerJSONs()
	replaced := func(name, from, to string) map[string]string {
		out := strings.Replace(jsons[name], from, to, 1)
		if out == jsons[name] {
			t.Fatalf("no %q in %s", from, name)
		}
		return map[string]string{fileTokenizer: out}
	}
	for _, tt := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"README": ""}, "looked for tokenizer.json, then vocab.txt, vocab.json with merges.txt, spiece.model"},
		{map[string]string{fileVocabJSON: gptVocab}, "vocab.json with merges.txt"},
		{map[string]string{fileVocabTxt: toyVocab, fileSpiece: t5Spiece()}, "two tokenizers, vocab.txt and spiece.model"},
		{map[string]string{fileVocabTxt: toyVocab, fileConfig: `{"tokenizer_class":"T5Tokenizer"}`},
			"for the class T5Tokenizer of its tokenizer_config.json: looked for tokenizer.json, then spiece.model"},
		{map[string]string{fileVocabTxt: toyVocab, fileConfig: `{"tokenizer_class":"LlamaTokenizer"}`}, "LlamaTokenizer"},
		{map[string]string{fileTokenizer: jsons["bpe"], fileConfig: bertConfig}, "names the class BertTokenizer"},
		{map[string]string{fileVocabJSON: gptVocab, fileMerges: gptMerges,
			fileConfig: `{"tokenizer_class":"CLIPTokenizer"}`}, "names the class CLIPTokenizer"},
		{map[string]string{fileVocabTxt: toyVocab, fileAdded: `{"<image>":99}`}, `"<image>" is declared with id 99`},
		{map[string]string{fileVocabTxt: toyVocab, fileAdded: `[1]`}, fileAdded},
		{map[string]string{fileVocabTxt: toyVocab, fileSpecial: `{"bos_token":{}}`}, "bos_token: the token has no content"},
		{map[string]string{fileVocabTxt: toyVocab, fileConfig: `{"added_tokens_decoder":{"x":{"content":"a"}}}`},
			`"x" is not an id`},
		{map[string]string{fileVocabTxt: toyVocab, fileConfig: `{"extra_ids":-1}`}, "extra_ids is -1"},
		{map[string]string{fileVocabTxt: toyVocab, fileConfig: `{`}, fileConfig},
		{map[string]string{fileVocabTxt: "a\nb\n"}, `"[UNK]" is not in the vocabulary of 2 pieces`},
		{map[string]string{fileVocabTxt: "[UNK]\na\n"}, `"[CLS]" is not in the vocabulary`},
		{map[string]string{fileVocabTxt: "[UNK]\n\xff\n"}, "line 2 is not UTF-8"},
		{map[string]string{fileVocabJSON: `{"a":0,"b":0}`, fileMerges: ""}, "same id 0"},
		{map[string]string{fileVocabJSON: `{"a":-1}`, fileMerges: ""}, "has id -1"},
		{map[string]string{fileVocabJSON: `{"a":99999999}`, fileMerges: ""}, "has id 99999999"},
		{map[string]string{fileVocabJSON: `{}`, fileMerges: ""}, "empty"},
		{map[string]string{fileVocabJSON: gptVocab, fileMerges: "a b c\n"}, "line 1"},
		{map[string]string{fileVocabJSON: gptVocab, fileMerges: "a c\n"}, `no "c"`},
		{map[string]string{fileVocabJSON: `{"a":0,"b":1}`, fileMerges: "a b\n"}, `no "ab"`},
		{map[string]string{fileSpiece: "\x00"}, "not a model of SentencePiece"},
		{map[string]string{fileSpiece: spieceOf("a", "b")}, "no piece for unknown characters"},
		{map[string]string{fileSpiece: spieceOf("<unk>\x00\x02", "a", "a")}, `both "a"`},
		{map[string]string{fileSpiece: t5Spiece() + "\x12\x02\x18\x02"}, "type 2"},
		{map[string]string{fileSpiece: t5Spiece() + "\x12\x03\x98\x02\x01"}, "no piece <0x00>"},
		{map[string]string{fileSpiece: t5Spiece() + "\x1a\x03\x12\x01x"}, "character map is shorter"},
		{map[string]string{fileSpiece: t5Spiece() + "\x2a\x03\x12\x01x"}, "denormalizer_spec"},
		{map[string]string{fileTokenizer: `{}`}, `no "model"`},
		{map[string]string{fileTokenizer: `<html>`}, fileTokenizer},
		{replaced("bert", "BertNormalizer", "NFKC"), `normalizer: the type "NFKC" is not supported`},
		{replaced("bert", "BertPreTokenizer", "Digits"), `pre_tokenizer: the type "Digits"`},
		{replaced("bert", "BertProcessing", "X"), `post_processor: the type "X"`},
		{replaced("bert", `"type":"WordPiece"`, `"type":"CTC"`), `decoder: the type "CTC"`},
		{replaced("bert", `{"vocab":{"[UNK]":0`, `{"type":"WordLevel","vocab":{"[UNK]":0`), `model: the type "WordLevel"`},
		{replaced("bert", `"id":4`, `"id":9`), "declared with id 9"},
		{replaced("bpe", `ByteLevel","add`, `Metaspace","replacement":"_","add`), "without ByteLevel"},
		{replaced("bpe", `"type":"BPE"`, `"type":"BPE","dropout":0.1`), "dropout"},
		{replaced("bpe", `"type":"BPE"`, `"type":"BPE","byte_fallback":true`), "byte_fallback"},
		{replaced("bpe", `"a b"`, `"a  b"`), "two pieces"},
		{replaced("clip", `[["a","b</w>"]]`, `[["a"]]`), "1 pieces"},
		{replaced("clip", `"unk_token":"e"`, `"unk_token":"x"`), `"x" is not in the vocabulary`},
		{replaced("clip", `\\s+"}`, `[a-z]"}`), "regular expression"},
		{replaced("clip", `'s|'t`, `'t|'s`), "regular expression"},
		{replaced("t5", `"first"`, `"last"`), "prepend_scheme"},
		{replaced("t5", `"content":"y"`, `"content":"`+strings.Repeat("y", 2000)+`"`), "times as long"},
		{replaced("t5", `{"Sequence":{"id":"A"}},`, ``), "0 times"},
		{replaced("t5", `{"type":"WhitespaceSplit"},`, strings.Repeat(`{"type":"WhitespaceSplit"},`, 40)), "42 parts"},
		{replaced("t5", `"</s>":{"ids"`, `"<s>":{"ids"`), "special_tokens"},
		{replaced("t5", `"unk_id":0`, `"unk_id":7`), "id 7"},
		{replaced("t5", `-1.5`, `"x"`), "score"},
		{replaced("t5", `-1.5`, `-1e999`), "score"},
		{map[string]string{fileCLIPMerges: "\x1f\x8b"}, fileCLIPMerges},
	} {
		dir := writeFolder(t, tt.files)
		_, err := Load(dir)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%.200v: error %v\nwant the folder and %q", tt.files, err, tt.want)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("missing folder: %v", err)
	}
}

// TestCLIPMerges builds OpenAI's file from merges that it may have and compares with Hugging Face's layout.
func TestCLIPMerges(t *testing.T) {
	var lines, vocab strings.Builder
	number := 0
	piece := func(text string) {
		fmt.Fprintf(&vocab, "%q:%d,", text, number)
		number++
	}
	for _, end := range []string{"", clipSuffix} {
		for _, printable := range []bool{true, false} {
			for b, r := range byteRunes {
				if (rune(b) == r) == printable {
					piece(string(r) + end)
				}
			}
		}
	}
	// Every pair of inner bytes first, then words of two bytes.
	for i := range clipMerges {
		left, right := string(byteRunes[i/256%256]), string(byteRunes[i%256])
		if i/65536 > 0 {
			t.Fatal("more merges than pairs")
		}
		fmt.Fprintf(&lines, "%s %s\n", left, right)
		piece(left + right)
	}
	piece(startOfText)
	fmt.Fprintf(&vocab, "%q:%d", endOfText, number)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte("title\n" + lines.String() + "not used\n")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	openAI, err := Load(filepath.Join(writeFolder(t, map[string]string{"x.gz": packed.String()}), "x.gz"))
	if err != nil {
		t.Fatal(err)
	}
	hf, err := Load(writeFolder(t, map[string]string{fileVocabJSON: "{" + vocab.String() + "}",
		fileMerges: "#version: 0.2\n" + lines.String()}))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"A photo of a cat!!", "é 日本 's 12"} {
		got, want := openAI.Encode(text, EncodeOptions{}), hf.Encode(text, EncodeOptions{})
		if !slices.Equal(got, want) || got[0] != 49406 || got[len(got)-1] != 49407 {
			t.Errorf("%q gives %v and %v", text, got, want)
		}
	}
}

func TestTooLarge(t *testing.T) {
	if data, err := readLimited(strings.NewReader("abc"), 3); err != nil || string(data) != "abc" {
		t.Errorf("3 of 3 bytes: %q, %v", data, err)
	}
	if _, err := readLimited(strings.NewReader("abcd"), 3); err == nil || !strings.Contains(err.Error(), "more than 3") {
		t.Errorf("4 of 3 bytes: error %v", err)
	}
}
