// Package vqa judges answers to questions about pictures as the evaluators of VQA v2, OK-VQA, A-OKVQA and GQA do
// (spec/evaluation.md 2), their oddities included: numbers are only worth comparing when they were made the same way.
//
// The functions are pure; the Read functions alone read files.
package vqa

import (
	"fmt"
	"slices"
	"strconv"
)

// Scorer is a rule that turns the answers of several people and a prediction into an accuracy.
type Scorer string

const (
	// Official is the evaluator of the VQA challenge (GT-Vision-Lab/VQA): ground truth and prediction are normalised
	// alike, and neither where all ten people said the same.
	Official Scorer = "official"
	// LAVIS is the older copy of it inside LAVIS: the prediction is always normalised, the ground truth only stripped of
	// punctuation and only where people differ.
	LAVIS Scorer = "lavis"
	// Direct is the rule of A-OKVQA: a third for every equal direct answer, at most 1, nothing normalised.
	Direct Scorer = "direct"
)

// ParseScorer returns the scorer that a user may choose by name.
func ParseScorer(name string) (Scorer, error) {
	switch s := Scorer(name); s {
	case Official, LAVIS:
		return s, nil
	}
	return "", fmt.Errorf("scorer %q is unknown; the scorers are %s and %s", name, Official, LAVIS)
}

// Question is what people said about a picture.
type Question struct {
	ID         string
	Type       string // the first words, such as "how many"; in OK-VQA the category; "" if the file has none
	AnswerType string // "yes/no", "number" or "other"; "" if the file has none
	Answers    []string
	// Records tells answers apart that say the same: both evaluators compare an answer with all records that are not
	// equal to its own, and a record has an answer_id and a confidence too. Equal values at i and j mean that records i
	// and j differ in nothing but the answer; nil means that no two are alike, as in every published file.
	Records []int
}

// Group is the accuracy of some of the questions.
type Group struct {
	Questions int     `json:"questions"`
	Accuracy  float64 `json:"accuracy"` // percent
}

// Scores are accuracies in percent, rounded to two decimals as the evaluators print them (Direct: not rounded).
type Scores struct {
	Overall        float64
	ByAnswerType   map[string]Group
	ByQuestionType map[string]Group
	PerQuestion    []float64 // in the order of the questions
}

// Judge scores predictions, one per question. The zero value is not usable; see NewJudge. Not for concurrent use.
type Judge struct {
	scorer Scorer
	memory memory
	truth  []string // of the question at hand
}

// NewJudge returns a judge of the given rule.
func NewJudge(s Scorer) *Judge { return &Judge{scorer: s, memory: newMemory()} }

// Score scores the predictions of all questions, of which there must be as many. Sums are taken in the order of the
// questions, so that the last digit is that of the evaluators.
func (j *Judge) Score(questions []Question, predictions []string) Scores {
	if len(questions) != len(predictions) {
		panic(fmt.Sprintf("vqa: %d questions, but %d predictions", len(questions), len(predictions)))
	}
	var all sum
	answerTypes, questionTypes := map[string]*sum{}, map[string]*sum{}
	s := Scores{PerQuestion: make([]float64, len(questions))}
	for i, q := range questions {
		accuracy := j.Accuracy(q, predictions[i])
		s.PerQuestion[i] = j.round(100 * accuracy)
		all.add(accuracy)
		addTo(answerTypes, q.AnswerType, accuracy)
		addTo(questionTypes, q.Type, accuracy)
	}
	s.Overall = j.round(all.percent())
	s.ByAnswerType, s.ByQuestionType = j.groups(answerTypes), j.groups(questionTypes)
	return s
}

// Accuracy is the accuracy of one prediction, 0 to 1; 0 for a question without answers.
func (j *Judge) Accuracy(q Question, prediction string) float64 {
	if len(q.Answers) == 0 {
		return 0
	}
	switch j.scorer {
	case Official:
		return j.official(q, prediction)
	case LAVIS:
		return j.lavis(q, prediction)
	case Direct:
		return min(1, float64(count(q.Answers, prediction))/3)
	}
	panic(fmt.Sprintf("vqa: no scorer %q", j.scorer))
}

func (j *Judge) official(q Question, prediction string) float64 {
	j.truth = j.truth[:0]
	for _, a := range q.Answers {
		j.truth = append(j.truth, oneLine(a))
	}
	prediction = oneLine(prediction)
	if differ(j.truth) {
		for i, a := range j.truth {
			j.truth[i] = j.memory.normalise(a)
		}
		prediction = j.memory.normalise(prediction)
	}
	return consensus(j.truth, q.Records, prediction)
}

func (j *Judge) lavis(q Question, prediction string) float64 {
	j.truth = append(j.truth[:0], q.Answers...)
	if differ(j.truth) {
		for i, a := range j.truth {
			j.truth[i] = j.memory.punct(a)
		}
	}
	return consensus(j.truth, q.Records, j.memory.normalise(oneLine(prediction)))
}

// consensus is the mean, over all people, of min(1, n/3), where n is how many of the others gave the predicted answer.
func consensus(truth []string, records []int, prediction string) float64 {
	matches := count(truth, prediction)
	total := 0.0
	for i, own := range truth {
		others := matches
		if own == prediction {
			others -= alike(truth, records, i)
		}
		total += min(1, float64(others)/3)
	}
	return total / float64(len(truth))
}

// alike counts the records equal to record i, itself included.
func alike(truth []string, records []int, i int) int {
	if records == nil {
		return 1
	}
	n := 0
	for k, a := range truth {
		if a == truth[i] && records[k] == records[i] {
			n++
		}
	}
	return n
}

func count(answers []string, prediction string) int {
	n := 0
	for _, a := range answers {
		if a == prediction {
			n++
		}
	}
	return n
}

// differ says whether the answers are not all the same.
func differ(answers []string) bool {
	return slices.ContainsFunc(answers, func(a string) bool { return a != answers[0] })
}

func (j *Judge) groups(sums map[string]*sum) map[string]Group {
	groups := make(map[string]Group, len(sums))
	for name, s := range sums {
		groups[name] = Group{Questions: s.n, Accuracy: j.round(s.percent())}
	}
	return groups
}

func (j *Judge) round(percent float64) float64 {
	if j.scorer == Direct {
		return percent
	}
	return round2(percent)
}

// round2 rounds to two decimals as Python's round does: by the exact value, halves to even.
func round2(v float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'f', 2, 64), 64)
	if err != nil {
		panic(err) // what FormatFloat wrote can be read
	}
	return r
}

// sum is a mean in the making.
type sum struct {
	total float64
	n     int
}

func (s *sum) add(v float64) { s.total, s.n = s.total+v, s.n+1 }

func (s *sum) percent() float64 {
	if s.n == 0 {
		return 0
	}
	return 100 * s.total / float64(s.n)
}

func addTo(sums map[string]*sum, name string, v float64) {
	s := sums[name]
	if s == nil {
		s = &sum{}
		sums[name] = s
	}
	s.add(v)
}
