package vqa

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func zip(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const vqaFile = `{"info": {"year": 2017}, "data_subtype": "val2014", "question_types": {"one": "Vehicles"},
	"annotations": [
	{"question_type": "one", "answer_type": "other", "image_id": 7, "question_id": 70, "multiple_choice_answer": "bus",
		"answers": [{"answer": "bus", "answer_confidence": "yes", "answer_id": 1},
			{"answer": "caf\u00e9", "answer_confidence": "no", "answer_id": 2}]},
	{"question_id": "71", "answers": ["a", "b"], "question_type": null},
	{"question_id": 72, "answers": [{"answer": "x", "answer_id": 1}, {"answer": "y", "answer_id": 1},
		{"answer_id": 2, "answer": "x"}, {"answer": "y", "answer_id": 1}]},
	{"question_id": 71, "answers": [{"answer": "last"}, {"answer": "last"}]}]}`

func TestReadAnnotations(t *testing.T) {
	for _, text := range []string{vqaFile, zip(t, vqaFile), "\ufeff" + vqaFile} {
		a, err := ReadAnnotations(write(t, text))
		if err != nil {
			t.Fatal(err)
		}
		want := []Question{
			{ID: "70", Type: "one", AnswerType: "other", Answers: []string{"bus", "café"}},
			{ID: "71", Answers: []string{"last", "last"}, Records: []int{0, 0}},
			{ID: "72", Answers: []string{"x", "y", "x", "y"}, Records: []int{0, 0, 2, 0}},
		}
		if !reflect.DeepEqual(a.Questions, want) {
			t.Errorf("questions %+v, want %+v", a.Questions, want)
		}
		if a.Layout != LayoutVQA || a.Subset != "val2014" || a.TypeNames["one"] != "Vehicles" ||
			!slices.Equal(a.Repeated, []string{"71"}) {
			t.Errorf("%+v", a)
		}
	}
}

const aokvqaFile = `[{"split": "val", "question_id": "22MexNkBPpdZGX6sxbxVBH", "direct_answers": ["a", "a"],
	"difficult_direct_answer": false, "correct_choice_idx": 1},
	{"question_id": "b", "direct_answers": ["c"], "difficult_direct_answer": true}]`

func TestReadAOKVQA(t *testing.T) {
	a, err := ReadAnnotations(write(t, aokvqaFile))
	if err != nil {
		t.Fatal(err)
	}
	if a.Layout != LayoutAOKVQA || len(a.Questions) != 2 || a.Questions[0].Records != nil || !a.Difficult["b"] {
		t.Errorf("%+v", a)
	}
	results := &Results{IDs: []string{"b", a.Questions[0].ID, "c"}, Answers: []string{"x", "y", "z"}}
	asked, kept := a.Asked(Official, results)
	if len(asked) != 1 || asked[0].ID != a.Questions[0].ID || !slices.Equal(kept.Answers, []string{"y", "z"}) {
		t.Errorf("A-OKVQA's evaluator leaves out the difficult: %v, %v", asked, kept)
	}
	if asked, kept := a.Asked(LAVIS, results); len(asked) != 2 || kept != results {
		t.Errorf("LAVIS does not: %v, %v", asked, kept)
	}
	if a.Layout.Rule(LAVIS) != Direct || LayoutVQA.Rule(LAVIS) != LAVIS {
		t.Error("rule of the layout")
	}
}

func TestReadAnnotationsErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                      "the file is empty",
		"<html>":                                "an HTML or XML page",
		"PK\x03\x04":                            "a zip archive",
		"hello":                                 `starts with "hello"`,
		`{"questions": []}`:                     `lacks "annotations"`,
		`{"annotations": 1}`:                    "annotations is a number",
		`{"annotations": [{"question_id": 1`:    "cut off",
		`{"annotations": []}`:                   "nothing to score",
		`{"annotations": [1]}`:                  "annotations[0] is a number",
		`{"annotations": [{"answers": []}]}`:    `annotations[0] lacks "question_id"`,
		`{"annotations": [{"question_id": 1}]}`: "(question 1) has no answers",
		`{"annotations": [{"question_id": 1, "answers": [2]}]}`:                      "a string: write it in quotes",
		`{"annotations": [{"question_id": 1, "answers": [{"answer": null}]}]}`:       "answer 0 is null",
		`{"annotations": [{"question_id": 1, "answers": [{"answer_id": 1}]}]}`:       `answer 0 lacks "answer"`,
		`{"annotations": [{"question_id": [1]}]}`:                                    "annotations[0].question_id is a list",
		`[{"question_id": "a", "direct_answers": null}]`:                             "are null",
		`[{"question_id": "a", "choices": []}]`:                                      "has no direct answers",
		"{\"annotations\": [{\"question_id\": 1, \"answers\": [\"\xff\"]}]}":         "not UTF-8",
		`{"annotations": [{"question_id": 1, "answers": ["a"]}]} x`:                  "more after the value",
		`{"annotations": [{"question_id": 1, "answers": ["a"]}], "annotations": []}`: "occurs twice",
		strings.Repeat(`{"a":`, 1000):                                                "nested more than",
		zip(t, vqaFile)[:60]:                                                         "is the file whole?",
	} {
		path := write(t, text)
		if _, err := ReadAnnotations(path); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), path) {
			t.Errorf("%.60q: %v; want the path and %q", text, err, want)
		}
	}
	if _, err := ReadAnnotations(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is a folder") {
		t.Error(err)
	}
	if _, err := ReadAnnotations("missing.json"); err == nil || !strings.Contains(err.Error(), "missing.json") {
		t.Error(err)
	}
}

func TestReadResults(t *testing.T) {
	plain := &Results{IDs: []string{"1", "b"}, Answers: []string{"yes", "two dogs"}}
	truth := &Results{IDs: []string{"1", "b"}, Answers: plain.Answers, Truth: [][]string{{"no"}, {"x", "y"}}}
	for text, want := range map[string]*Results{
		`[{"question_id": 1, "answer": "yes"}, {"answer": "two dogs", "question_id": "b", "score": [1]}]`: plain,
		`[{"question_id": "1", "pred_ans": "yes"}, {"question_id": "b", "pred_ans": "two dogs"}]`:         plain,
		`[{"questionId": "1", "prediction": "yes"}, {"questionId": "b", "prediction": "two dogs"}]`:       plain,
		`{"question_id": 1, "answer": "yes"}` + "\n\n" + `{"question_id": "b", "answer": "two dogs"}`:     plain,
		`{"1": "yes", "b": "two dogs"}`: plain,
		`{"1": {"direct_answer": "yes", "multiple_choice": ""}, "b": {"direct_answer": "two dogs"}}`: plain,
		`[{"question_id": 1, "pred_ans": "yes", "gt_ans": "no"},
			{"question_id": "b", "pred_ans": "two dogs", "gt_ans": ["x", "y"]}]`: truth,
		`[{"question_id": 1, "pred_ans": "yes", "gt_ans": null}, {"question_id": "b", "answer": "two dogs"}]`: plain,
	} {
		for _, data := range []string{text, zip(t, text)} {
			got, err := ReadResults(write(t, data))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
			}
		}
	}
	questions := truth.TruthQuestions()
	if len(questions) != 2 || questions[1].ID != "b" || questions[1].Answers[1] != "y" || plain.TruthQuestions() != nil {
		t.Error(questions)
	}
}

func TestReadResultsErrors(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                                   "no results",
		`{}`:                                   "no results",
		`[1]`:                                  "item 0 is a number",
		`[{"answer": "yes"}]`:                  `item 0 lacks "question_id"`,
		`[{"question_id": 1}]`:                 `(question 1) lacks "answer"`,
		`[{"question_id": true}]`:              "item 0.question_id is true or false",
		`{"1": 2}`:                             `the value of "1" is a number`,
		`{"1": {"x": ""}}`:                     `lacks "direct_answer"`,
		`[{"question_id": 1, "answer": 2}]`:    "item 0.answer is a number; it must be a string: write it in quotes",
		`[{"question_id": 1, "answer": null}]`: "item 0.answer is null",
		`[{"question_id": 1, "answer": "a", "gt_ans": []}]`:                                    "gt_ans is an empty list",
		`[{"question_id": 1, "answer": "a", "gt_ans": [1]}]`:                                   "gt_ans[0] is a number",
		`[{"question_id": 1, "answer": "a", "gt_ans": "b"}, {"question_id": 2, "answer": ""}]`: "1 of 2 results have",
		`{"question_id": 1, "answer": "a"} [1]`:                                                "object 2 is a list",
	} {
		if _, err := ReadResults(write(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

func TestReadQuestionIDs(t *testing.T) {
	for _, text := range []string{`{"questions": [{"question": "?", "question_id": 5}, {"question_id": "6"}]}`,
		`[{"question_id": 5}, {"question_id": 6}]`} {
		if ids, err := ReadQuestionIDs(write(t, text)); err != nil || !slices.Equal(ids, []string{"5", "6"}) {
			t.Error(ids, err)
		}
	}
	for text, want := range map[string]string{
		`{"annotations": []}`:        `lacks "questions"`,
		`{"questions": {}}`:          "the questions are an object",
		`{"questions": [{"id": 1}]}`: `questions[0] lacks "question_id"`,
		`[3]`:                        "questions[0] is a number",
	} {
		if _, err := ReadQuestionIDs(write(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

func TestReadGQAQuestions(t *testing.T) {
	official := `{"1": {"question": "Is it?", "answer": "yes", "types": {"structural": "verify", "semantic": "attr",
		"detailed": 3}, "semantic": [{"operation": "select"}]}, "2": {"answer": "no", "types": null}}`
	questions, repeated, err := ReadGQAQuestions(write(t, official))
	want := []Question{{ID: "1", Type: "verify", AnswerType: "attr", Answers: []string{"yes"}},
		{ID: "2", Answers: []string{"no"}}}
	if err != nil || repeated != nil || !reflect.DeepEqual(questions, want) {
		t.Errorf("%+v, %v, %v", questions, repeated, err)
	}
	list := `[{"question_id": "1", "answer": "a"}, {"question_id": 1, "answer": "b"}]`
	questions, repeated, err = ReadGQAQuestions(write(t, list))
	if err != nil || len(questions) != 1 || questions[0].Answers[0] != "b" || !slices.Equal(repeated, []string{"1"}) {
		t.Errorf("%+v, %v, %v", questions, repeated, err)
	}
	for text, want := range map[string]string{
		`{}`:                       "no questions",
		`{"1": {}}`:                `question "1" lacks "answer"`,
		`{"1": {"answer": ["a"]}}`: "answer is a list",
		`[{"answer": "a"}]`:        `item 0 lacks "question_id"`,
		`{"1": 2}`:                 `question "1" is a number`,
	} {
		if _, _, err := ReadGQAQuestions(write(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", text, err, want)
		}
	}
}

func FuzzReaders(f *testing.F) {
	for _, text := range []string{vqaFile, aokvqaFile, `{"1": "yes"}`, `{"question_id": 1, "answer": "a"}`, "[[",
		"\x1f\x8b"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		a := &annotationReader{known: interned{}}
		if err := parseText(data, "", a.read); err == nil {
			predictions := make([]string, len(a.out.Questions))
			for _, q := range a.out.Questions {
				if len(q.Answers) == 0 || q.ID == "" || q.Records != nil && len(q.Records) != len(q.Answers) {
					t.Errorf("question %+v", q)
				}
			}
			NewJudge(Official).Score(a.out.Questions, predictions)
		}
		r := &resultReader{known: interned{}}
		if err := r.parse(data); err == nil {
			if len(r.out.IDs) != len(r.out.Answers) || len(r.out.IDs) == 0 {
				t.Errorf("%+v", r.out)
			}
			Match(r.out.TruthQuestions(), &r.out, false)
		}
	})
}
