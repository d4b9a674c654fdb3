package vqa

import (
	"errors"
	"fmt"

	"blip2/pkg/internal/jsonscan"
)

// Results are answers that a model gave, in the order of the file.
type Results struct {
	IDs     []string // of the questions; an id may occur again
	Answers []string
	// Truth are the right answers that LAVIS writes beside the predictions for GQA (one each) and A-OKVQA (ten); nil if
	// the file has none.
	Truth [][]string
}

const expectedResults = `a list of {"question_id": 1, "answer": "yes"} (also "pred_ans" or GQA's "questionId" and ` +
	`"prediction"), one such object per line, or A-OKVQA's {"id": {"direct_answer": "yes"}}`

// ReadResults reads a file of answers: the official formats of VQA, GQA and A-OKVQA, LAVIS's lists, objects of answers
// by id, or one object per line, plain or compressed with gzip.
func ReadResults(path string) (*Results, error) {
	r := &resultReader{known: interned{}}
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if err := r.parse(data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &r.out, nil
}

type resultReader struct {
	out   Results
	known interned
}

// parse reads the contents of a file.
func (r *resultReader) parse(data []byte) error {
	err := parseText(data, expectedResults, func(s *jsonscan.Scanner) error {
		if s.Kind() == jsonscan.List {
			return s.List(func(i int) error { return r.item(s, fmt.Sprintf("item %d", i)) })
		}
		mark := s.Mark()
		isItem, err := hasID(s)
		if err != nil {
			return err
		}
		s.Reset(mark)
		if !isItem {
			return s.Object(func(key []byte) error { return r.byID(s, string(key)) })
		}
		for i := 1; s.Kind() != jsonscan.End; i++ {
			if err := r.item(s, fmt.Sprintf("object %d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case len(r.out.IDs) == 0:
		return errors.New("the file has no results; expected " + expectedResults)
	case r.out.Truth != nil && len(r.out.Truth) != len(r.out.IDs):
		return fmt.Errorf(`%d of %d results have the right answer, "gt_ans", beside them; all or none must`,
			len(r.out.Truth), len(r.out.IDs))
	}
	return nil
}

// hasID reads an object and says whether it is a result: whether it has a question's id.
func hasID(s *jsonscan.Scanner) (bool, error) {
	found := false
	err := s.Object(func(key []byte) error {
		found = found || isIDKey(string(key))
		return s.Skip()
	})
	return found, err
}

func isIDKey(key string) bool { return key == "question_id" || key == "questionId" }

// item reads one result.
func (r *resultReader) item(s *jsonscan.Scanner, where string) error {
	if kind := s.Kind(); kind != jsonscan.Object {
		return s.Errorf("%s is %s; expected %s", where, kind, expectedResults)
	}
	question, answer := "", ""
	answered := false
	err := s.Object(func(key []byte) (err error) {
		switch name := string(key); name {
		case "question_id", "questionId":
			question, err = id(s, where+"."+name)
		case "answer", "pred_ans", "prediction", "direct_answer":
			answer, err = text(s, r.known, where+"."+name)
			answered = true
		case "gt_ans":
			err = r.truth(s, where)
		default:
			err = s.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case question == "":
		return fmt.Errorf(`%s lacks "question_id"; expected %s`, where, expectedResults)
	case !answered:
		return fmt.Errorf(`%s (question %s) lacks "answer"; expected %s`, where, question, expectedResults)
	}
	r.out.IDs, r.out.Answers = append(r.out.IDs, question), append(r.out.Answers, answer)
	return nil
}

// truth reads the right answer or answers. LAVIS writes null for a split whose answers are not public.
func (r *resultReader) truth(s *jsonscan.Scanner, where string) error {
	var answers []string
	switch s.Kind() {
	case jsonscan.Null:
		return s.Skip()
	case jsonscan.List:
		err := s.List(func(i int) error {
			answer, err := text(s, r.known, fmt.Sprintf("%s.gt_ans[%d]", where, i))
			answers = append(answers, answer)
			return err
		})
		if err != nil {
			return err
		}
	default:
		answer, err := text(s, r.known, where+".gt_ans")
		if err != nil {
			return err
		}
		answers = []string{answer}
	}
	if len(answers) == 0 {
		return s.Errorf("%s.gt_ans is an empty list; leave it out if the answers are not known", where)
	}
	r.out.Truth = append(r.out.Truth, answers)
	return nil
}

// byID reads the value of an object of answers: the answer, or an object with a direct answer.
func (r *resultReader) byID(s *jsonscan.Scanner, question string) error {
	where := fmt.Sprintf("the value of %q", question)
	answer, answered := "", false
	var err error
	switch kind := s.Kind(); kind {
	case jsonscan.String:
		answer, err = text(s, r.known, where)
		answered = true
	case jsonscan.Object:
		err = s.Object(func(key []byte) (err error) {
			if string(key) != "direct_answer" {
				return s.Skip()
			}
			answered = true
			answer, err = text(s, r.known, where+".direct_answer")
			return err
		})
	default:
		return s.Errorf("%s is %s; expected %s", where, kind, expectedResults)
	}
	switch {
	case err != nil:
		return err
	case !answered:
		return fmt.Errorf(`%s lacks "direct_answer"; expected %s`, where, expectedResults)
	}
	r.out.IDs, r.out.Answers = append(r.out.IDs, question), append(r.out.Answers, answer)
	return nil
}
