package vqa

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// readTestdata decodes a file of testdata.
func readTestdata(t testing.TB, name string, v any) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// TestNormaliseAsTheReference compares with what the evaluators (GT-Vision-Lab/VQA a013f00 and LAVIS 506965b, which
// agree) answered for answers and questions of VQA v2 and mutations of them.
func TestNormaliseAsTheReference(t *testing.T) {
	var cases []struct {
		Text, Punct, Both string
		DigitArticle      string `json:"digit_article"`
	}
	readTestdata(t, "normalise.json", &cases)
	if len(cases) < 400 {
		t.Fatalf("only %d texts", len(cases))
	}
	for _, c := range cases {
		if got := Punct(c.Text); got != c.Punct {
			t.Errorf("Punct(%q) = %q, want %q", c.Text, got, c.Punct)
		}
		if got := DigitArticle(c.Text); got != c.DigitArticle {
			t.Errorf("DigitArticle(%q) = %q, want %q", c.Text, got, c.DigitArticle)
		}
		if got := Normalise(c.Text); got != c.Both {
			t.Errorf("Normalise(%q) = %q, want %q", c.Text, got, c.Both)
		}
	}
}

func TestNormaliseRules(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"The two-tone bus.", "2 tone bus"},
		{"1,000", "1000"},               // a comma between digits deletes all punctuation
		{"a,1,2,b-c", "a12bc"},          // ... of the whole text
		{"red, white", "red white"},     // a comma beside a space is deleted
		{"red,white", "red white"},      // else it becomes a space
		{"two - tone-red", "2 tonered"}, // one hyphen beside a space deletes all hyphens
		{"3.5 u.s.", "3.5 us"},          // a period before a digit stays
		{".5", ".5"},
		{"5.", "5"},
		{strings.Repeat("a.", 40), strings.Repeat("a", 33) + strings.Repeat(".a", 7) + "."}, // 32 at most
		{"dont know", "don't know"},
		{"somebody'd", "somebodyd"},
		{"couldn'tve couldnt've", "couldn't've couldn't've"},
		{"Im Ive", "im ive"}, // the evaluators' entries have capitals, words have none
		{"its lets ill shes", "its lets ill shes"},
		{"none", "0"},
		{"a", ""},
		{"A an THE", ""},
		{"it's 50% & #1: ~$5", "it's 50% & #1: ~$5"},
		{"a\x1cb\u00a0c\u3000d", "b c d"},
		{"ΑΣ ΑΣΑ İ", "ας ασα i̇"},
		{"٣,٤-x", "٣٤x"}, // digits of any script
	} {
		if got := Normalise(tt.text); got != tt.want {
			t.Errorf("Normalise(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestContractions(t *testing.T) {
	table := contractions()
	// The evaluators have 120 entries; four have a capital I and two stand for themselves.
	if len(table) != 114 {
		t.Errorf("%d entries, want 114", len(table))
	}
	for key, value := range table {
		if strings.ReplaceAll(key, "'", "") != strings.ReplaceAll(value, "'", "") {
			t.Errorf("%s becomes %s", key, value)
		}
	}
	for _, absent := range []string{"ill", "id", "shell", "hell", "well", "were", "wed", "its", "lets", "shes", "shed"} {
		if value, ok := table[absent]; ok {
			t.Errorf("%s becomes %s", absent, value)
		}
	}
}

func TestNormaliseLongTexts(t *testing.T) {
	start := time.Now()
	for _, part := range []string{".", ",", "1,", "-", " ", "a ", "\x00", "\xff", "Σ", "'", "don't "} {
		Normalise(strings.Repeat(part, 200_000))
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("long texts took %v", took)
	}
}

// slowPunct is Punct written as the evaluators write it: one replacement after the other.
func slowPunct(s string) string {
	out := s
	thousands := false
	r := []rune(s)
	for i := 1; i+1 < len(r); i++ {
		if r[i] == ',' && digitBefore(string(r[:i])) && digitAfter(string(r[i+1:])) {
			thousands = true
		}
	}
	for _, p := range strings.Split(`;/[]"{}()=+\_-><@`+"`,?!", "") {
		if strings.Contains(s, p+" ") || strings.Contains(s, " "+p) || thousands {
			out = strings.ReplaceAll(out, p, "")
		} else {
			out = strings.ReplaceAll(out, p, " ")
		}
	}
	var b strings.Builder
	removed := 0
	for i := range len(out) {
		if out[i] == '.' && removed < 32 && !digitAfter(out[i+1:]) {
			removed++
			continue
		}
		b.WriteByte(out[i])
	}
	return b.String()
}

func FuzzNormalise(f *testing.F) {
	for _, s := range []string{"", "1,000.5", "red, white-blue.", "x\xffy.", "don't", "۱,۲", "a. b .c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got := Punct(s); utf8.ValidString(s) && got != slowPunct(s) {
			t.Errorf("Punct(%q) = %q, want %q", s, got, slowPunct(s))
		}
		if got := DigitArticle(s); strings.Contains(got, "  ") || strings.TrimFunc(got, isSpace) != got {
			t.Errorf("DigitArticle(%q) = %q is not single-spaced", s, got)
		}
		oneLine(s)
	})
}
