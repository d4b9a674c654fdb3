package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
)

// field is what the struct tags of a configuration field say.
//
//	yaml      key in the file
//	doc       one line for `config keys` and the resolved file
//	in        interval that a number (or each number of a pair) must lie in: "[1,)", "(0,1]"
//	oneof     allowed texts, separated by "|"
//	path      "file" or "dir": the text is a path and is made absolute
//	required  "true": must not be empty in a complete configuration
//	path      "location": likewise, unless it is a URL
//	hash      "-": does not change the arithmetic of the training, left out of Hash
//	hash      "new" or "new=VALUE": left out of Hash while it is zero or VALUE, since runs from before had no such key
type field struct {
	index    int
	name     string
	doc      string
	in       *interval
	oneof    []string
	path     bool
	location bool // a path that may be a URL
	required bool
	hashed   bool
	newWith  *string // value with which the field is left out of Hash; "" for the zero value
}

// fieldsOf reads the tags of a configuration struct. It panics on a malformed tag, which is a mistake in this
// program and not in its input.
func fieldsOf(t reflect.Type) []field {
	fields := make([]field, 0, t.NumField())
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		f := field{
			index:    i,
			name:     tag.Get("yaml"),
			doc:      tag.Get("doc"),
			path:     tag.Get("path") != "",
			location: tag.Get("path") == "location",
			required: tag.Get("required") == "true",
			hashed:   tag.Get("hash") != "-",
		}
		if text, ok := tag.Lookup("in"); ok {
			in, err := parseInterval(text)
			if err != nil {
				panic(fmt.Sprintf("config: field %s.%s: %v", t, t.Field(i).Name, err))
			}
			f.in = &in
		}
		if value, ok := strings.CutPrefix(tag.Get("hash"), "new"); ok {
			value = strings.TrimPrefix(value, "=")
			f.newWith = &value
		}
		if text, ok := tag.Lookup("oneof"); ok {
			f.oneof = strings.Split(text, "|")
		}
		fields = append(fields, f)
	}
	return fields
}

// interval is a range of numbers with open or closed ends.
type interval struct {
	low, high         float64
	lowOpen, highOpen bool
}

func parseInterval(text string) (interval, error) {
	low, high, ok := strings.Cut(text, ",")
	if !ok || len(low) < 1 || len(high) < 1 {
		return interval{}, fmt.Errorf("bad interval %q", text)
	}
	in := interval{low: math.Inf(-1), high: math.Inf(1), lowOpen: low[0] == '(', highOpen: high[len(high)-1] == ')'}
	var err error
	if low = low[1:]; low != "" {
		if in.low, err = strconv.ParseFloat(low, 64); err != nil {
			return interval{}, err
		}
	}
	if high = high[:len(high)-1]; high != "" {
		if in.high, err = strconv.ParseFloat(high, 64); err != nil {
			return interval{}, err
		}
	}
	return in, nil
}

func (in interval) contains(v float64) bool {
	return (v > in.low || v == in.low && !in.lowOpen) && (v < in.high || v == in.high && !in.highOpen)
}

// String says what is allowed: "at least 1", "1 to 4096", "above 0, at most 1".
func (in interval) String() string {
	low, high := formatBound(in.low), formatBound(in.high)
	switch {
	case math.IsInf(in.low, -1):
		return word(in.highOpen, "below ", "at most ") + high
	case math.IsInf(in.high, 1):
		return word(in.lowOpen, "above ", "at least ") + low
	case !in.lowOpen && !in.highOpen:
		return low + " to " + high
	}
	return word(in.lowOpen, "above ", "at least ") + low + ", " + word(in.highOpen, "below ", "at most ") + high
}

func word(open bool, ifOpen, ifClosed string) string {
	if open {
		return ifOpen
	}
	return ifClosed
}

// formatBound writes a limit without an exponent.
func formatBound(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// isText tells whether values of the type are written as one scalar that the type reads itself.
func isText(t reflect.Type) bool { return reflect.PointerTo(t).Implements(textUnmarshaler) }

// isSection tells whether the type is a group of keys.
func isSection(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isText(t) }

// typeName is the word for a type in `config keys` and in messages.
func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[AutoCount]():
		return "count or auto"
	case isText(t):
		return strings.ToLower(t.Name())
	case isSection(t):
		return "section"
	case t.Kind() == reflect.Slice:
		return "list of " + typeName(t.Elem()) + "s"
	case t.Kind() == reflect.Array:
		return fmt.Sprintf("list of %d %ss", t.Len(), typeName(t.Elem()))
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Float64:
		return "number"
	}
	return "whole number"
}

// eachLeaf calls visit for every key below t that is not a section, in the order of the struct. Elements of lists
// are visited as "list[]".
func eachLeaf(t reflect.Type, prefix string, visit func(key string, f field, t reflect.Type)) {
	for _, f := range fieldsOf(t) {
		key, ft := join(prefix, f.name), t.Field(f.index).Type
		if isSection(ft) {
			eachLeaf(ft, key, visit)
			continue
		}
		visit(key, f, ft)
		if ft.Kind() == reflect.Slice && isSection(ft.Elem()) {
			eachLeaf(ft.Elem(), key+"[]", visit)
		}
	}
}

// allKeys lists sections and leaves, for suggestions.
func allKeys(t reflect.Type, prefix string) []string {
	var keys []string
	for _, f := range fieldsOf(t) {
		key, ft := join(prefix, f.name), t.Field(f.index).Type
		keys = append(keys, key)
		if isSection(ft) {
			keys = append(keys, allKeys(ft, key)...)
		} else if ft.Kind() == reflect.Slice && isSection(ft.Elem()) {
			keys = append(keys, allKeys(ft.Elem(), key+"[]")...)
		}
	}
	return keys
}

func join(prefix, name string) string {
	if prefix == "" {
		return name
	}
	return prefix + "." + name
}

func names(fields []field) []string {
	list := make([]string, len(fields))
	for i, f := range fields {
		list[i] = f.name
	}
	return list
}
