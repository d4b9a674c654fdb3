package tokenizer

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dataDir is the shared data folder: BLIP2_DATA, or ../shared/data beside the repository.
func dataDir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("BLIP2_DATA")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for root != filepath.Dir(root) {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared", "data")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no shared data (set BLIP2_DATA): %v", err)
	}
	return dir
}

func readJSON(t testing.TB, v any, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := json.NewDecoder(r).Decode(v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func loadBERT(t testing.TB) (*WordPiece, string) {
	t.Helper()
	dir := filepath.Join(dataDir(t), "tokenizers")
	w, err := LoadWordPiece(filepath.Join(dir, "bert-base-uncased", "vocab.txt"))
	if err != nil {
		t.Fatal(err)
	}
	return w, filepath.Join(dir, "golden")
}

func TestBERTIDs(t *testing.T) {
	w, _ := loadBERT(t)
	got := []int32{int32(w.VocabSize()), w.PadID(), w.UnkID(), w.CLSID(), w.SEPID(), w.MaskID(), w.DecID()}
	if want := []int32{30522, 0, 100, 101, 102, 103, 30522}; !slices.Equal(got, want) {
		t.Errorf("size and special ids %v, want %v", got, want)
	}
}

func TestRecordedTexts(t *testing.T) {
	w, golden := loadBERT(t)
	var long struct {
		Text string  `json:"text"`
		IDs  []int32 `json:"token_ids"`
	}
	readJSON(t, &long, filepath.Join(golden, "bert_uncased_encoded.json"))
	checkSpecial(t, w, long.Text, long.IDs)

	var small map[string][]struct {
		Input   string `json:"input"`
		Encoded struct {
			IDs []int32 `json:"input_ids"`
		} `json:"encoded"`
		Plain string `json:"decoded_without_special"`
	}
	readJSON(t, &small, filepath.Join(golden, "tokenizer_tests.json"))
	for _, c := range small["bert-base-uncased"] {
		checkSpecial(t, w, c.Input, c.Encoded.IDs)
		if got := w.Decode(c.Encoded.IDs); got != c.Plain {
			t.Errorf("Decode of %q = %q, want %q", c.Input, got, c.Plain)
		}
	}

	var captions struct {
		Items []struct {
			Text string  `json:"text"`
			BERT []int32 `json:"bert"`
		} `json:"items"`
	}
	readJSON(t, &captions, filepath.Join(golden, "caption_encodings.json"))
	if len(captions.Items) < 200 {
		t.Fatalf("only %d recorded captions", len(captions.Items))
	}
	for _, c := range captions.Items {
		checkSpecial(t, w, c.Text, c.BERT)
	}
}

// checkSpecial compares an encoding recorded with [CLS] and [SEP], whole and cut to a fixed length.
func checkSpecial(t *testing.T, w *WordPiece, text string, want []int32) {
	t.Helper()
	if got := w.Encode(text); !slices.Equal(got, want[1:len(want)-1]) {
		t.Errorf("Encode(%q) = %v, want %v", text, got, want[1:len(want)-1])
	}
	const maxLen = 12
	ids, mask := w.EncodeCaption(text, maxLen)
	fixed := slices.Clone(want)
	if len(fixed) > maxLen {
		fixed = append(fixed[:maxLen-1], w.SEPID())
	}
	n := len(fixed)
	for len(fixed) < maxLen {
		fixed = append(fixed, w.PadID())
	}
	if !slices.Equal(ids, fixed) {
		t.Errorf("EncodeCaption(%q) = %v, want %v", text, ids, fixed)
	}
	for i, m := range mask {
		if (m == 1) != (i < n) {
			t.Errorf("EncodeCaption(%q): mask %v, want %d ones", text, mask, n)
			break
		}
	}
}

func TestRecordedQuestions(t *testing.T) {
	w, golden := loadBERT(t)
	var ids [][]int32
	readJSON(t, &ids, filepath.Join(golden, "bert_question_ids.json.gz"))
	var questions []struct {
		Original  string   `json:"original"`
		Basic     []string `json:"basic"`
		WordPiece []string `json:"wordpiece"`
	}
	readJSON(t, &questions, filepath.Join(golden, "bert_question_tokens.json.gz"))
	if len(questions) < 10000 || len(ids) != len(questions) {
		t.Fatalf("%d questions, %d encodings", len(questions), len(ids))
	}
	failed := 0
	for i, q := range questions {
		var basic, pieces []string
		splitWords(q.Original, func(word []byte) bool {
			basic = append(basic, string(word))
			return true
		})
		got := w.Encode(q.Original)
		for _, id := range got {
			pieces = append(pieces, w.Piece(id))
		}
		if !slices.Equal(basic, q.Basic) || !slices.Equal(pieces, q.WordPiece) || !slices.Equal(got, ids[i]) {
			if failed++; failed < 10 {
				t.Errorf("%q\n got %q %q %v\nwant %q %q %v", q.Original, basic, pieces, got, q.Basic, q.WordPiece,
					ids[i])
			}
		}
	}
	if failed > 0 {
		t.Errorf("%d of %d questions differ", failed, len(questions))
	}
}

// TestRecordedPipelines compares the texts that were recorded for OPT, GPT-2 and T5 (and BERT's again).
func TestRecordedPipelines(t *testing.T) {
	shared := filepath.Join(dataDir(t), "tokenizers")
	load := func(path string) Tokenizer {
		tok, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	tokenizers := map[string]Tokenizer{"bert": load(filepath.Join(shared, "bert-base-uncased")),
		"opt": load(filepath.Join(shared, "opt")), "t5": load(filepath.Join(shared, "t5")),
		"gpt2": load(gpt2Folder(t, shared))}
	wrong := mistakes{t: t}
	var captions struct {
		Items []map[string]json.RawMessage `json:"items"`
	}
	readJSON(t, &captions, filepath.Join(shared, "golden", "caption_encodings.json"))
	for _, item := range captions.Items {
		text := decodeJSON[string](t, item["text"])
		for name, tok := range tokenizers {
			wrong.ids(tok, text, tok.Encode(text, EncodeOptions{}), decodeJSON[[]int32](t, item[name]))
		}
	}
	var small map[string][]struct {
		Input   string `json:"input"`
		Encoded struct {
			IDs []int32 `json:"input_ids"`
		} `json:"encoded"`
		Whole string `json:"decoded_with_special"`
		Plain string `json:"decoded_without_special"`
	}
	readJSON(t, &small, filepath.Join(shared, "golden", "tokenizer_tests.json"))
	for name, model := range map[string]string{"bert": "bert-base-uncased", "gpt2": "distilgpt2", "t5": "t5-base"} {
		tok := tokenizers[name]
		for _, c := range small[model] {
			wrong.ids(tok, c.Input, tok.Encode(c.Input, EncodeOptions{}), c.Encoded.IDs)
			whole, plain := tok.Decode(c.Encoded.IDs, false), tok.Decode(c.Encoded.IDs, true)
			if name == "gpt2" { // recorded with the spaces before punctuation taken away, which is no longer the default
				whole, plain = tidySpaces(whole), tidySpaces(plain)
			}
			wrong.text(c.Encoded.IDs, whole, c.Whole)
			wrong.text(c.Encoded.IDs, plain, c.Plain)
		}
	}
	for name, file := range map[string]string{"gpt2": "gpt2_encoded_tokens.json", "t5": "t5_base_encoded.json"} {
		var long struct {
			Text    string   `json:"text"`
			Pieces  []string `json:"bpe_tokens"`
			IDs     []int32  `json:"token_ids"`
			Decoded string   `json:"decoded_text"`
		}
		readJSON(t, &long, filepath.Join(shared, "golden", file))
		tok := tokenizers[name]
		wrong.ids(tok, long.Text, tok.Encode(long.Text, EncodeOptions{}), long.IDs)
		pieces := pieceList(tok, tok.Encode(long.Text, EncodeOptions{NoSpecial: true}))
		wrong.text(long.IDs, pieces, strings.Join(long.Pieces, " "))
		wrong.text(long.IDs, tok.Decode(long.IDs, false), long.Decoded)
	}
	wrong.report()
}

// gpt2Folder is a folder of GPT-2's vocabulary with the merges, which it shares with OPT.
func gpt2Folder(t testing.TB, shared string) string {
	t.Helper()
	dir := t.TempDir()
	for from, to := range map[string]string{"gpt2/vocab.json": fileVocabJSON, "opt/merges.txt": fileMerges} {
		data, err := os.ReadFile(filepath.Join(shared, from))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func decodeJSON[T any](t testing.TB, data []byte) T {
	t.Helper()
	var value T
	if err := json.Unmarshal(data, &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// TestFolders compares the prompts and answers that are recorded with whole model folders.
func TestFolders(t *testing.T) {
	golden := filepath.Join(filepath.Dir(dataDir(t)), "golden")
	for _, name := range []string{"hf-folder-opt", "hf-folder-t5", "hf-itm-a"} {
		tok, err := Load(filepath.Join(golden, name, "model"))
		if err != nil {
			t.Error(err)
			continue
		}
		var expected struct {
			Prompts []struct {
				Prompt       string
				IDs          []int32
				ProcessorIDs []int32 `json:"processor_ids"`
				Generated    []int32
				Text         string
			}
			Texts []struct {
				Text string
				IDs  []int32
			}
		}
		readJSON(t, &expected, filepath.Join(golden, name, "expected.json"))
		wrong := mistakes{t: t}
		for _, c := range expected.Prompts {
			wrong.ids(tok, c.Prompt, tok.Encode(c.Prompt, EncodeOptions{}), c.IDs)
			wrong.text(c.Generated, strings.TrimSpace(tok.Decode(c.Generated, true)), c.Text)
			if image, ok := tok.ID("<image>"); len(c.ProcessorIDs) > 0 && (!ok || image != c.ProcessorIDs[0]) {
				t.Errorf("%s: <image> is %d, want %d", name, image, c.ProcessorIDs[0])
			}
		}
		for _, c := range expected.Texts {
			wrong.ids(tok, c.Text, tok.Encode(c.Text, EncodeOptions{}), c.IDs)
		}
		wrong.report()
	}
}

func BenchmarkEncodeCaption(b *testing.B) {
	w, _ := loadBERT(b)
	const text = "a woman stands in the dining area at the table, next to a refrigerator"
	ids, mask := make([]int32, 32), make([]int32, 32)
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		w.EncodeCaptionInto(ids, mask, text)
	}
}

func BenchmarkEncodeUnicode(b *testing.B) {
	w, _ := loadBERT(b)
	const text = "Fatouville-Grestain est une commune du Nord-Ouest du département de l'Eure située au bord"
	b.ReportAllocs()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		w.Encode(text)
	}
}
