package weights

import (
	"errors"
	"fmt"
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
