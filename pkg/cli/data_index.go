package cli

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"blip2/pkg/dataset/shard"
	"blip2/pkg/storage"
)

type dataIndexOptions struct {
	rebuild bool
	cache   string
}

func newDataIndexCmd(app *App) *cobra.Command {
	var opts dataIndexOptions
	cmd := &cobra.Command{
		Use:   "index SHARD...",
		Short: "Index tar shards, for random access",
		Long: `Makes the index of every tar shard that has none, or one that does not fit it any more. A training does so by
itself; this does it beforehand, for shards that will be uploaded with their indexes, or to look for damage. The index
lies beside the shard; if that folder cannot be written to, in the cache folder.`,
		Example: `  blip2 data index "cc3m/{00000..00331}.tar"
  blip2 data index --rebuild laion/*.tar`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runDataIndex(cmd.Context(), app, args, opts) },
	}
	cmd.Flags().BoolVar(&opts.rebuild, "rebuild", false, "make every index anew")
	cmd.Flags().StringVar(&opts.cache, "cache", "", "`folder` of indexes of shards that cannot have them beside")
	return cmd
}

// indexReport is what the command prints.
type indexReport struct {
	Shards  []shard.IndexInfo `json:"shards"`
	Samples int               `json:"samples"`
	Bad     int               `json:"bad"`
	Built   int               `json:"built"`
	Bytes   int64             `json:"bytes"` // of the shards whose index was built
	Seconds float64           `json:"seconds"`
}

func runDataIndex(ctx context.Context, app *App, patterns []string, opts dataIndexOptions) error {
	store := storage.New(storage.Options{Log: app.Log})
	defer store.Close()
	shards, err := shard.Locate(ctx, store, patterns...)
	if err != nil {
		return err
	}
	for _, name := range shards {
		if storage.IsRemote(name) {
			return usagef("%s is not on this machine: index shards before they are uploaded", storage.Redact(name))
		}
	}
	in := &shard.Indexer{CacheDir: opts.cache, Log: app.Log, Rebuild: opts.rebuild}
	start, r := time.Now(), indexReport{Shards: []shard.IndexInfo{}}
	phase := app.progress().Start("indexing", 0, len(shards))
	for i, name := range shards {
		info, err := in.Index(ctx, name)
		if err != nil {
			phase.Done()
			return err
		}
		r.Shards = append(r.Shards, info)
		r.Samples += info.Samples
		r.Bad += info.Bad
		if info.Built {
			r.Built++
			if stat, err := os.Stat(name); err == nil {
				r.Bytes += stat.Size()
			}
		}
		phase.Advance(i + 1)
	}
	phase.Done()
	r.Seconds = time.Since(start).Seconds()
	if err := r.print(app); err != nil {
		return err
	}
	for _, info := range r.Shards {
		if info.Samples > 0 && info.Bad == info.Samples {
			return fmt.Errorf("%s holds nothing that can be used: is it a webdataset tar? blip2 data check --shards %[1]s says "+
				"what is wrong", info.Shard)
		}
	}
	return nil
}

func (r *indexReport) print(app *App) error {
	if app.Globals.JSON {
		return writeJSON(app.Out, r)
	}
	_, err := fmt.Fprintf(app.Out, "%d shards with %d samples (%d of them cannot be used); %d indexes built, %.1f GB in %.1f s\n",
		len(r.Shards), r.Samples, r.Bad, r.Built, float64(r.Bytes)/1e9, r.Seconds)
	return err
}
