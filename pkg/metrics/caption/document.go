package caption

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"
)

// document is a file that was read whole.
type document struct {
	path string
	data []byte
}

// maxFile bounds what a file may hold, unpacked: more than any published file of captions, less than a crafted archive
// unpacks to.
const maxFile = 4 << 30

// open reads a file, unpacked if it is compressed with gzip.
func open(name string) (*document, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
		if data, err = unpack(data, maxFile); err != nil {
			return nil, fmt.Errorf("%s: unpacking: %w; is the file whole?", name, err)
		}
		name = strings.TrimSuffix(name, ".gz") // of which the rest says whether it is a list of lines
	}
	return newDocument(name, data)
}

// unpack reads what is compressed with gzip, at most the given number of bytes.
func unpack(data []byte, most int64) ([]byte, error) {
	in, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(out)) > most {
		err = fmt.Errorf("it holds more than %d bytes", most)
	}
	return out, err
}

// newDocument takes a file's bytes, which must be UTF-8. A byte order mark in front, as some editors write, is no text.
func newDocument(name string, data []byte) (*document, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if utf8.Valid(data) {
		return &document{name, data}, nil
	}
	at := 0
	for at < len(data) {
		r, size := utf8.DecodeRune(data[at:])
		if r == utf8.RuneError && size == 1 {
			break
		}
		at += size
	}
	return nil, fmt.Errorf("%s: byte %d is not UTF-8", name, at)
}

// plainText says whether the file is a list of lines and not JSON.
func (d *document) plainText() bool { return strings.EqualFold(path.Ext(d.path), ".txt") }

// lines returns the lines of a plain list.
func (d *document) lines() []string {
	text := strings.TrimSuffix(strings.ReplaceAll(string(d.data), "\r\n", "\n"), "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// errorf names the file.
func (d *document) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: "+format, append([]any{d.path}, args...)...)
}

// list returns the elements of a JSON list at a place of the file, "" for the file itself.
func (d *document) list(raw []byte, place string) ([]json.RawMessage, error) {
	var out []json.RawMessage
	if err := d.decode(raw, place, &out, "a list"); err != nil {
		return nil, err
	}
	return out, nil
}

// object returns the members of a JSON object; of a name that occurs twice the last.
func (d *document) object(raw []byte, place string) (map[string]json.RawMessage, error) {
	var out map[string]json.RawMessage
	if err := d.decode(raw, place, &out, "an object"); err != nil {
		return nil, err
	}
	return out, nil
}

// decode reads a JSON value, and says what it is and should be if it is something else.
func (d *document) decode(raw []byte, place string, v any, want string) error {
	if place != "" {
		place += ": "
	}
	if got := kindOf(raw); got != want {
		if err := json.Unmarshal(raw, new(any)); err != nil {
			return d.errorf("%s%w", place, jsonError(raw, err))
		}
		return d.errorf("%sis %s, want %s", place, got, want)
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return d.errorf("%s%w", place, jsonError(raw, err))
	}
	return nil
}

// jsonError adds the place to an error of package json.
func jsonError(raw []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		line := 1 + bytes.Count(raw[:min(int(syntax.Offset), len(raw))], []byte("\n"))
		return fmt.Errorf("line %d: %w", line, err)
	}
	return err
}

// kindOf names the type of a JSON value.
func kindOf(raw []byte) string {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if len(raw) == 0 {
		return "nothing"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

// text reads a string.
func (d *document) text(raw []byte, place string) (string, error) {
	if raw == nil {
		return "", d.errorf("%s is missing", place)
	}
	var s string
	err := d.decode(raw, place, &s, "a string")
	return s, err
}

// texts reads a string or a list of strings.
func (d *document) texts(raw []byte, place string) ([]string, error) {
	if kindOf(raw) != "a list" {
		s, err := d.text(raw, place)
		return []string{s}, err
	}
	elements, err := d.list(raw, place)
	if err != nil {
		return nil, err
	}
	out := make([]string, len(elements))
	for i, e := range elements {
		if out[i], err = d.text(e, fmt.Sprintf("%s[%d]", place, i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var wholeNumber = regexp.MustCompile(`^-?[0-9]+$`)

// id reads what names a picture: a whole number, or a string. 12 and "12" are the same.
func (d *document) id(raw []byte, place string) (string, error) {
	switch kindOf(raw) {
	case "a string":
		s, err := d.text(raw, place)
		if err == nil && s == "" {
			err = d.errorf("%s is empty", place)
		}
		return s, err
	case "a number":
		if s := string(bytes.TrimSpace(raw)); wholeNumber.MatchString(s) {
			return s, nil
		}
		return "", d.errorf("%s is %s, want a whole number or a string", place, raw)
	case "nothing":
		return "", d.errorf("%s is missing", place)
	}
	return "", d.errorf("%s is %s, want a whole number or a string", place, kindOf(raw))
}
