package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"blip2/pkg/dataset"
)

// journal is a file with a head of 48 bytes, "BLIP2CHK", the number of pictures and a hash of the data set's keys, and
// 12 bytes for every picture: hash of its file, number of texts. Zeros stand for pictures that were not found good yet.
// A record is written in one go after its picture was looked at, so that a killed check leaves only true ones.
type journal struct {
	file *os.File // nil for no journal
	old  []byte   // the records that an earlier check has left
}

const (
	journalMagic  = "BLIP2CHK"
	journalHead   = 48
	journalRecord = 12
)

// openJournal opens the journal of a source, or makes it.
func openJournal(path string, src dataset.Source) (*journal, error) {
	if path == "" {
		return &journal{}, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	j := &journal{file: file}
	if err := j.read(src); err != nil {
		return nil, errors.Join(fmt.Errorf("journal %s: %w", path, err), file.Close())
	}
	return j, nil
}

// read takes the records of the same data set, and makes the journal anew if it is of another.
func (j *journal) read(src dataset.Source) error {
	head, size := identity(src), journalHead+journalRecord*src.Len()
	data, err := io.ReadAll(io.LimitReader(j.file, int64(size)+1))
	if err != nil {
		return err
	}
	if len(data) == size && bytes.Equal(data[:journalHead], head) {
		j.old = data[journalHead:]
		return nil
	}
	if err := j.file.Truncate(0); err != nil {
		return err
	}
	if err := j.file.Truncate(int64(size)); err != nil {
		return err
	}
	_, err = j.file.WriteAt(head, 0)
	return err
}

// identity is the head of a source's journal: it depends on the number of pictures and on some of their keys.
func identity(src dataset.Source) []byte {
	const sampled = 64
	sum := sha256.New()
	n := src.Len()
	for k := range min(n, sampled) {
		i := k * n / sampled
		if n < sampled {
			i = k
		}
		if e, err := src.Example(i); err == nil {
			fmt.Fprintf(sum, "%d %q %q\n", i, e.Key, e.Captions)
		}
	}
	head := binary.LittleEndian.AppendUint64([]byte(journalMagic), uint64(n))
	return sum.Sum(head)
}

// at returns what is known of picture i.
func (j *journal) at(i int) (hash uint64, texts int, good bool) {
	if j.old == nil {
		return 0, 0, false
	}
	record := j.old[i*journalRecord:][:journalRecord]
	hash = binary.LittleEndian.Uint64(record)
	return hash, int(binary.LittleEndian.Uint32(record[8:])), hash != 0
}

// good records a good picture.
func (j *journal) good(i int, hash uint64, texts int) error {
	if j.file == nil {
		return nil
	}
	record := binary.LittleEndian.AppendUint64(nil, hash)
	record = binary.LittleEndian.AppendUint32(record, uint32(texts))
	if _, err := j.file.WriteAt(record, int64(journalHead+i*journalRecord)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

func (j *journal) close() error {
	if j.file == nil {
		return nil
	}
	return errors.Join(j.file.Sync(), j.file.Close())
}
