package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"blip2/pkg/weights"
)

// torchDTypes are PyTorch's names of the element types that a checkpoint can have.
var torchDTypes = map[weights.DType]string{
	weights.F64: "float64", weights.F32: "float32", weights.F16: "float16", weights.BF16: "bfloat16",
	weights.I64: "int64", weights.I32: "int32", weights.I16: "int16", weights.I8: "int8",
	weights.U64: "uint64", weights.U32: "uint32", weights.U16: "uint16", weights.U8: "uint8", weights.BOOL: "bool",
}

// lavisPth runs kind lavis-pth: a checkpoint as LAVIS's runner writes it. Its state dict must be that of the outputs
// bit for bit, and everything that expected.json says of the file must be so.
func lavisPth(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config struct{ File, Container string }
	if err := c.config(&config); err != nil {
		return err
	}
	path, err := c.file(config.File)
	if err != nil {
		return err
	}
	f, err := weights.OpenTorch(path)
	if err != nil {
		return err
	}
	defer f.Close()
	k.sameValue("container", strings.TrimPrefix(f.Container(), "PyTorch "), config.Container)
	for _, name := range f.Order() {
		k.sameTensor(f, name)
	}
	expected, err := c.plainJSON(expectedFile)
	if err != nil {
		return err
	}
	facts, err := torchFacts(f)
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(expected)) {
		switch fact, ok := facts[key]; {
		case key == "absent":
			k.absent(f, expected[key])
		case !ok:
			k.problem("%s: recorded in %s, but the file has no such thing", key, expectedFile)
		default:
			k.sameValue(key, fact, expected[key])
		}
	}
	return nil
}

// plainJSON reads a JSON object with its numbers as they are written.
func (c *Case) plainJSON(name string) (map[string]any, error) {
	var raw json.RawMessage
	if err := c.readJSON(name, &raw); err != nil {
		return nil, err
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var values map[string]any
	if err := dec.Decode(&values); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return values, nil
}

// sameTensor compares a tensor with the recorded output of its name: dtype, shape and every bit.
func (k *checker) sameTensor(f weights.Source, name string) {
	got, err := f.Tensor(name)
	if err != nil {
		k.problem("%v", err)
		return
	}
	want, ok := k.take(name, got.Shape)
	if !ok {
		return
	}
	k.compared++
	if got.DType != want.DType {
		k.problem("%s: dtype %s, recorded %s", name, got.DType, want.DType)
		return
	}
	if size := got.DType.Size(); !bytes.Equal(got.Data, want.Data) {
		for i := 0; i < len(want.Data); i += size {
			if g, w := got.Data[i:i+size], want.Data[i:i+size]; !bytes.Equal(g, w) {
				k.problem("%s: bytes % x, recorded % x", element(name, got.Shape, i/size), g, w)
				return
			}
		}
	}
}

// absent checks that no tensor has a name with the prefix.
func (k *checker) absent(f weights.Source, prefix any) {
	p, ok := prefix.(string)
	if !ok {
		k.problem("absent: recorded %v, expected a prefix", prefix)
		return
	}
	k.compared++
	for _, name := range f.Names() {
		if strings.HasPrefix(name, p) {
			k.problem("%s: must be absent", name)
			return
		}
	}
}

// torchFacts is what expected.json of kind lavis-pth says of a file, as JSON has it.
func torchFacts(f *weights.Torch) (map[string]any, error) {
	top, ok := f.Value().(*weights.Dict)
	if !ok {
		return nil, errors.New("the file holds no dict")
	}
	facts := map[string]any{"top_level": jsonValue(top.Keys())}
	for _, key := range []string{"epoch", "config", "scaler"} {
		if value, ok := top.Get(key); ok {
			facts[key] = jsonValue(value)
		}
	}
	layout(f, facts)
	if value, ok := top.Get("optimizer"); ok {
		optimizer, err := optimizerFacts(value)
		if err != nil {
			return nil, fmt.Errorf("optimizer: %w", err)
		}
		facts["optimizer"] = optimizer
	}
	return facts, nil
}

// layout adds how the tensors are stored: those that are not float32, not contiguous, not at the start of their
// storage, or in one storage with others.
func layout(f *weights.Torch, facts map[string]any) {
	types, offsets := map[string]any{}, map[string]any{}
	strided, groups := []any{}, []any{}
	storages, order := map[string][]any{}, []string{}
	for _, name := range f.Order() {
		t, _ := f.Stored(name)
		if t.DType() != weights.F32 {
			types[name] = torchDTypes[t.DType()]
		}
		if !t.Contiguous() {
			strided = append(strided, name)
		}
		if t.Offset() != 0 {
			offsets[name] = int64(t.Offset())
		}
		if storages[t.Storage()] == nil {
			order = append(order, t.Storage())
		}
		storages[t.Storage()] = append(storages[t.Storage()], name)
	}
	for _, key := range order {
		if names := storages[key]; len(names) > 1 {
			groups = append(groups, names)
		}
	}
	facts["dtypes"], facts["offsets"] = types, offsets
	facts["not_contiguous"], facts["one_storage"] = strided, groups
}

// optimizerFacts sums up the state of an optimizer: how many slots, what is in the first, the steps of all, and the
// numbers of the parameter groups.
func optimizerFacts(value any) (map[string]any, error) {
	slots, err := member[*weights.Dict](value, "state")
	if err != nil {
		return nil, err
	}
	names, steps := []any{}, []float64{}
	for key, slot := range slots.All() {
		d, ok := slot.(*weights.Dict)
		if !ok {
			return nil, fmt.Errorf("slot %v is no dict", key)
		}
		if len(names) == 0 {
			names = sortedKeys(d)
		}
		step, err := stepOf(d)
		if err != nil {
			return nil, fmt.Errorf("slot %v: %w", key, err)
		}
		steps = append(steps, step)
	}
	slices.Sort(steps)
	groups, err := member[[]any](value, "param_groups")
	if err != nil {
		return nil, err
	}
	numbers := []any{}
	for i, group := range groups {
		d, ok := group.(*weights.Dict)
		if !ok {
			return nil, fmt.Errorf("group %d is no dict", i)
		}
		numbers = append(numbers, groupNumbers(d))
	}
	distinct := []any{}
	for _, step := range slices.Compact(steps) {
		distinct = append(distinct, step)
	}
	return map[string]any{
		"slots": int64(slots.Len()), "slot_names": names, "steps": distinct, "param_groups": numbers,
	}, nil
}

// member returns a value of a dict.
func member[T any](dict any, key string) (v T, err error) {
	d, ok := dict.(*weights.Dict)
	if !ok {
		return v, fmt.Errorf("has %q to be read from something that is no dict", key)
	}
	value, _ := d.Get(key)
	if v, ok = value.(T); !ok {
		return v, fmt.Errorf("%s is missing or a %T", key, value)
	}
	return v, nil
}

func sortedKeys(d *weights.Dict) []any {
	var names []string
	for _, key := range d.Keys() {
		names = append(names, fmt.Sprint(key))
	}
	slices.Sort(names)
	out := make([]any, len(names))
	for i, name := range names {
		out[i] = name
	}
	return out
}

// stepOf is the number of steps of a slot: a tensor, in older files a number.
func stepOf(slot *weights.Dict) (float64, error) {
	value, _ := slot.Get("step")
	switch v := value.(type) {
	case int64:
		return float64(v), nil
	case float64:
		return v, nil
	case *weights.TorchTensor:
		t, err := v.Read()
		if err != nil {
			return 0, err
		}
		steps, err := t.Float32s()
		if err != nil {
			return 0, err
		}
		if len(steps) == 1 {
			return float64(steps[0]), nil
		}
	}
	return 0, errors.New("step is no number")
}

// groupNumbers are the numbers and lists of a parameter group; of its parameters, how many there are.
func groupNumbers(group *weights.Dict) map[string]any {
	numbers := map[string]any{}
	for key, value := range group.All() {
		name := fmt.Sprint(key)
		switch v := value.(type) {
		case int64, float64, weights.Tuple:
			numbers[name] = jsonValue(value)
		case []any:
			numbers[name] = jsonValue(value)
			if name == "params" {
				numbers[name] = int64(len(v))
			}
		}
	}
	return numbers
}

// jsonValue turns a value of a PyTorch file into what Python's json module makes of it: tuples become lists, keys
// become strings.
func jsonValue(v any) any {
	list := func(items []any) []any {
		out := make([]any, len(items))
		for i, item := range items {
			out[i] = jsonValue(item)
		}
		return out
	}
	switch v := v.(type) {
	case weights.Tuple:
		return list(v)
	case []any:
		return list(v)
	case *weights.Dict:
		out := map[string]any{}
		for key, value := range v.All() {
			out[jsonKey(key)] = jsonValue(value)
		}
		return out
	}
	return v
}

func jsonKey(key any) string {
	if key == nil {
		return "null"
	}
	return fmt.Sprint(key)
}

// sameValue compares a plain value with a recorded one; a whole number is not the same as the float of its value.
func (k *checker) sameValue(name string, got, want any) {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			k.problem("%s: got %v, recorded an object", name, got)
			return
		}
		for _, key := range slices.Sorted(maps.Keys(w)) {
			if _, ok := g[key]; !ok {
				k.problem("%s.%s: recorded, but not in the file", name, key)
				continue
			}
			k.sameValue(name+"."+key, g[key], w[key])
		}
		for _, key := range slices.Sorted(maps.Keys(g)) {
			if _, ok := w[key]; !ok {
				k.problem("%s.%s: got %v, not recorded", name, key, g[key])
			}
		}
		return
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			k.problem("%s: got %v, recorded %v", name, got, want)
			return
		}
		for i := range w {
			k.sameValue(fmt.Sprintf("%s[%d]", name, i), g[i], w[i])
		}
		return
	case json.Number:
		k.compared++
		if !sameNumber(got, w) {
			k.problem("%s: got %v, recorded %v", name, got, w)
		}
		return
	}
	k.compared++
	if got != want { // strings, truth values and null
		k.problem("%s: got %#v, recorded %#v", name, got, want)
	}
}

// sameNumber compares with a number as JSON has it: one with a point or an exponent is a float.
func sameNumber(got any, want json.Number) bool {
	switch g := got.(type) {
	case int64:
		return fmt.Sprint(g) == want.String()
	case *big.Int:
		return g.String() == want.String()
	case float64:
		f, err := want.Float64()
		return err == nil && f == g && strings.ContainsAny(want.String(), ".eE")
	}
	return false
}
