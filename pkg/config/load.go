// Package config holds the typed configuration of every command: a struct whose tags state the key, the allowed
// values and one line of documentation per field.
//
// Values come from, weakest first: defaults, the files of the extends chain, the environment (BLIP2_OPTIM_LR is
// optim.lr), and flags (--set optim.lr=1e-4). Decoding is strict, and everything that is wrong is reported at once
// with its place, the full key, what is allowed and the nearest known key. Rules that people meet:
//
//   - A relative path in a file starts from the folder of that file; one from a flag, from the environment or from
//     the defaults starts from the working directory. Loaded paths are absolute.
//   - A preset stands for the values of its section as if they were written just before the other keys of the same
//     file (or of all flags, or of the whole environment): keys beside it and stronger sources override it, and it
//     overrides weaker sources.
//   - A list replaces the list of a weaker source.
package config

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sort"
)

// LoadOptions are the sources of a configuration.
type LoadOptions struct {
	Path      string            // configuration file; empty for none
	Set       []string          // "key=value" in the order given, the last one wins
	Env       []string          // "NAME=value"; only names that begin with BLIP2_ are looked at
	Overrides map[string]string // values of dedicated flags by key, such as "backend" for --backend; they beat Set
	Dir       string            // where relative paths of flags and environment start; empty for the working directory
	Partial   bool              // allow required keys to be missing, to show an unfinished configuration

	// Parsers check the values of text keys whose rules another package knows, such as "backend", and return their
	// canonical spelling.
	Parsers map[string]func(string) (string, error)
}

// Presets maps a section and the value of its key `preset` to YAML with the other keys of the section. The section ""
// is the whole configuration; its preset is weaker than those of sections that the same source names.
type Presets map[string]map[string]string

// Schema is what Load must know about a configuration struct besides its tags.
type Schema[T any] struct {
	Default func() *T
	Presets Presets
	Check   func(*T, *Checker) // rules between fields; may be nil
}

// Load merges all sources over the defaults of the schema and checks the result. The error is an *Error that lists
// every mistake. Sources is never nil.
func Load[T any](schema Schema[T], opts LoadOptions) (*T, *Sources, error) {
	c := schema.Default()
	root := reflect.ValueOf(c).Elem()
	d := &decoder{
		root:    root.Type(),
		sources: &Sources{Path: opts.Path, origins: map[string]Origin{}},
		failed:  map[string]bool{},
		parsers: opts.Parsers,
		partial: opts.Partial,
	}
	dir, err := workingDir(opts.Dir)
	if err != nil {
		return nil, d.sources, err
	}
	absoluteDefaults(root, dir)
	for _, layer := range d.layers(opts, dir) {
		d.applyPresets(root, layer, schema.Presets)
		for _, a := range layer {
			d.assign(root, a)
		}
	}
	if !opts.Partial && !d.incomplete {
		d.required(root, "")
	}
	if schema.Check != nil && !d.incomplete {
		schema.Check(c, &Checker{d: d})
	}
	if len(d.problems) > 0 {
		return nil, d.sources, &Error{Problems: d.problems}
	}
	return c, d.sources, nil
}

func workingDir(dir string) (string, error) {
	if dir == "" {
		wd, err := os.Getwd()
		if err != nil {
			return "", fmt.Errorf("finding the working directory, from which relative paths start: %w", err)
		}
		return wd, nil
	}
	return filepath.Abs(dir)
}

// absoluteDefaults makes the paths among the defaults absolute.
func absoluteDefaults(v reflect.Value, dir string) {
	for _, f := range fieldsOf(v.Type()) {
		child := v.Field(f.index)
		if isSection(child.Type()) {
			absoluteDefaults(child, dir)
		} else if f.path {
			child.SetString(absolute(dir, child.String()))
		}
	}
}

// layers returns the assignments of all sources, weakest first; a preset belongs to the layer that names it.
func (d *decoder) layers(opts LoadOptions, dir string) [][]assignment {
	var layers [][]assignment
	if opts.Path != "" {
		for _, file := range d.readChain(opts.Path, dir) {
			d.sources.Files = append(d.sources.Files, file.path)
			at := place{origin: Origin{Kind: FromFile, Name: file.path}, dir: filepath.Dir(absolute(dir, file.path))}
			layers = append(layers, []assignment{{node: file.node, place: at}})
		}
	}
	layers = append(layers, d.envLayer(opts.Env, dir))
	return append(layers, d.flagLayer(opts, dir))
}

// flagLayer turns --set and the dedicated flags into assignments.
func (d *decoder) flagLayer(opts LoadOptions, dir string) []assignment {
	var layer []assignment
	for _, text := range opts.Set {
		if a, ok := d.parseSet(text, dir); ok {
			layer = append(layer, a)
		}
	}
	keys := make([]string, 0, len(opts.Overrides))
	for key := range opts.Overrides {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		origin := Origin{Kind: FromFlag, Name: fmt.Sprintf("--%s %s", key, opts.Overrides[key])}
		if a, ok := d.parseAssignment(key, opts.Overrides[key], place{origin, dir}); ok {
			layer = append(layer, a)
		}
	}
	return layer
}

// applyPresets writes the presets that the layer names, before its own keys.
func (d *decoder) applyPresets(root reflect.Value, layer []assignment, presets Presets) {
	sections := make([]string, 0, len(presets))
	for section := range presets {
		sections = append(sections, section)
	}
	sort.Strings(sections)
	for _, section := range sections {
		var name string
		for _, a := range layer {
			if node := a.lookup(join(section, "preset")); node != nil {
				name = node.Value
			}
		}
		text, ok := presets[section][name]
		if !ok {
			continue // no preset, or an unknown one, which oneof reports
		}
		node, err := parseDocument([]byte(text))
		if err != nil {
			panic(fmt.Sprintf("config: preset %s: %v", name, err)) // a mistake in this program
		}
		var path []step // of the whole configuration
		if section != "" {
			path, _ = parsePath(section)
		}
		d.assign(root, assignment{path: path, node: node, place: place{origin: Origin{Kind: FromPreset, Name: name}}})
	}
}

// required reports keys that must be given and are empty.
func (d *decoder) required(v reflect.Value, prefix string) {
	for _, f := range fieldsOf(v.Type()) {
		key, child := join(prefix, f.name), v.Field(f.index)
		if isSection(child.Type()) {
			d.required(child, key)
			continue
		}
		if f.required && child.IsZero() && !d.hasFailed(key) {
			d.failf(d.sources.near(key), key, "is required: %s; write it in the file or give --set %s=...", f.doc, key)
		}
		if child.Kind() == reflect.Slice && isSection(child.Type().Elem()) {
			for i := range child.Len() {
				d.required(child.Index(i), fmt.Sprintf("%s[%d]", key, i))
			}
		}
	}
}
