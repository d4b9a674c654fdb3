package config

import (
	"encoding"
	"fmt"
	"math"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// decoder writes YAML nodes into a configuration struct, remembers where each value came from, and collects every
// mistake instead of stopping at the first.
type decoder struct {
	root     reflect.Type
	sources  *Sources
	parsers  map[string]func(string) (string, error) // LoadOptions.Parsers
	problems []Problem
	failed   map[string]bool // keys with a problem, so that no further one is derived from their stale value

	partial    bool // LoadOptions.Partial
	incomplete bool // a file is missing, so keys that nobody set and rules between keys are not worth reporting
}

// place is where a node was written: its origin (the line is taken from the node) and the folder that relative
// paths start from.
type place struct {
	origin Origin
	dir    string
}

func (p place) at(node *yaml.Node) Origin {
	o := p.origin
	if o.Kind == FromFile {
		o.Line = node.Line
	}
	return o
}

func (d *decoder) failf(o Origin, key, format string, args ...any) {
	d.problems = append(d.problems, Problem{Origin: o, Key: key, Message: fmt.Sprintf(format, args...)})
	d.failed[key] = true
}

// value decodes one node into v, the value of the field f with the given full key.
func (d *decoder) value(node *yaml.Node, v reflect.Value, f field, key string, at place) {
	node = resolve(node)
	before := len(d.problems)
	t := v.Type()
	switch {
	case isSection(t):
		d.section(node, v, key, at)
	case t.Kind() == reflect.Slice:
		d.list(node, v, f, key, at)
	case t.Kind() == reflect.Array:
		d.pair(node, v, f, key, at)
	case node.Kind != yaml.ScalarNode:
		d.failf(at.at(node), key, "want %s, got %s", article(typeName(t)), describe(node))
	case isText(t):
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(node.Value)); err != nil {
			d.failf(at.at(node), key, "%v", err)
		}
	default:
		d.scalar(node, v, key, at)
	}
	if len(d.problems) == before {
		d.check(node, v, f, key, at)
	}
	d.sources.origins[key] = at.at(node)
}

// section decodes a mapping. An empty section, all of whose keys are commented out, is allowed.
func (d *decoder) section(node *yaml.Node, v reflect.Value, key string, at place) {
	if isNull(node) {
		return
	}
	if node.Kind != yaml.MappingNode {
		d.failf(at.at(node), key, "want a section with keys, got %s", describe(node))
		return
	}
	fields := fieldsOf(v.Type())
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, child := node.Content[i], node.Content[i+1]
		childKey := join(key, name.Value)
		f, known := find(fields, name.Value)
		switch {
		case key == "" && name.Value == extendsKey && at.origin.Kind == FromFile:
			continue // the loader has read it
		case name.Kind != yaml.ScalarNode:
			d.failf(at.at(name), key, "want a plain key, got %s", describe(name))
		case name.ShortTag() == "!!merge":
			d.failf(at.at(name), childKey, "YAML merge keys are not supported; write the keys out, or use extends")
		case seen[name.Value] > 0:
			d.failf(at.at(name), childKey, "the key stands twice; the first one is in line %d", seen[name.Value])
		case !known:
			d.unknown(at.at(name), key, name.Value, fields)
		default:
			seen[name.Value] = name.Line
			d.value(child, v.Field(f.index), f, childKey, at)
		}
	}
}

// unknown reports a key that does not exist, with its siblings and the nearest key anywhere.
func (d *decoder) unknown(o Origin, section, name string, fields []field) {
	siblings, where := names(fields), "in "+section
	if section == "" {
		where = "at the top level"
		if o.Kind == FromFile {
			siblings = append(siblings, extendsKey)
		}
	}
	d.failf(o, join(section, name), "unknown key%s (keys %s: %s)", d.suggestKey(section, name, siblings), where,
		strings.Join(siblings, ", "))
}

// suggestKey prefers a sibling with a similar name, then a key of that name in another section, then whatever is
// nearest.
func (d *decoder) suggestKey(section, name string, siblings []string) string {
	if best, near := Nearest(name, siblings); near {
		return "; did you mean " + join(section, best) + "?"
	}
	everything := allKeys(d.root, "")
	for _, key := range everything {
		if last := key[strings.LastIndex(key, ".")+1:]; strings.EqualFold(last, name) {
			return "; did you mean " + key + "?"
		}
	}
	return didYouMean(join(section, name), everything)
}

// list decodes a sequence of sections; it replaces the list, element by element origins included.
func (d *decoder) list(node *yaml.Node, v reflect.Value, f field, key string, at place) {
	if node.Kind != yaml.SequenceNode {
		d.failf(at.at(node), key, "want a list (lines that begin with -), got %s", describe(node))
		return
	}
	d.sources.forget(key)
	if len(node.Content) == 0 {
		v.SetZero()
		return
	}
	list := reflect.MakeSlice(v.Type(), len(node.Content), len(node.Content))
	for i, child := range node.Content {
		childKey := fmt.Sprintf("%s[%d]", key, i)
		if isNull(resolve(child)) {
			d.failf(at.at(child), childKey, "the entry is empty; want keys %s",
				strings.Join(names(fieldsOf(v.Type().Elem())), ", "))
			continue
		}
		d.value(child, list.Index(i), field{}, childKey, at)
	}
	v.Set(list)
}

// pair decodes a sequence of fixed length, such as [0.9, 0.98].
func (d *decoder) pair(node *yaml.Node, v reflect.Value, f field, key string, at place) {
	if node.Kind != yaml.SequenceNode || len(node.Content) != v.Len() {
		example := FormatValue(v.Interface())
		d.failf(at.at(node), key, "want %s such as %s, got %s", article(typeName(v.Type())), example, describe(node))
		return
	}
	for i, child := range node.Content {
		d.value(child, v.Index(i), f, fmt.Sprintf("%s[%d]", key, i), at)
	}
}

// scalar decodes texts, numbers and booleans without converting between them.
func (d *decoder) scalar(node *yaml.Node, v reflect.Value, key string, at place) {
	wrong := func() {
		hint := ""
		if v.Kind() == reflect.String {
			hint = "; put it in quotes if it is meant as text"
		}
		d.failf(at.at(node), key, "want %s, got %s%s", article(typeName(v.Type())), describe(node), hint)
	}
	tag := node.ShortTag()
	switch v.Kind() {
	case reflect.String:
		if tag != "!!str" {
			wrong()
			return
		}
		d.text(node, v, key, at)
	case reflect.Bool:
		if tag != "!!bool" {
			wrong()
			return
		}
		v.SetBool(strings.EqualFold(node.Value, "true"))
	case reflect.Float64:
		n, err := strconv.ParseFloat(node.Value, 64)
		if tag != "!!int" && tag != "!!float" || err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			wrong()
			return
		}
		v.SetFloat(n)
	default:
		n, err := strconv.ParseInt(strings.ReplaceAll(node.Value, "_", ""), 10, 64)
		if tag != "!!int" || err != nil || v.OverflowInt(n) {
			wrong()
			return
		}
		v.SetInt(n)
	}
}

func (d *decoder) text(node *yaml.Node, v reflect.Value, key string, at place) {
	if !utf8.ValidString(node.Value) || strings.ContainsRune(node.Value, 0) {
		d.failf(at.at(node), key, "the text %q is not valid UTF-8 without NUL", node.Value)
		return
	}
	v.SetString(node.Value)
}

// check applies the rules of the field's tags, and makes paths absolute.
func (d *decoder) check(node *yaml.Node, v reflect.Value, f field, key string, at place) {
	if f.in != nil && v.Kind() != reflect.Array {
		if n := number(v); !f.in.contains(n) {
			d.failf(at.at(node), key, "must be %s, not %s", f.in, node.Value)
		}
	}
	if f.oneof != nil && !contains(f.oneof, v.String()) {
		d.failf(at.at(node), key, "must be one of %s, not %q%s", quoteEmpty(f.oneof), v.String(),
			didYouMean(v.String(), f.oneof))
	}
	if parse := d.parsers[key]; parse != nil {
		text, err := parse(v.String())
		if err != nil {
			d.failf(at.at(node), key, "%v", err)
			return
		}
		v.SetString(text)
	}
	if f.path && !(f.location && strings.Contains(v.String(), "://")) {
		v.SetString(absolute(at.dir, v.String()))
	}
}

// absolute cleans a path and starts it from dir when it is relative. The empty path stays empty.
func absolute(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		if path == "" {
			return ""
		}
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}

func number(v reflect.Value) float64 {
	if v.CanFloat() {
		return v.Float()
	}
	return float64(v.Int())
}

// resolve follows YAML aliases (an alias never points to another one).
func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" }

// describe says in words what a node holds.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a section with keys"
	case yaml.SequenceNode:
		if len(node.Content) == 1 {
			return "a list of 1 entry"
		}
		return fmt.Sprintf("a list of %d entries", len(node.Content))
	}
	switch node.ShortTag() {
	case "!!null":
		return "no value"
	case "!!str":
		return fmt.Sprintf("the text %q", node.Value)
	}
	return node.Value
}

func article(noun string) string {
	switch noun {
	case "true or false", "text":
		return noun
	}
	return "a " + noun
}

func find(fields []field, name string) (field, bool) {
	for _, f := range fields {
		if f.name == name {
			return f, true
		}
	}
	return field{}, false
}

func contains(list []string, text string) bool {
	for _, s := range list {
		if s == text {
			return true
		}
	}
	return false
}

// quoteEmpty joins texts for a message and makes the empty one visible.
func quoteEmpty(list []string) string {
	shown := make([]string, len(list))
	for i, s := range list {
		if shown[i] = s; s == "" {
			shown[i] = `""`
		}
	}
	return strings.Join(shown, ", ")
}
