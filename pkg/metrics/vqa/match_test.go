package vqa

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func ids(questions []Question) []string {
	var out []string
	for _, q := range questions {
		out = append(out, q.ID)
	}
	return out
}

func find(problems []Problem, kind string) Problem {
	for _, p := range problems {
		if p.Kind == kind {
			return p
		}
	}
	return Problem{}
}

func TestMatch(t *testing.T) {
	questions := []Question{{ID: "1"}, {ID: "2"}, {ID: "3"}, {ID: "4"}}
	r := &Results{IDs: []string{"3", "9", "1", "3", "4", "3"}, Answers: []string{"old", "x", "a", "new", " \n", "new"}}
	m := Match(questions, r, false)
	if !slices.Equal(m.Predictions, []string{"a", "", "new", " \n"}) ||
		!slices.Equal(m.Answered, []bool{true, false, true, true}) {
		t.Errorf("%q %v", m.Predictions, m.Answered)
	}
	for kind, want := range map[string]Problem{
		ProblemMissing:  {Count: 1, Message: "1 question has no result: they count as wrong", IDs: []string{"2"}},
		ProblemUnknown:  {Count: 1, Message: "1 result is not among the questions", IDs: []string{"9"}},
		ProblemRepeated: {Count: 2, Message: "2 results are given again, 1 with another answer", IDs: []string{"3", "3"}},
		ProblemEmpty:    {Count: 1, Message: "1 answer is empty", IDs: []string{"4"}},
	} {
		got := find(m.Problems, kind)
		if got.Count != want.Count || !strings.HasPrefix(got.Message, want.Message) || !slices.Equal(got.IDs, want.IDs) {
			t.Errorf("%s: %+v, want %+v", kind, got, want)
		}
	}
	m = Match(questions, r, true)
	if !slices.Equal(ids(m.Questions), []string{"1", "3", "4"}) || !strings.Contains(m.Problems[0].Message, "left out") {
		t.Errorf("only answered: %v, %v", ids(m.Questions), m.Problems)
	}
	if m = Match(questions[:1], &Results{IDs: []string{"1"}, Answers: []string{"a"}}, false); m.Problems != nil {
		t.Errorf("nothing is wrong: %v", m.Problems)
	}
}

func TestProblemsNameFewIDs(t *testing.T) {
	m := Match([]Question{{ID: "1"}, {ID: "2"}, {ID: "3"}, {ID: "4"}}, &Results{}, false)
	if p := m.Problems[0]; p.Count != 4 || len(p.IDs) != 3 || !strings.HasSuffix(p.Message, "(1, 2, 3, ...)") {
		t.Errorf("%+v", p)
	}
}

func TestCheckAnnotations(t *testing.T) {
	ten := make([]string, 10)
	a := &Annotations{Questions: []Question{{ID: "1", Answers: ten}, {ID: "2", Answers: ten[:9]}}, Repeated: []string{"1"}}
	problems := a.Check()
	if find(problems, ProblemAnnotations).Count != 1 || find(problems, ProblemAnswers).IDs[0] != "2" {
		t.Errorf("%+v", problems)
	}
	a.Questions, a.Repeated = a.Questions[:1], nil
	if problems := a.Check(); problems != nil {
		t.Errorf("nothing is wrong: %v", problems)
	}
	if problems := a.CheckQuestions([]string{"1"}); problems != nil {
		t.Errorf("nothing is wrong: %v", problems)
	}
	problems = a.CheckQuestions([]string{"2", "3", "2"})
	if len(problems) != 2 || !slices.Equal(problems[0].IDs, []string{"1"}) ||
		!slices.Equal(problems[1].IDs, []string{"2", "3"}) {
		t.Errorf("%+v", problems)
	}
}

func TestFindSplit(t *testing.T) {
	for _, tt := range []struct {
		splits []Split
		n      int
		want   string
	}{
		{LayoutVQA.Splits(), 214354, "VQA v2 val"},
		{LayoutVQA.Splits(), 5046, OKVQAVal},
		{LayoutAOKVQA.Splits(), 1145, "A-OKVQA val"},
		{GQASplits(), 12578, "GQA test-dev balanced"},
		{GQASplits(), 12577, ""},
	} {
		name, problems := FindSplit(tt.splits, tt.n)
		if name != tt.want || (name == "") != (len(problems) == 1) {
			t.Errorf("%d: %q, %v; want %q", tt.n, name, problems, tt.want)
		}
	}
}

func TestCheckLemmas(t *testing.T) {
	for _, tt := range []struct {
		split     string
		lemmatize bool
		problems  int
	}{{OKVQAVal, true, 0}, {OKVQAVal, false, 1}, {"VQA v2 val", true, 1}, {"VQA v2 val", false, 0}, {"", true, 0}} {
		if got := CheckLemmas(tt.split, tt.lemmatize); len(got) != tt.problems {
			t.Errorf("%+v: %v", tt, got)
		}
	}
	if !reflect.DeepEqual(CheckRepeated(nil), []Problem(nil)) {
		t.Error("no ids are a problem")
	}
}
