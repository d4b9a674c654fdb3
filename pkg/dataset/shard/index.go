package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// An index is a file of 24 bytes per sample behind a head of 64 bytes, in little-endian order:
//
//	0  "BLIP2IDX"              8  version (4)          12 bytes per entry (4)
//	16 size of the tar (8)     24 its modification time in nanoseconds (8)
//	32 number of entries (8)   40 zero                 56 CRC-32C of the entries (4)   60 of the 60 bytes before (4)
const (
	indexMagic   = "BLIP2IDX"
	indexVersion = 1
	headSize     = 64
	entrySize    = 24
	// IndexSuffix is what an index is called behind the name of its tar.
	IndexSuffix = ".index"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entry is a sample of a shard:
//
//	0  start in blocks (5)     5 fault (1)             6 number of texts (1)   7 flags (1)
//	8  picture's data from start in blocks (4)         12 its size (4)
//	16 text's data from start in blocks (4)            20 its size (4)
type entry struct {
	start         int64 // byte of the first header
	bad           fault
	captions      int
	ranked, json  bool
	picture, text part
}

const (
	flagRanked = 1 << iota
	flagJSON
)

// appendTo writes an entry. A sample whose members lie too far apart for the numbers is one that cannot be used.
func (e *entry) appendTo(b []byte) []byte {
	start, picture, text := e.start/block, (e.picture.data-e.start)/block, (e.text.data-e.start)/block
	fits := start < 1<<40 && picture <= math.MaxUint32 && text <= math.MaxUint32
	if e.bad == good && !fits {
		e.bad = tooLarge
	}
	if e.bad != good {
		*e = entry{start: e.start, bad: e.bad, captions: 1}
		picture, text = 0, 0
	}
	flags := byte(0)
	if e.ranked {
		flags |= flagRanked
	}
	if e.json {
		flags |= flagJSON
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(start))
	b = append(b, byte(start>>32), byte(e.bad), byte(e.captions), flags)
	b = binary.LittleEndian.AppendUint32(b, uint32(picture))
	b = binary.LittleEndian.AppendUint32(b, uint32(e.picture.size))
	b = binary.LittleEndian.AppendUint32(b, uint32(text))
	return binary.LittleEndian.AppendUint32(b, uint32(e.text.size))
}

func readEntry(b []byte) entry {
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(b[at:])) }
	e := entry{start: (u32(0) | int64(b[4])<<32) * block, bad: fault(b[5]), captions: int(b[6]),
		ranked: b[7]&flagRanked != 0, json: b[7]&flagJSON != 0}
	e.picture = part{e.start + u32(8)*block, u32(12)}
	e.text = part{e.start + u32(16)*block, u32(20)}
	return e
}

// check says whether an entry can be one of a tar of size bytes.
func (e *entry) check(size int64) bool {
	fits := func(p part, most int64) bool { return p.size <= most && p.data >= block && p.data <= size-p.size }
	if e.bad != good {
		return e.bad < faults && e.start <= size && e.captions == 1
	}
	return e.captions >= 1 && fits(e.picture, maxPicture) && fits(e.text, maxText)
}

// index is the samples of one shard.
type index struct {
	entries  []byte // of entrySize bytes
	tarSize  int64
	modified int64 // nanoseconds
	unmap    func() error
}

func (x *index) len() int { return len(x.entries) / entrySize }

func (x *index) at(i int) entry { return readEntry(x.entries[i*entrySize:]) }

// texts is the number of captions of sample i that are used.
func (x *index) texts(i, topK int) int {
	b := x.entries[i*entrySize:]
	return usedOf(int(b[6]), b[7]&flagRanked != 0, topK)
}

// close frees the index.
func (x *index) close() error {
	if x.unmap == nil {
		return nil
	}
	unmap := x.unmap
	x.unmap, x.entries = nil, nil
	return unmap()
}

// scan makes the index of a tar of size bytes. Pictures are not read.
func scan(ctx context.Context, r io.ReaderAt, size, modified int64) (*index, error) {
	x := &index{tarSize: size, modified: modified}
	samples := newSampleReader(newFileInput(r, size, windowSize), false)
	var s sample
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err := samples.next(&s)
		if err == io.EOF {
			return x, nil
		}
		if err != nil {
			return nil, fmt.Errorf("byte %d: %w", samples.tar.in.at(), err)
		}
		e := entry{start: s.start, bad: s.bad, captions: s.record.texts(), ranked: s.record.ranked,
			picture: s.picture, text: s.json, json: true}
		if s.record.fromText {
			e.text, e.json = s.txt, false
		}
		x.entries = e.appendTo(x.entries)
	}
}

// encode writes an index as a file has it.
func (x *index) encode(w io.Writer) error {
	head := make([]byte, headSize)
	copy(head, indexMagic)
	binary.LittleEndian.PutUint32(head[8:], indexVersion)
	binary.LittleEndian.PutUint32(head[12:], entrySize)
	binary.LittleEndian.PutUint64(head[16:], uint64(x.tarSize))
	binary.LittleEndian.PutUint64(head[24:], uint64(x.modified))
	binary.LittleEndian.PutUint64(head[32:], uint64(x.len()))
	binary.LittleEndian.PutUint32(head[56:], crc32.Checksum(x.entries, castagnoli))
	binary.LittleEndian.PutUint32(head[60:], crc32.Checksum(head[:60], castagnoli))
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(x.entries)
	return err
}

// decode reads the bytes of an index file, which it keeps. Whatever they are, an index that it returns leads nowhere
// outside a tar of its size.
func decode(data []byte) (*index, error) {
	switch {
	case len(data) < headSize || string(data[:8]) != indexMagic:
		return nil, errors.New("it is no index")
	case binary.LittleEndian.Uint32(data[8:]) != indexVersion, binary.LittleEndian.Uint32(data[12:]) != entrySize:
		return nil, errors.New("it is an index of another version")
	case binary.LittleEndian.Uint32(data[60:]) != crc32.Checksum(data[:60], castagnoli):
		return nil, errors.New("its head is damaged")
	}
	x := &index{entries: data[headSize:], tarSize: int64(binary.LittleEndian.Uint64(data[16:])),
		modified: int64(binary.LittleEndian.Uint64(data[24:]))}
	switch n := binary.LittleEndian.Uint64(data[32:]); {
	case x.tarSize < 0 || n != uint64(len(x.entries))/entrySize || len(x.entries)%entrySize != 0:
		return nil, errors.New("it is cut off")
	case binary.LittleEndian.Uint32(data[56:]) != crc32.Checksum(x.entries, castagnoli):
		return nil, errors.New("its entries are damaged")
	}
	for i := range x.len() {
		if e := x.at(i); !e.check(x.tarSize) {
			return nil, fmt.Errorf("entry %d makes no sense", i)
		}
	}
	return x, nil
}
