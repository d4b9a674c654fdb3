package vqa

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"blip2/pkg/internal/jsonscan"
)

// Layout is how a file of annotations is laid out; it decides by which rule answers count.
type Layout string

const (
	// LayoutVQA is that of VQA v2 and OK-VQA: {"annotations": [{"question_id", "answers": [{"answer"}]}]}.
	LayoutVQA Layout = "VQA"
	// LayoutAOKVQA is that of A-OKVQA: [{"question_id", "direct_answers": ["..."]}].
	LayoutAOKVQA Layout = "A-OKVQA"
)

// Annotations are the questions of a file with what people answered.
type Annotations struct {
	Layout    Layout
	Questions []Question
	Repeated  []string // ids that occur more than once; the last one counts, as in the evaluators
	// Difficult are the ids that A-OKVQA marks as having no good direct answer: its own evaluator leaves them out.
	Difficult map[string]bool
	Subset    string            // data_subtype, such as "val2014"; "" if the file has none
	TypeNames map[string]string // names of the question types, in OK-VQA
}

const expectedAnnotations = `VQA annotations ` +
	`({"annotations": [{"question_id": 1, "answers": [{"answer": "yes"}, ...]}]}) or ` +
	`A-OKVQA's list ([{"question_id": "a", "direct_answers": ["yes", ...]}])`

// ReadAnnotations reads the annotations of VQA v2, OK-VQA or A-OKVQA, plain or compressed with gzip.
func ReadAnnotations(path string) (*Annotations, error) {
	a := &annotationReader{known: interned{}}
	if err := parse(path, expectedAnnotations, a.read); err != nil {
		return nil, err
	}
	return &a.out, nil
}

type annotationReader struct {
	out   Annotations
	known interned
	at    map[string]int // index of a question by its id
}

func (a *annotationReader) read(s *jsonscan.Scanner) error {
	a.at = map[string]int{}
	if s.Kind() == jsonscan.List {
		a.out.Layout = LayoutAOKVQA
		return a.list(s, "item %d", "direct_answers")
	}
	a.out.Layout = LayoutVQA
	found := false
	err := s.Object(func(key []byte) error {
		switch string(key) {
		case "annotations":
			if found {
				return s.Errorf(`"annotations" occurs twice`)
			}
			found = true
			return a.list(s, "annotations[%d]", "answers")
		case "data_subtype":
			return a.subset(s)
		case "question_types":
			return a.typeNames(s)
		}
		return s.Skip()
	})
	if err == nil && !found {
		err = errors.New(`the object lacks "annotations"; expected ` + expectedAnnotations)
	}
	return err
}

// subset keeps data_subtype where it is a string; it only serves messages.
func (a *annotationReader) subset(s *jsonscan.Scanner) error {
	if s.Kind() != jsonscan.String {
		return s.Skip()
	}
	b, err := s.Bytes()
	a.out.Subset = string(b)
	return err
}

// typeNames reads OK-VQA's names of its categories; where it is something else it is passed over.
func (a *annotationReader) typeNames(s *jsonscan.Scanner) error {
	if s.Kind() != jsonscan.Object {
		return s.Skip()
	}
	names := map[string]string{}
	err := s.Object(func(key []byte) error {
		if s.Kind() != jsonscan.String {
			return s.Skip()
		}
		name := string(key)
		b, err := s.Bytes()
		names[name] = string(b)
		return err
	})
	a.out.TypeNames = names
	return err
}

func (a *annotationReader) list(s *jsonscan.Scanner, form, answersKey string) error {
	if kind := s.Kind(); kind != jsonscan.List {
		return s.Errorf("annotations is %s; expected %s", kind, expectedAnnotations)
	}
	err := s.List(func(i int) error {
		where := func() string { return fmt.Sprintf(form, i) }
		if kind := s.Kind(); kind != jsonscan.Object {
			return s.Errorf("%s is %s; expected %s", where(), kind, expectedAnnotations)
		}
		return a.question(s, where, answersKey)
	})
	if err == nil && len(a.out.Questions) == 0 {
		err = errors.New("the list of annotations is empty: there is nothing to score")
	}
	return err
}

// question reads one annotation.
func (a *annotationReader) question(s *jsonscan.Scanner, where func() string, answersKey string) error {
	var q Question
	difficult := false
	err := s.Object(func(key []byte) (err error) {
		switch string(key) {
		case "question_id":
			q.ID, err = id(s, where()+".question_id")
		case "question_type":
			q.Type, err = a.optional(s)
		case "answer_type":
			q.AnswerType, err = a.optional(s)
		case "difficult_direct_answer":
			if s.Kind() != jsonscan.Bool {
				return s.Skip()
			}
			difficult, err = s.Bool()
		case answersKey:
			q.Answers, q.Records, err = a.answers(s, where)
		default:
			err = s.Skip()
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case q.ID == "":
		return fmt.Errorf(`%s lacks "question_id"; expected %s`, where(), expectedAnnotations)
	case len(q.Answers) == 0 && a.out.Layout == LayoutAOKVQA && q.Answers == nil:
		return fmt.Errorf("%s (question %s) has no direct answers: the answers of this split are not public", where(), q.ID)
	case len(q.Answers) == 0:
		return fmt.Errorf("%s (question %s) has no answers; without them it cannot be scored", where(), q.ID)
	}
	a.add(q, difficult)
	return nil
}

func (a *annotationReader) add(q Question, difficult bool) {
	if at, ok := a.at[q.ID]; ok {
		a.out.Repeated = append(a.out.Repeated, q.ID)
		a.out.Questions[at] = q
	} else {
		a.at[q.ID] = len(a.out.Questions)
		a.out.Questions = append(a.out.Questions, q)
	}
	if difficult {
		if a.out.Difficult == nil {
			a.out.Difficult = map[string]bool{}
		}
		a.out.Difficult[q.ID] = true
	}
}

// optional reads a string; null and the like are "".
func (a *annotationReader) optional(s *jsonscan.Scanner) (string, error) {
	if s.Kind() != jsonscan.String {
		return "", s.Skip()
	}
	b, err := s.Bytes()
	return a.known.text(b), err
}

// answers reads what people said: strings, or records with a field "answer". The second result is Question.Records.
func (a *annotationReader) answers(s *jsonscan.Scanner, where func() string) ([]string, []int, error) {
	if kind := s.Kind(); kind != jsonscan.List {
		return nil, nil, s.Errorf("the answers of %s are %s; they must be a list", where(), kind)
	}
	mark := s.Mark()
	answers, ids := make([]string, 0, 10), make([]int, 0, 10)
	err := s.List(func(i int) error {
		place := func() string { return fmt.Sprintf("%s, answer %d", where(), i) }
		if s.Kind() != jsonscan.Object {
			return a.plain(s, place, &answers, &ids)
		}
		return a.record(s, place, &answers, &ids)
	})
	if err != nil || distinct(ids, len(answers)) {
		return answers, nil, err
	}
	end := s.Mark()
	s.Reset(mark)
	records, err := recordGroups(s)
	s.Reset(end)
	return answers, records, err
}

// plain reads an answer that is a string. Its place is its id.
func (a *annotationReader) plain(s *jsonscan.Scanner, place func() string, answers *[]string, ids *[]int) error {
	if s.Kind() != jsonscan.String {
		_, err := text(s, nil, place())
		return err
	}
	b, err := s.Bytes()
	*answers, *ids = append(*answers, a.known.text(b)), append(*ids, -1-len(*ids))
	return err
}

// record reads an answer with an id.
func (a *annotationReader) record(s *jsonscan.Scanner, place func() string, answers *[]string, ids *[]int) error {
	n := len(*answers)
	err := s.Object(func(key []byte) error {
		switch string(key) {
		case "answer":
			if s.Kind() != jsonscan.String {
				_, err := text(s, nil, place())
				return err
			}
			b, err := s.Bytes()
			*answers = append((*answers)[:n], a.known.text(b))
			return err
		case "answer_id":
			mark := s.Mark()
			if v, err := s.Int(); err == nil {
				*ids = append(*ids, v)
				return nil
			}
			s.Reset(mark)
		}
		return s.Skip()
	})
	if err == nil && len(*answers) == n {
		err = fmt.Errorf(`%s lacks "answer"`, place())
	}
	return err
}

// distinct says whether there are n ids, all different.
func distinct(ids []int, n int) bool {
	if len(ids) != n {
		return false
	}
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			return false
		}
	}
	return true
}

// recordGroups reads a list of records again, which were found not to have ids of their own, and returns for each the
// first one that has the same fields but for the answer.
func recordGroups(s *jsonscan.Scanner) ([]int, error) {
	var groups []int
	first := map[string]int{}
	err := s.List(func(i int) error {
		if s.Kind() != jsonscan.Object {
			groups = append(groups, -1-i)
			return s.Skip()
		}
		type field struct{ name, value string }
		var fields []field
		err := s.Object(func(key []byte) error {
			name := string(key)
			raw, err := s.Raw()
			if name != "answer" {
				fields = append(fields, field{name, string(raw)})
			}
			return err
		})
		slices.SortStableFunc(fields, func(a, b field) int { return cmp.Compare(a.name, b.name) })
		var b strings.Builder
		for _, f := range fields {
			fmt.Fprintf(&b, "%q:%q,", f.name, f.value)
		}
		if _, ok := first[b.String()]; !ok {
			first[b.String()] = i
		}
		groups = append(groups, first[b.String()])
		return err
	})
	return groups, err
}

// ReadQuestionIDs reads the ids of a question file: {"questions": [{"question_id"}]}, or a list of such objects.
func ReadQuestionIDs(path string) ([]string, error) {
	const expected = `VQA questions ({"questions": [{"question_id": 1, "question": "..."}]})`
	var ids []string
	list := func(s *jsonscan.Scanner) error {
		if kind := s.Kind(); kind != jsonscan.List {
			return s.Errorf("the questions are %s; expected %s", kind, expected)
		}
		return s.List(func(i int) error {
			if kind := s.Kind(); kind != jsonscan.Object {
				return s.Errorf("questions[%d] is %s; expected %s", i, kind, expected)
			}
			found := ""
			err := s.Object(func(key []byte) (err error) {
				if string(key) != "question_id" {
					return s.Skip()
				}
				found, err = id(s, fmt.Sprintf("questions[%d].question_id", i))
				return err
			})
			if err == nil && found == "" {
				err = fmt.Errorf(`questions[%d] lacks "question_id"; expected %s`, i, expected)
			}
			ids = append(ids, found)
			return err
		})
	}
	err := parse(path, expected, func(s *jsonscan.Scanner) error {
		if s.Kind() == jsonscan.List {
			return list(s)
		}
		found := false
		err := s.Object(func(key []byte) error {
			if string(key) != "questions" {
				return s.Skip()
			}
			found = true
			return list(s)
		})
		if err == nil && !found {
			err = errors.New(`the object lacks "questions"; expected ` + expected)
		}
		return err
	})
	return ids, err
}

// Rule is the rule by which a scorer counts answers of this layout.
func (l Layout) Rule(s Scorer) Scorer {
	if l == LayoutAOKVQA {
		return Direct
	}
	return s
}

// Asked are the questions that a scorer counts, and the results without those of the others: all, but for A-OKVQA's own
// evaluator, which leaves out the difficult questions.
func (a *Annotations) Asked(s Scorer, r *Results) ([]Question, *Results) {
	if s != Official || len(a.Difficult) == 0 {
		return a.Questions, r
	}
	var asked []Question
	for _, q := range a.Questions {
		if !a.Difficult[q.ID] {
			asked = append(asked, q)
		}
	}
	kept := &Results{}
	for i, id := range r.IDs {
		if !a.Difficult[id] {
			kept.IDs, kept.Answers = append(kept.IDs, id), append(kept.Answers, r.Answers[i])
		}
	}
	return asked, kept
}
