package report

import (
	"math"
	"os"
	"strings"
	"testing"

	"blip2/pkg/runlog"
)

// captioned is the summary of a run of stage 2.
func captioned() runlog.Summary {
	s := runlog.Summary{Status: runlog.StatusFinished, Steps: 3}
	s.Captions = map[string]runlog.CaptionScores{
		runlog.SplitTrain:   {Images: 100, CIDEr: 1.358, CIDErExchanged: 0.03, CIDErBlind: 0.041, BLEU4: 0.527, ROUGEL: 0.627},
		runlog.SplitHeldout: {Images: 18, CIDEr: runlog.Float(math.NaN())}}
	s.CaptionsBefore = map[string]runlog.CaptionScores{runlog.SplitTrain: {Images: 100, CIDEr: 0.036}}
	return s
}

// TestWriteCaptions: a row for before and after, in percent, and dashes for what is not known.
func TestWriteCaptions(t *testing.T) {
	var out strings.Builder
	if err := WriteCaptions(&out, captioned()); err != nil {
		t.Fatal(err)
	}
	const want = `Captions              CIDEr of other pictures  without pictures   BLEU-4  ROUGE-L
Training pictures, seen in training (100 pictures)
  before training       3.6               0.0               0.0      0.0      0.0
  after training      135.8               3.0               4.1     52.7     62.7
Held-out pictures, never trained on (18 pictures)
  before training         –                 –                 –        –        –
  after training          –               0.0               0.0      0.0      0.0
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	out.Reset()
	if err := WriteCaptions(&out, runlog.Summary{}); err != nil || out.String() != "Captions were not evaluated.\n" {
		t.Errorf("%q, error %v", out.String(), err)
	}
}

// TestWriteSamples takes pictures from the whole gallery.
func TestWriteSamples(t *testing.T) {
	var g runlog.Gallery
	for _, key := range []string{"a", "b", "c", "d"} {
		g.Items = append(g.Items, runlog.GalleryItem{Key: key, Split: "train", Generated: "model " + key,
			Captions: []string{"people " + key, "more"}})
	}
	g.Items[2].Captions = nil
	var out strings.Builder
	if err := WriteSamples(&out, g, 2); err != nil {
		t.Fatal(err)
	}
	const want = "a (train)\n  model   model a\n  people  people a\nc (train)\n  model   model c\n  people  \n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	if err := WriteSamples(&out, runlog.Gallery{}, 2); err != nil || out.Len() != 0 {
		t.Errorf("%q, error %v", out.String(), err)
	}
}

// TestCaptionsOnThePage: the page of a run of stage 2 has its scores and pictures, and nothing of matching.
func TestCaptionsOnThePage(t *testing.T) {
	dir := t.TempDir()
	if err := runlog.WriteSummary(dir, captioned()); err != nil {
		t.Fatal(err)
	}
	gallery := runlog.Gallery{Items: []runlog.GalleryItem{{Split: runlog.SplitTrain, Key: "a.jpg", Generated: "two dogs"}}}
	if err := runlog.WriteGallery(dir, gallery); err != nil {
		t.Fatal(err)
	}
	path, err := Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<h2 id=\"captions\">Captions</h2>", "<td>135.8</td>", "two dogs", "100 pictures"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page does not say %q", want)
		}
	}
	for _, not := range []string{"matching head", "not evaluated"} {
		if strings.Contains(string(page), not) {
			t.Errorf("the page says %q", not)
		}
	}
}
