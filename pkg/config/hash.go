package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
)

// Hash is the SHA-256, in hex, of the values that decide the arithmetic of a training: two runs with the same hash
// and the same data make the same steps. Run folder, logging, workers, evaluation and backend are left out, and of
// paths only the last element counts, so that data and runs may be moved. Keys that came later count once they are set.
func Hash(c any) string {
	values := toMap(reflect.Indirect(reflect.ValueOf(c)), func(f field, v reflect.Value) (any, bool) {
		switch {
		case !f.hashed, f.newWith != nil && (v.IsZero() || !isSection(v.Type()) && FormatValue(v.Interface()) == *f.newWith):
			return nil, true
		case f.path && v.String() != "":
			return filepath.Base(v.String()), true
		}
		return nil, false
	})
	text, err := json.Marshal(values) // sorts the keys of maps
	if err != nil {
		panic(fmt.Sprintf("config: hashing: %v", err)) // loaded values are finite numbers, texts and lists
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Hash is Hash of the configuration.
func (s *Stage1) Hash() string { return Hash(s) }

// YAML is YAML of the configuration.
func (s *Stage1) YAML() []byte { return YAML(s) }
