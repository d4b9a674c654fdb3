package weights

import (
	"archive/zip"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// PyTorch's zip container holds PREFIX/data.pkl, the pickle of everything but the data, and the storages as
// PREFIX/data/KEY, uncompressed. The prefix is the name that the file once had.

const (
	zipPickle    = "/data.pkl"
	zipStorages  = "/data/"
	zipByteOrder = "/byteorder"
	zipScript    = "/constants.pkl"
)

// span is a part of the file.
type span struct{ begin, end int }

// readZip reads a zip container up to the data of its tensors.
func readZip(c *contents) (any, error) {
	archive, err := zip.NewReader(c, int64(c.size))
	if err != nil {
		return nil, fmt.Errorf("a zip archive that is cut off or damaged, its directory at the end cannot be read (%w): "+
			"download it again", err)
	}
	prefix, err := zipPrefix(archive)
	if err != nil {
		return nil, err
	}
	entries, err := zipEntries(c, archive, prefix)
	if err != nil {
		return nil, err
	}
	if err := checkByteOrder(c, entries, prefix); err != nil {
		return nil, err
	}
	stored := storages{byKey: map[string]*storage{}, find: func(id storageID) (*storage, error) {
		return zipStorage(c, entries, prefix, id)
	}}
	pickle := entries[prefix+zipPickle]
	in := newPickleReader(c, pickle.begin, pickle.end)
	root, err := unpickle(in, stored.load)
	if err == nil && in.at != in.end {
		err = fmt.Errorf("%d bytes follow the end of the pickle", in.end-in.at)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", clip(prefix+zipPickle), err)
	}
	return root, nil
}

// zipPrefix returns the folder in the archive that holds data.pkl.
func zipPrefix(archive *zip.Reader) (string, error) {
	var prefixes []string
	for _, f := range archive.File {
		if prefix, ok := strings.CutSuffix(f.Name, zipPickle); ok && prefix != "" && !strings.Contains(prefix, "/") {
			prefixes = append(prefixes, prefix)
		}
	}
	switch {
	case len(prefixes) == 0 && len(archive.File) == 0:
		return "", errors.New("an empty zip archive")
	case len(prefixes) == 0:
		return "", fmt.Errorf("a zip archive, but not of PyTorch: it has no data.pkl, but %s; "+
			"if it holds a model, unpack it", clip(archive.File[0].Name))
	case len(prefixes) > 1:
		return "", fmt.Errorf("the zip archive has data.pkl in %s and in %s, expected one",
			clip(prefixes[0]), clip(prefixes[1]))
	}
	return prefixes[0], nil
}

// zipEntries returns where the entries below the prefix lie. All must be plain and apart from each other.
func zipEntries(c *contents, archive *zip.Reader, prefix string) (map[string]span, error) {
	entries := map[string]span{}
	var order []string
	for _, f := range archive.File {
		if !strings.HasPrefix(f.Name, prefix+"/") || strings.HasSuffix(f.Name, "/") {
			continue
		}
		if f.Name == prefix+zipScript {
			return nil, errTorchScript
		}
		if _, twice := entries[f.Name]; twice {
			return nil, fmt.Errorf("the zip archive has the entry %s twice", clip(f.Name))
		}
		at, err := zipSpan(c, f)
		if err != nil {
			return nil, fmt.Errorf("zip entry %s: %w", clip(f.Name), err)
		}
		entries[f.Name] = at
		order = append(order, f.Name)
	}
	slices.SortFunc(order, func(a, b string) int { return cmp.Compare(entries[a].begin, entries[b].begin) })
	for i := 1; i < len(order); i++ {
		if a, b := order[i-1], order[i]; entries[b].begin < entries[a].end {
			return nil, fmt.Errorf("the zip entries %s and %s overlap", clip(a), clip(b))
		}
	}
	return entries, nil
}

// zipSpan returns where an entry's bytes lie in the file.
func zipSpan(c *contents, f *zip.File) (span, error) {
	const encrypted = 1
	switch {
	case f.Flags&encrypted != 0:
		return span{}, errors.New("is encrypted")
	case f.Method != zip.Store:
		return span{}, errors.New("is compressed, PyTorch stores entries as they are: " +
			"open the file in PyTorch and save it again with torch.save")
	case f.CompressedSize64 != f.UncompressedSize64:
		return span{}, fmt.Errorf("has %d bytes stored for %d", f.CompressedSize64, f.UncompressedSize64)
	}
	begin, err := f.DataOffset()
	if err != nil {
		return span{}, fmt.Errorf("its header cannot be read: %w", err)
	}
	if begin < 0 || begin > int64(c.size) || f.UncompressedSize64 > uint64(int64(c.size)-begin) {
		return span{}, fmt.Errorf("truncated: needs %d bytes at %d, the file has %d", f.UncompressedSize64, begin, c.size)
	}
	return span{int(begin), int(begin) + int(f.UncompressedSize64)}, nil
}

// checkByteOrder refuses files of big-endian machines. Older files do not say; they are little-endian.
func checkByteOrder(c *contents, entries map[string]span, prefix string) error {
	at, ok := entries[prefix+zipByteOrder]
	if !ok {
		return nil
	}
	const little = "little"
	order, err := c.bytes(at.begin, min(at.end, at.begin+len(little)+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(order, []byte(little)) {
		return fmt.Errorf("its byte order is %s, expected %q: "+
			"open the file in PyTorch and save it again on a little-endian machine", clip(string(order)), little)
	}
	return nil
}

// zipStorage finds the entry of a storage.
func zipStorage(c *contents, entries map[string]span, prefix string, id storageID) (*storage, error) {
	at, ok := entries[prefix+zipStorages+id.key]
	if !ok {
		return nil, fmt.Errorf("storage %s: the archive has no entry %s", clip(id.key), clip(prefix+zipStorages+id.key))
	}
	size, err := id.bytes(math.MaxInt)
	if err != nil {
		return nil, err
	}
	if size != at.end-at.begin {
		return nil, fmt.Errorf("storage %s: needs %d bytes, its entry has %d", clip(id.key), size, at.end-at.begin)
	}
	return &storage{contents: c, key: id.key, dtype: id.dtype, begin: at.begin, size: size}, nil
}
