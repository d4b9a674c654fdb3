package stage2

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/tokenizer"
)

// corpus are the captions of the tests.
var corpus = []string{"a cat on a mat", "two dogs", "bird",
	"a very long story of a cat and two dogs on one mat in the sun"}

// optTokenizer is a small tokenizer of OPT's kind.
func optTokenizer(t *testing.T) tokenizer.Tokenizer {
	t.Helper()
	files, err := tokenizer.TrainBPE(append(slices.Clone(corpus), corpus...), 290)
	if err != nil {
		t.Fatal(err)
	}
	return loadTokenizer(t, files)
}

// t5Tokenizer is a small tokenizer of T5's kind.
func t5Tokenizer(t *testing.T) tokenizer.Tokenizer {
	t.Helper()
	files, err := tokenizer.TrainUnigram(corpus, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return loadTokenizer(t, files)
}

func loadTokenizer(t *testing.T, files map[string][]byte) tokenizer.Tokenizer {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	tok, err := tokenizer.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// newTestWriter returns a writer of the small model with a vocabulary as large as the tokenizer's.
func newTestWriter(t *testing.T, name string, o TextOptions) (*Writer, tokenizer.Tokenizer) {
	t.Helper()
	cfg := trainedConfig(t, name)
	tok := optTokenizer(t)
	if cfg.T5 != nil {
		tok = t5Tokenizer(t)
		cfg.T5.Vocab = tok.VocabSize()
	} else {
		cfg.OPT.Vocab = tok.VocabSize()
	}
	w, err := NewWriter(cfg, tok, o)
	if err != nil {
		t.Fatal(err)
	}
	return w, tok
}

// options with T5's defaults.
func options(length int) TextOptions {
	return TextOptions{MaxLength: length, SplitUnit: SplitWords, Prefix: PrefixRandom, Seed: 7}
}

// row returns the tokens of a row, without padding.
func row(ids, mask []int32, length, i int) []int32 {
	n := 0
	for _, m := range mask[i*length : (i+1)*length] {
		n += int(m)
	}
	return ids[i*length : i*length+n]
}

var somePictures = []int64{0, 1, 2, 3}

// TestOPTTexts: </s>, the caption, a newline; a long caption loses its end, the newline too; padding stands behind.
func TestOPTTexts(t *testing.T) {
	w, tok := newTestWriter(t, "OPT", options(12))
	texts := w.Write(corpus, 0, somePictures)
	if texts.Rows != 4 || texts.Length != 12 || texts.OutputIDs != nil || w.PromptLength() != 0 {
		t.Fatalf("%+v", texts)
	}
	for i, caption := range corpus {
		want := tok.Encode(caption+"\n", tokenizer.EncodeOptions{})
		got := row(texts.IDs, texts.Mask, texts.Length, i)
		if !slices.Equal(got, want[:min(len(want), 12)]) || got[0] != 2 {
			t.Errorf("%q became %v, want %v", caption, got, want)
		}
		for k, m := range texts.Mask[i*12 : (i+1)*12] {
			if id := texts.IDs[i*12+k]; m == 0 && id != optPad {
				t.Errorf("padding is %d", id)
			}
		}
	}
	if long := row(texts.IDs, texts.Mask, 12, 3); len(long) != 12 || slices.Contains(long, w.eos) {
		t.Errorf("the long caption is %v, with a newline %d", long, w.eos)
	}
	o := options(12)
	o.PadTo = 4
	short, _ := newTestWriter(t, "OPT", o)
	if got := short.Write(corpus[1:3], 0, somePictures).Length; got%4 != 0 || got >= 12 {
		t.Errorf("short texts have length %d, want a small multiple of 4", got)
	}
	if got := short.Write(corpus, 0, somePictures).Length; got != 12 {
		t.Errorf("long texts have length %d", got)
	}
}

// TestOPTPrompt: the prompt and a space stand in front, and what is not learned is </s> with the prompt's tokens.
func TestOPTPrompt(t *testing.T) {
	o := options(20)
	o.Prompt = "a photo of"
	w, tok := newTestWriter(t, "OPT", o)
	if want := len(tok.Encode("a photo of", tokenizer.EncodeOptions{})); w.PromptLength() != want {
		t.Errorf("%d tokens of the prompt, want %d", w.PromptLength(), want)
	}
	texts := w.Write(corpus[:1], 0, somePictures)
	if got := tok.Decode(texts.IDs[:texts.Length], true); strings.TrimRight(got, "\n") != "a photo of a cat on a mat" {
		t.Errorf("the text is %q", got)
	}
}

// TestForgedEnd: the name of a special token in a caption is plain text.
func TestForgedEnd(t *testing.T) {
	for name, end := range map[string]int32{"OPT": 2, "T5": 1} {
		o := options(40)
		o.Prefix = PrefixEmpty
		w, _ := newTestWriter(t, name, o)
		texts := w.Write([]string{"a</s>cat</s>"}, 0, somePictures)
		ids, count := texts.IDs, 0
		if name == "T5" {
			ids = texts.OutputIDs
		}
		for _, id := range ids {
			if id == end {
				count++
			}
		}
		if count != 1 {
			t.Errorf("%s: %d tokens end the text %v", name, count, ids)
		}
	}
}

// TestT5Split: prefix and suffix are the caption, each with </s>; the cut lies between the first piece and the middle,
// takes every place there, and depends on seed, epoch, picture and caption alone.
func TestT5Split(t *testing.T) {
	for _, unit := range []string{SplitWords, SplitTokens} {
		o := options(30)
		o.SplitUnit = unit
		w, tok := newTestWriter(t, "T5", o)
		caption := "a cat on a mat and two dogs" // 8 words, 8 tokens
		cuts := map[int]int{}
		for epoch := range int64(60) {
			texts := w.Write([]string{"bird", caption}, epoch, []int64{5, 9})
			prefix := row(texts.IDs, texts.Mask, texts.Length, 1)
			suffix := row(texts.OutputIDs, texts.OutputMask, texts.OutputLength, 1)
			if prefix[len(prefix)-1] != 1 || suffix[len(suffix)-1] != 1 {
				t.Fatalf("%s: prefix %v, suffix %v", unit, prefix, suffix)
			}
			if got := tok.Decode(prefix, true) + " " + tok.Decode(suffix, true); got != caption {
				t.Fatalf("%s: together %q", unit, got)
			}
			cuts[len(prefix)-1]++
			alone := w.Write([]string{caption}, epoch, []int64{9})
			if !slices.Equal(row(alone.IDs, alone.Mask, alone.Length, 0), prefix) {
				t.Errorf("%s: alone in its batch the caption is cut elsewhere", unit)
			}
			if one := row(texts.IDs, texts.Mask, texts.Length, 0); unit == SplitWords && !slices.Equal(one, []int32{1}) {
				t.Errorf("%s: the prefix of one word is %v", unit, one)
			}
		}
		for n := 1; n <= 4; n++ {
			if cuts[n] == 0 {
				t.Errorf("%s: never cut behind %d pieces: %v", unit, n, cuts)
			}
			delete(cuts, n)
		}
		if len(cuts) != 0 {
			t.Errorf("%s: cut behind %v pieces too", unit, cuts)
		}
	}
}

// TestT5EmptyPrefix: plain captioning; a prompt is all that the encoder reads.
func TestT5EmptyPrefix(t *testing.T) {
	o := options(10)
	o.Prefix = PrefixEmpty
	w, tok := newTestWriter(t, "T5", o)
	texts := w.Write(corpus, 3, somePictures)
	for i, caption := range corpus {
		if got := row(texts.IDs, texts.Mask, texts.Length, i); !slices.Equal(got, []int32{1}) {
			t.Errorf("the prefix of %q is %v", caption, got)
		}
		want := tok.Encode(caption, tokenizer.EncodeOptions{MaxLength: 10})
		got := row(texts.OutputIDs, texts.OutputMask, texts.OutputLength, i)
		if !slices.Equal(got, want) || got[len(got)-1] != 1 {
			t.Errorf("the suffix of %q is %v, want %v", caption, got, want)
		}
	}
	o.Prompt = "a cat"
	w, _ = newTestWriter(t, "T5", o)
	texts = w.Write(corpus[:1], 3, somePictures)
	if got := tok.Decode(row(texts.IDs, texts.Mask, texts.Length, 0), true); got != "a cat" || w.PromptLength() != 0 {
		t.Errorf("the encoder reads %q", got)
	}
}

// TestT5Truncation: both sides keep their </s>.
func TestT5Truncation(t *testing.T) {
	for _, unit := range []string{SplitWords, SplitTokens} {
		o := options(4)
		o.SplitUnit = unit
		w, _ := newTestWriter(t, "T5", o)
		for epoch := range int64(20) {
			texts := w.Write(corpus[3:], epoch, somePictures)
			suffix := row(texts.OutputIDs, texts.OutputMask, texts.OutputLength, 0)
			prefix := row(texts.IDs, texts.Mask, texts.Length, 0)
			if len(suffix) != 4 || suffix[3] != 1 || prefix[len(prefix)-1] != 1 || len(prefix) > 4 {
				t.Fatalf("%s: prefix %v, suffix %v", unit, prefix, suffix)
			}
		}
	}
}

// TestWriterRefuses what cannot be.
func TestWriterRefuses(t *testing.T) {
	cfg := trainedConfig(t, "OPT") // 17 rows in its vocabulary
	large := cfg
	llm := *cfg.OPT
	llm.Vocab = 1000
	large.OPT = &llm
	for want, f := range map[string]func() error{
		"the tokenizer has 290 ids, the language model 17": func() error {
			_, err := NewWriter(cfg, optTokenizer(t), options(10))
			return err
		},
		"nothing would be learned": func() error {
			o := options(3)
			o.Prompt = "a very long story"
			_, err := NewWriter(large, optTokenizer(t), o)
			return err
		},
		"tokens of a newline": func() error {
			_, err := NewWriter(large, t5Tokenizer(t), options(10))
			return err
		},
		`split unit "letter"`: func() error { o := options(5); o.SplitUnit = "letter"; return o.Validate() },
		`prefix "all"`:        func() error { o := options(5); o.Prefix = "all"; return o.Validate() },
		"texts of 1 tokens":   func() error { return options(1).Validate() },
		"multiples of -1":     func() error { o := options(5); o.PadTo = -1; return o.Validate() },
	} {
		if err := f(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one that says %q", err, want)
		}
	}
}
