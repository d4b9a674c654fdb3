package meteor

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"unsafe"
)

// index is METEOR's data as a memory-mapped file. Look-ups cannot fail: a number that leads outside a table, which the
// checksum excludes, finds nothing.
type index struct {
	unmap    func() error
	function map[string]bool
	prefixes prefixes

	words                            []byte
	wordAt, wordSlots                []uint32
	synsets, synsetAt, bases, baseAt []uint32
	parents, labels, nodeSlots       []uint32
	targets, targetAt                []uint32
}

// errStale says that an index was made of other files, or by another version of this program.
var errStale = errors.New("the index is stale")

// openIndex maps an index and verifies it. want identifies the files it must have been made of.
func openIndex(path string, want [2]source) (*index, error) {
	data, unmap, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	x := &index{unmap: unmap}
	if err := x.parse(data, want); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), unmap())
	}
	return x, nil
}

// parse checks the header and finds the sections.
func (x *index) parse(data []byte, want [2]source) error {
	body := len(indexMagic) + 4
	if len(data) < body || string(data[:len(indexMagic)]) != indexMagic {
		return fmt.Errorf("%w: it has no header", errStale)
	}
	size := int(binary.LittleEndian.Uint32(data[len(indexMagic):]))
	if size > len(data)-body {
		return fmt.Errorf("%w: it is cut off", errStale)
	}
	var h header
	if err := json.Unmarshal(bytes.TrimSpace(data[body:body+size]), &h); err != nil {
		return fmt.Errorf("%w: %v", errStale, err)
	}
	if h.Format != indexFormat || !h.Sources[0].is(want[0]) || !h.Sources[1].is(want[1]) {
		return errStale
	}
	data = data[body+size:]
	if crc32.Checksum(data, castagnoli) != h.Checksum {
		return fmt.Errorf("%w: it is damaged", errStale)
	}
	var section [sections][]byte
	for i := range section {
		if h.Offsets[i] < 0 || h.Lengths[i] < 0 || h.Offsets[i]&7 != 0 || h.Offsets[i] > int64(len(data))-h.Lengths[i] {
			return fmt.Errorf("%w: section %d is outside the file", errStale, i)
		}
		section[i] = data[h.Offsets[i]:][:h.Lengths[i]]
	}
	x.take(section)
	return nil
}

// take sets the tables.
func (x *index) take(section [sections][]byte) {
	x.function = map[string]bool{}
	for w := range strings.FieldsSeq(string(section[sectionFunction])) {
		x.function[w] = true
	}
	x.prefixes = parsePrefixes(section[sectionPrefixes])
	x.words = section[sectionWords]
	for i, table := range map[int]*[]uint32{
		sectionWordAt: &x.wordAt, sectionWordSlots: &x.wordSlots, sectionSynsets: &x.synsets,
		sectionSynsetAt: &x.synsetAt, sectionBases: &x.bases, sectionBaseAt: &x.baseAt, sectionParents: &x.parents,
		sectionLabels: &x.labels, sectionNodeSlots: &x.nodeSlots, sectionTargets: &x.targets,
		sectionTargetAt: &x.targetAt,
	} {
		*table = asUint32(section[i])
	}
}

// asUint32 reads little-endian numbers in place where the machine can, else from a copy.
func asUint32(b []byte) []uint32 {
	n := len(b) / 4
	if n == 0 {
		return nil
	}
	one := uint16(1)
	if *(*byte)(unsafe.Pointer(&one)) == 1 && uintptr(unsafe.Pointer(&b[0]))&3 == 0 {
		return unsafe.Slice((*uint32)(unsafe.Pointer(&b[0])), n)
	}
	out := make([]uint32, n)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return out
}

// close gives the file back.
func (x *index) close() error { return x.unmap() }

// list returns the values of number i in a flattened list.
func list(values, at []uint32, i uint32) []uint32 {
	if int64(i)+1 >= int64(len(at)) {
		return nil
	}
	from, to := at[i], at[i+1]
	if from > to || int64(to) > int64(len(values)) {
		return nil
	}
	return values[from:to]
}

// word returns the number of a word.
func (x *index) word(s string) (number uint32, ok bool) {
	if len(x.wordSlots) == 0 {
		return 0, false
	}
	mask := uint32(len(x.wordSlots) - 1)
	for i, tries := hashWord(s)&mask, uint32(0); tries <= mask; i, tries = (i+1)&mask, tries+1 {
		slot := x.wordSlots[i&uint32(len(x.wordSlots)-1)]
		if slot == 0 {
			return 0, false
		}
		if n := slot - 1; int(n)+1 < len(x.wordAt) {
			from, to := x.wordAt[n], x.wordAt[n+1]
			if from <= to && int(to) <= len(x.words) && string(x.words[from:to]) == s {
				return n, true
			}
		}
	}
	return 0, false
}

// child returns the node under parent with the label word, 0 if there is none.
func (x *index) child(parent, word uint32) uint32 {
	if len(x.nodeSlots) == 0 {
		return 0
	}
	mask := uint32(len(x.nodeSlots) - 1)
	for i, tries := hashNode(parent, word)&mask, uint32(0); tries <= mask; i, tries = (i+1)&mask, tries+1 {
		n := x.nodeSlots[i]
		if n == 0 || int(n) >= len(x.parents) || int(n) >= len(x.labels) {
			return 0
		}
		if x.parents[n] == parent && x.labels[n] == word {
			return n
		}
	}
	return 0
}

// paraphrases returns the nodes of the paraphrases of a phrase, in the table's order.
func (x *index) paraphrases(node uint32) []uint32 { return list(x.targets, x.targetAt, node) }

// endings are WordNet's rules for regular forms, in the order in which they are tried.
var endings = [][2]string{
	{"s", ""}, {"ses", "s"}, {"xes", "x"}, {"zes", "z"}, {"ches", "ch"}, {"shes", "sh"}, {"men", "man"}, {"ies", "y"},
	{"es", "e"}, {"es", ""}, {"ed", "e"}, {"ed", ""}, {"ing", "e"}, {"ing", ""},
	{"er", ""}, {"est", ""}, {"er", "e"}, {"est", "e"},
}

// senses returns the synsets of a word and of the words it is a form of, rising: those it is an irregular form of, or
// else the first one with synsets that a rule leads to.
func (x *index) senses(word string) []uint32 {
	n, known := x.word(word)
	var all []uint32
	if known {
		all = append(all, list(x.synsets, x.synsetAt, n)...)
	}
	if irregular := list(x.bases, x.baseAt, n); known && len(irregular) > 0 {
		for _, base := range irregular {
			all = append(all, list(x.synsets, x.synsetAt, base)...)
		}
	} else {
		all = append(all, x.regular(word)...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// regular returns the synsets of the word that a word is a regular form of.
func (x *index) regular(word string) []uint32 {
	if len(word) <= 2 || strings.HasSuffix(word, "ss") {
		return nil
	}
	for _, rule := range endings {
		base, ok := strings.CutSuffix(word, rule[0])
		if !ok {
			continue
		}
		if n, ok := x.word(base + rule[1]); ok {
			if s := list(x.synsets, x.synsetAt, n); len(s) > 0 {
				return s
			}
		}
	}
	return nil
}
