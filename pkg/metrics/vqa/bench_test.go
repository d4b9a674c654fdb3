package vqa

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writeBig writes annotations and results of as many questions as VQA v2 val has.
func writeBig(b *testing.B, questions int) (annotations, results string) {
	b.Helper()
	dir := b.TempDir()
	words := strings.Fields("yes no 2 red blue white man dog skateboarding 1,000 don't two-tone the kitchen, table u.s.")
	var a, r strings.Builder
	a.WriteString(`{"data_subtype": "val2014", "annotations": [`)
	r.WriteString("[")
	for i := range questions {
		if i > 0 {
			a.WriteString(", ")
			r.WriteString(", ")
		}
		fmt.Fprintf(&a, `{"question_type": "what is the", "multiple_choice_answer": "%s", "answers": [`, words[i%len(words)])
		for k := range 10 {
			if k > 0 {
				a.WriteString(", ")
			}
			fmt.Fprintf(&a, `{"answer": "%s %s", "answer_confidence": "yes", "answer_id": %d}`, words[i%len(words)],
				words[(i*k)%len(words)], k+1)
		}
		fmt.Fprintf(&a, `], "image_id": %d, "answer_type": "other", "question_id": %d}`, i, i)
		fmt.Fprintf(&r, `{"question_id": %d, "answer": "%s"}`, i, words[(i*7)%len(words)])
	}
	a.WriteString("]}")
	r.WriteString("]")
	annotations, results = filepath.Join(dir, "annotations.json"), filepath.Join(dir, "results.json")
	for path, text := range map[string]string{annotations: a.String(), results: r.String()} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	return annotations, results
}

// BenchmarkVQAVal reads and scores files of the size of VQA v2 val.
func BenchmarkVQAVal(b *testing.B) {
	annotations, results := writeBig(b, 214354)
	for b.Loop() {
		a, err := ReadAnnotations(annotations)
		if err != nil {
			b.Fatal(err)
		}
		r, err := ReadResults(results)
		if err != nil {
			b.Fatal(err)
		}
		m := Match(a.Questions, r, false)
		NewJudge(Official).Score(m.Questions, m.Predictions)
	}
}
