package vqa

import (
	"errors"
	"fmt"

	"blip2/pkg/internal/jsonscan"
)

const expectedGQA = `GQA questions ({"id": {"question": "...", "answer": "yes"}}), or LAVIS's list ` +
	`([{"question_id": "1", "answer": "yes"}])`

// ReadGQAQuestions reads the questions of GQA with their answers: the official file, whose structural and semantic
// types become Type and AnswerType, or LAVIS's list, plain or compressed with gzip. Ids that occur again are returned
// too; the last one counts.
func ReadGQAQuestions(path string) (questions []Question, repeated []string, err error) {
	g := &gqaReader{known: interned{}, at: map[string]int{}}
	err = parse(path, expectedGQA, func(s *jsonscan.Scanner) error {
		if s.Kind() == jsonscan.List {
			return s.List(func(i int) error { return g.question(s, "", fmt.Sprintf("item %d", i)) })
		}
		return s.Object(func(key []byte) error {
			name := string(key)
			return g.question(s, name, fmt.Sprintf("question %q", name))
		})
	})
	if err == nil && len(g.questions) == 0 {
		err = fmt.Errorf("%s: %w", path, errors.New("no questions; expected "+expectedGQA))
	}
	return g.questions, g.repeated, err
}

type gqaReader struct {
	questions []Question
	repeated  []string
	at        map[string]int
	known     interned
}

// question reads one question; its id is given where the file has it as the key.
func (g *gqaReader) question(s *jsonscan.Scanner, id0, where string) error {
	if kind := s.Kind(); kind != jsonscan.Object {
		return s.Errorf("%s is %s; expected %s", where, kind, expectedGQA)
	}
	q := Question{ID: id0}
	err := s.Object(func(key []byte) (err error) {
		switch string(key) {
		case "question_id":
			q.ID, err = id(s, where+".question_id")
		case "answer":
			answer := ""
			answer, err = text(s, g.known, where+".answer")
			q.Answers = []string{answer}
		case "types":
			q.Type, q.AnswerType, err = g.types(s)
		default:
			err = s.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case q.ID == "":
		return fmt.Errorf(`%s lacks "question_id"; expected %s`, where, expectedGQA)
	case q.Answers == nil:
		return fmt.Errorf(`%s lacks "answer"; the answers of the test splits are not public`, where)
	}
	if at, ok := g.at[q.ID]; ok {
		g.repeated = append(g.repeated, q.ID)
		g.questions[at] = q
		return nil
	}
	g.at[q.ID] = len(g.questions)
	g.questions = append(g.questions, q)
	return nil
}

// types reads {"structural": "verify", "semantic": "attr"}; other fields and other kinds of value are passed over.
func (g *gqaReader) types(s *jsonscan.Scanner) (structural, semantic string, err error) {
	if s.Kind() != jsonscan.Object {
		return "", "", s.Skip()
	}
	err = s.Object(func(key []byte) error {
		name := string(key)
		if s.Kind() != jsonscan.String {
			return s.Skip()
		}
		b, err := s.Bytes()
		switch name {
		case "structural":
			structural = g.known.text(b)
		case "semantic":
			semantic = g.known.text(b)
		}
		return err
	})
	return structural, semantic, err
}

// TruthQuestions makes questions of the right answers that LAVIS writes beside its predictions; nil if there are none.
// Where an id occurs again the last answer counts.
func (r *Results) TruthQuestions() []Question {
	at := map[string]int{}
	var questions []Question
	for i, truth := range r.Truth {
		q := Question{ID: r.IDs[i], Answers: truth}
		if n, ok := at[q.ID]; ok {
			questions[n] = q
			continue
		}
		at[q.ID] = len(questions)
		questions = append(questions, q)
	}
	return questions
}
