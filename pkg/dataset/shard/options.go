package shard

import (
	"errors"
	"fmt"
	"log/slog"

	"blip2/pkg/storage"
)

// Options say how shards are read. The zero value is good for one process.
type Options struct {
	Name string // what to call the shards in messages; "" means the pattern
	// TopK is how many captions of a list, which is ordered best first, training draws from. 0 means 2, as BLIP-2 does;
	// negative means all. Captions of a JSON object have no order, and all of them are used.
	TopK    int
	NoIndex bool // read the shards in order even where random access could be had
	Indexer Indexer

	Store *storage.Store // nil means one with default options
	Log   *slog.Logger   // nil means silence
	// Cache is a folder for copies of shards from elsewhere; "" means none. The oldest copies go when all of them
	// together have more than CacheBytes; 0 means 100 GB.
	Cache      string
	CacheBytes int64

	// The rest is for shards that are read in order.

	// Buffer is how many consecutive samples are shuffled among themselves; 0 means 1000 and 1 not at all. They are
	// held in memory, and so are as many more that come next. BufferBytes closes a buffer before it has that many
	// samples; 0 means 256 MiB.
	Buffer      int
	BufferBytes int64
	Lanes       int  // shards that are read at the same time and whose samples take turns; 0 means 4
	InOrder     bool // shards in the order of the pattern
	Resample    bool // draw the shards with replacement, as the reference does
	// Rank of Ranks processes: of every epoch's order each takes every Ranks-th shard. Ranks of 0 means one process.
	Rank, Ranks int
	// Independent gives every rank all shards, in an order of its own.
	Independent bool
	// MaxLost is how many shards of an epoch may be missing or forbidden; they are reported as bad samples. 0 means
	// one in a hundred; negative none.
	MaxLost int
}

func (o Options) withDefaults() (Options, error) {
	setDefault(&o.TopK, 2)
	setDefault(&o.Buffer, 1000)
	setDefault(&o.BufferBytes, 256<<20)
	setDefault(&o.CacheBytes, 100e9)
	setDefault(&o.Lanes, 4)
	setDefault(&o.Ranks, 1)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Indexer.Log == nil {
		o.Indexer.Log = o.Log
	}
	if o.Store == nil {
		o.Store = storage.New(storage.Options{Log: o.Log})
	}
	switch {
	case o.Buffer < 1, o.BufferBytes < 1, o.CacheBytes < 1, o.Lanes < 1:
		return o, errors.New("shard: the buffer, the cache and the number of lanes must be positive")
	case o.Ranks < 1 || o.Rank < 0 || o.Rank >= o.Ranks:
		return o, fmt.Errorf("shard: rank %d of %d makes no sense", o.Rank, o.Ranks)
	case o.InOrder && o.Resample:
		return o, errors.New("shard: shards are either read in order or drawn with replacement")
	}
	return o, nil
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
