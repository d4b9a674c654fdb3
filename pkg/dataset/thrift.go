package dataset

import (
	"encoding/binary"
	"errors"
)

// thrift walks through a structure in Thrift's compact protocol, in which Parquet's metadata is written, to find out
// whether it can be what it claims to be before anything is made room for.
type thrift struct {
	data  []byte
	at    int
	items int // of lists, so far
}

const (
	maxThriftDepth = 32
	maxThriftItems = 4 << 20 // of all lists together
)

var (
	errThriftCut  = errors.New("a structure is cut off")
	errThriftDeep = errors.New("structures are nested too deep")
	errThriftLong = errors.New("a list is longer than the structure that it is in")
	errThriftKind = errors.New("a field is of no known kind")
)

// structure reads a structure. visit, if not nil, is given the whole numbers in it: their field, and within a structure
// in a field that one and the inner one.
func (t *thrift) structure(depth int, visit func(path [2]int, v int64)) error {
	return t.fields(depth, 0, visit)
}

func (t *thrift) fields(depth, outer int, visit func(path [2]int, v int64)) error {
	if depth > maxThriftDepth {
		return errThriftDeep
	}
	for id := 0; ; {
		head, err := t.byte()
		if err != nil || head == 0 {
			return err
		}
		if delta := int(head >> 4); delta > 0 {
			id += delta
		} else {
			v, err := t.varint()
			if err != nil {
				return err
			}
			id = int(v)
		}
		see := func(v int64) {}
		if visit != nil && depth < 2 {
			see = func(v int64) {
				if depth == 0 {
					visit([2]int{id, 0}, v)
				} else {
					visit([2]int{outer, id}, v)
				}
			}
		}
		inner := visit
		if depth > 0 {
			inner = nil
		}
		if kind := head & 15; kind == 1 || kind == 2 {
			see(2 - int64(kind)) // true or false, without more
		} else if err := t.value(kind, depth, id, see, inner); err != nil {
			return err
		}
	}
}

// value reads what is of a kind.
func (t *thrift) value(kind byte, depth, id int, see func(int64), visit func([2]int, int64)) error {
	switch kind {
	case 1, 2, 3: // a byte; in lists also true and false
		v, err := t.byte()
		see(int64(int8(v)))
		return err
	case 4, 5, 6:
		v, err := t.varint()
		see(v)
		return err
	case 7:
		return t.skip(8)
	case 8:
		n, err := t.uvarint()
		if err != nil {
			return err
		}
		return t.skip(n)
	case 9, 10:
		return t.list(depth)
	case 11:
		return t.mapping(depth)
	case 12:
		return t.fields(depth+1, id, visit)
	}
	return errThriftKind
}

func (t *thrift) list(depth int) error {
	head, err := t.byte()
	if err != nil {
		return err
	}
	n := uint64(head >> 4)
	if n == 15 {
		if n, err = t.uvarint(); err != nil {
			return err
		}
	}
	return t.elements(n, depth, head&15)
}

func (t *thrift) mapping(depth int) error {
	n, err := t.uvarint()
	if err != nil || n == 0 {
		return err
	}
	kinds, err := t.byte()
	if err != nil {
		return err
	}
	return t.elements(n, depth, kinds>>4, kinds&15)
}

// elements reads n times what is of the kinds.
func (t *thrift) elements(n uint64, depth int, kinds ...byte) error {
	if n > uint64(len(t.data)-t.at) || t.items+int(n) > maxThriftItems {
		return errThriftLong
	}
	t.items += int(n)
	if depth++; depth > maxThriftDepth {
		return errThriftDeep
	}
	for range n {
		for _, kind := range kinds {
			if err := t.value(kind, depth, 0, func(int64) {}, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *thrift) byte() (byte, error) {
	if t.at >= len(t.data) {
		return 0, errThriftCut
	}
	t.at++
	return t.data[t.at-1], nil
}

func (t *thrift) uvarint() (uint64, error) {
	v, n := binary.Uvarint(t.data[t.at:])
	if n <= 0 {
		return 0, errThriftCut
	}
	t.at += n
	return v, nil
}

// varint is a whole number in zigzag form.
func (t *thrift) varint() (int64, error) {
	v, n := binary.Varint(t.data[t.at:])
	if n <= 0 {
		return 0, errThriftCut
	}
	t.at += n
	return v, nil
}

func (t *thrift) skip(n uint64) error {
	if n > uint64(len(t.data)-t.at) {
		return errThriftCut
	}
	t.at += int(n)
	return nil
}
