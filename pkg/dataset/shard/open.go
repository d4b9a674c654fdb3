package shard

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"blip2/pkg/dataset"
	"blip2/pkg/storage"
)

// Locate lists the shards that patterns mean: paths or URLs with braces, and with * on disks and in buckets. A folder
// means the .tar, .tar.gz and .tgz files in it; in a URL it ends with a slash.
func Locate(ctx context.Context, store *storage.Store, patterns ...string) ([]string, error) {
	var all []string
	for _, pattern := range patterns {
		names, err := Expand(pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			found, err := matching(ctx, store, name)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
		if len(all) > maxExpanded {
			return nil, fmt.Errorf("shard: %.200s: the patterns mean more than a million shards", pattern)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("shard: no shards are named")
	}
	return all, nil
}

// matching lists the shards that one name without braces means.
func matching(ctx context.Context, store *storage.Store, name string) ([]string, error) {
	rest, query := storage.SplitQuery(name)
	if isFolder(rest) {
		return inFolderOf(ctx, store, strings.TrimSuffix(rest, "/"), query)
	}
	if !storage.HasWildcard(name) {
		return []string{name}, storage.Check(name)
	}
	found, err := store.List(ctx, name)
	return slices.DeleteFunc(found, isBeside), err
}

// beside are the endings of files that lie beside shards, as indexes and what img2dataset writes of its work.
var beside = []string{IndexSuffix, IndexSuffix + ".lock", ".json", ".parquet", ".csv", ".txt"}

func isBeside(name string) bool {
	rest, _ := storage.SplitQuery(name)
	return slices.ContainsFunc(beside, func(end string) bool { return strings.HasSuffix(rest, end) })
}

func isFolder(name string) bool {
	if strings.Contains(name, "://") && !strings.HasPrefix(name, "file://") {
		return strings.HasSuffix(name, "/")
	}
	stat, err := os.Stat(strings.TrimPrefix(name, "file://"))
	return err == nil && stat.IsDir()
}

// inFolderOf lists the shards in a folder.
func inFolderOf(ctx context.Context, store *storage.Store, folder, query string) ([]string, error) {
	var all []string
	var first error
	for _, end := range []string{"*.tar", "*.tar.gz", "*.tgz"} {
		found, err := store.List(ctx, folder+"/"+end+query)
		if err != nil && first == nil {
			first = err
		}
		all = append(all, found...)
	}
	if len(all) == 0 {
		return nil, first
	}
	return all, nil
}

// Open opens shards by patterns (see Locate). They are a Source if each of them can be read anywhere: a local tar, or
// one elsewhere with its index beside it. Otherwise they are a StreamSet, and the Source is nil.
func Open(ctx context.Context, o Options, patterns ...string) (*Indexed, *dataset.StreamSet, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, nil, err
	}
	shards, err := Locate(ctx, o.Store, patterns...)
	if err != nil {
		return nil, nil, err
	}
	if o.Name == "" {
		o.Name = storage.Redact(patterns[0])
	}
	if !o.NoIndex {
		ok, err := indexable(ctx, o.Store, shards)
		if err != nil {
			return nil, nil, err
		}
		if ok {
			x, err := openIndexed(ctx, o, shards)
			return x, nil, err
		}
	}
	set, err := streamSet(o, shards)
	return nil, set, err
}

// indexable says whether all shards have an index or can be given one. Of the shards elsewhere the first is asked.
func indexable(ctx context.Context, store *storage.Store, shards []string) (bool, error) {
	asked := false
	for _, shard := range shards {
		if storage.IsRemote(shard) {
			if asked {
				continue
			}
			asked = true
			o, err := store.Open(ctx, indexOf(shard))
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return false, nil
			}
			if err != nil {
				return false, err
			}
			ranges := o.Info().Ranges
			_ = o.Close()
			if !ranges { // a server that sends whole files only
				return false, nil
			}
			continue
		}
		packed, err := isPacked(strings.TrimPrefix(shard, "file://"))
		if err != nil || packed {
			return false, err
		}
	}
	return true, nil
}

// indexOf is where the index of a shard lies beside it.
func indexOf(shard string) string {
	rest, query := storage.SplitQuery(shard)
	return rest + IndexSuffix + query
}

// gzipMagic is how packed shards begin, whatever they are called.
var gzipMagic = []byte{0x1f, 0x8b}

func isPacked(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, fmt.Errorf("shard: %w", err)
	}
	defer file.Close()
	head := make([]byte, len(gzipMagic))
	n, _ := file.ReadAt(head, 0)
	return bytes.Equal(head[:n], gzipMagic), nil
}

// baseName is a shard's file name, for the keys of its samples.
func baseName(shard string) string {
	return path.Base(strings.ReplaceAll(storage.Redact(shard), `\`, "/"))
}

// forAll calls f for 0 … n-1 from a few goroutines, and gives the first error.
func forAll(ctx context.Context, n, workers int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(workers, n) {
		wg.Go(func() {
			for i := range next {
				if err := f(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	wg.Wait()
	return context.Cause(ctx)
}
