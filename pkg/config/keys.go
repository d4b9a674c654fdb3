package config

import "reflect"

// KeyInfo describes one key for the user.
type KeyInfo struct {
	Key     string `json:"key"`     // such as "optim.lr" or "data.train[].images"
	Type    string `json:"type"`    // in words
	Default string `json:"default"` // as YAML; empty for keys of list elements
	Allowed string `json:"allowed"` // in words; empty when any value of the type will do
	Env     string `json:"env"`     // environment variable; empty for keys of list elements
	Doc     string `json:"doc"`     // one line
}

// Keys lists all keys of a configuration struct with its values as defaults.
func Keys(defaults any) []KeyInfo {
	root := reflect.Indirect(reflect.ValueOf(defaults))
	var keys []KeyInfo
	eachLeaf(root.Type(), "", func(key string, f field, t reflect.Type) {
		info := KeyInfo{Key: key, Type: typeName(t), Allowed: f.allowed(), Doc: f.doc}
		if v, ok := valueAt(root, key); ok {
			info.Default, info.Env = FormatValue(v.Interface()), EnvName(key)
		}
		keys = append(keys, info)
	})
	return keys
}

// valueAt finds the value of a key outside of list elements.
func valueAt(v reflect.Value, key string) (reflect.Value, bool) {
	path, err := parsePath(key)
	if err != nil {
		return v, false // an element of a list, "data.train[]"
	}
	for _, s := range path {
		f, known := find(fieldsOf(v.Type()), s.name)
		if !known {
			return v, false
		}
		v = v.Field(f.index)
	}
	return v, true
}
