package weights

import (
	"errors"
	"fmt"
	"math"
)

// storage is a run of elements in the file that tensors are views of.
type storage struct {
	contents *contents
	key      string
	dtype    DType // "" if untyped
	begin    int   // offset in the file
	size     int   // bytes
}

// storageView is a part of a storage, in bytes from its begin. Only files from before PyTorch 0.4 have real parts.
type storageView struct {
	storage     *storage
	begin, size int
}

// storageID is what a file says of a storage where a tensor uses it: ("storage", class, key, device, elements), in
// legacy files with a part of it, (key, offset, elements) or None, behind.
type storageID struct {
	dtype    DType // "" if untyped
	key      string
	elements int
	part     *storagePart
}

// storagePart is a part of a storage, in elements.
type storagePart struct{ offset, elements int }

// parseStorageID reads the id of a storage.
func parseStorageID(id []any) (s storageID, err error) {
	if len(id) < 5 || len(id) > 6 || id[0] != "storage" {
		return s, errors.New("refers to something other than a storage")
	}
	class, isClass := id[1].(global)
	key, isKey := id[2].(string)
	elements, isNumber := wholeNumber(id[4])
	switch {
	case !isClass || class != untyped && storageTypes[class.name] == "":
		return s, fmt.Errorf("refers to a storage of %s, expected a class of storages", describeValue(id[1]))
	case !isKey:
		return s, fmt.Errorf("refers to a storage by %s, expected a string", describeValue(id[2]))
	case !isNumber:
		return s, fmt.Errorf("storage %s: has %s elements, expected a whole number from 0", clip(key), describeValue(id[4]))
	}
	s = storageID{dtype: storageTypes[class.name], key: key, elements: elements}
	if len(id) == 6 && id[5] != nil {
		s.part, err = parseStoragePart(id[5])
	}
	return s, err
}

func parseStoragePart(v any) (*storagePart, error) {
	if q, ok := v.(*sequence); ok && len(q.items) == 3 {
		offset, isOffset := wholeNumber(q.items[1])
		elements, isNumber := wholeNumber(q.items[2])
		if isOffset && isNumber {
			return &storagePart{offset, elements}, nil
		}
	}
	return nil, errors.New("refers to a part of a storage by something other than its key, offset and number of elements")
}

// elementSize is the bytes of one element, 1 for a storage without a type.
func (s storageID) elementSize() int { return max(1, s.dtype.Size()) }

// bytes returns the size of the storage in bytes; available is what the file has at most.
func (s storageID) bytes(available int) (int, error) {
	if size := s.elementSize(); s.elements > available/size {
		return 0, fmt.Errorf("storage %s: truncated: it has %s bytes, the file %d",
			clip(s.key), byteCount(s.elements, size), available)
	}
	return s.elements * s.elementSize(), nil
}

// view returns the part of the storage that the id means.
func (s storageID) view(of *storage) (storageView, error) {
	if s.part == nil {
		return storageView{of, 0, of.size}, nil
	}
	size := s.elementSize()
	elements := of.size / size
	if s.part.offset > elements || s.part.elements > elements-s.part.offset {
		return storageView{}, fmt.Errorf("storage %s: a part of %d elements at %d goes beyond its %d",
			clip(s.key), s.part.elements, s.part.offset, elements)
	}
	return storageView{of, size * s.part.offset, size * s.part.elements}, nil
}

// storages are the storages of a file by key.
type storages struct {
	byKey map[string]*storage
	// find makes the storage of an id that occurs for the first time.
	find func(storageID) (*storage, error)
}

// load turns the id of a storage into a view of it. Every id of one storage must say the same of it.
func (s *storages) load(id []any) (any, error) {
	parsed, err := parseStorageID(id)
	if err != nil {
		return nil, err
	}
	known, ok := s.byKey[parsed.key]
	if !ok {
		if known, err = s.find(parsed); err != nil {
			return nil, err
		}
		s.byKey[parsed.key] = known
	}
	size, err := parsed.bytes(math.MaxInt)
	if err != nil {
		return nil, err
	}
	if known.dtype != parsed.dtype || known.size != size {
		return nil, fmt.Errorf("storage %s: has %d bytes of %q, and elsewhere %d of %q",
			clip(parsed.key), size, parsed.dtype, known.size, known.dtype)
	}
	return parsed.view(known)
}
