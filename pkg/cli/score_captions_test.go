package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const scoreAnnotations = `{"images": [{"id": 1, "domain": "in-domain"}, {"id": 2, "domain": "out-domain"}, {"id": 3,
  "domain": "in-domain"}], "annotations": [{"image_id": 1, "id": 1, "caption": "A dog runs on the grass."},
  {"image_id": 2, "id": 2, "caption": "A man's red boat."}, {"image_id": 2, "id": 3, "caption": "The boat of a man."},
  {"image_id": 3, "id": 4, "caption": "Two cats."}]}`

const scoreResults = `[{"image_id": 1, "caption": "a dog runs on the grass"},
  {"image_id": 2, "caption": "a man's boat"},
  {"image_id": 7, "caption": "x"}]`

func TestScoreCaptions(t *testing.T) {
	results, annotations := writeFile(t, "r.json", scoreResults), writeFile(t, "a.json", scoreAnnotations)
	out := filepath.Join(t.TempDir(), "lines.jsonl")
	args := []string{"score", "captions", "--results", results, "--annotations", annotations,
		"--metrics", "bleu,rouge,cider"}
	r := runApp(t, nil, append(args, "--split-by", "domain", "--per-image", out)...)
	if r.code != ExitOK {
		t.Fatalf("code %d: %s", r.code, r.err)
	}
	for _, want := range []string{"in-domain", "out-domain", "entire", "Bleu_4", "ROUGE_L", "CIDEr"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("no %q in\n%s", want, r.out)
		}
	}
	for _, want := range []string{"1 of 3 pictures have no result", "1 results are of pictures"} {
		if !strings.Contains(r.err, want) {
			t.Errorf("no warning %q in\n%s", want, r.err)
		}
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	var line perImageLine
	if len(lines) != 2 || json.Unmarshal([]byte(lines[1]), &line) != nil || line.ImageID != "2" ||
		line.Tokens != "a man 's boat" || line.Labels["domain"] != "out-domain" || line.Scores["ROUGE_L"] == nil {
		t.Errorf("lines %s", data)
	}
	if r := runApp(t, nil, append(args, "--strict")...); r.code != ExitFailure || !strings.Contains(r.err, "2 warnings") {
		t.Errorf("--strict: code %d, %s", r.code, r.err)
	}
}

func TestScoreCaptionsJSON(t *testing.T) {
	results, annotations := writeFile(t, "r.txt", "a dog\na boat\ncats\n"), writeFile(t, "a.json", scoreAnnotations)
	df := filepath.Join(t.TempDir(), "df.json")
	args := []string{"score", "captions", "--results", results, "--annotations", annotations, "--json"}
	r := runApp(t, nil, append(args, "--write-cider-df", df, "--expect", "karpathy-test")...)
	var report struct {
		Pictures    int
		Scores      map[string]float64
		NotComputed map[string]string `json:"not_computed"`
		Warnings    []string
	}
	if r.code != ExitOK || json.Unmarshal([]byte(r.out), &report) != nil {
		t.Fatalf("code %d: %s%s", r.code, r.out, r.err)
	}
	if report.Pictures != 3 || report.Scores["Bleu_1"] <= 0 || report.Scores["CIDEr"] <= 0 {
		t.Errorf("report %s", r.out)
	}
	for _, metric := range []string{"METEOR", "SPICE"} {
		if _, ok := report.Scores[metric]; ok == (report.NotComputed[metric] != "") {
			t.Errorf("%s is neither computed nor said not to be, or both: %s", metric, r.out)
		}
	}
	if len(report.Warnings) != 1 || !strings.Contains(report.Warnings[0], "have 3 pictures; karpathy-test has 5000") {
		t.Errorf("warnings %q", report.Warnings)
	}
	again := runApp(t, nil, append(args, "--cider-df", df, "--metrics", "cider")...)
	cider := report.Scores["CIDEr"]
	report.Scores = nil
	if err := json.Unmarshal([]byte(again.out), &report); err != nil || len(report.Scores) != 1 ||
		report.Scores["CIDEr"]-cider > 1e-12 || cider-report.Scores["CIDEr"] > 1e-12 {
		t.Errorf("with its own document frequencies: %s%s, want %v", again.out, again.err, cider)
	}
}

func TestScoreCaptionsUsage(t *testing.T) {
	file := writeFile(t, "r.json", "[]")
	for args, want := range map[string]string{
		"":                  "--results",
		"--results " + file: "--annotations",
		"--results " + file + " --annotations " + file + " --metrics blue": `"blue" is unknown; did you mean bleu?`,
		"--results " + file + " --annotations " + file + " --expect coco":  "neither a number of pictures nor",
	} {
		r := runApp(t, nil, append([]string{"score", "captions"}, strings.Fields(args)...)...)
		if r.code != ExitUsage || !strings.Contains(r.err, want) {
			t.Errorf("%s: code %d, %s; want %q", args, r.code, r.err, want)
		}
	}
	r := runApp(t, nil, "score", "captions", "--results", file, "--annotations", file+"x")
	if r.code != ExitFailure || !strings.Contains(r.err, "no such file") {
		t.Errorf("code %d: %s", r.code, r.err)
	}
}

func TestBenchMetrics(t *testing.T) {
	annotations := writeFile(t, "a.json", `[{"image": "x_1.jpg", "caption": ["a dog", "the dog"]}]`)
	r := runApp(t, nil, "bench", "metrics", "--annotations", annotations, "--runs", "2", "--json")
	var report benchMetricsReport
	if r.code != ExitOK || json.Unmarshal([]byte(r.out), &report) != nil {
		t.Fatalf("code %d: %s%s", r.code, r.out, r.err)
	}
	if n := len(report.Parts); report.Pictures != 1 || report.Captions != 2 || n < 7 || report.Parts[n-1].Name != "all" {
		t.Errorf("report %s", r.out)
	}
	r = runApp(t, nil, "bench", "metrics", "--annotations", annotations, "--held-out", "2")
	if r.code != ExitFailure || !strings.Contains(r.err, "leaves no candidate or no reference") {
		t.Errorf("code %d: %s", r.code, r.err)
	}
	for _, args := range []string{"--held-out -1 --annotations " + annotations, "--held-out 1"} {
		r := runApp(t, nil, append([]string{"bench", "metrics"}, strings.Fields(args)...)...)
		if r.code != ExitUsage || !strings.Contains(r.err, "--held-out") {
			t.Errorf("%s: code %d: %s", args, r.code, r.err)
		}
	}
	if items := madeUpItems(); len(items) != 5000 || len(items[9].References) != 4 {
		t.Errorf("%d made-up pictures", len(items))
	}
}
