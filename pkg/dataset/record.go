package dataset

import (
	"bytes"
	"fmt"
	"strings"

	"blip2/pkg/internal/jsonscan"
)

// role is what a field of an annotation file says.
type role int

const (
	roleNone role = iota
	roleImage
	roleImageID
	roleID
	roleCaption
	roleQuestion
	roleQuestionID
	roleAnswer
	roleChoices
	roleCorrect
	roleSplit
	roleLicense
	roleURL
	roleNested // VG's regions and qas, Karpathy's sentences: a list of objects with texts
	roleRow    // number of the row of a Parquet file that holds the picture
)

// roles are the names that fields have in the files of spec/data.md §2, in those of Visual Genome, GQA, A-OKVQA and
// Karpathy, and in what img2dataset and Hugging Face write.
var roles = map[string]role{
	"image": roleImage, "img": roleImage, "path": roleImage, "filepath": roleImage, "file_path": roleImage,
	"file_name": roleImage, "filename": roleImage, "image_path": roleImage, "img_path": roleImage,
	"image_file": roleImage, "image_name": roleImage,
	"image_id": roleImageID, "imageId": roleImageID, "img_id": roleImageID, "imageid": roleImageID,
	"cocoid": roleImageID, "id": roleID, "key": roleID, "sample_id": roleID,
	"caption": roleCaption, "captions": roleCaption, "text": roleCaption, "texts": roleCaption, "title": roleCaption,
	"phrase": roleCaption, "raw": roleCaption, "sentence": roleCaption,
	"question": roleQuestion, "question_id": roleQuestionID, "qa_id": roleQuestionID, "questionId": roleQuestionID,
	"answer": roleAnswer, "answers": roleAnswer, "direct_answers": roleAnswer,
	"choices": roleChoices, "multiple_choices": roleChoices, "correct_choice_idx": roleCorrect,
	"split": roleSplit, "license": roleLicense, "url": roleURL, "flickr_url": roleURL, "coco_url": roleURL,
	"regions": roleNested, "qas": roleNested, "sentences": roleNested,
	"parquet_row": roleRow,
}

// Columns names the fields of an annotation file where they have other names than usual.
type Columns struct {
	Image, Caption, Question, Answer, Split string // "" means the usual names
}

// roleOf is what a field says under these names: a name that is given stands instead of the usual ones.
func (c *Columns) roleOf(name string) role {
	for _, own := range c.own() {
		if own.name != "" && own.name == name {
			return own.role
		}
	}
	r := roles[name]
	if r == roleNone {
		r = roles[strings.ToLower(name)]
	}
	for _, own := range c.own() {
		if own.name != "" && own.role == r {
			return roleNone
		}
	}
	return r
}

type ownName struct {
	name string
	role role
}

func (c *Columns) own() [5]ownName {
	return [5]ownName{{c.Image, roleImage}, {c.Caption, roleCaption}, {c.Question, roleQuestion},
		{c.Answer, roleAnswer}, {c.Split, roleSplit}}
}

// record is one entry of an annotation file, read. It is used again for the next one.
type record struct {
	image, folder, imageID, id, split, license, url []byte

	captions    [][]byte
	hasCaptions bool
	questions   []questionRow
	hasQuestion bool
	row         []byte
	plain       bool // some field of a picture's row was there

	nested bool // inside of a nested list
	arena  []byte
}

// questionRow is one question of an entry.
type questionRow struct {
	id, text  []byte
	answers   [][]byte
	hasAnswer bool
	choices   [][]byte
	correct   int
}

func (r *record) reset() {
	*r = record{captions: r.captions[:0], questions: r.questions[:0], arena: r.arena[:0]}
}

// keep copies bytes that the scanner will write over.
func (r *record) keep(b []byte) []byte {
	start := len(r.arena)
	r.arena = append(r.arena, b...)
	return r.arena[start:len(r.arena):len(r.arena)]
}

// question is the question that fields belong to.
func (r *record) question() *questionRow {
	if len(r.questions) == 0 {
		r.questions = append(r.questions, questionRow{correct: -1})
	}
	return &r.questions[len(r.questions)-1]
}

// parseJSON reads an entry of a JSON file: an object, an object with its name in front, or easy-VQA's list of
// question, answer and picture.
func (r *record) parseJSON(data []byte, columns *Columns) error {
	r.reset()
	s := jsonscan.New(data)
	var name []byte
	if s.Kind() == jsonscan.String {
		var err error
		if name, data, err = splitName(data); err != nil {
			return err
		}
		name = r.keep(name)
		s = jsonscan.New(data)
	}
	var err error
	switch kind := s.Kind(); kind {
	case jsonscan.Object:
		err = r.object(s, columns)
	case jsonscan.List:
		err = r.triple(s)
	default:
		return fmt.Errorf("it is %s, but should be an object; %s", kind, expected)
	}
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		return err
	}
	if name != nil && r.hasQuestion && r.question().id == nil {
		r.question().id = name
	}
	if name != nil && r.id == nil {
		r.id = name
	}
	return nil
}

// splitName divides "name": value.
func splitName(data []byte) (name, value []byte, err error) {
	end := 1
	for end < len(data) && data[end] != '"' {
		if data[end] == '\\' {
			end++
		}
		end++
	}
	if end >= len(data) {
		return nil, nil, errCut
	}
	if name, err = jsonscan.New(data[:end+1]).Bytes(); err != nil {
		return nil, nil, scanReason(err)
	}
	rest := bytes.TrimLeft(data[end+1:], " \t\r\n")
	if len(rest) == 0 || rest[0] != ':' {
		return nil, nil, fmt.Errorf("it is a text, but should be an object; %s", expected)
	}
	return bytes.Clone(name), rest[1:], nil
}

func (r *record) object(s *jsonscan.Scanner, columns *Columns) error {
	return s.Object(func(key []byte) error {
		what := columns.roleOf(string(key))
		if what == roleNone {
			return s.Skip()
		}
		if err := r.field(s, what, string(key), columns); err != nil {
			return err
		}
		return nil
	})
}

func (r *record) field(s *jsonscan.Scanner, what role, key string, columns *Columns) (err error) {
	switch what {
	case roleImage:
		if s.Kind() == jsonscan.Object { // what Hugging Face's tools make of a picture in a list
			return s.Skip()
		}
		var name []byte
		if name, err = r.text(s, key); err == nil && name != nil {
			r.plain = true
			r.setImage(key, name)
		}
	case roleImageID:
		r.imageID, err = r.scalar(s, key)
		r.plain = true
	case roleID:
		r.id, err = r.scalar(s, key)
	case roleSplit:
		r.split, err = r.text(s, key)
	case roleLicense:
		r.license, err = r.scalar(s, key)
	case roleURL:
		var url []byte
		if url, err = r.text(s, key); r.url == nil || key != "coco_url" {
			r.url = url
		}
	case roleRow:
		r.row, err = r.scalar(s, key)
	case roleCaption:
		r.hasCaptions = true
		r.captions, err = r.textsOf(s, r.captions, "a caption")
	case roleNested:
		err = r.list(s, key, columns)
	default:
		err = r.questionField(s, what, key)
	}
	return err
}

func (r *record) questionField(s *jsonscan.Scanner, what role, key string) (err error) {
	q := r.question()
	switch what {
	case roleQuestion:
		r.hasQuestion = true
		q.text, err = r.text(s, key)
	case roleQuestionID:
		q.id, err = r.scalar(s, key)
	case roleAnswer:
		q.hasAnswer = true
		q.answers, err = r.textsOf(s, q.answers, "an answer")
	case roleChoices:
		q.choices, err = r.textsOf(s, q.choices, "a choice")
	case roleCorrect:
		if s.Kind() == jsonscan.Null {
			return s.Skip()
		}
		q.correct, err = s.Int()
	}
	return err
}

// setImage takes the name of the picture, of which Karpathy's files have the folder in filepath, the rest in filename.
func (r *record) setImage(key string, name []byte) {
	switch {
	case key == "filepath":
		r.folder = name
	case key == "filename" || len(r.image) == 0:
		r.image = name
	}
}

// name is the file name of the picture; empty if the entry has none.
func (r *record) name() []byte {
	switch {
	case len(r.folder) == 0:
		return r.image
	case len(r.image) == 0 || bytes.HasSuffix(r.folder, r.image):
		return r.folder
	}
	return append(append(append(make([]byte, 0, len(r.folder)+1+len(r.image)), r.folder...), '/'), r.image...)
}

// list reads the texts of a nested list; its elements may be plain texts too.
func (r *record) list(s *jsonscan.Scanner, key string, columns *Columns) error {
	if s.Kind() == jsonscan.Null {
		return s.Skip()
	}
	if r.nested {
		return s.Skip()
	}
	r.nested = true
	r.plain = true
	outer := *r
	err := s.List(func(int) error {
		if s.Kind() == jsonscan.String {
			r.hasCaptions = true
			var err error
			r.captions, err = r.textsOf(s, r.captions, "a caption")
			return err
		}
		if key == "qas" {
			r.questions = append(r.questions, questionRow{correct: -1})
		}
		return r.object(s, columns)
	})
	// What the inner objects call their image is the region's, not the file.
	r.image, r.folder, r.imageID, r.id, r.split = outer.image, outer.folder, outer.imageID, outer.id, outer.split
	if key == "qas" {
		r.hasQuestion = true
	} else {
		r.hasCaptions = true
	}
	r.nested = false
	return err
}

// triple reads easy-VQA's [question, answer, image id].
func (r *record) triple(s *jsonscan.Scanner) error {
	n := 0
	err := s.List(func(i int) (err error) {
		n++
		switch i {
		case 0:
			r.hasQuestion = true
			r.question().text, err = r.text(s, "the question")
		case 1:
			r.question().hasAnswer = true
			r.question().answers, err = r.textsOf(s, nil, "an answer")
		case 2:
			r.plain = true
			r.imageID, err = r.scalar(s, "the image id")
		default:
			return s.Skip()
		}
		return err
	})
	if err == nil && n != 3 {
		return fmt.Errorf("a row of %d values; a list should hold question, answer and image id", n)
	}
	return err
}

// text reads a string or null.
func (r *record) text(s *jsonscan.Scanner, key string) ([]byte, error) {
	switch kind := s.Kind(); kind {
	case jsonscan.Null:
		return nil, s.Skip()
	case jsonscan.String:
		b, err := s.Bytes()
		return r.keep(b), err
	default:
		return nil, fmt.Errorf("%q is %s, but should be a string", key, kind)
	}
}

// scalar reads an id, which may be a string or a number. A string and a number of the same digits are the same id.
func (r *record) scalar(s *jsonscan.Scanner, key string) ([]byte, error) {
	switch kind := s.Kind(); kind {
	case jsonscan.Null:
		return nil, s.Skip()
	case jsonscan.String:
		b, err := s.Bytes()
		return r.keep(b), err
	case jsonscan.Number:
		b, err := s.Number()
		return r.keep(b), err
	default:
		return nil, fmt.Errorf("%q is %s; it must be a number or a string", key, kind)
	}
}

// textsOf reads a string, a list of strings, or a list of objects with an "answer" or a "raw" each.
func (r *record) textsOf(s *jsonscan.Scanner, all [][]byte, what string) ([][]byte, error) {
	one := func() error {
		switch kind := s.Kind(); kind {
		case jsonscan.String:
			b, err := s.Bytes()
			all = append(all, r.keep(b))
			return err
		case jsonscan.Null:
			return s.Skip()
		case jsonscan.Object:
			return s.Object(func(key []byte) error {
				if string(key) != "answer" && string(key) != "raw" || s.Kind() != jsonscan.String {
					return s.Skip()
				}
				b, err := s.Bytes()
				all = append(all, r.keep(b))
				return err
			})
		case jsonscan.Number:
			b, err := s.Number()
			all = append(all, r.keep(b))
			if what == "a caption" {
				return fmt.Errorf("%s is %s; it must be a string or a list of strings", what, b)
			}
			return err
		default:
			return fmt.Errorf("%s is %s; it must be a string or a list of strings", what, kind)
		}
	}
	var err error
	if s.Kind() == jsonscan.List {
		err = s.List(func(int) error { return one() })
	} else {
		err = one()
	}
	return all, err
}

// parseFields reads a record of a csv file whose columns have the given roles.
func (r *record) parseFields(fields [][]byte, columns []role) error {
	r.reset()
	if len(fields) != len(columns) {
		return fmt.Errorf("it has %d fields, but the header has %d; fields with separators in them need quotes, and fields "+
			"with line ends a csv file", len(fields), len(columns))
	}
	for i, value := range fields {
		switch columns[i] {
		case roleImage:
			r.image, r.plain = value, true
		case roleImageID:
			r.imageID, r.plain = value, true
		case roleID:
			r.id = value
		case roleCaption:
			r.captions, r.hasCaptions = r.cell(r.captions, value, "a caption"), true
		case roleQuestion:
			r.question().text, r.hasQuestion = value, true
		case roleQuestionID:
			r.question().id = value
		case roleAnswer:
			r.question().hasAnswer = true
			r.question().answers = r.cell(r.question().answers, value, "an answer")
		case roleSplit:
			r.split = value
		case roleLicense:
			r.license = value
		case roleURL:
			r.url = value
		}
	}
	return nil
}

// cell is the text in a field of a table, or the texts where it holds a list in JSON, as Flickr30K's table does.
func (r *record) cell(all [][]byte, value []byte, what string) [][]byte {
	if len(value) == 0 {
		return all
	}
	if value[0] == '[' && value[len(value)-1] == ']' {
		s := jsonscan.New(value)
		if list, err := r.textsOf(s, all, what); err == nil && s.Close() == nil {
			return list
		}
	}
	return append(all, value)
}

// blank says whether the caption processor leaves nothing of a caption.
func blank(caption []byte) bool {
	for _, c := range caption {
		if 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' {
			return false
		}
	}
	return CaptionProcessor{}.Process(string(caption)) == ""
}

// usable drops the blank texts of a record and says how many were dropped.
func (r *record) usable() (dropped int) {
	kept := r.captions[:0]
	for _, c := range r.captions {
		if blank(c) {
			dropped++
			continue
		}
		kept = append(kept, c)
	}
	r.captions = kept
	questions := r.questions[:0]
	for _, q := range r.questions {
		if blank(q.text) {
			if r.hasQuestion {
				dropped++
			}
			continue
		}
		questions = append(questions, q)
	}
	r.questions = questions
	return dropped
}

// texts is how many texts a record has.
func (r *record) texts() int { return len(r.captions) + len(r.questions) }
