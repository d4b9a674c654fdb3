package report

import (
	"bytes"
	"encoding/xml"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"blip2/pkg/runlog"
)

const config = `vision: {arch: clip, image_size: 64, patch_size: 16, width: 192, layers: 4, freeze: false}
qformer: {hidden: 192, layers: 4, query_tokens: 16}
train: {steps: 600, batch_size: 32}
run: {name: "</pre></details><script>alert(1)</script>"}
`

// evil is what a caption, a key or a file name must not become: markup.
const evil = `<script>alert("x")</script> & 'y' </title>`

// writeRun makes a complete run folder.
func writeRun(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "quick & <b>start")
	if err := os.MkdirAll(filepath.Join(dir, runlog.GalleryDir), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, dir, runlog.ConfigFile, []byte(config))
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC)
	log, err := runlog.Open(dir, runlog.Options{Now: func() time.Time { return now }, Host: "lab"})
	if err != nil {
		t.Fatal(err)
	}
	for step := 10; step <= 600; step += 10 {
		x := float64(step) / 600
		itm := 0.7 - 0.5*x
		if step == 300 {
			itm = nan
		}
		if err := log.Record(step, runlog.F("loss", 12-8*x), runlog.F("loss_itc", 3.4-2*x), runlog.F("loss_itm", itm),
			runlog.F("loss_itg", 8-6*x), runlog.F("lr", 5e-4*(1-x)), runlog.F("img_per_s", 60+x)); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	summary := exampleSummary()
	summary.Started = now
	if err := runlog.WriteSummary(dir, summary); err != nil {
		t.Fatal(err)
	}
	var pic bytes.Buffer
	if err := png.Encode(&pic, image.NewGray(image.Rect(0, 0, 4, 3))); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "gallery/a.png", pic.Bytes())
	if err := runlog.WriteGallery(dir, runlog.Gallery{Items: []runlog.GalleryItem{
		{Image: "gallery/a.png", Split: "train", Key: "a" + evil, Captions: []string{"own one " + evil, "own two"},
			Generated: "written " + evil, BestMatch: "own two", BestMatchProb: 0.995, BestMatchCorrect: true},
		{Image: "gallery/a.png", Split: "heldout", Key: "b", Captions: []string{`a "quoted" dog`}, Generated: "",
			BestMatch: "other " + evil, BestMatchProb: 0.42, Credit: "N. N., CC BY 2.0" + evil},
	}}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func write(t *testing.T, dir, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// build returns the page of a run folder, after checking that it is well formed and loads nothing.
func build(t *testing.T, dir string) string {
	t.Helper()
	path, err := Build(dir)
	if err != nil {
		t.Fatal(err)
	}
	if path != filepath.Join(dir, "report.html") {
		t.Errorf("path %s", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	checkPage(t, string(data))
	return string(data)
}

var (
	code = regexp.MustCompile(`(?s)<(script|style)>.*?</(?:script|style)>`)
	void = regexp.MustCompile(`<(meta|img)([^>]*)>`)
)

// checkPage parses the page with every element closed, and looks at what could load something or run.
func checkPage(t *testing.T, html string) {
	t.Helper()
	if n := strings.Count(html, "<script"); n != 1 {
		t.Errorf("%d scripts, want only the page's own", n)
	}
	if strings.Contains(html, "ZgotmplZ") {
		t.Error("the template refused a value")
	}
	for _, css := range regexp.MustCompile(`url\(|@import`).FindAllString(html, -1) {
		t.Errorf("a style loads something: %s", css)
	}
	markup := void.ReplaceAllString(code.ReplaceAllString(html, "<$1></$1>"), "<$1$2/>")
	d := xml.NewDecoder(strings.NewReader(markup)) // strict: every element is closed by its own end
	d.Entity = xml.HTMLEntity
	ids := map[string]bool{}
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("the page is not well formed: %v", err)
		}
		e, ok := token.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range e.Attr {
			checkAttribute(t, e.Name.Local, a.Name.Local, a.Value)
			if a.Name.Local == "id" && ids[a.Value] {
				t.Errorf("the id %s is used twice", a.Value)
			}
			ids[a.Value] = a.Name.Local == "id" || ids[a.Value]
		}
	}
}

func checkAttribute(t *testing.T, element, name, value string) {
	t.Helper()
	switch {
	case name == "src" && !strings.HasPrefix(value, "data:image/"), name == "href":
		t.Errorf("<%s %s=%.60q> loads something", element, name, value)
	case strings.HasPrefix(name, "on"):
		t.Errorf("<%s %s> runs something", element, name)
	case name == "d" && strings.Contains(value, "NaN"):
		t.Errorf("a path with NaN: %.60s", value)
	}
}

func wantAll(t *testing.T, html string, wants ...string) {
	t.Helper()
	flat := strings.Join(strings.Fields(html), " ")
	for _, want := range wants {
		if !strings.Contains(flat, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

func TestBuild(t *testing.T) {
	html := build(t, writeRun(t))
	wantAll(t, html,
		"<h1>quick &amp; &lt;b&gt;start</h1>", "finished", "2 January 2026, 15:04 UTC",
		"600 steps on 100 pictures with 500 captions in 4 min 47 s with the Go backend.",
		"CLIP ViT, 4 × 192, 64 px in patches of 16, trained", "4 × 192, 16 query tokens", "7.8 M, 812 k trained",
		"600 × 32 pairs (19.2 epochs)", "62.31 pictures/s",
		"Training pictures", "Held-out pictures", "never trained on", "64× chance", "<b>64.0</b>", "<td>31.2</td>",
		"1 value not finite, first at step 300", "guessing", "Learning rate", "Pictures per second",
		"own one &lt;script&gt;", "written &lt;script&gt;", "✓ right · &gt; 99 %", "✗ wrong · 42 %",
		"no caption written", "best match right for 1 of 1", "best match right for 0 of 1", "N. N., CC BY 2.0",
		`src="data:image/png;base64,`, "&lt;/pre&gt;&lt;/details&gt;", "blip2 pretrain-stage1")
	if strings.Contains(html, "alert(1)</script>") || strings.Contains(html, `alert("x")`) {
		t.Error("a text of the run became markup")
	}
	if strings.Contains(html, `class="notices"`) {
		t.Error("a complete run has notices")
	}
}

func TestBuildAgain(t *testing.T) {
	dir := writeRun(t)
	if first, second := build(t, dir), build(t, dir); first != second {
		t.Error("the same folder gives two pages")
	}
}

func TestBuildIncomplete(t *testing.T) {
	everything := []string{runlog.ConfigFile, runlog.MetricsFile, runlog.SummaryFile, runlog.GalleryFile, "gallery/a.png"}
	tests := []struct {
		name  string
		keep  []string
		wants []string
	}{
		{"killed", []string{runlog.ConfigFile, runlog.MetricsFile},
			[]string{"not finished", "has not ended, or was killed", "no gallery", "Logged up to step 600 of 600.",
				"<svg"}},
		{"just begun", []string{runlog.ConfigFile},
			[]string{"Nothing was logged yet.", "No measurements", "CLIP ViT, 4 × 192"}},
		{"only metrics", []string{runlog.MetricsFile}, []string{"configuration is missing", "Logged up to step 600.", "<svg"}},
		{"only summary", []string{runlog.SummaryFile}, []string{"64× chance", "No measurements"}},
		{"no picture", []string{runlog.ConfigFile, runlog.MetricsFile, runlog.SummaryFile, runlog.GalleryFile},
			[]string{"The picture gallery/a.png of the gallery is missing.", "picture missing",
				"written &lt;script"}},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := writeRun(t)
			for _, name := range everything {
				if !strings.Contains(strings.Join(tc.keep, " "), name) {
					if err := os.Remove(filepath.Join(dir, name)); err != nil {
						t.Fatal(err)
					}
				}
			}
			wantAll(t, build(t, dir), append(tc.wants, `class="notices"`)...)
		})
	}
}

func TestBuildDamaged(t *testing.T) {
	tests := []struct{ name, file, content, want string }{
		{"metrics", runlog.MetricsFile, "{\"step\":1,\"loss\":3}\nhello\n", "line 2 is not a row"},
		{"torn metrics", runlog.MetricsFile, "{\"step\":1,\"loss\":3}\n{\"step\":2,\"loss\":2}\n{\"st", "Loss from 3.000"},
		{"one interval", runlog.MetricsFile, "{\"step\":1,\"loss\":3}\n", "Only one interval was logged"},
		{"empty metrics", runlog.MetricsFile, "", "64× chance"},
		{"only NaN", runlog.MetricsFile, "{\"step\":1,\"loss\":null}\n{\"step\":2,\"loss\":null}\n", "64× chance"},
		{"summary", runlog.SummaryFile, `{"steps":`, "summary.json is damaged"},
		{"diverged summary", runlog.SummaryFile, `{"steps":600,"loss":null,"retrieval":{"train":{"i2t_r1":null}}}`,
			"not finite"},
		{"gallery", runlog.GalleryFile, `[]`, "gallery.json is damaged"},
		{"config", runlog.ConfigFile, "vision: [", "config.yaml cannot be read"},
		{"picture", "gallery/a.png", "<html>", "is no picture"},
		{"picture outside", runlog.GalleryFile, `{"items":[{"image":"../../secret.png","split":"train"}]}`,
			"outside the run folder"},
		{"absolute picture", runlog.GalleryFile, `{"items":[{"image":"/secret.png","split":"train"}]}`,
			"outside the run folder"},
		{"picture folder", runlog.GalleryFile, `{"items":[{"image":"gallery","split":"train"}]}`, "is no picture file"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := writeRun(t)
			write(t, dir, tc.file, []byte(tc.content))
			wantAll(t, build(t, dir), tc.want)
		})
	}
}

func TestBuildHugePicture(t *testing.T) {
	dir := writeRun(t)
	if err := os.Truncate(filepath.Join(dir, "gallery/a.png"), pictureLimit+1); err != nil {
		t.Fatal(err)
	}
	html := build(t, dir)
	wantAll(t, html, "no picture file of at most 4 MiB")
	if len(html) > 1<<20 {
		t.Errorf("the page has %d bytes", len(html))
	}
}

func TestBuildErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "notes.txt", nil)
	for path, want := range map[string]string{dir: "no run folder", filepath.Join(dir, "gone"): "gone",
		filepath.Join(dir, "notes.txt"): "notes.txt"} {
		if _, err := Build(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", path, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, runlog.ReportFile)); err == nil {
		t.Error("a page was written into a folder that is no run")
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		probability(0.995): "> 99 %", probability(1): "100 %", probability(0.42): "42 %", probability(0.004): "< 1 %",
		probability(0): "0 %", probability(nan): "not finite",
		million(512): "512", million(812344): "812 k", million(187_000_000): "187.0 M", million(1_170_000_000): "1.17 B",
		duration(4.25): "4.2 s", duration(48): "48 s", duration(287.4): "4 min 47 s", duration(7500): "2 h 5 min",
		backendText("xla:/opt/p.so"): " with the backend xla:/opt/p.so", plural(1, "step"): "1 step",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
