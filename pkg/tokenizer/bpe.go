package tokenizer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// bytePairs is byte-level BPE as GPT-2, OPT and CLIP use it: a word starts as its bytes, and the pair of neighbours
// that comes first in the list of merges is joined until no pair is in it.
type bytePairs struct {
	vocabulary
	first  [256]int32 // id of every byte inside a word, or noValue
	last   [256]int32 // and at the end of one, where CLIP's pieces carry "</w>"
	merges pairTable
	whole  map[string]int32 // words of one piece, in bytes: most words of a text
	unk    int32            // for bytes without an id; noValue: they are left out
	fuse   bool             // several unk in a row are one
	suffix string           // of pieces at the end of a word
	room   sync.Pool        // of *mergeRoom
}

// merge is the place of a merge in the list and the id of its result.
type merge struct{ rank, id int32 }

// bpeConfig is what a BPE model is made of.
type bpeConfig struct {
	vocab        map[string]int32
	merges       [][2]string
	unk          string // "" if there is none
	suffix       string
	fuseUnk      bool
	ignoreMerges bool // a word that is in the vocabulary is not looked at further
}

// maxID bounds the ids that a vocabulary may use: the table of pieces is as long as the largest.
const maxID = 1 << 22

// newVocabulary inverts a map of ids.
func newVocabulary(ids map[string]int32) (vocabulary, error) {
	if len(ids) == 0 {
		return vocabulary{}, errors.New("the vocabulary is empty")
	}
	largest := int32(0)
	for piece, id := range ids {
		if id < 0 || id >= maxID {
			return vocabulary{}, fmt.Errorf("the piece %q has id %d; ids are from 0 to %d", piece, id, maxID-1)
		}
		largest = max(largest, id)
	}
	v := vocabulary{pieces: make([]string, largest+1), ids: ids}
	for piece, id := range ids {
		if other := v.pieces[id]; other != "" {
			return vocabulary{}, fmt.Errorf("the pieces %q and %q have the same id %d", min(piece, other),
				max(piece, other), id)
		}
		v.pieces[id] = piece
	}
	return v, nil
}

func newBytePairs(c bpeConfig) (*bytePairs, error) {
	v, err := newVocabulary(c.vocab)
	if err != nil {
		return nil, err
	}
	b := &bytePairs{vocabulary: v, unk: noValue, fuse: c.fuseUnk, suffix: c.suffix,
		merges: newPairTable(len(c.merges)), whole: make(map[string]int32, len(c.vocab))}
	if c.unk != "" {
		id, ok := v.ids[c.unk]
		if !ok {
			return nil, fmt.Errorf("the unknown token %q is not in the vocabulary", c.unk)
		}
		b.unk = id
	}
	for i := range 256 {
		b.first[i], b.last[i] = b.byteID(byte(i), ""), b.byteID(byte(i), c.suffix)
	}
	for rank, pair := range c.merges {
		if err := b.addMerge(int32(rank), pair); err != nil {
			return nil, err
		}
	}
	b.room.New = func() any { return new(mergeRoom) }
	b.findWhole(c.ignoreMerges)
	return b, nil
}

func (b *bytePairs) byteID(c byte, suffix string) int32 {
	if id, ok := b.ids[string(byteRunes[c])+suffix]; ok {
		return id
	}
	return noValue
}

func (b *bytePairs) addMerge(rank int32, pair [2]string) error {
	left, okLeft := b.ids[pair[0]]
	right, okRight := b.ids[pair[1]]
	id, ok := b.ids[pair[0]+pair[1]]
	switch {
	case !okLeft:
		return fmt.Errorf("merge %d joins %q and %q, but the vocabulary has no %q", rank+1, pair[0], pair[1], pair[0])
	case !okRight:
		return fmt.Errorf("merge %d joins %q and %q, but the vocabulary has no %q", rank+1, pair[0], pair[1], pair[1])
	case !ok:
		return fmt.Errorf("merge %d joins %q and %q, but the vocabulary has no %q", rank+1, pair[0], pair[1],
			pair[0]+pair[1])
	}
	b.merges.put(left, right, merge{rank, id})
	return nil
}

// pairTable is a hash table of merges by the two ids, with linear probing: looking a pair up takes most of the time of
// a long word.
type pairTable struct {
	slots []pairSlot // a power of two of them, at most half full
	shift int        // of the hash, so that it is the number of a slot
}

type pairSlot struct {
	left, right int32 // left is noValue in an empty slot
	merge       merge
}

func newPairTable(size int) pairTable {
	bits := 4
	for 1<<bits < 2*size {
		bits++
	}
	t := pairTable{slots: make([]pairSlot, 1<<bits), shift: 64 - bits}
	for i := range t.slots {
		t.slots[i].left = noValue
	}
	return t
}

// slot finds the slot of a pair, or the empty one where it belongs.
func (t *pairTable) slot(left, right int32) *pairSlot {
	const golden = 0x9E3779B97F4A7C15 // 2^64 over the golden ratio
	at := (uint64(left)<<32 | uint64(uint32(right))) * golden >> t.shift
	for {
		s := &t.slots[at]
		if s.left == left && s.right == right || s.left == noValue {
			return s
		}
		at = (at + 1) & uint64(len(t.slots)-1)
	}
}

// put adds a pair; of equal ones the last counts.
func (t *pairTable) put(left, right int32, m merge) {
	*t.slot(left, right) = pairSlot{left, right, m}
}

func (t *pairTable) get(left, right int32) (merge, bool) {
	s := t.slot(left, right)
	return s.merge, s.left != noValue
}

// findWhole lists the words that are one piece, so that they need no merging later. Being in the vocabulary is not
// enough for that: the merges must lead there.
func (b *bytePairs) findWhole(all bool) {
	var ids []int32
	for piece, id := range b.ids {
		stem := piece
		if !all {
			var ok bool
			if stem, ok = strings.CutSuffix(piece, b.suffix); !ok {
				continue
			}
		}
		word, ok := bytesOfPiece(stem)
		if !ok || word == "" || len(word) > maxWholeWord && !all {
			continue
		}
		if !all {
			if ids = b.merge(ids[:0], word); len(ids) != 1 || ids[0] != id {
				continue
			}
		}
		b.whole[word] = id
	}
}

// maxWholeWord bounds the length of the words that findWhole tries: GPT-2's longest piece has 128 bytes.
const maxWholeWord = 256

func (b *bytePairs) append(ids []int32, word string, _ bool) []int32 {
	if id, ok := b.whole[word]; ok {
		return append(ids, id)
	}
	return b.merge(ids, word)
}

// mergeRoom is the working memory of one word.
type mergeRoom struct {
	symbols []symbol
	queue   []candidate
}

// symbol is a piece of the word in a doubly linked list.
type symbol struct {
	id         int32
	prev, next int32 // -1 at the ends
	gone       bool  // merged into the one before
}

// candidate is a pair that may be merged: the place of its left symbol and what it becomes.
type candidate struct{ rank, at, id int32 }

func (c candidate) before(d candidate) bool {
	return c.rank < d.rank || c.rank == d.rank && c.at < d.at
}

// merge appends the ids of a word. It takes the pairs from a heap, first the one that is earliest in the list, of equal
// ones the leftmost; the time is n log n for n bytes.
func (b *bytePairs) merge(ids []int32, word string) []int32 {
	room := b.room.Get().(*mergeRoom)
	room.start(b, word)
	for len(room.queue) > 0 {
		room.join(b, room.pop())
	}
	for _, s := range room.symbols {
		if !s.gone {
			ids = append(ids, s.id)
		}
	}
	if cap(room.symbols) <= keepRoom {
		b.room.Put(room)
	}
	return ids
}

// keepRoom is the length of a word up to which its working memory is kept for the next one.
const keepRoom = 1 << 12

// start fills the list with the word's bytes and the queue with their pairs.
func (r *mergeRoom) start(b *bytePairs, word string) {
	r.symbols, r.queue = slices.Grow(r.symbols[:0], len(word)), slices.Grow(r.queue[:0], len(word))
	unknown := false // the symbol before is unk
	for i := 0; i < len(word); i++ {
		id := b.first[word[i]]
		if i == len(word)-1 {
			id = b.last[word[i]]
		}
		if id != noValue {
			r.push(id)
			unknown = false
			continue
		}
		if b.unk != noValue && !(unknown && b.fuse) {
			r.push(b.unk)
			unknown = true
		}
	}
	for i := range len(r.symbols) - 1 {
		if m, ok := b.merges.get(r.symbols[i].id, r.symbols[i+1].id); ok {
			r.queue = append(r.queue, candidate{m.rank, int32(i), m.id})
		}
	}
	for i := len(r.queue)/2 - 1; i >= 0; i-- {
		r.sink(i, r.queue[i])
	}
}

func (r *mergeRoom) push(id int32) {
	n := int32(len(r.symbols))
	if n > 0 {
		r.symbols[n-1].next = n
	}
	r.symbols = append(r.symbols, symbol{id: id, prev: n - 1, next: -1})
}

// consider queues the pair of two neighbours if it is in the list.
func (r *mergeRoom) consider(b *bytePairs, left, right int32) {
	if m, ok := b.merges.get(r.symbols[left].id, r.symbols[right].id); ok {
		r.enqueue(candidate{m.rank, left, m.id})
	}
}

// join merges a pair unless it no longer exists. As in the reference, a pair counts as the same if it gives the same
// piece.
func (r *mergeRoom) join(b *bytePairs, c candidate) {
	left := &r.symbols[c.at]
	if left.gone || left.next < 0 {
		return
	}
	right := &r.symbols[left.next]
	if m, ok := b.merges.get(left.id, right.id); !ok || m.id != c.id {
		return
	}
	left.id, left.next, right.gone = c.id, right.next, true
	if left.next >= 0 {
		r.symbols[left.next].prev = c.at
	}
	if left.prev >= 0 {
		r.consider(b, left.prev, c.at)
	}
	if left.next >= 0 {
		r.consider(b, c.at, left.next)
	}
}

// enqueue, pop and sink keep the queue a binary heap.
func (r *mergeRoom) enqueue(c candidate) {
	q := append(r.queue, c)
	i := len(q) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !c.before(q[up]) {
			break
		}
		q[i] = q[up]
		i = up
	}
	q[i] = c
	r.queue = q
}

func (r *mergeRoom) pop() candidate {
	top, last := r.queue[0], len(r.queue)-1
	c := r.queue[last]
	r.queue = r.queue[:last]
	if last > 0 {
		r.sink(0, c)
	}
	return top
}

// sink puts a candidate into place i or, if smaller ones are below, further down.
func (r *mergeRoom) sink(i int, c candidate) {
	q := r.queue
	for {
		down := 2*i + 1
		if down >= len(q) {
			break
		}
		if down+1 < len(q) && q[down+1].before(q[down]) {
			down++
		}
		if !q[down].before(c) {
			break
		}
		q[i] = q[down]
		i = down
	}
	q[i] = c
}

// byteRunes are the characters that stand for bytes in the files of byte-level BPE: printable Latin-1 characters stand
// for themselves, the others for U+0100 and so on in ascending order. Read only.
var byteRunes = func() (table [256]rune) {
	next := rune(0x100)
	for c := range table {
		if '!' <= c && c <= '~' || 0xA1 <= c && c <= 0xAC || 0xAE <= c {
			table[c] = rune(c)
			continue
		}
		table[c] = next
		next++
	}
	return table
}()

// runeBytes is the inverse of byteRunes, -1 for characters that stand for nothing. Read only.
var runeBytes = func() (table [0x144]int16) {
	for r := range table {
		table[r] = -1
	}
	for c, r := range byteRunes {
		table[r] = int16(c)
	}
	return table
}()

// bytesOfPiece gives the bytes that a piece stands for, if all its characters stand for bytes.
func bytesOfPiece(piece string) (string, bool) {
	out := make([]byte, 0, len(piece))
	out, ok := appendPieceBytes(out, piece)
	return string(out), ok
}

func appendPieceBytes(dst []byte, piece string) ([]byte, bool) {
	start := len(dst)
	for len(piece) > 0 {
		r, n := utf8.DecodeRuneInString(piece)
		if int(r) >= len(runeBytes) || runeBytes[r] < 0 {
			return dst[:start], false
		}
		dst = append(dst, byte(runeBytes[r]))
		piece = piece[n:]
	}
	return dst, true
}
