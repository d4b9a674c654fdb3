package weights

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
)

// File is an open safetensors file. Its methods may be called from several goroutines, but not during or after Close.
type File struct {
	path     string
	header   *header
	names    []string // sorted
	contents []byte   // the mapped file; nil where the file is read piecewise instead
	file     *os.File // only if contents is nil
}

// Open opens a safetensors file and validates it completely: lengths, JSON, names, dtypes, shapes, and offsets that
// cover the data exactly. Nothing is allocated in proportion to what the file merely claims. Errors name the file and
// the tensor. The file must not be changed or cut while it is open. The caller closes it.
func Open(path string) (*File, error) { return open(path, mapFile) }

// errNoMap is what a mapper returns if this file or system cannot be mapped.
var errNoMap = errors.New("memory mapping is not available")

// open is Open with the way of mapping as a parameter; mapper returns errNoMap if the file has to be read instead.
func open(path string, mapper func(*os.File, int) ([]byte, error)) (*File, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err // names the path already
	}
	f, err := openFile(path, file, mapper)
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.contents != nil { // the mapping stays without the descriptor
		_ = file.Close()
		f.file = nil
	}
	return f, nil
}

func openFile(path string, file *os.File, mapper func(*os.File, int) ([]byte, error)) (*File, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	size := info.Size()
	prefix := make([]byte, min(size, lengthField))
	if _, err := file.ReadAt(prefix, 0); err != nil {
		return nil, err
	}
	n, err := headerLength(prefix, size)
	if err != nil {
		return nil, err
	}
	raw := make([]byte, n)
	if _, err := file.ReadAt(raw, lengthField); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	f := &File{path: path, file: file}
	if f.header, err = parseHeader(raw, size); err != nil {
		return nil, err
	}
	f.names = slices.Sorted(maps.Keys(f.header.entries))
	f.contents, err = mapper(file, int(size))
	if err != nil && !errors.Is(err, errNoMap) {
		return nil, err
	}
	return f, nil
}

// Path returns the path that the file was opened with.
func (f *File) Path() string { return f.path }

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

// Tensor returns the tensor of that name. Its Data alias the mapped file: they are valid until Close and read-only (a
// write faults). Where the file is not mapped, Data are read from it at each call.
func (f *File) Tensor(name string) (Tensor, error) {
	e, ok := f.header.entries[name]
	if !ok {
		return Tensor{}, fmt.Errorf("%s: has no tensor %s among its %d", f.path, clip(name), len(f.names))
	}
	t := Tensor{Name: name, DType: e.dtype, Shape: slices.Clone(e.shape)}
	begin, end := f.header.data+e.begin, f.header.data+e.end
	if f.contents != nil {
		t.Data = f.contents[begin:end:end]
		return t, nil
	}
	if f.file == nil {
		return Tensor{}, fmt.Errorf("%s: tensor %s: the file is closed", f.path, clip(name))
	}
	t.Data = make([]byte, end-begin)
	if _, err := io.ReadFull(io.NewSectionReader(f.file, int64(begin), int64(end-begin)), t.Data); err != nil {
		return Tensor{}, fmt.Errorf("%s: tensor %s: reading %d bytes at %d: %w", f.path, clip(name), end-begin, begin, err)
	}
	return t, nil
}

// Close releases the mapping; Data of the file's tensors must not be used any more. A second Close does nothing.
func (f *File) Close() error {
	var err error
	if f.contents != nil {
		err = unmapFile(f.contents)
		f.contents = nil
	}
	if f.file != nil {
		err = errors.Join(err, f.file.Close())
		f.file = nil
	}
	if err != nil {
		return fmt.Errorf("closing %s: %w", f.path, err)
	}
	return nil
}
