package weights

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"unicode/utf8"
)

// Names of weight files in a published model folder.
const (
	SingleFile = "model.safetensors"
	IndexFile  = "model.safetensors.index.json"
)

// Set is one model's tensors in one file or in several (shards), read as if they were one file.
type Set struct {
	path  string
	files []*File
	where map[string]*File // tensor name → the file that holds it
}

// OpenDir opens the weights of a model folder: model.safetensors, or where that is missing the shards that
// model.safetensors.index.json lists. Every shard is opened and validated; a tensor that the index places in a shard
// must be there. A shard's tensor that the index does not list is taken too, unless two shards hold it.
// The caller closes the set.
func OpenDir(dir string) (*Set, error) {
	single, index := filepath.Join(dir, SingleFile), filepath.Join(dir, IndexFile)
	if _, err := os.Stat(single); !errors.Is(err, fs.ErrNotExist) {
		return openSingle(single)
	}
	raw, err := readIndex(index)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: has neither %s nor %s", dir, SingleFile, IndexFile)
	}
	if err != nil {
		return nil, err
	}
	listed, err := parseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", index, err)
	}
	return openShards(dir, listed)
}

func openSingle(path string) (*Set, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	s := &Set{path: path, files: []*File{f}, where: make(map[string]*File, len(f.names))}
	for _, name := range f.names {
		s.where[name] = f
	}
	return s, nil
}

// readIndex reads an index file, at most as much as a header may be long.
func readIndex(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxHeader+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxHeader {
		return nil, fmt.Errorf("%s: longer than %d bytes", path, maxHeader)
	}
	return raw, nil
}

// parseIndex returns the weight map of an index: tensor name → file name.
func parseIndex(raw []byte) (map[string]string, error) {
	if !utf8.Valid(raw) || !json.Valid(raw) {
		return nil, errors.New("not JSON")
	}
	var listed map[string]string
	p := newJSONReader(raw)
	err := p.object(func(key string) (err error) {
		if key != "weight_map" {
			return p.skip()
		}
		listed, err = p.stringMap()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("weight_map: %w", err)
	}
	if len(listed) == 0 {
		return nil, errors.New("has no weight_map")
	}
	for tensor, file := range listed {
		// A shard lies beside its index: anything that could point elsewhere is refused.
		if file != filepath.Base(file) || !filepath.IsLocal(file) || file == "." {
			return nil, fmt.Errorf("tensor %s: shard %s is not a plain file name", clip(tensor), clip(file))
		}
	}
	return listed, nil
}

func openShards(dir string, listed map[string]string) (_ *Set, err error) {
	s := &Set{path: dir, where: make(map[string]*File, len(listed))}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	opened := map[string]*File{}
	for _, base := range slices.Compact(slices.Sorted(maps.Values(listed))) {
		f, err := Open(filepath.Join(dir, base))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: shard %s, which %s lists, is missing: download it again", dir, base, IndexFile)
		}
		if err != nil {
			return nil, err
		}
		opened[base] = f
		s.files = append(s.files, f)
	}
	for _, tensor := range slices.Sorted(maps.Keys(listed)) {
		f := opened[listed[tensor]]
		if !f.Has(tensor) {
			return nil, fmt.Errorf("%s: has no tensor %s, which %s places there", f.path, clip(tensor), IndexFile)
		}
		s.where[tensor] = f
	}
	return s, s.addUnlisted(listed)
}

func (s *Set) addUnlisted(listed map[string]string) error {
	for _, f := range s.files {
		for _, name := range f.names {
			if _, ok := listed[name]; ok {
				continue
			}
			if other, twice := s.where[name]; twice {
				return fmt.Errorf("%s: tensor %s is also in %s and %s does not say which counts",
					f.path, clip(name), filepath.Base(other.path), IndexFile)
			}
			s.where[name] = f
		}
	}
	return nil
}

// Path returns the file, or for shards the folder, that the set was opened from.
func (s *Set) Path() string { return s.path }

// Names returns the names of all tensors, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.where)) }

// Has reports whether the set holds a tensor of that name.
func (s *Set) Has(name string) bool {
	_, ok := s.where[name]
	return ok
}

// Tensor returns the tensor of that name; see File.Tensor for what holds of its Data.
func (s *Set) Tensor(name string) (Tensor, error) {
	f, ok := s.where[name]
	if !ok {
		return Tensor{}, fmt.Errorf("%s: has no tensor %s among its %d", s.path, clip(name), len(s.where))
	}
	return f.Tensor(name)
}

// Close closes all files of the set.
func (s *Set) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
