package weights

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Torch is an open PyTorch file, as torch.save writes it: the zip container of PyTorch 1.6 and later, or the one from
// before. Its tensors are those of the state dict in it; everything else that it holds is in Value.
type Torch struct {
	contents  *contents
	container string
	root      any
	stateKey  string
	state     map[string]*TorchTensor
	names     []string // sorted
	order     []string // as in the file
}

// OpenTorch opens a PyTorch file and validates it: every storage lies in the file and every tensor in its storage.
// Nothing in the file is executed, and what is allocated is bounded by the file's size. The state dict is the value of
// the key "model", "state_dict" or "module", the first that is a dict of tensors, else the whole file. The file must
// not be changed or cut while it is open. The caller closes it.
func OpenTorch(path string) (*Torch, error) { return openTorch(path, mapFile) }

// openTorch is OpenTorch with the way of mapping as a parameter.
func openTorch(path string, mapFile mapper) (*Torch, error) {
	c, err := openContents(path, mapFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	t, err := newTorch(c)
	if err != nil {
		_ = c.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// newTorch reads everything but the tensors' data.
func newTorch(c *contents) (_ *Torch, err error) {
	t := &Torch{contents: c}
	head, err := c.bytes(0, min(c.size, sniffed))
	if err != nil {
		return nil, err
	}
	kind, err := kindOf(head)
	switch {
	case err != nil:
		return nil, err
	case kind == kindZip:
		t.container = "PyTorch zip"
		t.root, err = readZip(c)
	case kind == kindPickle:
		t.container = "PyTorch legacy"
		t.root, err = readLegacy(c)
	default:
		err = errors.New("not a PyTorch file: neither a zip archive nor a pickle")
	}
	if err != nil {
		return nil, err
	}
	return t, t.findState()
}

// stateKeys are where training programs put the state dict beside their own state: LAVIS and BLIP, Lightning and many
// others, DeepSpeed.
var stateKeys = []string{"model", "state_dict", "module"}

// findState finds the state dict.
func (t *Torch) findState() error {
	top, ok := t.root.(*Dict)
	if !ok {
		return fmt.Errorf("holds %s, expected a state dict", describeValue(t.root))
	}
	for _, key := range stateKeys {
		value, _ := top.Get(key)
		if d, ok := value.(*Dict); ok && hasTensor(d) {
			t.stateKey = key
			return t.setState(d)
		}
	}
	if !hasTensor(top) {
		return fmt.Errorf("holds no state dict: it has no tensors at the top level or under %q, only the keys %s",
			stateKeys, someKeys(top))
	}
	return t.setState(top)
}

// someKeys lists the first keys of a dict for an error message.
func someKeys(d *Dict) string {
	text := ""
	for i, key := range d.keys {
		if i == 8 {
			return text + ", …"
		}
		if i > 0 {
			text += ", "
		}
		text += describeKey(key)
	}
	return text
}

func hasTensor(d *Dict) bool {
	return slices.ContainsFunc(d.values, func(v any) bool {
		_, ok := v.(*TorchTensor)
		return ok
	})
}

// setState takes the tensors of the state dict; other values in it stay in Value.
func (t *Torch) setState(d *Dict) error {
	t.state = make(map[string]*TorchTensor, d.Len())
	for key, value := range d.All() {
		tensor, ok := value.(*TorchTensor)
		if !ok {
			continue
		}
		name, ok := key.(string)
		if !ok {
			return fmt.Errorf("the state dict has a tensor under %s, expected a name", describeKey(key))
		}
		t.state[name] = tensor
		t.order = append(t.order, name)
	}
	t.names = slices.Sorted(slices.Values(t.order))
	return nil
}

// Path returns the path that the file was opened with.
func (t *Torch) Path() string { return t.contents.path }

// Names returns the names of the state dict's tensors, sorted.
func (t *Torch) Names() []string { return slices.Clone(t.names) }

// Order returns the names of the state dict's tensors in the order of the file.
func (t *Torch) Order() []string { return slices.Clone(t.order) }

// Has reports whether the state dict has a tensor of that name.
func (t *Torch) Has(name string) bool { return t.state[name] != nil }

// Value returns the whole file as a plain value; see Dict for the types.
func (t *Torch) Value() any { return t.root }

// StateKey returns the key under which the state dict was found, "" if it is the whole file.
func (t *Torch) StateKey() string { return t.stateKey }

// Stored returns how a tensor of the state dict is stored.
func (t *Torch) Stored(name string) (tensor *TorchTensor, ok bool) {
	tensor, ok = t.state[name]
	return tensor, ok
}

// Info returns the tensor of that name without its Data.
func (t *Torch) Info(name string) (Tensor, error) {
	stored, ok := t.state[name]
	if !ok {
		return Tensor{}, fmt.Errorf("%s: has no tensor %s among its %d", t.Path(), clip(name), len(t.names))
	}
	return Tensor{Name: name, DType: stored.dtype, Shape: stored.Shape()}, nil
}

// Tensor returns the tensor of that name, row-major. Data of a contiguous tensor alias the mapped file: they are valid
// until Close and read-only (a write faults). Others are gathered into new memory at each call, and where the file is
// not mapped all are read from it.
func (t *Torch) Tensor(name string) (Tensor, error) {
	tensor, err := t.Info(name)
	if err != nil {
		return tensor, err
	}
	if tensor.Data, err = t.state[name].read(); err != nil {
		return Tensor{}, fmt.Errorf("%s: tensor %s: %w", t.Path(), clip(name), err)
	}
	return tensor, nil
}

// Drop gives back the memory of a tensor's pages; see Source.
func (t *Torch) Drop(name string) {
	if stored, ok := t.state[name]; ok {
		t.contents.drop(stored.span())
	}
}

// Container returns "PyTorch zip" or "PyTorch legacy".
func (t *Torch) Container() string { return t.container }

// Files returns the file and its size.
func (t *Torch) Files() []FileSize { return []FileSize{{t.Path(), int64(t.contents.size)}} }

// Close releases the mapping; Data of the file's tensors must not be used any more. A second Close does nothing.
func (t *Torch) Close() error { return t.contents.close() }

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
