package shard

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"blip2/pkg/internal/atomicfile"
)

// Indexer makes and finds the indexes of local shards.
type Indexer struct {
	// CacheDir is the folder for indexes of shards whose own folder cannot be written to; "" means one in the user's
	// cache folder.
	CacheDir string
	Log      *slog.Logger // nil means silence
	// Rebuild makes every index anew, whether it is good or not.
	Rebuild bool

	write func(path string, fill func(io.Writer) error) error // nil means atomicfile.Write
}

func (in *Indexer) log() *slog.Logger {
	if in.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return in.Log
}

// IndexInfo tells of the index of a shard.
type IndexInfo struct {
	Shard   string
	Index   string // path of the file; "" if it is only in memory
	Samples int
	Bad     int // samples that cannot be used
	Built   bool
}

// Index makes sure that a local tar has an index that fits it, and describes it.
func (in *Indexer) Index(ctx context.Context, tar string) (IndexInfo, error) {
	x, info, err := in.load(ctx, tar)
	if err != nil {
		return IndexInfo{}, err
	}
	info.Samples = x.len()
	for i := range x.len() {
		if fault(x.entries[i*entrySize+5]) != good {
			info.Bad++
		}
	}
	return info, x.close()
}

// places are the paths that the index of a tar may have, the best first.
func (in *Indexer) places(tar string) []string {
	places := []string{tar + IndexSuffix}
	dir := in.CacheDir
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return places
		}
		dir = filepath.Join(cache, "blip2", "index")
	}
	if abs, err := filepath.Abs(tar); err == nil {
		sum := sha256.Sum256([]byte(abs))
		places = append(places, filepath.Join(dir, fmt.Sprintf("%x%s", sum[:16], IndexSuffix)))
	}
	return places
}

// load finds the index of a tar, or makes it.
func (in *Indexer) load(ctx context.Context, tar string) (*index, IndexInfo, error) {
	info := IndexInfo{Shard: tar}
	file, err := os.Open(tar)
	if err != nil {
		return nil, info, fmt.Errorf("shard: %w", err)
	}
	defer file.Close()
	stat, err := file.Stat()
	switch {
	case err != nil:
		return nil, info, fmt.Errorf("shard: %w", err)
	case !stat.Mode().IsRegular():
		return nil, info, fmt.Errorf("shard: %s is not a regular file", tar)
	}
	if packed, err := isPacked(tar); err != nil || packed {
		if err == nil {
			err = fmt.Errorf("shard: %s is packed with gzip, and can only be read in order: unpack it to index it, or pack it "+
				"anew with blip2 data shard", tar)
		}
		return nil, info, err
	}
	places := in.places(tar)
	if x := in.find(places, stat, &info); x != nil && !in.Rebuild {
		return x, info, nil
	}
	unlock := in.lock(ctx, places)
	defer unlock()
	if x := in.find(places, stat, &info); x != nil && !in.Rebuild { // another process was faster
		return x, info, nil
	}
	start := time.Now()
	x, err := scan(ctx, file, stat.Size(), stat.ModTime().UnixNano())
	if err != nil {
		return nil, info, fmt.Errorf("shard: %s: indexing: %w", tar, err)
	}
	if after, err := os.Stat(tar); err != nil || after.Size() != stat.Size() || !after.ModTime().Equal(stat.ModTime()) {
		return nil, info, fmt.Errorf("shard: %s was changed while it was being indexed; wait until it is complete", tar)
	}
	in.log().Info("indexed", "shard", tar, "samples", x.len(), "bytes", stat.Size(), "seconds",
		time.Since(start).Seconds())
	info.Built = true
	return in.keep(places, x, &info), info, nil
}

// find gives the first good index among the places.
func (in *Indexer) find(places []string, tar fs.FileInfo, info *IndexInfo) *index {
	for _, place := range places {
		x, err := openIndex(place)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			in.log().Warn("an index is made anew", "index", place, "reason", err)
			continue
		}
		if x.tarSize == tar.Size() && x.modified == tar.ModTime().UnixNano() {
			info.Index = place
			return x
		}
		_ = x.close()
		in.log().Info("an index is made anew", "index", place, "reason", "the shard was changed")
	}
	return nil
}

// openIndex maps an index into memory, or reads it.
func openIndex(path string) (*index, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() || stat.Size() < headSize || int64(int(stat.Size())) != stat.Size() {
		return nil, errors.New("it is no index")
	}
	data, err := mapFile(file, int(stat.Size()))
	if err != nil {
		if data, err = os.ReadFile(path); err != nil {
			return nil, err
		}
		return decode(data)
	}
	x, err := decode(data)
	if err != nil {
		return nil, errors.Join(err, unmapFile(data))
	}
	x.unmap = func() error { return unmapFile(data) }
	return x, nil
}

// keep writes an index to the first place that takes it, and gives the index as it lies there.
func (in *Indexer) keep(places []string, x *index, info *IndexInfo) *index {
	write := in.write
	if write == nil {
		write = atomicfile.Write
	}
	var first error
	for i, place := range places {
		if i > 0 {
			_ = os.MkdirAll(filepath.Dir(place), 0o777)
		}
		err := write(place, x.encode)
		if err == nil {
			info.Index = place
			if mapped, err := openIndex(place); err == nil {
				return mapped
			}
			return x
		}
		if first == nil {
			first = err
		}
		if !atomicfile.NotWritable(err) && !atomicfile.NoRoom(err) && !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	in.log().Warn("an index could not be kept and is made again next time", "error", first)
	return x
}

// lock keeps other processes from making the same index at the same time. It only saves work: the file is written
// atomically anyway, so that without a lock two processes make it twice.
func (in *Indexer) lock(ctx context.Context, places []string) (unlock func()) {
	for i, place := range places {
		if i > 0 {
			_ = os.MkdirAll(filepath.Dir(place), 0o777)
		}
		path := place + ".lock"
		l := flock.New(path)
		if ok, err := l.TryLockContext(ctx, 50*time.Millisecond); err == nil && ok {
			return func() {
				_ = os.Remove(path)
				_ = l.Close()
			}
		}
	}
	return func() {}
}
