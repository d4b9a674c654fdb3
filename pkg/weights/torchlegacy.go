package weights

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
)

// PyTorch's container from before 1.6 is five pickles one after the other — a magic number, the version of the
// container, facts about the machine, the object, the keys of its storages — and then for each key the number of
// elements as an int64 and the elements.

const legacyVersion = 1001

// legacyMagic is the first value of a file.
var legacyMagic, _ = new(big.Int).SetString("1950a86a20f9469cfc6c", 16)

// readLegacy reads a legacy container up to the data of its tensors.
func readLegacy(c *contents) (any, error) {
	in := newPickleReader(c, 0, c.size)
	if err := legacyHead(in); err != nil {
		return nil, err
	}
	stored := storages{byKey: map[string]*storage{}, find: func(id storageID) (*storage, error) {
		size, err := id.bytes(c.size)
		return &storage{contents: c, key: id.key, dtype: id.dtype, size: size}, err
	}}
	root, err := unpickle(in, stored.load)
	if err != nil {
		return nil, err
	}
	keys, err := legacyKeys(in)
	if err != nil {
		return nil, err
	}
	return root, placeStorages(c, in.at, keys, stored.byKey)
}

// legacyHead reads the three pickles in front of the object.
func legacyHead(in *pickleReader) error {
	magic, err := unpickle(in, nil)
	if n, ok := magic.(*big.Int); err != nil || !ok || n.Cmp(legacyMagic) != 0 {
		return errors.New("a pickle, but not of PyTorch: it does not begin with PyTorch's magic number; " +
			"save the weights with torch.save(model.state_dict(), path)")
	}
	version, err := unpickle(in, nil)
	if err != nil {
		return err
	}
	if version != int64(legacyVersion) {
		return fmt.Errorf("its container has %s as its version, expected %d", describeValue(version), legacyVersion)
	}
	machine, err := unpickle(in, nil)
	if err != nil {
		return err
	}
	facts, ok := machine.(*Dict)
	if !ok {
		return fmt.Errorf("has %s where it describes the machine, expected a dict", describeValue(machine))
	}
	if little, _ := facts.Get("little_endian"); little != true {
		return errors.New("does not come from a little-endian machine: " +
			"open the file in PyTorch and save it again on one")
	}
	return nil
}

// legacyKeys reads the order of the storages.
func legacyKeys(in *pickleReader) ([]string, error) {
	value, err := unpickle(in, nil)
	if err != nil {
		return nil, err
	}
	list, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("has %s as the keys of its storages, expected a list", describeValue(value))
	}
	keys := make([]string, len(list))
	for i, v := range list {
		if keys[i], ok = v.(string); !ok {
			return nil, fmt.Errorf("has %s as the key of a storage, expected a string", describeValue(v))
		}
	}
	return keys, nil
}

// placeStorages finds the data of every storage, from byte at of the file on.
func placeStorages(c *contents, at int, keys []string, stored map[string]*storage) error {
	placed := map[string]bool{}
	for _, key := range keys {
		s, ok := stored[key]
		if !ok {
			return fmt.Errorf("storage %s: has data, but no tensor uses it", clip(key))
		}
		if placed[key] {
			return fmt.Errorf("storage %s: has data twice", clip(key))
		}
		placed[key] = true
		const count = 8 // bytes of the number of elements
		if c.size-at < count {
			return fmt.Errorf("storage %s: truncated: begins at byte %d, the file has %d", clip(key), at, c.size)
		}
		raw, err := c.bytes(at, at+count)
		if err != nil {
			return err
		}
		size := max(1, s.dtype.Size())
		if n := binary.LittleEndian.Uint64(raw); n != uint64(s.size/size) {
			return fmt.Errorf("storage %s: has %d elements, its tensors say %d", clip(key), n, s.size/size)
		}
		at += count
		if s.size > c.size-at {
			return fmt.Errorf("storage %s: truncated: needs %d bytes at %d, the file has %d", clip(key), s.size, at, c.size)
		}
		s.begin = at
		at += s.size
	}
	for key := range stored {
		if !placed[key] {
			return fmt.Errorf("storage %s: has no data", clip(key))
		}
	}
	return nil
}
