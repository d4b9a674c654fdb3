package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tenAnswers is a JSON list of records, of which n say a and the others b.
func tenAnswers(a, b string, n int) string {
	var records []string
	for i := range 10 {
		text := b
		if i < n {
			text = a
		}
		data, err := json.Marshal(map[string]any{"answer": text, "answer_id": i + 1, "answer_confidence": "yes"})
		if err != nil {
			panic(err)
		}
		records = append(records, string(data))
	}
	return "[" + strings.Join(records, ",") + "]"
}

// scoreFiles writes annotations, questions and results of three questions.
func scoreFiles(t *testing.T) (annotations, questions, results string) {
	t.Helper()
	annotations = writeFile(t, "annotations.json", `{"annotations": [
		{"question_id": 1, "question_type": "what", "answer_type": "other",
			"answers": `+tenAnswers("two dogs", "cat", 2)+`},
		{"question_id": 2, "question_type": "is the", "answer_type": "yes/no", "answers": `+tenAnswers("yes", "no", 9)+`},
		{"question_id": 3, "question_type": "what", "answer_type": "other",
			"answers": `+tenAnswers("the dog", "cat", 4)+`}]}`)
	questions = writeFile(t, "questions.json",
		`{"questions": [{"question_id": 1}, {"question_id": 2}, {"question_id": 3}]}`)
	results = writeFile(t, "results.json", `[{"question_id": 1, "answer": "2 dogs"}, {"question_id": 2, "answer": "Yes!"},
		{"question_id": 3, "answer": "the dog"}]`)
	return annotations, questions, results
}

func TestScoreVQAText(t *testing.T) {
	annotations, questions, results := scoreFiles(t)
	got := runApp(t, nil, "score", "vqa", "--results", results, "--annotations", annotations, "--questions", questions)
	want := `SPLIT  SCORER    QUESTIONS  ANSWERED  ACCURACY
-      official  3          3         86.67

ANSWER TYPE  QUESTIONS  ACCURACY
other        2          80.00
yes/no       1          100.00

QUESTION TYPE  QUESTIONS  ACCURACY
is the         1          100.00
what           2          80.00
`
	if got.code != ExitOK || got.out != want {
		t.Errorf("code %d, stderr %s, stdout\n%swant\n%s", got.code, got.err, got.out, want)
	}
	if strings.Count(got.err, "level=WARN") != 1 || !strings.Contains(got.err, "3 questions is no published split") {
		t.Errorf("stderr %q; want one warning, about the split", got.err)
	}
}

func TestScoreVQAJSON(t *testing.T) {
	annotations, _, results := scoreFiles(t)
	perQuestion := filepath.Join(t.TempDir(), "out.jsonl")
	got := runApp(t, nil, "score", "vqa", "--results", results, "--annotations", annotations, "--scorer", "lavis",
		"--lemmatize", "--per-question", perQuestion, "--json")
	var report vqaReport
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || got.code != ExitOK {
		t.Fatalf("code %d, %s, %v", got.code, got.err, err)
	}
	// LAVIS keeps number words and articles of the ground truth, so only the second answer counts.
	if report.Scorer != "lavis" || report.Overall != 33.33 || report.WithoutLemmas == nil || !report.Lemmatized ||
		report.PerAnswerType["yes/no"].Accuracy != 100 || report.Questions != 3 || len(report.Problems) != 1 {
		t.Errorf("%s", got.out)
	}
	data, err := os.ReadFile(perQuestion)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	var row perQuestionRow
	if err := json.Unmarshal([]byte(lines[0]), &row); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 3 || row.ID != "1" || row.Prediction != "2 dogs" || *row.Lemmatized != "2 dog" || row.Accuracy != 0 ||
		len(row.Answers) != 10 || !row.Answered {
		t.Errorf("%s", data)
	}
}

func TestScoreVQAWarnings(t *testing.T) {
	annotations, _, _ := scoreFiles(t)
	questions := writeFile(t, "questions.json", `{"questions": [{"question_id": 1}, {"question_id": 8}]}`)
	results := writeFile(t, "results.json", `[{"question_id": 1, "answer": "cat"}, {"question_id": 9, "answer": "a"},
		{"question_id": 1, "answer": ""}]`)
	args := []string{"score", "vqa", "--results", results, "--annotations", annotations, "--questions", questions,
		"--json"}
	got := runApp(t, nil, args...)
	for _, want := range []string{"2 questions have no result: they count as wrong", "(2, 3)", "1 result is not among",
		"1 result is given again, 1 with another answer", "1 answer is empty",
		"2 annotated questions are not in the question file", "1 question of the question file has no annotation"} {
		if !strings.Contains(got.err, want) {
			t.Errorf("stderr %s\nlacks %q", got.err, want)
		}
	}
	var all, answered vqaReport
	if err := json.Unmarshal([]byte(got.out), &all); err != nil || all.Questions != 3 || all.Answered != 1 {
		t.Errorf("%s, %v", got.out, err)
	}
	got = runApp(t, nil, append(args, "--answered-only")...)
	if err := json.Unmarshal([]byte(got.out), &answered); err != nil || answered.Questions != 1 {
		t.Errorf("%s, %v", got.out, err)
	}
}

func TestScoreAOKVQA(t *testing.T) {
	annotations := writeFile(t, "aokvqa.json", `[
		{"question_id": "a", "direct_answers": ["dog","dog","cat"], "difficult_direct_answer": false},
		{"question_id": "b", "direct_answers": ["x"], "difficult_direct_answer": true}]`)
	results := writeFile(t, "results.json",
		`{"a": {"direct_answer": "dog", "multiple_choice": ""}, "b": {"direct_answer": "y"}}`)
	for scorer, want := range map[string]string{
		"official": "official  1          1         66.67", // A-OKVQA's evaluator leaves out what is difficult
		"lavis":    "lavis   2          2         33.33",
	} {
		got := runApp(t, nil, "score", "vqa", "--results", results, "--annotations", annotations, "--scorer", scorer)
		if got.code != ExitOK || !strings.Contains(got.out, want) || strings.Contains(got.out, "TYPE") ||
			strings.Contains(got.err, "not among") {
			t.Errorf("%s: code %d, %s%s; want %q", scorer, got.code, got.err, got.out, want)
		}
	}
	carried := writeFile(t, "carried.json",
		`[{"question_id": "a", "pred_ans": "dog", "gt_ans": ["dog", "dog", "dog", "cat"]}]`)
	if got := runApp(t, nil, "score", "vqa", "--results", carried); !strings.Contains(got.out, "100.00") {
		t.Errorf("answers that the results carry: %s%s", got.out, got.err)
	}
}

func TestScoreVQAErrors(t *testing.T) {
	annotations, _, results := scoreFiles(t)
	broken, other := writeFile(t, "broken.json", `[{"question_id": 1, "answer": 2}]`), writeFile(t, "other.json",
		`[{"question_id": 77, "answer": "a"}]`)
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"vqa --annotations " + annotations, ExitUsage, "--results is missing"},
		{"vqa --results " + results, ExitUsage, "--annotations is missing"},
		{"vqa --results " + results + " --annotations x --scorer best", ExitUsage, "the scorers are official and lavis"},
		{"vqa --results x.json --annotations " + annotations, ExitFailure, "x.json"},
		{"vqa --results " + broken + " --annotations " + annotations, ExitFailure, "item 0.answer is a number"},
		{"vqa --results " + results + " --annotations " + results, ExitFailure, "no direct answers"},
		{"vqa --answered-only --results " + other + " --annotations " + annotations, ExitFailure, "of the same split?"},
		{"vqa extra", ExitUsage, "extra"},
		{"vqaa --results " + results, ExitUsage, "vqa"},
		{"gqa", ExitUsage, "--results is missing"},
		{"gqa --results " + results, ExitUsage, "--questions is missing"},
		{"gqa --results " + results + " --questions " + annotations, ExitFailure, `question "annotations" is a list`},
	} {
		got := runApp(t, nil, append([]string{"score"}, strings.Fields(tt.args)...)...)
		if got.code != tt.code || !strings.Contains(got.err, tt.want) || got.out != "" {
			t.Errorf("%s: code %d, stderr %q, stdout %q; want %d and %q", tt.args, got.code, got.err, got.out, tt.code, tt.want)
		}
	}
}

func TestScoreGQA(t *testing.T) {
	carried := writeFile(t, "results.json", `[{"question_id": "1", "pred_ans": "The dog", "gt_ans": "dog"},
		{"question_id": "2", "pred_ans": "no", "gt_ans": "no"}, {"question_id": "3", "pred_ans": "x", "gt_ans": "y"},
		{"question_id": "4", "pred_ans": "x", "gt_ans": "y"}]`)
	perQuestion := filepath.Join(t.TempDir(), "out.jsonl")
	got := runApp(t, nil, "score", "gqa", "--results", carried, "--per-question", perQuestion)
	want := "SPLIT  QUESTIONS  ANSWERED  NORMALISED  RAW\n-      4          4         50.00       25.00\n"
	if got.code != ExitOK || got.out != want {
		t.Errorf("code %d, %s\n%s", got.code, got.err, got.out)
	}
	data, err := os.ReadFile(perQuestion)
	if first, _, _ := strings.Cut(string(data), "\n"); err != nil || first != `{"question_id":"1","answered":true,`+
		`"prediction":"The dog","answer":"dog","normalised":true,"raw":false}` {
		t.Errorf("%s, %v", first, err)
	}
	questions := writeFile(t, "questions.json", `{
		"1": {"answer": "dog", "types": {"structural": "query", "semantic": "obj"}},
		"2": {"answer": "no", "types": {"structural": "verify", "semantic": "obj"}}}`)
	official := writeFile(t, "official.json",
		`[{"questionId": "1", "prediction": "dog"}, {"questionId": "2", "prediction": "yes"}]`)
	got = runApp(t, nil, "score", "gqa", "--results", official, "--questions", questions, "--json")
	var report gqaReport
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || report.Normalised != 50 || report.Raw != 50 ||
		report.Structural["query"].Accuracy != 100 || report.Semantic["obj"].Questions != 2 {
		t.Errorf("%s%s, %v", got.out, got.err, err)
	}
	lists := writeFile(t, "lists.json", `[{"question_id": "a", "pred_ans": "dog", "gt_ans": ["dog", "cat"]}]`)
	if got = runApp(t, nil, "score", "gqa", "--results", lists); !strings.Contains(got.err, "has 2 right answers") {
		t.Errorf("%s", got.err)
	}
}
