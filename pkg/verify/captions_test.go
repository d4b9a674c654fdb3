package verify

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// captionFolder writes a case of files.
func captionFolder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tokenizeCase is a case of kind ptb-tokenize whose answers are those of the reference.
func tokenizeCase() map[string]string {
	return map[string]string{
		"case.json":     `{"kind": "ptb-tokenize", "config": {}, "tolerance": {"atol": 0, "rtol": 0}}`,
		"inputs.json":   `{"captions": ["A man's dog.", "He can't!"]}`,
		"expected.json": `{"tokens": ["a man 's dog", "he ca n't"], "raw": ["a man 's dog .", "he ca n't !"]}`,
	}
}

// scoreCase is a case of kind caption-metrics with the reference's answers, and METEOR's, which need its data.
func scoreCase() map[string]string {
	return map[string]string{
		"case.json": `{"kind": "caption-metrics", "config": {},
			"tolerance": {"atol": 1e-9, "rtol": 1e-9, "SPICE": "optional"}}`,
		"inputs.json": `{"images": [{"image_id": 1, "candidate": "A group of people standing inside of a moving tram.",
			"references": ["A montage of images related to a mass transit train system.",
			"An outside view of a subway car and an inside view of people standing in a subway car",
			"A collage is shown of a train ride and stop.", "A white train traveling through a train station."]}]}`,
		"expected.json": `{"corpus": {"Bleu_1": 0.6999999998600002, "Bleu_2": 0.48304589144035537,
			"Bleu_3": 0.3078191250093701, "Bleu_4": 4.51801001705643e-05, "METEOR": 0.15175162082313468,
			"ROUGE_L": 0.3588235294117647, "CIDEr": 0.0},
			"images": [{"image_id": 1, "candidate_tokens": "a group of people standing inside of a moving tram",
			"reference_tokens": ["a montage of images related to a mass transit train system",
			"an outside view of a subway car and an inside view of people standing in a subway car",
			"a collage is shown of a train ride and stop", "a white train traveling through a train station"],
			"Bleu": [0.6999999998600002, 0.48304589144035537, 0.3078191250093701, 4.51801001705643e-05],
			"ROUGE_L": 0.3588235294117647, "CIDEr": 0.0, "METEOR": 0.15175162082313468}]}`,
	}
}

func TestCaptionKinds(t *testing.T) {
	replace := func(file, from, to string) func(map[string]string) {
		return func(files map[string]string) {
			if !strings.Contains(files[file], from) {
				t.Fatalf("%s has no %q", file, from)
			}
			files[file] = strings.Replace(files[file], from, to, 1)
		}
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
		spoil func(map[string]string)
		says  string
	}{
		{"tokens", tokenizeCase(), nil, ""},
		{"a token", tokenizeCase(), replace("expected.json", "ca n't\"]", "can't\"]"), "tokens[1]"},
		{"punctuation", tokenizeCase(), replace("expected.json", "dog .", "dog"), "raw[0]"},
		{"a caption less", tokenizeCase(), replace("inputs.json", `, "He can't!"`, ""), "1 values, recorded 2"},
		{"scores", scoreCase(), nil, ""},
		{"BLEU", scoreCase(), replace("expected.json", "0.48304589", "0.48304588"), "corpus/Bleu_2"},
		{"a picture's BLEU", scoreCase(), replace("expected.json", `"Bleu": [0.69`, `"Bleu": [0.68`), "images[0]/Bleu_1"},
		{"ROUGE-L", scoreCase(), replace("expected.json", `0.3588235294117647, "CIDEr": 0.0}`,
			`0.3588, "CIDEr": 0.0}`), "corpus/ROUGE_L"},
		{"CIDEr", scoreCase(), replace("expected.json", `"CIDEr": 0.0}`, `"CIDEr": 0.1}`), "corpus/CIDEr"},
		{"null", scoreCase(), replace("expected.json", `"CIDEr": 0.0}`, `"CIDEr": null}`), "recorded null"},
		{"a reference's token", scoreCase(), replace("expected.json", "a montage", "the montage"), "reference_tokens"},
		{"an unknown metric", scoreCase(), replace("expected.json", `"CIDEr": 0.0}`, `"CIDEr": 0.0, "CLIP": 1}`),
			"corpus/CLIP: recorded, but no metric"},
		{"no pictures", scoreCase(), replace("expected.json", `"images": [`, `"pictures": [`), "neither images nor"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.spoil != nil {
				tt.spoil(tt.files)
			}
			report, err := Run(t.Context(), Options{Dir: captionFolder(t, tt.files)})
			if err != nil {
				t.Fatal(err)
			}
			r := report.Results[0]
			if tt.says == "" && (r.Status != Passed || r.Err != nil) {
				t.Errorf("%s: %v", r.Status, r.Err)
			}
			if tt.says != "" && (r.Status != Failed || !strings.Contains(r.Err.Error(), tt.says)) {
				t.Errorf("%s, error %v; want a failure that says %q", r.Status, r.Err, tt.says)
			}
			// METEOR is either compared or said not to be.
			if m := r.NotChecked["METEOR"]; r.Kind == "caption-metrics" && r.Status == Passed && m == "" && r.Compared < 16 {
				t.Errorf("METEOR was not compared and is not reported: %d compared", r.Compared)
			}
		})
	}
}

func TestReportSaysWhatWasNotChecked(t *testing.T) {
	report := Report{Results: []Result{{Name: "c", Kind: "caption-metrics", Status: Passed, Compared: 1,
		NotChecked: map[string]string{"METEOR": "no data"}}}}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	data, err := report.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"c: METEOR not checked: no data", "1 passed, 0 failed; parts of 1 not checked"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
	if want := `"not_checked":{"METEOR":"no data"}`; !strings.Contains(string(data), want) {
		t.Errorf("no %s in %s", want, data)
	}
}

func TestRecordedCaptionScores(t *testing.T) {
	runGoldenMutations(t, "nocaps-split", "", []mutation{
		{"count", changeJSON("expected.json", func(v map[string]any) {
			v["count"].(map[string]any)["in-domain"] = 3
		}), "count/in-domain"},
		{"a domain of its own", changeJSON("expected.json", func(v map[string]any) {
			v["alone"].(map[string]any)["near-domain"].(map[string]any)["CIDEr"] = 0.4
		}), "alone/near-domain/CIDEr"},
		{"a mean within", changeJSON("expected.json", func(v map[string]any) {
			v["within"].(map[string]any)["out-domain"].(map[string]any)["ROUGE_L"] = 0.4
		}), "within/out-domain/ROUGE_L"},
		{"a domain", changeJSON("expected.json", func(v map[string]any) {
			v["count"].(map[string]any)["far-domain"] = 3
		}), "no picture of domain"},
	})
}

func TestUnordered(t *testing.T) {
	got := unordered([]string{"(b/a,of,d/c)+", "(a)", "odd"})
	if want := "(a) (a/b,of,c/d)+ odd"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
