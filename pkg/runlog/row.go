package runlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Keys that a row uses for itself and a Field may not have.
const (
	keyStep      = "step"
	keyTime      = "time"
	keyNonFinite = "nonfinite"
)

// Row is one line of metrics.jsonl: what was measured in the interval that ends with a step.
//
//	{"step":20,"time":"2026-01-02T15:04:05Z","loss":4.1,"lr":null,"nonfinite":{"lr":"NaN"}}
//
// JSON has no NaN or infinity: such a value is written as null and named under "nonfinite" as "NaN", "+Inf" or "-Inf".
type Row struct {
	Step   int
	Time   time.Time
	Fields []Field // in the order of the file
}

// Value returns the measurement named key and whether the row has it.
func (r Row) Value(key string) (float64, bool) {
	for _, f := range r.Fields {
		if f.Key == key {
			return f.Value, true
		}
	}
	return 0, false
}

// MarshalJSON writes the row as one JSON object, its fields in order.
func (r Row) MarshalJSON() ([]byte, error) {
	out := append([]byte(`{"step":`), strconv.Itoa(r.Step)...)
	out = append(out, `,"time":"`...)
	out = r.Time.UTC().AppendFormat(out, time.RFC3339)
	out = append(out, '"')
	var flags []byte
	seen := make(map[string]bool, len(r.Fields))
	for _, f := range r.Fields {
		if f.Key == "" || f.Key == keyStep || f.Key == keyTime || f.Key == keyNonFinite || seen[f.Key] {
			return nil, fmt.Errorf("step %d: field name %q is empty, reserved or used twice", r.Step, f.Key)
		}
		seen[f.Key] = true
		key, err := json.Marshal(f.Key)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, ','), key...), ':')
		if isFinite(f.Value) {
			out = appendNumber(out, f.Value)
			continue
		}
		out = append(out, "null"...)
		flags = append(append(append(flags, ','), key...), ':')
		flags = strconv.AppendQuote(flags, strconv.FormatFloat(f.Value, 'g', -1, 64))
	}
	if len(flags) > 0 {
		flags[0] = '{'
		out = append(append(append(out, `,"nonfinite":`...), flags...), '}')
	}
	return append(out, '}'), nil
}

// UnmarshalJSON reads a row. A member that is neither number nor null is passed over: a later version may add some.
func (r *Row) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return fmt.Errorf("not a JSON object")
	}
	*r = Row{Step: -1}
	var flags map[string]string
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return err
		}
		key, _ := name.(string) // the decoder gives an object's keys as strings
		switch key {
		case keyStep:
			err = json.Unmarshal(raw, &r.Step)
		case keyTime:
			err = json.Unmarshal(raw, &r.Time)
		case keyNonFinite:
			err = json.Unmarshal(raw, &flags)
		default:
			r.addField(key, raw)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", key, err)
		}
	}
	if r.Step < 0 {
		return fmt.Errorf(`no "step"`)
	}
	for i := range r.Fields {
		if v, err := strconv.ParseFloat(flags[r.Fields[i].Key], 64); err == nil && !isFinite(v) {
			r.Fields[i].Value = v
		}
	}
	return nil
}

// addField adds a number, or NaN for null, until the flags say which kind of null it is.
func (r *Row) addField(key string, raw json.RawMessage) {
	v := math.NaN()
	if string(raw) != "null" {
		if json.Unmarshal(raw, &v) != nil {
			return
		}
	}
	r.Fields = append(r.Fields, Field{Key: key, Value: v})
}

// appendNumber writes a finite number as encoding/json does: the shortest digits that read back as the same float64.
func appendNumber(out []byte, v float64) []byte {
	format := byte('f')
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return strconv.AppendFloat(out, v, format, -1, 64)
}

// isFinite reports whether v is a number that JSON can hold.
func isFinite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }
