package weights

import (
	"fmt"
	"maps"
	"slices"
)

// File is an open safetensors file. Its methods may be called from several goroutines, but not during or after Close.
type File struct {
	contents *contents
	header   *header
	names    []string // sorted
}

// Open opens a safetensors file and validates it completely: lengths, JSON, names, dtypes, shapes, and offsets that
// cover the data exactly. Nothing is allocated in proportion to what the file merely claims. Errors name the file and
// the tensor. The file must not be changed or cut while it is open. The caller closes it.
func Open(path string) (*File, error) { return open(path, mapFile) }

// open is Open with the way of mapping as a parameter.
func open(path string, mapFile mapper) (*File, error) {
	c, err := openContents(path, mapFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f, err := newFile(c)
	if err != nil {
		_ = c.close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// newFile reads and validates the header.
func newFile(c *contents) (*File, error) {
	prefix, err := c.bytes(0, min(c.size, lengthField))
	if err != nil {
		return nil, err
	}
	n, err := headerLength(prefix, c.size)
	if err != nil {
		return nil, err
	}
	raw, err := c.bytes(lengthField, lengthField+n)
	if err != nil {
		return nil, fmt.Errorf("the header: %w", err)
	}
	f := &File{contents: c}
	if f.header, err = parseHeader(raw, c.size); err != nil {
		return nil, err
	}
	f.names = slices.Sorted(maps.Keys(f.header.entries))
	return f, nil
}

// Path returns the path that the file was opened with.
func (f *File) Path() string { return f.contents.path }

// Names returns the names of all tensors, sorted.
func (f *File) Names() []string { return slices.Clone(f.names) }

// Metadata returns the file's free-form strings, empty if it has none.
func (f *File) Metadata() map[string]string {
	m := make(map[string]string, len(f.header.metadata))
	maps.Copy(m, f.header.metadata)
	return m
}

// Has reports whether the file holds a tensor of that name.
func (f *File) Has(name string) bool {
	_, ok := f.header.entries[name]
	return ok
}

// Info returns the tensor of that name without its Data.
func (f *File) Info(name string) (Tensor, error) {
	e, ok := f.header.entries[name]
	if !ok {
		return Tensor{}, fmt.Errorf("%s: has no tensor %s among its %d", f.Path(), clip(name), len(f.names))
	}
	return Tensor{Name: name, DType: e.dtype, Shape: slices.Clone(e.shape)}, nil
}

// Tensor returns the tensor of that name. Its Data alias the mapped file: they are valid until Close and read-only (a
// write faults). Where the file is not mapped, Data are read from it at each call.
func (f *File) Tensor(name string) (Tensor, error) {
	t, err := f.Info(name)
	if err != nil {
		return t, err
	}
	e := f.header.entries[name]
	if t.Data, err = f.contents.bytes(f.header.data+e.begin, f.header.data+e.end); err != nil {
		return Tensor{}, fmt.Errorf("%s: tensor %s: %w", f.Path(), clip(name), err)
	}
	return t, nil
}

// Drop gives back the memory of a tensor's pages; see Source.
func (f *File) Drop(name string) {
	if e, ok := f.header.entries[name]; ok {
		f.contents.drop(f.header.data+e.begin, f.header.data+e.end)
	}
}

// Container returns "safetensors".
func (f *File) Container() string { return "safetensors" }

// Files returns the file and its size.
func (f *File) Files() []FileSize { return []FileSize{{f.Path(), int64(f.contents.size)}} }

// Close releases the mapping; Data of the file's tensors must not be used any more. A second Close does nothing.
func (f *File) Close() error { return f.contents.close() }
