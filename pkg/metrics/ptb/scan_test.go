package ptb

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// recorded are captions with the reference's answers.
type recorded struct{ Captions, Lines, Tokens []string }

func readRecorded(t testing.TB) recorded {
	t.Helper()
	data, err := os.ReadFile("testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var r recorded
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEqualToReference(t *testing.T) {
	r := readRecorded(t)
	lines, tokens := Lines(r.Captions), Tokenize(r.Captions)
	if len(r.Captions) < 700 {
		t.Fatalf("only %d captions", len(r.Captions))
	}
	for i, caption := range r.Captions {
		if lines[i] != r.Lines[i] {
			t.Errorf("caption %d %q:\n got %q\nwant %q", i, caption, lines[i], r.Lines[i])
		}
		if tokens[i] != r.Tokens[i] {
			t.Errorf("caption %d %q:\ntokens %q\nwant   %q", i, caption, tokens[i], r.Tokens[i])
		}
	}
}

func TestPunctuationIsTakenOut(t *testing.T) {
	for caption, want := range map[string]string{
		"":                               "",
		" \t ":                           "",
		"?!,;:":                          "?!", // one token, and not one of the list
		"(a cat)":                        "-lrb- a cat -rrb-",
		"a man's dog, isn't it?":         "a man 's dog is n't it",
		"a -- b - c ... d":               "a b c d",
		"1 1/2 dogs":                     "1\u00A01/2 dogs",
		"a <!-x\ty\t- nhre-> dog":        "a <!-x\ty\t-\u00A0nhre-> dog",
		"a\rb\vc\fd\u2028e\u2029f\ng":    "a b c d e f g",
		"not \xff UTF-8":                 "not utf-8",
		"a\x00b":                         "a b",
		"\u00AD":                         "",
		"x\u0085y":                       "x y", // the ellipsis of Windows
		"http://a.bc/\u00A0":             "http://a.bc/",
		strings.Repeat("x", 100_000):     strings.Repeat("x", 100_000),
		strings.Repeat("no ", 100_000):   strings.TrimSuffix(strings.Repeat("no ", 100_000), " "),
		strings.Repeat("A.", 3) + " He ": "a.a.a. he",
	} {
		if got := Tokenize([]string{caption})[0]; got != want {
			t.Errorf("%.40q: got %.40q, want %.40q", caption, got, want)
		}
	}
}

func TestNoCaptions(t *testing.T) {
	if got := Tokenize(nil); len(got) != 0 {
		t.Errorf("got %q", got)
	}
}

// TestChunks compares what several goroutines cut with what one does, where tokens reach over the end of captions.
func TestChunks(t *testing.T) {
	var captions []string
	for i := range 12_000 {
		captions = append(captions, fmt.Sprintf("a <b c='%d", i), "y'> dog U.", "The end")
	}
	captions = captions[1:]
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	want := Lines(captions)
	for _, procs := range []int{2, 3, 7} {
		runtime.GOMAXPROCS(procs)
		if got := Lines(captions); !slices.Equal(got, want) {
			t.Errorf("%d goroutines: other lines than one", procs)
		}
	}
}

// TestPromisesThatFail has texts whose every character could begin a long token that never comes: time by the square of
// their length would be minutes.
func TestPromisesThatFail(t *testing.T) {
	for _, piece := range []string{"%", "\u00B0", "<a ", "(", "a@{", "[^x=", "&", "a.", "-"} {
		caption := strings.Repeat(piece, 300_000/len(piece))
		if got := Tokenize([]string{caption, "end"})[1]; got != "end" {
			t.Errorf("%q, repeated: the next caption is %.40q", piece, got)
		}
	}
}

func TestLower(t *testing.T) {
	for text, want := range map[string]string{
		"ΣΑΣ": "σας", "Σ": "σ", "ΑΣ.": "ας.", "ΑΣ.Β": "ασ.β", "İS": "i\u0307s", "ÀB": "àb",
	} {
		if got := lower(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// TestTablesOfLetters notices a Go whose Unicode has letters that the lists of later ones do not know.
func TestTablesOfLetters(t *testing.T) {
	for name, c := range map[string]struct {
		class string
		want  int
	}{"letters": {letters, 48462}, "digits": {digits, 350}, "capitals": {capitals, 999}} {
		n := 0
		re := parse("[" + c.class + "]")
		for r := rune(0); r <= 0xFFFF; r++ {
			if inSet(re.Rune, r) {
				n++
			}
		}
		if n != c.want {
			t.Errorf("%s: %d, want %d", name, n, c.want)
		}
	}
}

func TestAutomatonIsFinite(t *testing.T) {
	d := newDFA(theGrammar())
	for state := 0; state < len(d.sets); state++ {
		for class := range d.g.count {
			d.step(int32(state), uint8(class))
		}
		if len(d.sets) > 6000 {
			t.Fatal("more than 6,000 states")
		}
	}
	if len(d.sets) < 4000 {
		t.Errorf("only %d states", len(d.sets))
	}
}

func FuzzTokenize(f *testing.F) {
	for _, caption := range readRecorded(f).Captions[:40] {
		f.Add(caption, "The end")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		lines := Lines([]string{first, second})
		tokens := Tokenize([]string{first, second})
		if len(lines) != 2 || len(tokens) != 2 {
			t.Fatal("captions were lost")
		}
		for i, line := range lines {
			if !utf8.ValidString(line) || strings.Contains(line, "\n") {
				t.Errorf("line %q of %q", line, []string{first, second}[i])
			}
			if len(tokens[i]) > len(line) {
				t.Errorf("tokens %q of line %q", tokens[i], line)
			}
		}
	})
}

func BenchmarkTokenize(b *testing.B) {
	captions := slices.Repeat([]string{"A man with a red helmet on a small moped on a dirt road."}, 25_010)
	b.ReportAllocs()
	for b.Loop() {
		Tokenize(captions)
	}
}
