package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Files that are read are never written over, by whatever path they are named; and what cannot be written is said
// first.
func TestScoreKeepsItsInputs(t *testing.T) {
	results, annotations := writeFile(t, "r.json", scoreResults), writeFile(t, "a.json", scoreAnnotations)
	answers := writeFile(t, "v.json", `[{"question_id": "1", "pred_ans": "dog", "gt_ans": "dog"}]`)
	people := writeFile(t, "p.json", `{"annotations": [{"question_id": 1, "question_type": "what", "answer_type": "other",
		"answers": [{"answer": "dog", "answer_id": 1}]}]}`)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(results, link); err != nil {
		t.Skip("no links here")
	}
	captions := "captions --metrics bleu --results " + results + " --annotations " + annotations
	vqa, gqa := "vqa --results "+answers+" --annotations "+people, "gqa --results "+answers
	twice := filepath.Join(t.TempDir(), "out")
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{captions + " --per-image " + results, ExitUsage, "the file of --results"},
		{captions + " --per-image " + link, ExitUsage, "the file of --results"},
		{captions + " --write-cider-df " + annotations, ExitUsage, "the file of --annotations"},
		{captions + " --per-image " + twice + " --write-cider-df " + twice, ExitUsage, "the file of --per-image"},
		{captions + " --per-image " + filepath.Dir(twice), ExitUsage, "it is a folder"},
		{captions + " --per-image " + filepath.Join(twice, "x"), ExitFailure, "there is no folder"},
		{vqa + " --per-question " + answers, ExitUsage, "the file of --results"},
		{vqa + " --per-question " + people, ExitUsage, "the file of --annotations"},
		{gqa + " --per-question " + answers, ExitUsage, "the file of --results"},
	} {
		got := runApp(t, nil, append([]string{"score"}, strings.Fields(tt.args)...)...)
		if got.code != tt.code || !strings.Contains(got.err, tt.want) || got.out != "" {
			t.Errorf("%s: code %d, stderr %q, stdout %q; want %d and %q", tt.args, got.code, got.err, got.out, tt.code, tt.want)
		}
	}
	for path, want := range map[string]string{results: scoreResults, annotations: scoreAnnotations} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s was changed: %.40q, %v", path, got, err)
		}
	}
}
