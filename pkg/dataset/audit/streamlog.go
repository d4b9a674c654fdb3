package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"slices"
)

// streamLog is the journal of a stream: a head of 40 bytes, "BLIP2CHS" and a hash of the data set's fingerprint, and
// blocks of samples in the order of the stream, each with the state of the stream behind them. A block is its length
// (4 bytes), its CRC-32C (4 bytes) and
//
//	length of the state, the state, and for every sample: hash of its file (8 bytes), number of texts,
//	length of its key, the key, number of problems, and for every problem its kind, length of its reason, the reason
//
// where numbers and lengths are varints. What stands behind the last whole block is lost in a crash, and looked at
// again.
type streamLog struct {
	file      *os.File
	temporary bool
	end       int64  // of the last whole block
	state     []byte // of the stream there; nil at the beginning
	samples   []byte // not written yet
	n         int    // of samples
	next      []byte // the state behind them
}

const (
	streamMagic = "BLIP2CHS"
	streamHead  = len(streamMagic) + sha256.Size
	// blockSamples is after how many samples a block is written.
	blockSamples = 256
	// maxBlock bounds a block that is read, in bytes.
	maxBlock = 64 << 20
)

// kinds are the kinds of problem by their number in a log.
var kinds = []string{Unreadable, Truncated, NoText}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openStreamLog opens the journal of the data set with a fingerprint, or makes it, and tells known what it holds. An
// empty path makes one that is removed by close.
func openStreamLog(path, fingerprint string, known func(finding)) (*streamLog, error) {
	l := &streamLog{temporary: path == ""}
	var err error
	if l.temporary {
		l.file, err = os.CreateTemp("", "blip2-check-*")
	} else {
		l.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	if err := l.read(fingerprint, known); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", l.file.Name(), err), l.close())
	}
	return l, nil
}

// read takes what a check of the same data set has left, and makes the log anew if it is of another.
func (l *streamLog) read(fingerprint string, known func(finding)) error {
	sum := sha256.Sum256([]byte(fingerprint))
	want := append([]byte(streamMagic), sum[:]...)
	head := make([]byte, streamHead)
	if _, err := l.file.ReadAt(head, 0); err != nil && err != io.EOF {
		return err
	}
	if !bytes.Equal(head, want) {
		if err := l.file.Truncate(0); err != nil {
			return err
		}
		if _, err := l.file.WriteAt(want, 0); err != nil {
			return err
		}
	}
	err := l.blocks(func(state []byte, found []finding) {
		l.state = state
		for _, f := range found {
			known(f)
		}
	})
	if err != nil {
		return err
	}
	return l.file.Truncate(l.end) // what is broken goes
}

// blocks reads the whole blocks of the file, and finds where they end.
func (l *streamLog) blocks(visit func(state []byte, found []finding)) error {
	l.end = int64(streamHead)
	in := bufio.NewReaderSize(io.NewSectionReader(l.file, l.end, 1<<62), 1<<20)
	for {
		var head [8]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return notEnd(err)
		}
		n := int64(binary.LittleEndian.Uint32(head[:]))
		if n > maxBlock {
			return nil
		}
		var block bytes.Buffer // grows with what really comes
		if _, err := io.CopyN(&block, in, n); err != nil {
			return notEnd(err)
		}
		if crc32.Checksum(block.Bytes(), castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
			return nil
		}
		state, found, ok := parseBlock(block.Bytes())
		if !ok {
			return nil
		}
		visit(state, found)
		l.end += int64(len(head)) + n
	}
}

// notEnd is err unless it says that a file ends.
func notEnd(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return err
}

// add takes the next sample, and writes a block where there are enough.
func (l *streamLog) add(f finding, state []byte) error {
	b := binary.LittleEndian.AppendUint64(l.samples, f.hash)
	b = binary.AppendUvarint(b, uint64(f.texts))
	b = appendText(b, f.key)
	b = binary.AppendUvarint(b, uint64(len(f.problems)))
	for _, p := range f.problems {
		b = append(b, byte(slices.Index(kinds, p.Kind)))
		b = appendText(b, p.Reason)
	}
	l.samples, l.next = b, state
	if l.n++; l.n < blockSamples && len(b) < maxBlock/64 {
		return nil
	}
	return l.flush()
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// flush writes the samples that are not written yet.
func (l *streamLog) flush() error {
	if l.n == 0 {
		return nil
	}
	block := appendText(make([]byte, 8), string(l.next))
	block = append(binary.AppendUvarint(block, uint64(l.n)), l.samples...)
	binary.LittleEndian.PutUint32(block, uint32(len(block)-8))
	binary.LittleEndian.PutUint32(block[4:], crc32.Checksum(block[8:], castagnoli))
	if _, err := l.file.WriteAt(block, l.end); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	l.end += int64(len(block))
	l.samples, l.n = l.samples[:0], 0
	return nil
}

// keys fills in the keys of samples, by their number in the stream.
func (l *streamLog) keys(of map[int]string) error {
	if err := l.flush(); err != nil {
		return err
	}
	i := 0
	err := l.blocks(func(_ []byte, found []finding) {
		for _, f := range found {
			if _, wanted := of[i]; wanted {
				of[i] = f.key
			}
			i++
		}
	})
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// close keeps what was added, or removes a temporary log.
func (l *streamLog) close() error {
	if l.temporary {
		return errors.Join(l.file.Close(), os.Remove(l.file.Name()))
	}
	return errors.Join(l.flush(), l.file.Sync(), l.file.Close())
}

// parseBlock reads a block; ok is false for what is none.
func parseBlock(b []byte) (state []byte, found []finding, ok bool) {
	r := &blockReader{data: b}
	state = []byte(r.text())
	n := r.number()
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	for range n {
		f := finding{hash: r.fixed(), texts: int(r.number()), key: r.text()}
		for k := r.number(); k > 0 && !r.broken; k-- {
			kind := r.byte()
			reason := r.text()
			if int(kind) >= len(kinds) {
				return nil, nil, false
			}
			f.problems = append(f.problems, Problem{f.key, kinds[kind], reason})
		}
		if r.broken {
			return nil, nil, false
		}
		found = append(found, f)
	}
	return state, found, !r.broken && len(r.data) == 0
}

// blockReader takes a block apart.
type blockReader struct {
	data   []byte
	broken bool
}

func (r *blockReader) take(n uint64) []byte {
	if n > uint64(len(r.data)) {
		r.broken = true
		return make([]byte, 8)[:min(n, 8)]
	}
	out := r.data[:n]
	r.data = r.data[n:]
	return out
}

func (r *blockReader) number() uint64 {
	v, n := binary.Uvarint(r.data)
	if n <= 0 {
		r.broken = true
		return 0
	}
	r.data = r.data[n:]
	return v
}

func (r *blockReader) text() string  { return string(r.take(r.number())) }
func (r *blockReader) fixed() uint64 { return binary.LittleEndian.Uint64(r.take(8)) }
func (r *blockReader) byte() byte    { return r.take(1)[0] }
