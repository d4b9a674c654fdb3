package vqa

import (
	"maps"
	"math"
	"slices"
	"testing"
)

// TestScoresAsTheReference compares with the accuracies that the two evaluators gave for real questions, some with
// altered answers and some whose answers are not told apart by their ids.
func TestScoresAsTheReference(t *testing.T) {
	var rows []struct {
		Answers         []string
		AnswerIDs       []int `json:"answer_ids"`
		Prediction      string
		Official, LAVIS float64
	}
	readTestdata(t, "scores.json", &rows)
	differ := 0
	for i, r := range rows {
		q := []Question{{Answers: r.Answers, Records: r.AnswerIDs}}
		official := NewJudge(Official).Score(q, []string{r.Prediction}).PerQuestion[0]
		lavis := NewJudge(LAVIS).Score(q, []string{r.Prediction}).PerQuestion[0]
		if official != r.Official || lavis != r.LAVIS {
			t.Errorf("row %d: %q among %q: %v and %v, want %v and %v", i, r.Prediction, r.Answers, official, lavis,
				r.Official, r.LAVIS)
		}
		if official != lavis {
			differ++
		}
	}
	if len(rows) < 100 || differ < 20 {
		t.Errorf("%d rows, of which the scorers differ on %d: too few to tell", len(rows), differ)
	}
}

// some has a among n b's, c times.
func some(a, b string, c, n int) []string {
	return append(slices.Repeat([]string{a}, c), slices.Repeat([]string{b}, n-c)...)
}

func TestAccuracyClosedForm(t *testing.T) {
	for c, want := range map[int]float64{0: 0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1, 9: 1} {
		for _, scorer := range []Scorer{Official, LAVIS} {
			got := NewJudge(scorer).Accuracy(Question{Answers: some("cat", "dog", c, 10)}, "cat")
			if math.Abs(got-want) > 1e-12 {
				t.Errorf("%s, %d of 10: %v, want %v", scorer, c, got, want)
			}
		}
		direct := NewJudge(Direct).Accuracy(Question{Answers: some("cat", "dog", c, 10)}, "cat")
		if want := min(1, float64(c)/3); direct != want {
			t.Errorf("direct, %d of 10: %v, want %v", c, direct, want)
		}
	}
}

func TestWhatIsNormalised(t *testing.T) {
	for _, tt := range []struct {
		name            string
		answers         []string
		prediction      string
		official, lavis float64
	}{
		{"ten equal answers: only LAVIS lower-cases the prediction", some("no", "", 10, 10), "NO", 0, 1},
		{"ten equal answers are not stripped by LAVIS", some(" no", "", 10, 10), "no", 1, 0},
		{"articles of the truth: only the official scorer drops them", some("the cat", "dog", 5, 10), "the cat", 1, 0},
		{"number words of the truth", some("two", "dog", 5, 10), "2", 1, 0},
		{"capitals of the truth", some("Cat", "dog", 5, 10), "cat", 1, 0},
		{"punctuation of the truth: both", some("cat!", "dog", 5, 10), "cat", 1, 0},
		{"tabs", some("a\tcat", "dog", 5, 10), "\na cat\t", 1, 0},
		{"nothing normalised on either side", some("Cat.", "", 10, 10), "Cat.", 1, 0},
	} {
		q := Question{Answers: tt.answers}
		official, lavis := NewJudge(Official).Accuracy(q, tt.prediction), NewJudge(LAVIS).Accuracy(q, tt.prediction)
		if official != tt.official || lavis != tt.lavis {
			t.Errorf("%s: official %v, LAVIS %v; want %v and %v", tt.name, official, lavis, tt.official, tt.lavis)
		}
	}
}

func TestRecordsThatAreAlike(t *testing.T) {
	q := Question{Answers: some("cat", "dog", 4, 10)}
	if got := NewJudge(Official).Accuracy(q, "cat"); got != 1 {
		t.Errorf("four of ten: %v", got)
	}
	// The four matches are one record to the evaluators: whoever gave it sees no other that agrees.
	q.Records = make([]int, 10)
	if got := NewJudge(Official).Accuracy(q, "cat"); math.Abs(got-0.6) > 1e-12 {
		t.Errorf("four alike of ten: %v, want 0.6", got)
	}
}

func TestScoreGroups(t *testing.T) {
	questions := []Question{
		{Type: "is", AnswerType: "yes/no", Answers: some("yes", "no", 1, 10)},
		{Type: "is", AnswerType: "yes/no", Answers: some("yes", "no", 9, 10)},
		{Type: "how many", AnswerType: "number", Answers: some("2", "3", 2, 10)},
	}
	s := NewJudge(Official).Score(questions, []string{"yes", "Yes.", "two"})
	if s.Overall != 63.33 || !slices.Equal(s.PerQuestion, []float64{30, 100, 60}) {
		t.Errorf("overall %v, per question %v", s.Overall, s.PerQuestion)
	}
	if want := map[string]Group{"yes/no": {2, 65}, "number": {1, 60}}; !maps.Equal(s.ByAnswerType, want) {
		t.Errorf("by answer type %v", s.ByAnswerType)
	}
	if want := map[string]Group{"is": {2, 65}, "how many": {1, 60}}; !maps.Equal(s.ByQuestionType, want) {
		t.Errorf("by question type %v", s.ByQuestionType)
	}
	if direct := NewJudge(Direct).Score(questions, []string{"yes", "", ""}).Overall; math.Abs(direct-100.0/9) > 1e-9 {
		t.Errorf("direct scores are rounded: %v", direct)
	}
	if empty := NewJudge(Official).Score(nil, nil); empty.Overall != 0 {
		t.Errorf("no questions: %v", empty.Overall)
	}
}

func TestRoundAsPython(t *testing.T) {
	for v, want := range map[float64]float64{0.125: 0.12, 0.375: 0.38, 2.675: 2.67, 33.335: 33.34, 99.995: 100} {
		if got := round2(v); got != want {
			t.Errorf("round2(%v) = %v, want %v", v, got, want)
		}
	}
}

func TestParseScorer(t *testing.T) {
	if s, err := ParseScorer("lavis"); s != LAVIS || err != nil {
		t.Error(s, err)
	}
	for _, name := range []string{"", "direct", "Official"} {
		if _, err := ParseScorer(name); err == nil {
			t.Errorf("%q is a scorer", name)
		}
	}
}

func TestScoreGQA(t *testing.T) {
	s := ScoreGQA([]string{"The dog", "cat", "2", ""}, []string{"dog", "cat", "two", "a"})
	if s.Normalised != 100 || s.Raw != 25 || !slices.Equal(s.RawMatches, []bool{false, true, false, false}) {
		t.Errorf("%+v", s)
	}
	structural, semantic := s.ByType([]Question{{Type: "verify", AnswerType: "attr"}, {Type: "query", AnswerType: "attr"},
		{Type: "query"}, {Type: "query"}})
	if structural["query"] != (Group{3, 100}) || semantic["attr"] != (Group{2, 100}) {
		t.Error(structural, semantic)
	}
	if empty := ScoreGQA(nil, nil); empty.Normalised != 0 {
		t.Errorf("nothing scores %v", empty.Normalised)
	}
}
