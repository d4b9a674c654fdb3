package weights

import (
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
)

// Values of a PyTorch file beside its tensors are plain: nil, bool, int64, *big.Int (beyond int64), float64, string
// (devices and dtypes too: "cuda:0", "torch.float16"), []byte, []any (a Python list or set), Tuple, *Dict and
// *TorchTensor. They hold no cycles, are not nested deeply, and repeat what is shared only so often that walking them
// takes time in proportion to the file.

// Tuple is a Python tuple.
type Tuple []any

// Dict is a Python dict, or an object's attributes, in the order of the file. Keys are nil, bool, int64, float64 or
// string; as in Python, 1, 1.0 and true are the same key.
type Dict struct {
	keys, values []any
	index        map[any]int // only for more than linearKeys keys
	namespace    bool        // an object whose attributes are the entries
}

// linearKeys is up to how many keys are searched one by one: small dicts, of which a file can have very many, then take
// little memory.
const linearKeys = 8

// maxKey is the most bytes of a key: a key is noted once in the file and hashed in every dict that has it.
const maxKey = 4096

// Len returns the number of entries.
func (d *Dict) Len() int { return len(d.keys) }

// Keys returns the keys in order.
func (d *Dict) Keys() []any { return slices.Clone(d.keys) }

// All iterates over keys and values in order.
func (d *Dict) All() iter.Seq2[any, any] {
	return func(yield func(any, any) bool) {
		for i, key := range d.keys {
			if !yield(key, d.values[i]) {
				return
			}
		}
	}
}

// Get returns the value of a key.
func (d *Dict) Get(key any) (value any, ok bool) {
	canonical, err := canonicalKey(key)
	if err != nil {
		return nil, false
	}
	i := d.find(canonical)
	if i < 0 {
		return nil, false
	}
	return d.values[i], true
}

// find returns the position of a canonical key, −1 if it is not there.
func (d *Dict) find(canonical any) int {
	if d.index != nil {
		if i, ok := d.index[canonical]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(d.keys, func(key any) bool {
		k, err := canonicalKey(key)
		return err == nil && k == canonical
	})
}

// add adds an entry. A key that is there already is an error: no dict writes itself like that, and readers would
// disagree about which value counts.
func (d *Dict) add(key, value any) error {
	canonical, err := canonicalKey(key)
	if err != nil {
		return err
	}
	if d.find(canonical) >= 0 {
		return fmt.Errorf("the dict has the key %s twice", describeKey(key))
	}
	d.keys, d.values = append(d.keys, key), append(d.values, value)
	switch {
	case d.index != nil:
		d.index[canonical] = len(d.keys) - 1
	case len(d.keys) > linearKeys:
		d.index = make(map[any]int, 2*linearKeys)
		for i, k := range d.keys {
			if k, err = canonicalKey(k); err != nil {
				return err
			}
			d.index[k] = i
		}
	}
	return nil
}

// canonicalKey makes keys equal that Python holds equal.
func canonicalKey(key any) (any, error) {
	switch k := key.(type) {
	case string:
		if len(k) > maxKey {
			return nil, fmt.Errorf("a dict has a key of %d bytes, allowed are %d", len(k), maxKey)
		}
		return key, nil
	case nil, int64:
		return key, nil
	case bool:
		if k {
			return int64(1), nil
		}
		return int64(0), nil
	case float64:
		if k != k {
			return nil, errors.New("a dict has the key NaN")
		}
		if k == math.Trunc(k) && math.Abs(k) < 1<<63 {
			return int64(k), nil
		}
		return key, nil
	}
	return nil, fmt.Errorf("a dict has %s as a key; expected a string or a number", describeValue(key))
}

// describeKey names a key of a dict for an error message.
func describeKey(key any) string {
	if s, ok := key.(string); ok {
		return clip(s)
	}
	return fmt.Sprint(key)
}
