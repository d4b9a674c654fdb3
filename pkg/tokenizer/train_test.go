package tokenizer

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// trained loads a tokenizer that was trained on texts.
func trained(t *testing.T, texts []string, size int) (Tokenizer, map[string][]byte) {
	t.Helper()
	return trainedBy(t, TrainBPE, texts, size)
}

func trainedBy(t *testing.T, train func([]string, int) (map[string][]byte, error), texts []string, size int) (
	Tokenizer, map[string][]byte) {
	t.Helper()
	files, err := train(texts, size)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	tok, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok, files
}

// TestTrainBPE: frequent words become single tokens, any text survives, and texts begin with </s> as OPT's do.
func TestTrainBPE(t *testing.T) {
	texts := []string{"a cat on a mat\n", "a cat and a dog\n", "the cat\n", "two dogs on the mat\n"}
	tok, files := trained(t, texts, 300)
	again, err := TrainBPE(texts, 300)
	if err != nil || !maps.EqualFunc(files, again, bytes.Equal) {
		t.Errorf("a second training gives other files, error %v", err)
	}
	ids := tok.Encode(" cat\n", EncodeOptions{})
	if len(ids) != 3 || ids[0] != 2 || tok.Special().Pad != 1 {
		t.Errorf("\" cat\" and a newline behind </s> are the ids %v", ids)
	}
	if newline := tok.Encode("\n", EncodeOptions{NoSpecial: true}); len(newline) != 1 || newline[0] != ids[2] {
		t.Errorf("a newline is %v", newline)
	}
	for _, text := range append(texts, "Ünïcödé 日本 \x00 𝔘", "zebra's 12", "  ") {
		if got := tok.Decode(tok.Encode(text, EncodeOptions{}), true); got != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
	if n := tok.VocabSize(); n > 300 || n <= smallestBPE {
		t.Errorf("%d ids", n)
	}
	few, _ := trained(t, texts, smallestBPE)
	if n := few.VocabSize(); n != smallestBPE {
		t.Errorf("%d ids without merges", n)
	}
	none, _ := trained(t, nil, 1000)
	if n := none.VocabSize(); n != smallestBPE {
		t.Errorf("%d ids from no texts", n)
	}
	if _, err := TrainBPE(texts, smallestBPE-1); err == nil || !strings.Contains(err.Error(), "too small") {
		t.Errorf("error %v", err)
	}
}

// TestTrainBPEMerges follows the algorithm by hand: "ab" occurs five times, then "abc" twice and no pair more often.
func TestTrainBPEMerges(t *testing.T) {
	files, err := TrainBPE([]string{"abc", "abc", "ab", "abd", "xaby"}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(strings.TrimPrefix(string(files[fileMerges]), "#version: 0.2\n"))
	if want := []string{"a", "b", "ab", "c"}; !slices.Equal(lines, want) {
		t.Errorf("merges %v, want %v", lines, want)
	}
}

// TestTrainUnigram: frequent words become single tokens, others are spelled, and texts end with </s> as T5's do.
func TestTrainUnigram(t *testing.T) {
	texts := []string{"a cat on a mat\n", "a cat and a dog\n", "über the cat\n"}
	tok, files := trainedBy(t, TrainUnigram, texts, smallestUnigram+1+4) // ü, and 4 words
	again, err := TrainUnigram(texts, smallestUnigram+1+4)
	if err != nil || !maps.EqualFunc(files, again, bytes.Equal) {
		t.Errorf("a second training gives other files, error %v", err)
	}
	if s := tok.Special(); s.Pad != 0 || s.EOS != 1 || s.Unk != 2 {
		t.Errorf("special tokens %+v", s)
	}
	// a occurs four times, cat three times, and "and" is the first of those that occur once.
	if ids := tok.Encode("a cat and dog", EncodeOptions{}); !slices.Equal(ids, []int32{3, 4, 5, 6, 1}) {
		t.Errorf("ids %v", ids)
	}
	if ids := tok.Encode("mat", EncodeOptions{NoSpecial: true}); len(ids) != 4 || slices.Contains(ids, 2) {
		t.Errorf("a word that is no piece is %v", ids)
	}
	for _, text := range []string{"a cat on a mat", "über: what's THIS? 12", "dogs"} {
		if got := tok.Decode(tok.Encode(text, EncodeOptions{}), true); got != text {
			t.Errorf("%q comes back as %q", text, got)
		}
	}
	if ids := tok.Encode("日", EncodeOptions{NoSpecial: true}); !slices.Contains(ids, 2) {
		t.Errorf("a character of no text is %v", ids)
	}
	if n := tok.VocabSize(); n != smallestUnigram+1+4 {
		t.Errorf("%d ids", n)
	}
	if all, _ := trainedBy(t, TrainUnigram, texts, 1000); all.VocabSize() != smallestUnigram+1+8 {
		t.Errorf("%d ids of 8 words", all.VocabSize())
	}
	if none, _ := trainedBy(t, TrainUnigram, nil, 1000); none.VocabSize() != smallestUnigram {
		t.Errorf("%d ids from no texts", none.VocabSize())
	}
	if _, err := TrainUnigram(texts, smallestUnigram); err == nil || !strings.Contains(err.Error(), "too small") {
		t.Errorf("error %v", err)
	}
}
