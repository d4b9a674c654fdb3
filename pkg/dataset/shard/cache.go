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
	"slices"
	"strings"
	"sync"
	"time"

	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/storage"
)

// cache keeps copies of shards from elsewhere in a folder, which several processes may share.
type cache struct {
	dir   string
	limit int64
	log   *slog.Logger
	write func(path string, fill func(io.Writer) error) error

	mu   sync.Mutex
	full bool // nothing more is kept; said once
}

func newCache(o *Options) *cache {
	if o.Cache == "" {
		return nil
	}
	return &cache{dir: o.Cache, limit: o.CacheBytes, log: o.Log, write: atomicfile.Write}
}

// cacheSuffix marks the files that belong to a cache; no others are deleted.
const cacheSuffix = ".shard"

// local gives the copy of a shard, making it if there is none; the shard itself if that is not possible. It takes over
// o.
func (c *cache) local(ctx context.Context, store *storage.Store, o *storage.Object) (*storage.Object, error) {
	info := o.Info()
	if info.Version == "" || info.Size < 0 || info.Size > c.limit {
		return o, nil // nobody could tell whether a copy is still good, or it would not fit
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d", o.Name(), info.Version, info.Size))
	path := filepath.Join(c.dir, fmt.Sprintf("%x%s", sum[:16], cacheSuffix))
	if stat, err := os.Stat(path); err != nil || stat.Size() != info.Size {
		if c.isFull() {
			return o, nil
		}
		if err := c.fetch(ctx, o, path); err != nil {
			var fault *storage.Error
			if errors.As(err, &fault) || ctx.Err() != nil {
				return nil, errors.Join(err, o.Close())
			}
			c.giveUp(err)
			return o, nil
		}
	} else {
		now := time.Now()
		_ = os.Chtimes(path, now, now) // the age decides only what goes first
	}
	kept, err := store.Open(ctx, path)
	if errors.Is(err, fs.ErrNotExist) { // another process has just made room
		return o, nil
	}
	return kept, errors.Join(err, o.Close())
}

// fetch copies a shard into the cache.
func (c *cache) fetch(ctx context.Context, o *storage.Object, path string) error {
	if err := os.MkdirAll(c.dir, 0o777); err != nil {
		return err
	}
	if err := c.makeRoom(o.Info().Size); err != nil {
		return err
	}
	return c.write(path, func(w io.Writer) error {
		r := o.Range(ctx, 0, -1)
		defer r.Close()
		_, err := io.Copy(w, r)
		return err
	})
}

// makeRoom deletes the copies that were not used for longest until size bytes more are within the limit.
func (c *cache) makeRoom(size int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var copies []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), cacheSuffix) && info.Mode().IsRegular() {
			copies = append(copies, info)
			size += info.Size()
		}
	}
	slices.SortFunc(copies, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, old := range copies {
		if size <= c.limit {
			break
		}
		if err := os.Remove(filepath.Join(c.dir, old.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		size -= old.Size()
	}
	return nil
}

func (c *cache) isFull() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full
}

// giveUp goes on without keeping anything, and says so once.
func (c *cache) giveUp(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.full {
		c.log.Warn("shards are no longer kept in the cache", "folder", c.dir, "error", err)
	}
	c.full = true
}
