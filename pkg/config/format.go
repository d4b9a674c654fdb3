package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// YAML writes a configuration struct with every key, its documentation as a comment beside it. Loading the text
// gives an equal struct.
func YAML(c any) []byte {
	var b bytes.Buffer
	writeSection(&b, reflect.Indirect(reflect.ValueOf(c)), "", "")
	return b.Bytes()
}

// writeSection writes the keys of a struct. first replaces the indentation of the first key, for list elements.
func writeSection(b *bytes.Buffer, v reflect.Value, indent, first string) {
	width := 0
	for _, f := range fieldsOf(v.Type()) {
		if child := v.Field(f.index); !isSection(child.Type()) {
			width = max(width, len(f.name)+2+utf8.RuneCountInString(FormatValue(child.Interface())))
		}
	}
	for i, f := range fieldsOf(v.Type()) {
		prefix := indent
		if i == 0 && first != "" {
			prefix = first
		}
		child := v.Field(f.index)
		switch {
		case isSection(child.Type()):
			if indent == "" && i > 0 {
				b.WriteString("\n")
			}
			fmt.Fprintf(b, "%s%s: # %s\n", prefix, f.name, comment(f))
			writeSection(b, child, indent+"  ", "")
		case child.Kind() == reflect.Slice && child.Len() > 0:
			fmt.Fprintf(b, "%s%s: # %s\n", prefix, f.name, comment(f))
			for j := range child.Len() {
				writeSection(b, child.Index(j), indent+"    ", indent+"  - ")
			}
		default:
			line := f.name + ": " + FormatValue(child.Interface())
			padding := strings.Repeat(" ", max(0, min(width, 40)-utf8.RuneCountInString(line)))
			fmt.Fprintf(b, "%s%s%s # %s\n", prefix, line, padding, comment(f))
		}
	}
}

// comment is the documentation of a field with the values that it allows.
func comment(f field) string {
	if rule := f.allowed(); rule != "" {
		return f.doc + " (" + rule + ")"
	}
	return f.doc
}

// allowed says in words which values the tags allow; empty when any will do.
func (f field) allowed() string {
	switch {
	case f.oneof != nil:
		return quoteEmpty(f.oneof)
	case f.in != nil:
		return f.in.String()
	}
	return ""
}

// FormatValue writes the value of one key as YAML on one line.
func FormatValue(value any) string {
	v := reflect.ValueOf(value)
	if s, ok := value.(fmt.Stringer); ok && isText(v.Type()) {
		return s.String()
	}
	switch v.Kind() {
	case reflect.String:
		return quote(v.String())
	case reflect.Float64:
		return formatFloat(v.Float())
	case reflect.Slice, reflect.Array:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = FormatValue(v.Index(i).Interface())
		}
		return "[" + strings.Join(parts, ", ") + "]"
	}
	return fmt.Sprint(value)
}

// quote leaves plain words and paths as they are and puts everything else in double quotes. Go's escapes are a
// subset of YAML's.
func quote(s string) string {
	plain := s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:-") == "" &&
		!strings.ContainsAny(s[:1], ":-") && !strings.HasSuffix(s, ":")
	node := yaml.Node{Kind: yaml.ScalarNode, Value: s}
	if plain && node.ShortTag() == "!!str" {
		return s
	}
	return strconv.Quote(s)
}

// Map returns the configuration as nested maps and lists for JSON: numbers stay numbers, durations are texts.
func Map(c any) map[string]any {
	return toMap(reflect.Indirect(reflect.ValueOf(c)), func(field, reflect.Value) (any, bool) { return nil, false })
}

// toMap converts a struct; replace may give another value for a leaf, nil to leave it out.
func toMap(v reflect.Value, replace func(field, reflect.Value) (any, bool)) map[string]any {
	m := make(map[string]any, v.NumField())
	for _, f := range fieldsOf(v.Type()) {
		child := v.Field(f.index)
		other, replaced := replace(f, child)
		switch {
		case replaced && other == nil:
		case replaced:
			m[f.name] = other
		case isSection(child.Type()):
			if section := toMap(child, replace); len(section) > 0 {
				m[f.name] = section
			}
		case child.Kind() == reflect.Slice:
			list := make([]any, child.Len())
			for i := range list {
				list[i] = toMap(child.Index(i), replace)
			}
			m[f.name] = list
		default:
			m[f.name] = plain(child)
		}
	}
	return m
}

// plain strips the named type of a leaf, except that durations, and what is left to the program, keep their text.
func plain(v reflect.Value) any {
	switch d := v.Interface().(type) {
	case Duration:
		return d.String()
	case AutoCount:
		if d == Auto {
			return d.String()
		}
	}
	switch v.Kind() {
	case reflect.Int, reflect.Int64:
		return v.Int()
	case reflect.Float64:
		return v.Float()
	}
	return v.Interface()
}
