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
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Names of weight files in a published model folder.
const (
	SingleFile     = "model.safetensors"
	IndexFile      = "model.safetensors.index.json"
	TorchFile      = "pytorch_model.bin"
	TorchIndexFile = "pytorch_model.bin.index.json"
)

// Set is one model's tensors in one file or in several (shards), read as if they were one file.
type Set struct {
	path   string
	files  []Source
	where  map[string]Source // tensor name → the file that holds it
	absent map[string]string // tensor name → the shard in which the index places it and which does not hold it
}

// folderFiles are what a folder's weights are found by, in order of preference.
var folderFiles = []struct {
	name  string
	index bool
}{{SingleFile, false}, {IndexFile, true}, {TorchFile, false}, {TorchIndexFile, true}}

// OpenDir opens the weights of a model folder: the first that exists of model.safetensors, the shards that
// model.safetensors.index.json lists, pytorch_model.bin, and the shards that pytorch_model.bin.index.json lists.
// Every shard is opened and validated. A tensor that the index places in a shard which does not hold it is Absent; a
// shard's tensor that the index does not list is taken too, unless two shards hold it. The caller closes the set.
func OpenDir(dir string) (*Set, error) {
	var missing []string
	for _, f := range folderFiles {
		path := filepath.Join(dir, f.name)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, f.name)
			continue
		}
		if !f.index {
			return openSingle(path)
		}
		s, err := openIndex(path)
		if err != nil {
			return nil, err
		}
		s.path = dir
		return s, nil
	}
	return nil, fmt.Errorf("%s: has neither %s%s", dir, strings.Join(missing, " nor "), elsewhere(dir))
}

// elsewhere says where the weights may be that a folder does not have under the known names.
func elsewhere(dir string) string {
	if found, _ := os.ReadDir(filepath.Join(dir, "snapshots")); len(found) > 0 {
		return "; it is a folder of Hugging Face's cache: name " + filepath.Join(dir, "snapshots", found[0].Name())
	}
	entries, _ := os.ReadDir(dir) // of one that cannot be read there is no more to say
	var found []string
	for _, e := range entries {
		switch filepath.Ext(e.Name()) {
		case ".safetensors", ".pth", ".pt", ".bin":
			found = append(found, e.Name())
		}
	}
	switch {
	case len(found) == 0:
		return ""
	case slices.ContainsFunc(found, func(name string) bool { _, all := ShardOf(name); return all > 1 }):
		return "; the index of its shards is missing: download it again"
	}
	const few = 3
	names := strings.Join(found[:min(few, len(found))], ", ")
	if len(found) > few {
		names += fmt.Sprintf(" and %d more", len(found)-few)
	}
	return "; name a file in it: " + names
}

var shardName = regexp.MustCompile(`-([0-9]{5})-of-([0-9]{5})\.(?:safetensors|bin)$`)

// ShardOf reads the names that libraries give to a model's files, such as model-00001-of-00002.safetensors: which file
// it is, and of how many. For any other name both are 0.
func ShardOf(path string) (number, all int) {
	if m := shardName.FindStringSubmatch(path); m != nil {
		number, _ = strconv.Atoi(m[1]) // five digits each
		all, _ = strconv.Atoi(m[2])
	}
	return number, all
}

func openSingle(path string) (*Set, error) {
	f, err := openOne(path)
	if err != nil {
		return nil, err
	}
	s := &Set{path: path, files: []Source{f}, where: map[string]Source{}}
	for _, name := range f.Names() {
		s.where[name] = f
	}
	return s, nil
}

// openIndex opens the shards that an index lists, which lie beside it.
func openIndex(path string) (*Set, error) {
	raw, err := readIndex(path)
	if err != nil {
		return nil, err
	}
	listed, err := parseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return openShards(path, listed)
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
		return nil, errors.New("has no weight_map, so it is not an index of shards")
	}
	for tensor, file := range listed {
		// A shard lies beside its index: anything that could point elsewhere is refused.
		if file != filepath.Base(file) || !filepath.IsLocal(file) || file == "." {
			return nil, fmt.Errorf("tensor %s: shard %s is not a plain file name", clip(tensor), clip(file))
		}
	}
	return listed, nil
}

// openShards opens the shards beside the index at path. An index listed as a shard is refused as any JSON file is, so
// there is no going in circles.
func openShards(path string, listed map[string]string) (_ *Set, err error) {
	s := &Set{path: path, absent: map[string]string{}, where: make(map[string]Source, len(listed))}
	defer func() {
		if err != nil {
			_ = s.Close()
		}
	}()
	dir, index := filepath.Split(path)
	opened := map[string]Source{}
	for _, base := range slices.Compact(slices.Sorted(maps.Values(listed))) {
		f, err := openOne(filepath.Join(dir, base))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: shard %s, which %s lists, is missing: download it again",
				filepath.Clean(dir), clip(base), index)
		}
		if err != nil {
			return nil, err
		}
		opened[base] = f
		s.files = append(s.files, f)
	}
	for _, tensor := range slices.Sorted(maps.Keys(listed)) {
		f := opened[listed[tensor]]
		if f.Has(tensor) {
			s.where[tensor] = f
		} else {
			s.absent[tensor] = f.Path()
		}
	}
	return s, s.addUnlisted(index, listed)
}

func (s *Set) addUnlisted(index string, listed map[string]string) error {
	for _, f := range s.files {
		for _, name := range f.Names() {
			if _, ok := listed[name]; ok {
				continue
			}
			if other, twice := s.where[name]; twice {
				return fmt.Errorf("%s: tensor %s is also in %s and %s does not say which counts",
					f.Path(), clip(name), filepath.Base(other.Path()), index)
			}
			s.where[name] = f
		}
	}
	return nil
}

// Path returns what the set was opened from: the file, or for shards their folder or index.
func (s *Set) Path() string { return s.path }

// Names returns the names of all tensors, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.where)) }

// Absent returns the tensors that the index places in shards which do not hold them, with the shard's path. Published
// folders list the second name of a tensor that two modules share, of which only the first is stored; any other is a
// damaged or incomplete download. Only who knows the network can tell.
func (s *Set) Absent() map[string]string { return maps.Clone(s.absent) }

// Metadata returns the free-form strings of the first file, empty if it has none.
func (s *Set) Metadata() map[string]string {
	for _, f := range s.files {
		if m, ok := f.(interface{ Metadata() map[string]string }); ok {
			return m.Metadata()
		}
	}
	return map[string]string{}
}

// Has reports whether the set holds a tensor of that name.
func (s *Set) Has(name string) bool {
	_, ok := s.where[name]
	return ok
}

// Info returns the tensor of that name without its Data.
func (s *Set) Info(name string) (Tensor, error) {
	f, err := s.holder(name)
	if err != nil {
		return Tensor{}, err
	}
	return f.Info(name)
}

// Tensor returns the tensor of that name; see Source for what holds of its Data.
func (s *Set) Tensor(name string) (Tensor, error) {
	f, err := s.holder(name)
	if err != nil {
		return Tensor{}, err
	}
	return f.Tensor(name)
}

// holder returns the file that holds a tensor.
func (s *Set) holder(name string) (Source, error) {
	f, ok := s.where[name]
	if !ok {
		return nil, fmt.Errorf("%s: has no tensor %s among its %d", s.path, clip(name), len(s.where))
	}
	return f, nil
}

// Drop gives back the memory of a tensor's pages; see Source.
func (s *Set) Drop(name string) {
	if f, ok := s.where[name]; ok {
		f.Drop(name)
	}
}

// Container returns the kinds of files and, if there are several, how many: "safetensors, 3 shards".
func (s *Set) Container() string {
	var kinds []string
	for _, f := range s.files {
		if kind := f.Container(); !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	text := strings.Join(kinds, " and ")
	if len(s.files) > 1 {
		text += fmt.Sprintf(", %d shards", len(s.files))
	}
	return text
}

// Files returns the files of weights and their sizes.
func (s *Set) Files() []FileSize {
	var files []FileSize
	for _, f := range s.files {
		files = append(files, f.Files()...)
	}
	return files
}

// Close closes all files of the set.
func (s *Set) Close() error {
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
