package configured

import (
	"context"
	"log/slog"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/dataset/shard"
	"blip2/pkg/storage"
)

// Shards opens shards wherever they lie. They stay open until the program ends.
func Shards(log *slog.Logger) ShardOpener {
	store := storage.New(storage.Options{Log: log})
	return func(ctx context.Context, s config.DataSource) (dataset.Source, *dataset.StreamSet, error) {
		x, set, err := shard.Open(ctx, shard.Options{Name: s.Name, TopK: s.TopK, NoIndex: s.Index == "never",
			Store: store, Log: log, Cache: s.Cache, CacheBytes: int64(s.CacheGB) * 1e9, Buffer: s.Buffer}, s.Shards)
		if x == nil {
			return nil, set, err
		}
		return x, nil, err
	}
}
