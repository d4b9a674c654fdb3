package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// OriginKind is the sort of place that a value comes from.
type OriginKind int

// The kinds of origin, weakest first. (A preset is as strong as the source that names it.)
const (
	FromDefault OriginKind = iota
	FromPreset
	FromFile
	FromEnv
	FromFlag
)

// Origin is the place where a value was written.
type Origin struct {
	Kind OriginKind
	Name string // file path, variable, flag with its value, or preset; empty for a default
	Line int    // of a file, from 1; 0 when it has none
}

// String names the place as errors do: "configs/a.yaml:12", "--set optim.lr=1", "default".
func (o Origin) String() string {
	switch {
	case o.Kind == FromDefault:
		return "default"
	case o.Kind == FromPreset:
		return "preset " + o.Name
	case o.Line > 0:
		return fmt.Sprintf("%s:%d", o.Name, o.Line)
	}
	return o.Name
}

// Problem is one mistake in a configuration.
type Problem struct {
	Origin  Origin // where the offending value stands
	Key     string // full dotted key; empty when the whole file is meant
	Message string // what is wrong, what is allowed, and what may have been meant
}

func (p Problem) Error() string {
	text := p.Message
	if p.Key != "" {
		text = p.Key + ": " + text
	}
	if p.Origin.Kind == FromDefault && p.Origin.Name == "" {
		return text
	}
	return p.Origin.String() + ": " + text
}

// Error lists everything that is wrong with a configuration, in the order in which it was found.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "the configuration has %d mistakes:", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  ")
		b.WriteString(p.Error())
	}
	return b.String()
}

// Sources says where the values of a loaded configuration come from.
type Sources struct {
	Path     string   // the configuration file as it was named; empty without one
	Files    []string // Path and the files that it extends, the most basic one first
	Warnings []string // things that are allowed but are probably not meant

	origins map[string]Origin
}

// Name is the file name of the configuration without its extension, such as "quickstart"; empty without a file.
func (s *Sources) Name() string {
	if s.Path == "" {
		return ""
	}
	return strings.TrimSuffix(filepath.Base(s.Path), filepath.Ext(s.Path))
}

// Of returns the origin of a key such as "optim.lr" or "data.train[0].images".
func (s *Sources) Of(key string) Origin { return s.origins[key] }

// near returns the origin of the key, or of the closest list element or section around it that was written down,
// or of the file as a whole.
func (s *Sources) near(key string) Origin {
	for key != "" {
		if o, ok := s.origins[key]; ok && o.Kind != FromDefault {
			return o
		}
		key = key[:max(0, strings.LastIndexAny(key, ".["))]
	}
	if s.Path != "" {
		return Origin{Kind: FromFile, Name: s.Path}
	}
	return Origin{}
}

// forget drops the origins of the elements of a list that is about to be replaced.
func (s *Sources) forget(list string) {
	for key := range s.origins {
		if strings.HasPrefix(key, list+"[") {
			delete(s.origins, key)
		}
	}
}
