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
