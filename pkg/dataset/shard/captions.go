package shard

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"blip2/pkg/dataset"
	"blip2/pkg/internal/jsonscan"
)

// record is what the text members of a sample say.
type record struct {
	captions  []string
	questions []dataset.Question // as Write puts them there
	ranked    bool               // captions, best first: only the first few are used
	fromText  bool               // the captions are those of the .txt
	url       string             // of the picture
	license   string
	id        int64
	hasID     bool
}

// maxCaptions bounds the captions and questions that one sample may have: the index has a byte for their number.
const maxCaptions = 255

// texts is the number of captions and questions.
func (r *record) texts() int { return len(r.captions) + len(r.questions) }

// parseJSON reads a .json member. A list of strings is captions, best first. An object has a caption, or a list of
// them, under "caption" or "captions"; null or a blank is none. It may have a list of questions under "questions". It
// returns false for what is not JSON in this form.
func (r *record) parseJSON(data []byte) bool {
	s := jsonscan.New(data)
	switch s.Kind() {
	case jsonscan.List:
		r.ranked = true
		return r.list(s) == nil && s.Close() == nil
	case jsonscan.Object:
	default:
		return false
	}
	err := s.Object(func(key []byte) error {
		switch string(key) {
		case "caption", "captions":
			return r.readCaptions(s)
		case "questions":
			return r.readQuestions(s)
		case "url":
			return text(s, &r.url)
		case "license":
			return text(s, &r.license)
		case "image_id":
			if s.Kind() == jsonscan.Number {
				mark := s.Mark()
				if id, err := s.Int(); err == nil {
					r.id, r.hasID = int64(id), true
					return nil
				}
				s.Reset(mark)
			}
		}
		return s.Skip()
	})
	return err == nil && s.Close() == nil
}

// readCaptions reads a caption, a list of captions, or null.
func (r *record) readCaptions(s *jsonscan.Scanner) error {
	switch s.Kind() {
	case jsonscan.List:
		return r.list(s)
	case jsonscan.Null:
		return s.Skip()
	}
	caption, err := s.Bytes()
	if err == nil {
		r.add(caption)
	}
	return err
}

func (r *record) list(s *jsonscan.Scanner) error {
	return s.List(func(int) error {
		caption, err := s.Bytes()
		if err == nil {
			r.add(caption)
		}
		return err
	})
}

// add takes a caption unless it is blank.
func (r *record) add(caption []byte) {
	if len(bytes.TrimSpace(caption)) > 0 && r.texts() < maxCaptions {
		r.captions = append(r.captions, string(caption))
	}
}

// readQuestions reads a list of questions as Write makes it; anything else under this name is somebody else's.
func (r *record) readQuestions(s *jsonscan.Scanner) error {
	raw, err := s.Raw()
	if err != nil {
		return err
	}
	var given []question
	if json.Unmarshal(raw, &given) != nil {
		return nil
	}
	for _, q := range given {
		if strings.TrimSpace(q.Text) == "" || r.texts() == maxCaptions {
			continue
		}
		out := dataset.Question{ID: q.ID, Text: q.Text, Choices: q.Choices, Correct: -1}
		if q.Correct != nil && *q.Correct >= 0 && *q.Correct < len(q.Choices) {
			out.Correct = *q.Correct
		}
		for _, a := range q.Answers {
			if a.Weight > 0 {
				out.Answers = append(out.Answers, dataset.Answer{Text: a.Text, Weight: a.Weight})
			}
		}
		r.questions = append(r.questions, out)
	}
	return nil
}

// question is a question in a .json member.
type question struct {
	Text    string   `json:"question"`
	ID      string   `json:"question_id,omitempty"`
	Answers []answer `json:"answers,omitempty"`
	Choices []string `json:"choices,omitempty"`
	Correct *int     `json:"correct_choice,omitempty"`
}

type answer struct {
	Text   string  `json:"answer"`
	Weight float64 `json:"weight"` // share of the annotators who gave it
}

// questionsOf are questions as they are written.
func questionsOf(all []dataset.Question) []question {
	var out []question
	for _, q := range all {
		w := question{Text: q.Text, ID: q.ID, Choices: q.Choices}
		if q.Correct >= 0 {
			w.Correct = &q.Correct
		}
		for _, a := range q.Answers {
			w.Answers = append(w.Answers, answer{a.Text, a.Weight})
		}
		out = append(out, w)
	}
	return out
}

// text reads a string if there is one.
func text(s *jsonscan.Scanner, to *string) error {
	if s.Kind() != jsonscan.String {
		return s.Skip()
	}
	b, err := s.Bytes()
	*to = string(b)
	return err
}

// parseText reads a .txt member: the whole of it is one caption.
func (r *record) parseText(data []byte) bool {
	if !utf8.Valid(data) {
		return false
	}
	r.add(bytes.TrimPrefix(data, []byte("\ufeff")))
	return true
}

// parse reads whatever text members a sample has; nil stands for a member that it does not have. A .txt counts only
// where the .json has no caption.
func (r *record) parse(object, txt []byte) fault {
	if object != nil && !r.parseJSON(object) {
		return brokenText
	}
	if r.texts() == 0 && txt != nil {
		if r.ranked, r.fromText = false, true; !r.parseText(txt) {
			return brokenText
		}
	}
	if r.texts() == 0 {
		return noCaption
	}
	return good
}

// used is the captions that training draws from: of ranked ones the first topK, all of them if topK is negative.
func (r *record) used(topK int) []string { return r.captions[:usedOf(len(r.captions), r.ranked, topK)] }

func usedOf(n int, ranked bool, topK int) int {
	if ranked && topK > 0 {
		return min(n, topK)
	}
	return n
}
