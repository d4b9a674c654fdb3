package caption

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// recordedValues are those of a corpus or a picture.
type recordedValues struct {
	Bleu   [maxN]float64
	ROUGEL float64 `json:"ROUGE_L"`
	CIDEr  float64
}

func close(got, want float64) bool { return math.Abs(got-want) <= 1e-12+1e-12*math.Abs(want) }

// compare compares the three metrics; place -1 is the corpus.
func compare(t *testing.T, name string, place int, b [maxN]Score, r, c Score, want recordedValues) {
	t.Helper()
	value := func(s Score) float64 {
		if place < 0 {
			return s.Corpus
		}
		return s.Images[place]
	}
	for n := range b {
		if got := value(b[n]); !close(got, want.Bleu[n]) {
			t.Errorf("%s: BLEU-%d %v, want %v", name, n+1, got, want.Bleu[n])
		}
	}
	if got := value(r); !close(got, want.ROUGEL) {
		t.Errorf("%s: ROUGE-L %v, want %v", name, got, want.ROUGEL)
	}
	if got := value(c); !close(got, want.CIDEr) {
		t.Errorf("%s: CIDEr-D %v, want %v", name, got, want.CIDEr)
	}
}

func TestEqualToReference(t *testing.T) {
	data, err := os.ReadFile("testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var sets []struct {
		Name   string
		DFOf   string `json:"df_of"`
		Images []Image
		Want   struct {
			recordedValues
			Images []recordedValues
		}
	}
	if err := json.Unmarshal(data, &sets); err != nil {
		t.Fatal(err)
	}
	for _, set := range sets {
		var df *DocumentFrequency
		for _, other := range sets {
			if other.Name == set.DFOf {
				df = NewDocumentFrequency(other.Images)
			}
		}
		b, r, c := BLEU(set.Images), ROUGEL(set.Images), CIDErD(set.Images, df)
		compare(t, set.Name, -1, b, r, c, set.Want.recordedValues)
		for i, want := range set.Want.Images {
			compare(t, fmt.Sprintf("%s, picture %d", set.Name, i), i, b, r, c, want)
		}
		if own := CIDErD(set.Images, NewDocumentFrequency(set.Images)); df == nil && own.Corpus != c.Corpus {
			t.Errorf("%s: %v with its own document frequencies, %v without", set.Name, own.Corpus, c.Corpus)
		}
	}
}

// TestKnownValues has the values of spec/evaluation.md section 6.
func TestKnownValues(t *testing.T) {
	same := []Image{{"a dog on the grass", []string{"a dog on the grass"}}}
	if got := BLEU(same)[3].Corpus; math.Abs(got-1) > 1e-8 {
		t.Errorf("BLEU-4 of a text and itself is %v", got)
	}
	if got := CIDErD(same, nil).Corpus; got != 0 {
		t.Errorf("CIDEr-D of one picture is %v, want 0: every idf is 0", got)
	}
	two := append(same, Image{"cat in his red bed", []string{"cat in his red bed"}})
	if got := CIDErD(two, nil).Corpus; math.Abs(got-10) > 1e-12 {
		t.Errorf("CIDEr-D of two pictures told apart is %v, want 10", got)
	}
}

func TestPublishedValues(t *testing.T) {
	data, err := os.ReadFile("../../../../shared/data/coco-eval/published-small.json")
	if err != nil {
		t.Skip(err)
	}
	var examples []struct {
		Name       string
		Candidates map[string]string
		References map[string][]string
		Published  map[string]float64
	}
	if err := json.Unmarshal(data, &examples); err != nil {
		t.Fatal(err)
	}
	for _, example := range examples {
		var items []Item
		for id, candidate := range example.Candidates {
			items = append(items, Item{ID: id, Candidate: candidate, References: example.References[id]})
		}
		e, err := Evaluate(t.Context(), Tokenize(items), Options{Metrics: []string{"bleu", "rouge", "cider"}})
		if err != nil {
			t.Fatal(err)
		}
		for published, name := range map[string]string{"BLEU-1": "Bleu_1", "BLEU-2": "Bleu_2", "BLEU-3": "Bleu_3",
			"BLEU-4": "Bleu_4", "ROUGE-L": NameROUGEL, "CIDEr": NameCIDEr} {
			want, ok := example.Published[published]
			if got := e.Metric(name).Corpus; !ok || math.Abs(got-want) > 5e-5 {
				t.Errorf("%s: %s %.4f, published %v", example.Name, published, got, want)
			}
		}
	}
}

func TestCommonSubsequence(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		a, b := make([]int32, rng.IntN(200)), make([]int32, rng.IntN(200))
		words := 1 + rng.IntN(30)
		for i := range a {
			a[i] = int32(rng.IntN(words))
		}
		for i := range b {
			b[i] = int32(rng.IntN(words))
		}
		want := plainSubsequence(a, b)
		if got := commonSubsequence(a, b); got != want {
			t.Fatalf("%v and %v: %d, want %d", a, b, got, want)
		}
	}
}

// plainSubsequence is the usual table.
func plainSubsequence(a, b []int32) int {
	row := make([]int, len(b)+1)
	for _, x := range a {
		corner := 0
		for j, y := range b {
			above := row[j+1]
			if x == y {
				row[j+1] = corner + 1
			} else {
				row[j+1] = max(row[j+1], row[j])
			}
			corner = above
		}
	}
	return row[len(b)]
}

// TestEnormous has texts of 100,000 words on both sides.
func TestEnormous(t *testing.T) {
	candidate := strings.TrimSuffix(strings.Repeat("a dog ", 50_000), " ")
	reference := strings.TrimSuffix(strings.Repeat("dog a dog ", 33_000), " ")
	images := []Image{{candidate, []string{reference, candidate}}, {"x", []string{"y"}}}
	e, err := Evaluate(t.Context(), images, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := e.Metric("ROUGE_L").Images[0]; got != 1 {
		t.Errorf("ROUGE-L %v of a reference's text", got)
	}
}

// fixed is a scorer with one value for all.
type fixed struct {
	name  string
	value float64
	err   error
}

func (f fixed) Name() string { return f.name }

func (f fixed) Score(_ context.Context, images []Image) (Score, error) {
	return Score{Corpus: f.value, Images: slices.Repeat([]float64{f.value}, len(images))}, f.err
}

func TestScorers(t *testing.T) {
	images := []Image{{"a dog", []string{"a dog", "the dog"}}}
	missing := &UnavailableError{"SPICE", "there is no Java", "install it"}
	e, err := Evaluate(t.Context(), images, Options{
		Scorers: []Scorer{fixed{NameMETEOR, 0.5, nil}, fixed{NameSPICE, 0, missing}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range e.Metrics {
		names = append(names, m.Name)
	}
	if want := "Bleu_1 Bleu_2 Bleu_3 Bleu_4 METEOR ROUGE_L CIDEr SPICE"; strings.Join(names, " ") != want {
		t.Errorf("metrics %v, want %s", names, want)
	}
	if m := e.Metric(NameMETEOR); m.Corpus != 0.5 || m.NotComputed != "" {
		t.Errorf("METEOR %+v", m)
	}
	if m := e.Metric(NameSPICE); m.NotComputed != "there is no Java; install it" || m.Images != nil {
		t.Errorf("SPICE %+v", m)
	}
	if m := e.Metric("CIDEr"); m.NotComputed != "" || len(m.Images) != 1 {
		t.Errorf("CIDEr %+v", m)
	}
	broken := errors.New("broken")
	_, err = Evaluate(t.Context(), images, Options{Scorers: []Scorer{fixed{NameMETEOR, 0, broken}}})
	if !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
	for _, bad := range []struct {
		images []Image
		o      Options
		says   string
	}{
		{nil, Options{}, "no pictures"},
		{[]Image{{"a", nil}}, Options{}, "picture 0 has no reference"},
		{images, Options{Metrics: []string{"clip"}}, `"clip" is unknown`},
	} {
		if _, err := Evaluate(t.Context(), bad.images, bad.o); err == nil || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("error %v, want %q", err, bad.says)
		}
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Evaluate(stopped, images, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v after cancelling", err)
	}
}

func TestDocumentFrequencyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "df.json")
	for text, says := range map[string]string{
		`{"pictures": 2, "document_frequency": {"a dog": 1}}`:   "",
		`{"pictures": 0, "document_frequency": {"a dog": 1}}`:   "want pictures",
		`{"pictures": 2, "document_frequency": {"a dog": 3}}`:   `"a dog" is in 3 of 2`,
		`{"pictures": 2, "document_frequency": {"a dog": "1"}}`: "cannot unmarshal",
		`{`: "unexpected end",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		df, err := ReadDocumentFrequency(path)
		switch {
		case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
			t.Errorf("%s: error %v, want %q", text, err, says)
		case says == "" && (err != nil || df.Frequency["a dog"] != 1):
			t.Errorf("%s: %v, %v", text, df, err)
		}
	}
}
