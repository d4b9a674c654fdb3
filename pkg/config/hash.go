package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
)

// Hash is the SHA-256, in hex, of the values that decide the arithmetic of a training: two runs with the same hash
// and the same data make the same steps. Run folder, logging, workers, evaluation and backend are left out, and of
// paths only the last element counts, so that data and runs may be moved. Keys that came later count once they are set.
func Hash(c any) string {
	text, err := json.Marshal(hashed(c)) // sorts the keys of maps
	if err != nil {
		panic(fmt.Sprintf("config: hashing: %v", err)) // loaded values are finite numbers, texts and lists
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// hashed are the values that Hash is made of, by key; sections are maps.
func hashed(c any) map[string]any {
	return toMap(reflect.Indirect(reflect.ValueOf(c)), func(f field, v reflect.Value) (any, bool) {
		switch {
		case !f.hashed, f.newWith != nil && (v.IsZero() || !isSection(v.Type()) && FormatValue(v.Interface()) == *f.newWith):
			return nil, true
		case f.path && v.String() != "":
			return filepath.Base(v.String()), true
		}
		return nil, false
	})
}

// Changed says in which values that decide the arithmetic two configurations of one type differ, one text for each,
// such as "train.steps was 4 and is 8". It is empty where their hashes are equal.
func Changed(before, now any) []string {
	was, is := map[string]string{}, map[string]string{}
	flatten(hashed(before), "", was)
	flatten(hashed(now), "", is)
	keys := maps.Clone(was)
	maps.Copy(keys, is)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		old, had := was[key]
		value, has := is[key]
		switch {
		case !had:
			out = append(out, fmt.Sprintf("%s is %s and was not set", key, value))
		case !has:
			out = append(out, fmt.Sprintf("%s was %s and is not set", key, old))
		case old != value:
			out = append(out, fmt.Sprintf("%s was %s and is %s", key, old, value))
		}
	}
	return out
}

// flatten puts the leaves of nested maps and lists into out, as JSON, by their full keys.
func flatten(v any, key string, out map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, inner := range v {
			flatten(inner, join(key, name), out)
		}
	case []any:
		for i, inner := range v {
			flatten(inner, fmt.Sprintf("%s[%d]", key, i), out)
		}
	default:
		text, err := json.Marshal(v)
		if err != nil {
			panic(fmt.Sprintf("config: %s: %v", key, err)) // loaded values are finite numbers, texts and lists
		}
		out[key] = string(text)
	}
}

// Changed is Changed since the configuration that a file holds; nothing if it cannot be read.
func (s *Stage1) Changed(path string) []string {
	before, _, err := LoadStage1(LoadOptions{Path: path})
	if err != nil {
		return nil
	}
	return Changed(before, s)
}

// Hash is Hash of the configuration.
func (s *Stage1) Hash() string { return Hash(s) }

// YAML is YAML of the configuration.
func (s *Stage1) YAML() []byte { return YAML(s) }
