package tokenizer

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

const toyVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ndog\n##s\n,\nrun\n##ning\ni\ncafe\nς\n生\n##é\n'\nt\n.\ndon\n"

func toy(t testing.TB) *WordPiece {
	t.Helper()
	w, err := NewWordPiece([]byte(toyVocab))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func pieces(w *WordPiece, text string) string {
	var out []string
	for _, id := range w.Encode(text) {
		out = append(out, w.Piece(id))
	}
	return strings.Join(out, " ")
}

func TestEncodeRules(t *testing.T) {
	w := toy(t)
	for text, want := range map[string]string{
		"":                               "",
		" \t\r\n ":                       "",
		"A dog":                          "a dog",
		"Dogs,RUNNING":                   "dog ##s , run ##ning",
		"do\x00gs":                       "dog ##s",     // control characters vanish
		"do\u200dg\u2028a":               "dog a",       // format characters too; a line separator splits
		"do\u00a0gs":                     "[UNK] [UNK]", // no-break space is white space
		"Café cafe\u0301":                "cafe cafe",   // both forms of é lose the accent
		"İ":                              "i",           // i and a dot above
		"Σ aΣ":                           "[UNK] [UNK]", // σ is no piece
		"a生dog生":                         "a 生 dog 生",   // CJK is isolated
		"dog\ufffda":                     "[UNK]",       // the replacement character vanishes: "doga"
		"[SEP] [CLS]":                    "[UNK] [UNK] [UNK] [UNK] [UNK] [UNK]",
		strings.Repeat("a", 101):         "[UNK]",
		"dog" + strings.Repeat("s", 97):  "dog" + strings.Repeat(" ##s", 97),
		"dog" + strings.Repeat("s", 98):  "[UNK]",
		"don't.":                         "don ' t .",
		"xyz dog":                        "[UNK] dog",
		"\xff\xfedog":                    "dog", // invalid UTF-8 is dropped like U+FFFD
		"dogs\x07 a\x7f":                 "dog ##s a",
		"running\x01running dogs\u0301.": "[UNK] dog ##s .",
	} {
		if got := pieces(w, text); got != want {
			t.Errorf("Encode(%q) = %q, want %q", text, got, want)
		}
	}
}

// TestSigma checks that BERT lower-cases every character for itself, other than the caption processor (see Lower).
func TestSigma(t *testing.T) {
	vocab := "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nας\nασ\ni\n"
	w, err := NewWordPiece([]byte(vocab))
	if err != nil {
		t.Fatal(err)
	}
	if got := pieces(w, "ΑΣ ας İ"); got != "ασ ας i" {
		t.Errorf("pieces %q", got)
	}
}

func TestEncodeCaptionCuts(t *testing.T) {
	w := toy(t)
	ids, mask := w.EncodeCaption("dogs dogs dogs", 5)
	if want := []int32{2, 6, 7, 6, 3}; !slices.Equal(ids, want) || !slices.Equal(mask, []int32{1, 1, 1, 1, 1}) {
		t.Errorf("cut caption %v %v, want %v", ids, mask, want)
	}
	ids, _ = w.EncodeCaption("dogsssz", 4) // more pieces than there is room for, and then no match
	if want := []int32{2, 1, 3, 0}; !slices.Equal(ids, want) {
		t.Errorf("unknown last word %v, want %v", ids, want)
	}
	ids, mask = w.EncodeCaption("", 4)
	if want := []int32{2, 3, 0, 0}; !slices.Equal(ids, want) || !slices.Equal(mask, []int32{1, 1, 0, 0}) {
		t.Errorf("empty caption %v %v, want %v", ids, mask, want)
	}
	ids, _ = w.EncodeCaption("dog", 2)
	if want := []int32{2, 3}; !slices.Equal(ids, want) {
		t.Errorf("shortest caption %v, want %v", ids, want)
	}
}

func TestDecode(t *testing.T) {
	w := toy(t)
	ids, _ := w.EncodeCaption("Dogs, running. Don't", 16)
	ids[0] = w.DecID()
	if got, want := w.Decode(append(ids, -1, 999)), "dogs, running. don't"; got != want {
		t.Errorf("Decode = %q, want %q", got, want)
	}
	if got := w.Decode([]int32{7, 6}); got != "##s dog" {
		t.Errorf("a leading continuation gives %q", got)
	}
}

func TestLoadErrors(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none.txt")
	if _, err := LoadWordPiece(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing file: %v", err)
	}
	for name, content := range map[string]string{
		"html.txt":   "<!DOCTYPE html>\n<html><body>404</body></html>\n",
		"binary.txt": "\xff\xfe\x00\x01\n",
		"empty.txt":  "",
		"part.txt":   strings.ReplaceAll(toyVocab, "[SEP]\n", ""),
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadWordPiece(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v does not name the file", name, err)
		}
	}
	if w, err := NewWordPiece([]byte(strings.ReplaceAll(toyVocab, "\n", "\r\n"))); err != nil || w.Piece(6) != "dog" {
		t.Errorf("CRLF vocabulary: %v", err)
	}
}

func TestConcurrentUse(t *testing.T) {
	w := toy(t)
	want := w.Encode("a dog, running dogs café 生")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if got := w.Encode("a dog, running dogs café 生"); !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestLowerAsPython(t *testing.T) {
	for in, want := range map[string]string{
		"ABC xyz": "abc xyz", "İI": "i̇i", "ΟΔΟΣ Σ ΣΣ": "οδος σ σς", "aΣb ΑΣ. ΑΣ": "aσb ας. ας",
		"ΑΣ\u0301 x": "ας\u0301 x", "Σ'Α": "σ'α", "Α'Σ": "α'ς", "ǅ": "ǆ", "ẞ": "ß", "": "",
	} {
		if got := Lower(in); got != want {
			t.Errorf("Lower(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzSplit checks that the fast path for ASCII and the general path agree and that words are well-formed.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"A dog, running!", "caf\u00e9 \x00x", "a\x01b c", "生a", "\xff", "Σ.Σ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var fast, general []string
		splitWords(text, func(w []byte) bool { fast = append(fast, string(w)); return true })
		splitUnicode(text, func(w []byte) bool { general = append(general, string(w)); return true })
		if !slices.Equal(fast, general) {
			t.Fatalf("%q: fast path %q, general path %q", text, fast, general)
		}
		for _, w := range fast {
			if w == "" || !utf8.ValidString(w) || strings.ContainsAny(w, " \n\t") {
				t.Fatalf("%q gives the word %q", text, w)
			}
		}
	})
}
