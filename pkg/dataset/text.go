package dataset

import (
	"strings"

	"blip2/pkg/tokenizer"
)

// DefaultMaxWords is the word limit of the reference's text processors.
const DefaultMaxWords = 50

// removed are the characters that the reference's text processors take out.
const removed = `.!"()*#:;~`

// CaptionProcessor prepares captions as LAVIS's blip_caption does (spec/data.md §4).
type CaptionProcessor struct {
	MaxWords int    // words kept; 0 means DefaultMaxWords
	Prompt   string // put in front verbatim; not counted
}

// Process lower-cases by Unicode's rules, turns each of . ! " ( ) * # : ; ~ into a space, runs of two or more white
// space characters into one space, strips newlines on the right and spaces on both sides, keeps the first MaxWords
// words (separated by single spaces only) and puts the prompt in front.
func (p CaptionProcessor) Process(caption string) string {
	s := tokenizer.Lower(caption)
	var b strings.Builder
	b.Grow(len(s))
	run, first := 0, rune(0) // length and first character of the present run of white space
	endRun := func() {
		switch {
		case run == 1:
			b.WriteRune(first)
		case run > 1:
			b.WriteByte(' ')
		}
		run = 0
	}
	for _, r := range s {
		if strings.ContainsRune(removed, r) {
			r = ' '
		}
		if isPythonSpace(r) {
			if run == 0 {
				first = r
			}
			run++
			continue
		}
		endRun()
		b.WriteRune(r)
	}
	endRun()
	return p.Prompt + firstWords(strings.Trim(strings.TrimRight(b.String(), "\n"), " "), p.MaxWords)
}

// QuestionProcessor prepares questions as LAVIS's blip_question does (spec/data.md §4).
type QuestionProcessor struct {
	MaxWords int // words kept; 0 means DefaultMaxWords
}

// Process lower-cases by Unicode's rules, deletes the characters . ! " ( ) * # : ; ~, strips spaces on the right and
// keeps the first MaxWords words.
func (p QuestionProcessor) Process(question string) string {
	s := strings.Map(func(r rune) rune {
		if strings.ContainsRune(removed, r) {
			return -1
		}
		return r
	}, tokenizer.Lower(question))
	return firstWords(strings.TrimRight(s, " "), p.MaxWords)
}

// FillPrompt puts a processed question into a prompt such as "Question: {} Short answer:", in place of its first {}. An
// empty prompt leaves the question as it is.
func FillPrompt(prompt, question string) string {
	if prompt == "" {
		return question
	}
	return strings.Replace(prompt, "{}", question, 1)
}

// firstWords keeps the first limit words as separated by single spaces (two spaces enclose an empty word).
func firstWords(s string, limit int) string {
	if limit <= 0 {
		limit = DefaultMaxWords
	}
	for i := range len(s) {
		if s[i] == ' ' {
			if limit--; limit == 0 {
				return s[:i]
			}
		}
	}
	return s
}

// isPythonSpace is what \s matches in a Python regular expression over text.
func isPythonSpace(r rune) bool {
	switch r {
	case ' ', '\t', '\n', '\v', '\f', '\r', 0x1c, 0x1d, 0x1e, 0x1f, 0x85, 0xa0, 0x1680, 0x2028, 0x2029, 0x202f, 0x205f,
		0x3000:
		return true
	}
	return 0x2000 <= r && r <= 0x200a
}
