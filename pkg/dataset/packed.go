package dataset

import (
	"hash/maphash"
	"strconv"
)

// packed is a list of numbers below 2^(8·width) that takes width bytes for each and never moves what it holds.
type packed struct {
	width  int
	n      int
	chunks [][]byte
}

const packedChunk = 1 << 16 // numbers per chunk

func (p *packed) append(v uint64) {
	if p.n%packedChunk == 0 {
		p.chunks = append(p.chunks, make([]byte, 0, min(packedChunk, max(64, p.n))*p.width))
	}
	last := &p.chunks[len(p.chunks)-1]
	for i := range p.width {
		*last = append(*last, byte(v>>(8*i)))
	}
	p.n++
}

func (p *packed) at(i int) uint64 {
	chunk := p.chunks[i/packedChunk]
	b := chunk[i%packedChunk*p.width:][:p.width]
	v := uint64(0)
	for k := range b {
		v |= uint64(b[k]) << (8 * k)
	}
	return v
}

func (p *packed) set(i int, v uint64) {
	b := p.chunks[i/packedChunk][i%packedChunk*p.width:][:p.width]
	for k := range b {
		b[k] = byte(v >> (8 * k))
	}
}

// zeros is a list of n zeros.
func zeros(width, n int) packed {
	p := packed{width: width, n: n}
	for left := n; left > 0; left -= packedChunk {
		p.chunks = append(p.chunks, make([]byte, min(left, packedChunk)*width))
	}
	return p
}

// keyTable numbers keys in the order of their first use. Whole numbers are kept as they are; of other keys only a hash
// is kept, and same looks whether a key of the same hash is the one with that number.
type keyTable struct {
	seed    maphash.Seed
	salt    uint64 // keeps files from being made so that their numbers fall together
	numbers hashTable
	hashes  hashTable
	same    func(number int, key []byte) (bool, error)
}

func newKeyTable(same func(number int, key []byte) (bool, error)) *keyTable {
	seed := maphash.MakeSeed()
	return &keyTable{seed: seed, salt: maphash.String(seed, "numbers"), same: same}
}

// find is the number of a key.
func (t *keyTable) find(key []byte) (number int, known bool, err error) {
	table, slot, known, err := t.look(key)
	if !known {
		return 0, false, err
	}
	return int(table.values[slot] - 1), true, err
}

// add gives a new key a number.
func (t *keyTable) add(key []byte, number int) {
	if v, ok := wholeNumber(key); ok {
		t.numbers.add(mix(uint64(v)^t.salt), uint32(number)+1)
		return
	}
	t.hashes.add(maphash.Bytes(t.seed, key), uint32(number)+1)
}

func (t *keyTable) look(key []byte) (table *hashTable, slot int, known bool, err error) {
	if v, ok := wholeNumber(key); ok {
		slot, known = t.numbers.find(mix(uint64(v)^t.salt), 0, true)
		return &t.numbers, slot, known, nil
	}
	hash := maphash.Bytes(t.seed, key)
	for slot, known = t.hashes.find(hash, 0, true); known; slot, known = t.hashes.find(hash, slot, false) {
		same, err := t.same(int(t.hashes.values[slot]-1), key)
		if same || err != nil {
			return &t.hashes, slot, same, err
		}
	}
	return &t.hashes, 0, false, nil
}

// wholeNumber reads a number that is written the one way it can be.
func wholeNumber(key []byte) (int64, bool) {
	if len(key) == 0 || len(key) > 19 || len(key) > 1 && key[0] == '0' || key[0] == '+' || key[0] == '-' {
		return 0, false
	}
	v, err := strconv.ParseInt(string(key), 10, 64)
	return v, err == nil
}

// hashTable maps 64-bit keys to numbers above 0, with linear probing.
type hashTable struct {
	keys   []uint64
	values []uint32
	n      int
}

// find is the first slot with a key, or the next one behind slot.
func (t *hashTable) find(key uint64, slot int, first bool) (int, bool) {
	if len(t.keys) == 0 {
		return 0, false
	}
	mask := len(t.keys) - 1
	if slot = (slot + 1) & mask; first {
		slot = int(key) & mask
	}
	for t.values[slot] != 0 {
		if t.keys[slot] == key {
			return slot, true
		}
		slot = (slot + 1) & mask
	}
	return slot, false
}

func (t *hashTable) add(key uint64, value uint32) {
	if 4*(t.n+1) > 3*len(t.keys) {
		old := *t
		size := max(64, 2*len(t.keys))
		t.keys, t.values, t.n = make([]uint64, size), make([]uint32, size), 0
		for i, v := range old.values {
			if v != 0 {
				t.add(old.keys[i], v)
			}
		}
	}
	mask := len(t.keys) - 1
	slot := int(key) & mask
	for t.values[slot] != 0 {
		slot = (slot + 1) & mask
	}
	t.keys[slot], t.values[slot] = key, value
	t.n++
}
