package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// assignment is a value for one key, or for the whole configuration when path is empty.
type assignment struct {
	path  []step
	node  *yaml.Node
	place place
}

// step is one part of a key: a name, with the index of a list element or -1.
type step struct {
	name  string
	index int
}

// parsePath splits "data.train[0].images".
func parsePath(key string) ([]step, error) {
	var path []step
	for _, part := range strings.Split(key, ".") {
		s := step{name: part, index: -1}
		if name, rest, ok := strings.Cut(part, "["); ok {
			digits, tail, closed := strings.Cut(rest, "]")
			n, err := strconv.ParseUint(digits, 10, 16)
			if !closed || tail != "" || err != nil {
				return nil, fmt.Errorf("bad index in %q; write it like data.train[0].images", key)
			}
			s = step{name: name, index: int(n)}
		}
		if s.name == "" {
			return nil, fmt.Errorf("bad key %q; write it like optim.lr", key)
		}
		path = append(path, s)
	}
	return path, nil
}

// parseSet reads the argument of --set.
func (d *decoder) parseSet(text, dir string) (assignment, bool) {
	at := place{origin: Origin{Kind: FromFlag, Name: "--set " + text}, dir: dir}
	key, value, ok := strings.Cut(text, "=")
	if !ok {
		d.failf(at.origin, "", "want key=value, such as --set optim.lr=1e-4")
		return assignment{}, false
	}
	if key = strings.TrimSpace(key); key == extendsKey {
		d.failf(at.origin, key, "can only stand in a file; name that file with --config instead")
		return assignment{}, false
	}
	return d.parseAssignment(key, value, at)
}

// parseAssignment checks that the key exists and parses the text as YAML. Texts are taken as they are unless they
// begin with a quote, so that numbers and colons need no second quoting within the shell's.
func (d *decoder) parseAssignment(key, text string, at place) (assignment, bool) {
	path, err := parsePath(key)
	if err != nil {
		d.failf(at.origin, "", "%v", err)
		return assignment{}, false
	}
	t, ok := d.typeAt(path, at.origin)
	if !ok {
		return assignment{}, false
	}
	if t.Kind() == reflect.String && !strings.HasPrefix(text, `"`) && !strings.HasPrefix(text, `'`) {
		node := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text}
		return assignment{path: path, node: node, place: at}, true
	}
	node, err := parseDocument([]byte(text))
	if err != nil {
		d.failf(at.origin, key, "%v", err)
		return assignment{}, false
	}
	return assignment{path: path, node: node, place: at}, true
}

// typeAt finds the type of a key and reports keys that do not exist.
func (d *decoder) typeAt(path []step, o Origin) (reflect.Type, bool) {
	t, key := d.root, ""
	for _, s := range path {
		if !isSection(t) {
			d.failf(o, join(key, s.name), "%s is %s and has no keys", key, article(typeName(t)))
			return nil, false
		}
		fields := fieldsOf(t)
		f, known := find(fields, s.name)
		if !known {
			d.unknown(o, key, s.name, fields)
			return nil, false
		}
		t, key = t.Field(f.index).Type, join(key, s.name)
		if s.index < 0 {
			continue
		}
		if t.Kind() != reflect.Slice && t.Kind() != reflect.Array {
			d.failf(o, key, "is %s and takes no index", article(typeName(t)))
			return nil, false
		}
		t, key = t.Elem(), fmt.Sprintf("%s[%d]", key, s.index)
	}
	return t, true
}

// assign writes the value at its path, whose names are known to exist. An index one past the end of a list appends.
func (d *decoder) assign(v reflect.Value, a assignment) {
	f, key := field{}, ""
	for _, s := range a.path {
		f, _ = find(fieldsOf(v.Type()), s.name)
		v, key = v.Field(f.index), join(key, s.name)
		if s.index < 0 {
			continue
		}
		if v.Kind() == reflect.Slice && s.index == v.Len() {
			v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		}
		if s.index >= v.Len() {
			d.failf(a.place.origin, key, "has %d entries, so there is no index %d", v.Len(), s.index)
			return
		}
		v, key = v.Index(s.index), fmt.Sprintf("%s[%d]", key, s.index)
	}
	d.value(a.node, v, f, key, a.place)
}

// lookup returns the node that the assignment gives to a key without indices, or nil.
func (a assignment) lookup(key string) *yaml.Node {
	node := a.node
	for i, name := range strings.Split(key, ".") {
		if i < len(a.path) {
			if a.path[i].name != name {
				return nil
			}
			continue
		}
		if node = child(node, name); node == nil {
			return nil
		}
	}
	if len(a.path) > strings.Count(key, ".")+1 {
		return nil
	}
	return resolve(node)
}
