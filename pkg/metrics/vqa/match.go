package vqa

import (
	"fmt"
	"strings"
)

// Matched are questions with a prediction each.
type Matched struct {
	Questions   []Question
	Predictions []string // "" where there is no result
	Answered    []bool
	Problems    []Problem
}

// Problem is something that makes scores wrong or not comparable. It does not keep them from being computed.
type Problem struct {
	Kind    string   `json:"kind"`
	Count   int      `json:"count"`
	Message string   `json:"message"`
	IDs     []string `json:"ids"` // the first few
}

// The kinds of problem.
const (
	ProblemMissing     = "questions without a result"
	ProblemUnknown     = "results without a question"
	ProblemRepeated    = "results given twice"
	ProblemEmpty       = "empty answers"
	ProblemAnnotations = "annotations given twice"
	ProblemQuestions   = "questions and annotations differ"
	ProblemAnswers     = "questions without ten answers"
	ProblemSplit       = "unknown split"
	ProblemLemmas      = "lemmas"
)

// maxNamed is how many ids a problem names.
const maxNamed = 3

// problem makes a problem about some ids.
func problem(kind string, ids []string, format string, args ...any) Problem {
	named := ids[:min(len(ids), maxNamed)]
	message := fmt.Sprintf(format, args...)
	if len(named) > 0 {
		more := ""
		if len(ids) > len(named) {
			more = ", ..."
		}
		message += " (" + strings.Join(named, ", ") + more + ")"
	}
	return Problem{Kind: kind, Count: len(ids), Message: message, IDs: named}
}

// Match finds the prediction of every question. A question without one is kept and counts as wrong, unless onlyAnswered
// leaves it out; of several results for one question the last counts, as in the evaluators.
func Match(questions []Question, r *Results, onlyAnswered bool) *Matched {
	m := &Matched{}
	last := make(map[string]int, len(r.IDs))
	var repeated []string
	conflicting := 0
	for i, id := range r.IDs {
		if before, ok := last[id]; ok {
			repeated = append(repeated, id)
			if r.Answers[before] != r.Answers[i] {
				conflicting++
			}
		}
		last[id] = i
	}
	var missing, empty []string
	for _, q := range questions {
		at, ok := last[q.ID]
		if !ok {
			missing = append(missing, q.ID)
			if onlyAnswered {
				continue
			}
		}
		prediction := ""
		if ok {
			prediction = r.Answers[at]
			if strings.TrimFunc(prediction, isSpace) == "" {
				empty = append(empty, q.ID)
			}
			delete(last, q.ID)
		}
		m.Questions, m.Predictions = append(m.Questions, q), append(m.Predictions, prediction)
		m.Answered = append(m.Answered, ok)
	}
	m.problemsOf(missing, unknown(r, last), repeated, empty, conflicting, onlyAnswered)
	return m
}

// unknown are the ids left over, in the order of the results.
func unknown(r *Results, left map[string]int) []string {
	if len(left) == 0 {
		return nil
	}
	var ids []string
	for i, id := range r.IDs {
		if at, ok := left[id]; ok && at == i {
			ids = append(ids, id)
		}
	}
	return ids
}

func (m *Matched) problemsOf(missing, unknown, repeated, empty []string, conflicting int, onlyAnswered bool) {
	if len(missing) > 0 {
		effect := "they count as wrong; score only the others with --answered-only"
		if onlyAnswered {
			effect = "they are left out, so the scores are not those of the split"
		}
		m.Problems = append(m.Problems, problem(ProblemMissing, missing, "%s no result: %s",
			plural(len(missing), "question has", "questions have"), effect))
	}
	if len(unknown) > 0 {
		m.Problems = append(m.Problems, problem(ProblemUnknown, unknown,
			"%s not among the questions and ignored: are the files of the same split?",
			plural(len(unknown), "result is", "results are")))
	}
	if len(repeated) > 0 {
		m.Problems = append(m.Problems, problem(ProblemRepeated, repeated,
			"%s given again, %d with another answer: the last one counts",
			plural(len(repeated), "result is", "results are"), conflicting))
	}
	if len(empty) > 0 {
		m.Problems = append(m.Problems, problem(ProblemEmpty, empty, "%s empty",
			plural(len(empty), "answer is", "answers are")))
	}
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// Check looks for what is wrong with annotations by themselves: ids that occur twice, and numbers of answers other than
// the ten of every published split.
func (a *Annotations) Check() []Problem {
	problems := CheckRepeated(a.Repeated)
	var odd []string
	for _, q := range a.Questions {
		if len(q.Answers) != 10 {
			odd = append(odd, q.ID)
		}
	}
	if len(odd) > 0 {
		problems = append(problems, problem(ProblemAnswers, odd, "%s not ten answers: the scores are not comparable",
			plural(len(odd), "question has", "questions have")))
	}
	return problems
}

// CheckQuestions compares the ids of a question file with those of the annotations.
func (a *Annotations) CheckQuestions(ids []string) []Problem {
	asked := make(map[string]bool, len(ids))
	for _, id := range ids {
		asked[id] = true
	}
	var unasked, unannotated []string
	for _, q := range a.Questions {
		if !asked[q.ID] {
			unasked = append(unasked, q.ID)
		}
		delete(asked, q.ID)
	}
	for _, id := range ids {
		if asked[id] {
			unannotated = append(unannotated, id)
			delete(asked, id)
		}
	}
	var problems []Problem
	if len(unasked) > 0 {
		problems = append(problems, problem(ProblemQuestions, unasked, "%s in the question file",
			plural(len(unasked), "annotated question is not", "annotated questions are not")))
	}
	if len(unannotated) > 0 {
		problems = append(problems, problem(ProblemQuestions, unannotated, "%s no annotation and cannot be scored",
			plural(len(unannotated), "question of the question file has", "questions of the question file have")))
	}
	return problems
}

// CheckRepeated makes a problem of ids that occur again among the questions.
func CheckRepeated(ids []string) []Problem {
	if len(ids) == 0 {
		return nil
	}
	return []Problem{problem(ProblemAnnotations, ids, "%s annotated again: the last one counts",
		plural(len(ids), "question is", "questions are"))}
}
