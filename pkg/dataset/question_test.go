package dataset

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// asked is made with questions in place of captions: picture i has two, of which the second lacks answers if i is in
// withheld.
type asked struct {
	made
	withheld map[int]bool
}

func (a *asked) Texts(int) int { return 2 }

func (a *asked) Example(i int) (Example, error) {
	e, err := a.made.Example(i)
	e.Captions = nil
	e.Questions = []Question{
		{ID: fmt.Sprint(10 * i), Text: "What is (it)?", Answers: weighAnswers(strings.Fields("a a a a a a b b b c"))},
		{ID: fmt.Sprint(10*i + 1), Text: "Why: " + strings.Repeat("word ", 60), Answers: weighAnswers([]string{"so", "so"})}}
	if a.withheld[i] {
		e.Questions[1].Answers = nil
	}
	return e, err
}

func TestWeighAnswers(t *testing.T) {
	got := weighAnswers(strings.Fields("red blue red red red Red red red red red"))
	if want := []Answer{{"red", 0.8}, {"blue", 0.1}, {"Red", 0.1}}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := weighAnswers(nil); len(got) != 0 {
		t.Errorf("%v of nothing", got)
	}
}

// TestAnswersDrawn: over many epochs every answer comes as often as its mode says, and always the same at a position.
func TestAnswersDrawn(t *testing.T) {
	answers := weighAnswers(strings.Fields("a a a a a a b b b c"))
	const draws = 20_000
	for mode, want := range map[AnswerMode]map[string]float64{
		"": {"a": 0.6, "b": 0.3, "c": 0.1}, AnswersWeighted: {"a": 0.6, "b": 0.3, "c": 0.1},
		AnswersDistinct: {"a": 1. / 3, "b": 1. / 3, "c": 1. / 3},
	} {
		counts := map[string]float64{}
		for epoch := range int64(draws) {
			s, again := newStream(7, epoch, 3, purposeAnswer), newStream(7, epoch, 3, purposeAnswer)
			one, err := mode.pick(answers, &s)
			two, _ := mode.pick(answers, &again)
			if err != nil || len(one) != 1 || one[0].Weight != 1 || one[0] != two[0] {
				t.Fatalf("%q: %v, then %v, %v", mode, one, two, err)
			}
			counts[one[0].Text]++
		}
		for text, share := range want {
			if sd := math.Sqrt(draws * share * (1 - share)); math.Abs(counts[text]-draws*share) > 4*sd {
				t.Errorf("%q: %s drawn %g times of %d, want about %g", mode, text, counts[text], draws, draws*share)
			}
		}
	}
	s := newStream(1, 1, 1, purposeAnswer)
	if all, err := AnswersAll.pick(answers, &s); err != nil || !slices.Equal(all, answers) {
		t.Errorf("all: %v, %v", all, err)
	}
}

func TestBatchesOfQuestions(t *testing.T) {
	src := &asked{made: made{n: 30}, withheld: map[int]bool{4: true}}
	o := options()
	o.MaxBadShare, o.Question.MaxWords = 0.1, 5
	for _, mode := range []AnswerMode{AnswersWeighted, AnswersAll} {
		o.Answers = mode
		l, err := NewLoader(src, letters{}, o)
		if err != nil {
			t.Fatal(err)
		}
		drawn := map[string]bool{}
		for range 3 * l.BatchesPerEpoch() {
			b := next(t, l)
			for i, id := range b.QuestionIDs {
				q, ids := b.Questions[i], b.TextIDs[i*12:]
				switch {
				case strings.HasSuffix(id, "1") && q != "why word word word word",
					strings.HasSuffix(id, "0") && q != "what is it?":
					t.Fatalf("question %s is %q", id, q)
				case strings.HasSuffix(b.Keys[i], "0004.png") && id == "41":
					t.Fatal("a question without answers is trained on")
				case ids[0] != 1 || ids[1] != int32(q[0]) || b.Captions[i] != "":
					t.Fatalf("question %q has the tokens %v", q, ids[:12])
				case mode == AnswersWeighted && (len(b.AnswerSets[i]) != 1 || b.AnswerSets[i][0].Text != b.Answers[i]):
					t.Fatalf("answers %v, %q", b.AnswerSets[i], b.Answers[i])
				case mode == AnswersAll && strings.HasSuffix(id, "0") && len(b.AnswerSets[i]) != 3:
					t.Fatalf("answers %v", b.AnswerSets[i])
				}
				drawn[b.Answers[i]] = true
			}
			b.Release()
		}
		if bad := l.BadSamples(); len(bad) != 1 || bad[0].Reason != errNoAnswer.Error() {
			t.Errorf("bad samples %v", bad)
		}
		if mode == AnswersWeighted && len(drawn) != 4 {
			t.Errorf("answers drawn: %v", drawn)
		}
		l.Close()
	}
	o.Answers = "best"
	if _, err := NewLoader(src, letters{}, o); err == nil || !strings.Contains(err.Error(), `"best"`) {
		t.Errorf("unknown mode: %v", err)
	}
}

// TestWithoutTokenizer: captions come as text alone.
func TestWithoutTokenizer(t *testing.T) {
	o := options()
	o.MaxTextLen = 0
	o.Caption.Prompt = "a photo of "
	l, err := NewLoader(&made{n: 9}, nil, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := l.Next(context.Background())
	if err != nil || len(b.TextIDs)+len(b.TextMask) != 0 || !strings.HasPrefix(b.Captions[7], "a photo of picture ") {
		t.Errorf("%q, %v, %v", b.Captions, b.TextIDs, err)
	}
}

func TestFillPrompt(t *testing.T) {
	if got := FillPrompt("Question: {} Short answer: {}", "is it {}?"); got != "Question: is it {}? Short answer: {}" {
		t.Errorf("%q", got)
	}
	if got := FillPrompt("", "why?"); got != "why?" {
		t.Errorf("%q", got)
	}
}

func TestFirstTexts(t *testing.T) {
	src := FirstTexts(&made{n: 3}, 2)
	want := []string{"picture 1 caption 0", "picture 1 caption 1"}
	if e := example(t, src, 1); src.Texts(1) != 2 || !slices.Equal(e.Captions, want) {
		t.Errorf("%+v", e)
	}
	questions := FirstTexts(&asked{made: made{n: 3}}, 1)
	if e := example(t, questions, 1); questions.Texts(1) != 1 || len(e.Questions) != 1 || e.Questions[0].ID != "10" {
		t.Errorf("%+v", e)
	}
	if FirstTexts(src, 0) != src {
		t.Error("0 is not all")
	}
}
