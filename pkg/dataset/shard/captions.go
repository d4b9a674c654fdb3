package shard

import (
	"bytes"
	"unicode/utf8"

	"blip2/pkg/internal/jsonscan"
)

// record is what the text members of a sample say.
type record struct {
	captions []string
	ranked   bool   // best first: only the first few are used
	fromText bool   // the captions are those of the .txt
	url      string // of the picture
	license  string
	id       int64
	hasID    bool
}

// maxCaptions bounds the captions that one sample may have: the index has a byte for their number.
const maxCaptions = 255

// parseJSON reads a .json member. A list of strings is captions, best first. An object has a caption, or a list of
// them, under "caption" or "captions"; null or a blank is none. It returns false for what is not JSON in this form.
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
			return r.texts(s)
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

// texts reads a caption, a list of captions, or null.
func (r *record) texts(s *jsonscan.Scanner) error {
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
	if len(bytes.TrimSpace(caption)) > 0 && len(r.captions) < maxCaptions {
		r.captions = append(r.captions, string(caption))
	}
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
func (r *record) parse(json, txt []byte) fault {
	if json != nil && !r.parseJSON(json) {
		return brokenText
	}
	if len(r.captions) == 0 && txt != nil {
		if r.ranked, r.fromText = false, true; !r.parseText(txt) {
			return brokenText
		}
	}
	if len(r.captions) == 0 {
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
