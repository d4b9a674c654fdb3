// Package jsonscan reads large JSON texts quickly: values are visited in the order of the text and nothing is built for
// what is passed over. It is for files of hundreds of megabytes, for which encoding/json takes many seconds.
//
// The texts it takes are those that encoding/json takes, except that invalid UTF-8 is an error, that lists and objects
// may be nested 200 deep at most, and that NaN, Infinity and -Infinity are null: Python writes them where a table lacks
// a value, and so do img2dataset and pandas.
package jsonscan

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds nesting and with it the stack.
const maxDepth = 200

// Kind is what a value is.
type Kind string

// The kinds of value; Invalid is where no value starts.
const (
	Object  Kind = "an object"
	List    Kind = "a list"
	String  Kind = "a string"
	Number  Kind = "a number"
	Bool    Kind = "true or false"
	Null    Kind = "null"
	End     Kind = "the end of the text"
	Invalid Kind = "no JSON"
)

// Error says what is wrong with a text and where.
type Error struct {
	Offset, Line int // byte from 0, line from 1
	Reason       string
}

func (e *Error) Error() string {
	return fmt.Sprintf("byte %d (line %d): %s", e.Offset, e.Line, e.Reason)
}

// Scanner reads one text.
type Scanner struct {
	data    []byte
	at      int
	depth   int
	scratch []byte
}

// New returns a scanner at the start of the text, behind a byte order mark.
func New(data []byte) *Scanner {
	s := &Scanner{data: data}
	if bytes.HasPrefix(data, []byte("\ufeff")) {
		s.at = len("\ufeff")
	}
	return s
}

// Errorf makes an error about the place where the scanner is.
func (s *Scanner) Errorf(format string, args ...any) error {
	at := min(s.at, len(s.data))
	return &Error{Offset: at, Line: bytes.Count(s.data[:at], []byte("\n")) + 1, Reason: fmt.Sprintf(format, args...)}
}

// Kind says what the next value is, without reading it.
func (s *Scanner) Kind() Kind {
	s.space()
	if s.at == len(s.data) {
		return End
	}
	switch c := s.data[s.at]; {
	case c == '{':
		return Object
	case c == '[':
		return List
	case c == '"':
		return String
	case c == '-' && bytes.HasPrefix(s.data[s.at+1:], []byte("I")):
		return Null
	case c == '-' || '0' <= c && c <= '9':
		return Number
	case c == 't' || c == 'f':
		return Bool
	case c == 'n' || c == 'N' || c == 'I':
		return Null
	}
	return Invalid
}

// Mark is a place in the text that can be gone back to.
func (s *Scanner) Mark() int { return s.at }

// Reset goes back to a place that Mark gave, at the same depth.
func (s *Scanner) Reset(mark int) { s.at = mark }

// Object reads an object: f is called with every key and must read the value. The key is valid until f reads.
func (s *Scanner) Object(f func(key []byte) error) error {
	return s.group('{', '}', func(int) error {
		if s.Kind() != String {
			return s.Errorf("the name of a field is missing")
		}
		key, err := s.Bytes()
		if err != nil {
			return err
		}
		if s.space(); s.at == len(s.data) || s.data[s.at] != ':' {
			return s.Errorf("a colon is missing after a field's name")
		}
		s.at++
		return f(key)
	})
}

// List reads a list: f is called with every index and must read the value.
func (s *Scanner) List(f func(i int) error) error { return s.group('[', ']', f) }

// group reads what stands between two brackets, separated by commas.
func (s *Scanner) group(open, end byte, item func(i int) error) error {
	if s.space(); s.at == len(s.data) || s.data[s.at] != open {
		return s.Errorf("%s where %c is needed", s.Kind(), open)
	}
	if s.depth++; s.depth > maxDepth {
		return s.Errorf("lists and objects are nested more than %d deep", maxDepth)
	}
	s.at++
	for i := 0; ; i++ {
		s.space()
		if i == 0 && s.at < len(s.data) && s.data[s.at] == end {
			break
		}
		if err := item(i); err != nil {
			return err
		}
		s.space()
		if s.at == len(s.data) {
			return s.Errorf("the text ends too early: it is cut off")
		}
		if s.data[s.at] == end {
			break
		}
		if s.data[s.at] != ',' {
			return s.Errorf("a comma or %c is missing", end)
		}
		s.at++
	}
	s.at++
	s.depth--
	return nil
}

// Bytes reads a string. The bytes are valid until the next call.
func (s *Scanner) Bytes() ([]byte, error) {
	if kind := s.Kind(); kind != String {
		return nil, s.Errorf("%s where a string is needed", kind)
	}
	start := s.at + 1
	for i, c := range s.data[start:] {
		if c != '"' && c != '\\' && ' ' <= c && c < utf8.RuneSelf {
			continue
		}
		s.at = start + i
		if c == '"' {
			s.at++
			return s.data[start : start+i], nil
		}
		return s.slowBytes(start)
	}
	s.at = len(s.data)
	return nil, s.Errorf("the text ends inside a string: it is cut off")
}

// slowBytes goes on where a string has its first escape or character beyond ASCII.
func (s *Scanner) slowBytes(start int) ([]byte, error) {
	s.scratch = append(s.scratch[:0], s.data[start:s.at]...)
	for s.at < len(s.data) {
		switch c := s.data[s.at]; {
		case c == '"':
			s.at++
			return s.scratch, nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		case c < ' ':
			return nil, s.Errorf("a control character inside a string")
		case c < utf8.RuneSelf:
			s.scratch = append(s.scratch, c)
			s.at++
		default:
			r, size := utf8.DecodeRune(s.data[s.at:])
			if r == utf8.RuneError && size == 1 {
				return nil, s.Errorf("the text is not UTF-8; save the file in that encoding")
			}
			s.scratch = append(s.scratch, s.data[s.at:s.at+size]...)
			s.at += size
		}
	}
	return nil, s.Errorf("the text ends inside a string: it is cut off")
}

// escape reads a backslash and what it stands for.
func (s *Scanner) escape() error {
	if s.at+1 >= len(s.data) {
		return s.Errorf("the text ends inside a string: it is cut off")
	}
	c := s.data[s.at+1]
	switch c {
	case '"', '\\', '/':
	case 'b':
		c = '\b'
	case 'f':
		c = '\f'
	case 'n':
		c = '\n'
	case 'r':
		c = '\r'
	case 't':
		c = '\t'
	case 'u':
		return s.unicodeEscape()
	default:
		return s.Errorf("\\%c is no escape", c)
	}
	s.scratch = append(s.scratch, c)
	s.at += 2
	return nil
}

// unicodeEscape reads an escape such as \u00e9, or two that are the halves of one character. A half without the other
// is U+FFFD.
func (s *Scanner) unicodeEscape() error {
	r, ok := s.hex(s.at)
	if !ok {
		return s.Errorf("\\u needs four hexadecimal digits")
	}
	s.at += 6
	if utf16.IsSurrogate(r) {
		low, ok := s.hex(s.at)
		if r = utf16.DecodeRune(r, low); ok && r != utf8.RuneError {
			s.at += 6
		} else {
			r = utf8.RuneError
		}
	}
	s.scratch = utf8.AppendRune(s.scratch, r)
	return nil
}

// hex is the value of an escape such as \u00e9 at a place.
func (s *Scanner) hex(at int) (rune, bool) {
	if at+6 > len(s.data) || s.data[at] != '\\' || s.data[at+1] != 'u' {
		return 0, false
	}
	v := rune(0)
	for _, c := range s.data[at+2 : at+6] {
		switch {
		case '0' <= c && c <= '9':
			v = v<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			v = v<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return v, true
}

// Int reads a whole number.
func (s *Scanner) Int() (int, error) {
	text, err := s.Number()
	if err != nil {
		return 0, err
	}
	n, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, s.Errorf("%.30s is no whole number", text)
	}
	return n, nil
}

// Number reads a number as it is written. The bytes stay valid.
func (s *Scanner) Number() ([]byte, error) {
	if kind := s.Kind(); kind != Number {
		return nil, s.Errorf("%s where a number is needed", kind)
	}
	start := s.at
	if s.data[s.at] == '-' {
		s.at++
	}
	whole := s.digits()
	if whole == 0 || whole > 1 && s.data[s.at-whole] == '0' {
		return nil, s.Errorf("a number is not written as JSON writes it")
	}
	if s.at < len(s.data) && s.data[s.at] == '.' {
		if s.at++; s.digits() == 0 {
			return nil, s.Errorf("a number has no digits after its point")
		}
	}
	if s.at < len(s.data) && s.data[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.data) && (s.data[s.at] == '+' || s.data[s.at] == '-') {
			s.at++
		}
		if s.digits() == 0 {
			return nil, s.Errorf("a number has no digits in its exponent")
		}
	}
	return s.data[start:s.at], nil
}

// digits passes over digits and counts them.
func (s *Scanner) digits() int {
	start := s.at
	for s.at < len(s.data) && '0' <= s.data[s.at] && s.data[s.at] <= '9' {
		s.at++
	}
	return s.at - start
}

// Bool reads true or false.
func (s *Scanner) Bool() (bool, error) {
	switch {
	case s.Kind() == Bool && s.word("true"):
		return true, nil
	case s.Kind() == Bool && s.word("false"):
		return false, nil
	}
	return false, s.Errorf("%s where true or false is needed", s.Kind())
}

// Raw passes over the next value, which may be any, and returns its bytes; they stay valid.
func (s *Scanner) Raw() ([]byte, error) {
	s.space()
	start := s.at
	err := s.Skip()
	return s.data[start:s.at], err
}

// Skip passes over the next value, which may be any.
func (s *Scanner) Skip() error {
	var err error
	switch kind := s.Kind(); kind {
	case Object:
		return s.Object(func([]byte) error { return s.Skip() })
	case List:
		return s.List(func(int) error { return s.Skip() })
	case String:
		_, err = s.Bytes()
	case Number:
		_, err = s.Number()
	case Bool:
		_, err = s.Bool()
	case Null:
		if !s.word("null") && !s.word("NaN") && !s.word("Infinity") && !s.word("-Infinity") {
			err = s.Errorf("no JSON value")
		}
	case End:
		err = s.Errorf("the text ends too early: it is cut off")
	default:
		err = s.Errorf("no JSON value")
	}
	return err
}

// Close checks that nothing follows.
func (s *Scanner) Close() error {
	if s.Kind() != End {
		return s.Errorf("there is more after the value")
	}
	return nil
}

func (s *Scanner) word(w string) bool {
	if !bytes.HasPrefix(s.data[s.at:], []byte(w)) {
		return false
	}
	s.at += len(w)
	return true
}

func (s *Scanner) space() {
	for s.at < len(s.data) {
		switch s.data[s.at] {
		case ' ', '\n', '\t', '\r':
			s.at++
		default:
			return
		}
	}
}
