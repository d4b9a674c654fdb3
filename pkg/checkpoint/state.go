package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
)

// savedState is the content of state.json.
type savedState struct {
	Step  int             `json:"step"`
	State json.RawMessage `json:"state"`
}

func encodeState(s Snapshot) ([]byte, error) {
	state, err := json.Marshal(s.State)
	if err != nil {
		return nil, fmt.Errorf("the state cannot be written as JSON: %w", err)
	}
	raw, err := json.MarshalIndent(savedState{Step: s.Step, State: state}, "", "  ")
	return append(raw, '\n'), err
}

func readState(dir string) (savedState, error) {
	var s savedState
	path := filepath.Join(dir, StateFile)
	raw, err := readSmall(path)
	if err != nil {
		return s, err
	}
	if err := DecodeStrict(raw, &s); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	if s.Step < 0 {
		return s, fmt.Errorf("%s: step is %d", path, s.Step)
	}
	return s, nil
}

// DecodeStrict decodes one JSON value into v, a pointer. Keys that v does not have are errors, and so are keys that
// are missing unless v marks them omitempty: a state that another version wrote must not resume with zeros in it.
func DecodeStrict(raw []byte, v any) error {
	if err := decodeStrict(raw, v); err != nil {
		return err
	}
	back, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var want, have any
	if err := errors.Join(json.Unmarshal(back, &want), json.Unmarshal(raw, &have)); err != nil {
		return err
	}
	if key := missing(want, have); key != "" {
		return fmt.Errorf("the key %q is missing", key)
	}
	return nil
}

// decodeStrict refuses unknown keys and anything after the value.
func decodeStrict(raw []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the JSON value")
	}
	return nil
}

// missing returns the path of the first key of want that have lacks, in objects and lists of any depth; "" if none.
func missing(want, have any) string {
	switch want := want.(type) {
	case map[string]any:
		have, ok := have.(map[string]any)
		if !ok {
			return ""
		}
		for _, key := range slices.Sorted(maps.Keys(want)) {
			inner, ok := have[key]
			if !ok {
				return key
			}
			if deeper := missing(want[key], inner); deeper != "" {
				return key + "." + deeper
			}
		}
	case []any:
		have, _ := have.([]any)
		for i := range min(len(want), len(have)) {
			if deeper := missing(want[i], have[i]); deeper != "" {
				return strconv.Itoa(i) + "." + deeper
			}
		}
	}
	return ""
}
