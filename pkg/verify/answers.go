package verify

import (
	"fmt"
	"maps"
	"slices"

	"blip2/pkg/metrics/vqa"
)

// vqaExpected is what a scorer answered.
type vqaExpected struct {
	Overall         float64
	PerAnswerType   map[string]float64 `json:"per_answer_type"`
	PerQuestionType map[string]float64 `json:"per_question_type"`
	PerQuestion     []float64          `json:"per_question"`
}

// vqaAccuracy runs kind vqa-accuracy: two scorers over the same questions, and the two steps of normalisation.
func vqaAccuracy(c *Case, k *checker) error {
	var inputs struct {
		Rows []struct {
			QuestionType string `json:"question_type"`
			AnswerType   string `json:"answer_type"`
			Answers      []string
			Prediction   string
		}
	}
	var expected struct {
		Official, LAVIS *vqaExpected
		Normalise       []struct {
			Text         string
			Punct        string
			DigitArticle string `json:"digit_article"`
			Both         string
		}
	}
	if err := c.readJSON("inputs.json", &inputs); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	rounded, err := c.allowance("rounded")
	if err != nil {
		return err
	}
	k.tol = tolerance{atol: rounded}
	questions, predictions := make([]vqa.Question, len(inputs.Rows)), make([]string, len(inputs.Rows))
	for i, row := range inputs.Rows {
		questions[i] = vqa.Question{Type: row.QuestionType, AnswerType: row.AnswerType, Answers: row.Answers}
		predictions[i] = row.Prediction
	}
	for scorer, want := range map[vqa.Scorer]*vqaExpected{vqa.Official: expected.Official, vqa.LAVIS: expected.LAVIS} {
		if want == nil {
			return fmt.Errorf("%s: nothing expected of scorer %s", expectedFile, scorer)
		}
		compareVQA(k, string(scorer), vqa.NewJudge(scorer).Score(questions, predictions), want)
	}
	for i, n := range expected.Normalise {
		got := []string{vqa.Punct(n.Text), vqa.DigitArticle(n.Text), vqa.Normalise(n.Text)}
		equalLists(k, fmt.Sprintf("normalise[%d]", i), got, []string{n.Punct, n.DigitArticle, n.Both})
	}
	return nil
}

func compareVQA(k *checker, name string, got vqa.Scores, want *vqaExpected) {
	compareFloats(k, name+"/overall", nil, []float64{got.Overall}, []float64{want.Overall})
	compareFloats(k, name+"/per_question", []int{len(got.PerQuestion)}, got.PerQuestion, want.PerQuestion)
	compareGroups(k, name+"/per_answer_type", got.ByAnswerType, want.PerAnswerType)
	compareGroups(k, name+"/per_question_type", got.ByQuestionType, want.PerQuestionType)
}

func compareGroups(k *checker, name string, got map[string]vqa.Group, want map[string]float64) {
	names := slices.Sorted(maps.Keys(got))
	equalLists(k, name, names, slices.Sorted(maps.Keys(want)))
	for _, group := range names {
		compareFloats(k, name+"/"+group, nil, []float64{got[group].Accuracy}, []float64{want[group]})
	}
}

// gqaAccuracy runs kind gqa-accuracy: equality after normalisation of both sides, and of the strings as they are.
func gqaAccuracy(c *Case, k *checker) error {
	var inputs struct {
		Rows []struct {
			Prediction string `json:"pred_ans"`
			Answer     string `json:"gt_ans"`
		}
	}
	var expected struct {
		Normalised, Raw *float64
		Matches         []int
		RawMatches      []int `json:"raw_matches"`
	}
	if err := c.readJSON("inputs.json", &inputs); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if _, err := c.tolerance(); err != nil {
		return err
	}
	if expected.Normalised == nil || expected.Raw == nil {
		return fmt.Errorf("%s: normalised and raw must be given", expectedFile)
	}
	predictions, answers := make([]string, len(inputs.Rows)), make([]string, len(inputs.Rows))
	for i, row := range inputs.Rows {
		predictions[i], answers[i] = row.Prediction, row.Answer
	}
	got := vqa.ScoreGQA(predictions, answers)
	compareFloats(k, "normalised", nil, []float64{got.Normalised}, []float64{*expected.Normalised})
	compareFloats(k, "raw", nil, []float64{got.Raw}, []float64{*expected.Raw})
	equalLists(k, "matches", ones(got.Matches), expected.Matches)
	equalLists(k, "raw_matches", ones(got.RawMatches), expected.RawMatches)
	return nil
}

// ones writes true as 1.
func ones(flags []bool) []int {
	out := make([]int, len(flags))
	for i, f := range flags {
		if f {
			out[i] = 1
		}
	}
	return out
}
