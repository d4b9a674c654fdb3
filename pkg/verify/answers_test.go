package verify

import (
	"path/filepath"
	"strings"
	"testing"
)

// answerCase is the files of a small case of one of the kinds about answers.
func answerCase(kind string) map[string]string {
	switch kind {
	case "vqa-accuracy":
		scores := `{"overall": 65, "per_answer_type": {"yes/no": 100, "other": 30},
			"per_question_type": {"is": 100, "what": 30}, "per_question": [100, 30]}`
		return map[string]string{
			caseFile: `{"kind": "vqa-accuracy", "config": {}, "tolerance": {"atol": 1e-9, "rtol": 0, "rounded": 0.0100001}}`,
			"inputs.json": `{"rows": [{"question_id": 1, "question_type": "is", "answer_type": "yes/no", "prediction": "Yes.",
				"answers": ["yes","yes","yes","yes","no"]}, {"question_id": 2, "question_type": "what", "answer_type": "other",
				"prediction": "cat", "answers": ["cat","dog","dog","dog","dog","dog","dog","dog","dog","dog"]}]}`,
			expectedFile: `{"official": ` + scores + `, "lavis": ` + scores + `,
				"normalise": [{"text": "The two-tone", "punct": "The two tone", "digit_article": "two-tone", "both": "2 tone"}]}`,
		}
	case "gqa-accuracy":
		return map[string]string{
			caseFile:      `{"kind": "gqa-accuracy", "config": {}, "tolerance": {"atol": 1e-9, "rtol": 0}}`,
			"inputs.json": `{"rows": [{"pred_ans": "The dog", "gt_ans": "dog"}, {"pred_ans": "a", "gt_ans": "b"}]}`,
			expectedFile:  `{"normalised": 50, "raw": 0, "matches": [1, 0], "raw_matches": [0, 0]}`,
		}
	}
	return map[string]string{
		caseFile: `{"kind": "vqa-lemmatize", "config": {},
			"tolerance": {"min_share_equal": 0.9, "min_share_of_changed_equal": 0.6}}`,
		expectedFile: `{"pairs": [["two dogs", "two dog"], ["surfing", "surf"], ["red", "red"]]}`,
	}
}

func TestAnswerKinds(t *testing.T) {
	for _, tt := range []struct {
		kind, file, old, text string
		says                  string // empty: the case passes
	}{
		{"vqa-accuracy", "", "", "", ""},
		{"vqa-accuracy", expectedFile, `"overall": 65`, `"overall": 65.009`, ""}, // rounding may go the other way
		{"vqa-accuracy", expectedFile, `"overall": 65`, `"overall": 65.02`, "official/overall"},
		{"vqa-accuracy", expectedFile, `[100, 30]`, `[100, 60]`, "official/per_question[1]"},
		{"vqa-accuracy", expectedFile, `[100, 30]`, `[100]`, "2 values, recorded 1"},
		{"vqa-accuracy", expectedFile, `"yes/no": 100, `, ``, "official/per_answer_type"},
		{"vqa-accuracy", expectedFile, `"what": 30`, `"what": 31`, "official/per_question_type/what"},
		{"vqa-accuracy", expectedFile, `"lavis"`, `"levis"`, "nothing expected of scorer lavis"},
		{"vqa-accuracy", expectedFile, `"2 tone"`, `"two tone"`, "normalise[0][2]"},
		{"vqa-accuracy", "inputs.json", `"Yes."`, `"No."`, "per_question[0]"},
		{"vqa-accuracy", caseFile, `"rounded"`, `"round"`, "rounded must be a number"},
		{"gqa-accuracy", "", "", "", ""},
		{"gqa-accuracy", expectedFile, `"normalised": 50`, `"normalised": 51`, "normalised"},
		{"gqa-accuracy", expectedFile, `"raw": 0`, `"raw": 50`, "raw"},
		{"gqa-accuracy", expectedFile, `"raw": 0,`, ``, "must be given"},
		{"gqa-accuracy", expectedFile, `[1, 0]`, `[1, 1]`, "matches[1]"},
		{"gqa-accuracy", expectedFile, `[0, 0]`, `[0]`, "raw_matches"},
		{"vqa-lemmatize", "", "", "", ""},
		{"vqa-lemmatize", expectedFile, `"two dog"`, `"two dogs"`, "equal: 2 of 3"},
		{"vqa-lemmatize", expectedFile, `"surf"]`, `"surfs"]`, "of those that change: 1 of 2"},
		{"vqa-lemmatize", caseFile, `min_share_equal`, `min_share`, "min_share_equal must be a number"},
		{"vqa-lemmatize", caseFile, `min_share_of_changed_equal`, `x`, "min_share_of_changed_equal must be a number"},
		{"vqa-lemmatize", expectedFile, `"pairs"`, `"pears"`, "no pairs are expected"},
	} {
		t.Run(tt.kind+" "+tt.text, func(t *testing.T) {
			files := answerCase(tt.kind)
			if tt.file != "" {
				if !strings.Contains(files[tt.file], tt.old) {
					t.Fatalf("%s has no %s", tt.file, tt.old)
				}
				files[tt.file] = strings.Replace(files[tt.file], tt.old, tt.text, 1)
			}
			root := t.TempDir()
			writeCase(t, root, "case", files)
			report, err := Run(t.Context(), Options{Dir: filepath.Join(root, "case")})
			if err != nil {
				t.Fatal(err)
			}
			switch r := report.Results[0]; {
			case tt.says == "" && r.Status != Passed:
				t.Errorf("%s: %v", r.Status, r.Err)
			case tt.says != "" && (r.Status != Failed || !strings.Contains(r.Err.Error(), tt.says)):
				t.Errorf("%s, error %v; want a failure that says %q", r.Status, r.Err, tt.says)
			}
		})
	}
}
