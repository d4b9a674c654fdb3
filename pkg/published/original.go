package published

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"

	"blip2/pkg/weights"
)

// keepOriginals replaces the configuration files by those of the folder that the model was read from, with only what
// has changed put into them: what a publisher wrote beside the sizes stays as it was.
func (a *Assembly) keepOriginals(files map[string][]byte) error {
	c := a.opened[a.parts.Main]
	if c == nil || filepath.Base(c.SpecFrom) != configFile {
		return nil
	}
	dtype, err := commonType(c)
	if err != nil {
		return err
	}
	before, err := HFFiles(c.Spec, dtype)
	if err != nil {
		return err
	}
	for name := range maps.Keys(files) {
		path := filepath.Join(filepath.Dir(c.SpecFrom), name)
		original, err := readSmall(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			files[name], err = patch(original, before[name], files[name])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// commonType is the type of all floating-point tensors of a checkpoint, float32 if they differ.
func commonType(src weights.Source) (weights.DType, error) {
	var types []weights.DType
	for _, name := range src.Names() {
		t, err := src.Info(name)
		if err != nil {
			return "", err
		}
		types = append(types, t.DType)
	}
	return common(types), nil
}

// common is the one floating-point type of a list, float32 if there are several: a library that casts all to one type
// must not round any.
func common(types []weights.DType) weights.DType {
	one := weights.DType("")
	for _, t := range types {
		switch {
		case t != weights.F32 && t != weights.F16 && t != weights.BF16:
		case one == "":
			one = t
		case one != t:
			return weights.F32
		}
	}
	if one == "" {
		return weights.F32
	}
	return one
}

// patch puts into an original JSON object what has changed from before to after. Numbers that stay keep their digits.
func patch(original, before, after []byte) ([]byte, error) {
	var root object
	dec := json.NewDecoder(bytes.NewReader(original))
	dec.UseNumber()
	if err := dec.Decode(&root); err != nil || root == nil {
		return nil, fmt.Errorf("not a JSON object: %v", err)
	}
	var old, changed object
	if before != nil {
		if err := json.Unmarshal(before, &old); err != nil {
			return nil, err
		}
	}
	if err := json.Unmarshal(after, &changed); err != nil {
		return nil, err
	}
	if _, newer := root["dtype"]; newer { // as transformers calls torch_dtype from 4.56 on
		for _, o := range []object{old, changed} {
			if v, ok := o["torch_dtype"]; ok {
				o["dtype"] = v
				delete(o, "torch_dtype")
			}
		}
	}
	for _, key := range []string{"dtype", "torch_dtype"} {
		if name, ok := changed[key].(string); ok && old[key] != changed[key] {
			setTypes(root, name)
		}
	}
	patchObject(root, old, changed)
	raw, err := json.MarshalIndent(root, "", "  ")
	return append(raw, '\n'), err
}

// setTypes replaces the types that parts of a configuration state: the library loads each part in its own.
func setTypes(root map[string]any, name string) {
	for _, value := range root {
		part, ok := value.(map[string]any)
		if !ok {
			continue
		}
		for _, key := range []string{"dtype", "torch_dtype"} {
			if part[key] != nil {
				part[key] = name
			}
		}
		setTypes(part, name)
	}
}

func patchObject(root, old, changed map[string]any) {
	for key, value := range changed {
		before, existed := old[key]
		if existed && reflect.DeepEqual(before, value) {
			continue
		}
		inner, isObject := value.(map[string]any)
		into, has := root[key].(map[string]any)
		was, _ := before.(map[string]any)
		if isObject && has {
			patchObject(into, was, inner)
			continue
		}
		root[key] = value
	}
}
