package jsonscan

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// build reads a value as encoding/json builds it.
func build(s *Scanner) (any, error) {
	switch s.Kind() {
	case Object:
		m := map[string]any{}
		err := s.Object(func(key []byte) (err error) {
			name := string(key)
			m[name], err = build(s)
			return err
		})
		return m, err
	case List:
		l := []any{}
		err := s.List(func(int) error {
			v, err := build(s)
			l = append(l, v)
			return err
		})
		return l, err
	case String:
		text, err := s.Bytes()
		return string(text), err
	case Number:
		text, err := s.Number()
		return json.Number(text), err
	case Bool:
		return s.Bool()
	}
	return nil, s.Skip()
}

func parse(text string) (any, error) {
	s := New([]byte(text))
	v, err := build(s)
	if err == nil {
		err = s.Close()
	}
	return v, err
}

func cases() []string {
	return []string{`{}`, `[]`, ` [ 1 , -0.5e+3 , 12E-2, 0 ] `, `{"a":{"b":[true,false,null]},"a":"twice"}`,
		`"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83dx\udc00é"`, `[1,]`, `{"a":1,}`, `{a:1}`, `01`, `-`, `1.`, `.5`, `1e`, `+1`,
		`nul`, `truefalse`, `"a`, `"\x"`, `"\u12g4"`, "\"\x01\"", `[1 2]`, `{"a" 1}`, `{"a":}`, ``, ` `, `[`, `{`, `]`, `1 2`,
		`NaN`, `"é"`, `[[[[]]]]`, "\"\u2028\"", `"\ud83d\u0041"`, `"\ud83d\ud83d\ude00"`}
}

func TestScannerAgreesWithEncodingJSON(t *testing.T) {
	for _, text := range cases() {
		agree(t, text)
	}
}

// TestPythonsNumbersAreNull: what Python's json module writes for a value that a table lacks is no value.
func TestPythonsNumbersAreNull(t *testing.T) {
	got, err := parse(`{"a": NaN, "b": [Infinity,-Infinity , 1], "c": "NaN"}`)
	if want := (map[string]any{"a": nil, "b": []any{nil, nil, json.Number("1")}, "c": "NaN"}); err != nil ||
		!reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"N", "Na", "nan", "Inf", "-Inf", "-", "-NaN", "NaN1", "+Infinity"} {
		if v, err := parse(text); err == nil {
			t.Errorf("%s is taken for %v", text, v)
		}
	}
}

func agree(t *testing.T, text string) {
	t.Helper()
	if strings.Contains(text, "NaN") || strings.Contains(text, "Infinity") { // null here, an error there
		return
	}
	got, err := parse(text)
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var want any
	if valid := json.Valid([]byte(text)) && utf8.ValidString(text); valid != (err == nil) {
		t.Fatalf("%q: error %v, but valid is %v", text, err, valid)
	} else if !valid {
		return
	}
	if err := d.Decode(&want); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%q: got %#v, want %#v (%v)", text, got, want, err)
	}
}

func TestErrorsSayWhere(t *testing.T) {
	for _, tt := range []struct {
		text, reason string
		offset, line int
	}{
		{"[1,\n 2", "cut off", 6, 2},
		{"[\"a", "cut off", 3, 1},
		{"{\"a\":\n\n}", "no JSON value", 7, 3},
		{"[\"\xff\"]", "UTF-8", 2, 1},
		{strings.Repeat("[", 300), "nested", maxDepth, 1},
	} {
		_, err := parse(tt.text)
		var e *Error
		if !errors.As(err, &e) || e.Offset != tt.offset || e.Line != tt.line || !strings.Contains(e.Reason, tt.reason) {
			t.Errorf("%.20q: %v; want %q at byte %d, line %d", tt.text, err, tt.reason, tt.offset, tt.line)
		}
	}
}

func TestTypedReads(t *testing.T) {
	s := New([]byte("\ufeff[7, 1.5, \"x\", [2]] "))
	err := s.List(func(i int) error {
		switch i {
		case 0:
			if n, err := s.Int(); n != 7 || err != nil {
				return fmt.Errorf("%d %w", n, err)
			}
			return nil
		case 1:
			mark := s.Mark()
			if _, err := s.Int(); err == nil {
				return errors.New("1.5 is a whole number")
			}
			s.Reset(mark)
			return s.Skip()
		case 2:
			if _, err := s.Bool(); err == nil {
				return errors.New("a string is a truth")
			}
			return s.Skip()
		}
		raw, err := s.Raw()
		if string(raw) != "[2]" {
			return fmt.Errorf("raw %q", raw)
		}
		return err
	})
	if err != nil || s.Close() != nil {
		t.Error(err, s.Close())
	}
}

func FuzzScanner(f *testing.F) {
	for _, text := range cases() {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Count(text, "[")+strings.Count(text, "{") <= maxDepth && !strings.HasPrefix(text, "\ufeff") {
			agree(t, text)
		}
	})
}

func BenchmarkSkip(b *testing.B) {
	item := []byte(`{"answer": "net", "answer_confidence": "maybe", "answer_id": 1},`)
	text := append([]byte("["), bytes.Repeat(item, 10000)...)
	text[len(text)-1] = ']'
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := New(text).Skip(); err != nil {
			b.Fatal(err)
		}
	}
}
