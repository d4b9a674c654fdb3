package dataset

import "errors"

// Question is a question about a picture.
type Question struct {
	ID      string   // as in the annotation file; "" if it has none
	Text    string   // as in the annotation file
	Answers []Answer // distinct ones, in the order of the file; empty where the answers are withheld
	Choices []string // of a multiple-choice question
	Correct int      // which of the choices is right; −1 without choices, or where it is withheld
}

// Answer is an answer and which part of the annotators gave it.
type Answer struct {
	Text   string
	Weight float64 // share of the annotators, above 0; the weights of a question's answers sum to 1
}

// weighAnswers groups equal answers (spec/data.md §5).
func weighAnswers(given []string) []Answer {
	var all []Answer
next:
	for _, text := range given {
		for i := range all {
			if all[i].Text == text {
				all[i].Weight++
				continue next
			}
		}
		all = append(all, Answer{Text: text, Weight: 1})
	}
	for i := range all {
		all[i].Weight /= float64(len(given))
	}
	return all
}

// AnswerMode says which of a question's answers is trained on.
type AnswerMode string

const (
	// AnswersWeighted draws one answer with the probability of its weight: one of the annotators' (the default).
	AnswersWeighted AnswerMode = "weighted"
	// AnswersDistinct draws one of the distinct answers, all alike, as LAVIS does for instructions.
	AnswersDistinct AnswerMode = "uniform_distinct"
	// AnswersAll gives every distinct answer with its weight, as BLIP trains.
	AnswersAll AnswerMode = "all"
)

// purposeAnswer is the purpose of drawing an answer.
const purposeAnswer purpose = 100

func (m AnswerMode) known() bool {
	return m == "" || m == AnswersWeighted || m == AnswersDistinct || m == AnswersAll
}

// errNoAnswer is the reason for a question that cannot be trained on.
var errNoAnswer = errors.New("the question has no answers: is this the file of a test set?")

// pick is the answers to train on. A single one that was drawn has the weight 1.
func (m AnswerMode) pick(answers []Answer, draws *stream) ([]Answer, error) {
	if len(answers) == 0 {
		return nil, errNoAnswer
	}
	at := 0
	switch m {
	case AnswersAll:
		return answers, nil
	case AnswersDistinct:
		at = int(draws.intN(int64(len(answers))))
	default:
		for u := draws.float64(); at < len(answers)-1 && u >= answers[at].Weight; at++ {
			u -= answers[at].Weight
		}
	}
	return []Answer{{Text: answers[at].Text, Weight: 1}}, nil
}
