package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"blip2/pkg/dataset"
	"blip2/pkg/dataset/shard"
)

type dataShardOptions struct {
	data   dataFlags
	write  shard.WriteOptions
	sizeMB int64
}

func newDataShardCmd(app *App) *cobra.Command {
	var opts dataShardOptions
	cmd := &cobra.Command{
		Use:   "shard --out FOLDER",
		Short: "Pack data sets into webdataset shards",
		Long: `Writes the pictures of the data sets (data.train) with their captions, or questions and answers, as
webdataset tar shards with their indexes, the pictures as they are. The bytes depend on the data and the options alone.
A shard appears under its name when it is complete; after an interrupt the same command goes on with the first that is
missing.
shards.json beside them says what was written and what was left out. Shards may be packed anew: those of any form are
read, also packed ones and those in buckets.`,
		Example: `  blip2 data shard --annotations coco_karpathy_train.json --images coco/images --out shards/coco
  blip2 data shard --config data.yaml --out shards/all --samples 5000 --size 512
  blip2 data shard --shards "s3://bucket/web/*.tar.gz" --out shards/web`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDataShard(cmd.Context(), app, opts) },
	}
	opts.data.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&opts.write.Dir, "out", "", "`folder` for the shards")
	flags.StringVar(&opts.write.Prefix, "prefix", "", "what file names begin with (default \"shard-\")")
	flags.IntVar(&opts.write.Samples, "samples", 0, "most samples of a shard (default 10,000)")
	flags.Int64Var(&opts.sizeMB, "size", 0, "most megabytes of a shard (default 1,074)")
	flags.BoolVar(&opts.write.Ranked, "ranked", false, "captions are ordered best first: readers draw from the first two")
	flags.IntVar(&opts.write.MaxBad, "max-bad", 0, "samples that may be left out because they cannot be used; -1: any number")
	return cmd
}

func runDataShard(ctx context.Context, app *App, opts dataShardOptions) error {
	if opts.write.Dir == "" {
		return usagef("--out is missing: the folder for the shards")
	}
	if opts.write.Samples < 0 || opts.sizeMB < 0 {
		return usagef("--samples and --size must not be negative")
	}
	cfg, err := opts.data.load(app)
	if err != nil {
		return err
	}
	manifest, err := opts.pack(ctx, app, cfg)
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return fmt.Errorf("%w in %s; the same command goes on", ErrInterrupted, opts.write.Dir)
		}
		return err
	}
	for _, left := range manifest.Left {
		app.Log.Warn("sample left out", "key", left.Key, "reason", left.Reason)
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, manifest)
	}
	samples, bytes := 0, int64(0)
	for _, s := range manifest.Shards {
		samples, bytes = samples+s.Samples, bytes+s.Bytes
	}
	_, err = fmt.Fprintf(app.Out, "%d shards with %d samples, %.2f GB, in %s; %d left out\n", len(manifest.Shards), samples,
		float64(bytes)/1e9, opts.write.Dir, len(manifest.Left))
	return err
}

// pack writes the shards. Where a data set can only be read in order, all of them are read from front to back.
func (o dataShardOptions) pack(ctx context.Context, app *App, cfg dataConfig) (*shard.Manifest, error) {
	sets, err := openList(ctx, app, "data.train", cfg.Data.Train)
	if err != nil {
		return nil, err
	}
	parts := partsOf(sets)
	var sources []dataset.Source
	for _, p := range parts {
		if p.Source != nil {
			sources = append(sources, p.Source)
		}
	}
	o.write.MaxBytes = o.sizeMB * 1e6
	if len(sources) == len(parts) {
		src, err := dataset.Concat(sources...)
		if err != nil {
			return nil, err
		}
		phase := app.progress().Start("packing", 0, src.Len())
		defer phase.Done()
		o.write.OnShard = func(done shard.Written, _ float64) { phase.Advance(done.End) }
		return shard.Write(ctx, src, o.write)
	}
	set, err := dataset.InOrder(parts...)
	if err != nil {
		return nil, err
	}
	phase := app.progress().Start("packing, percent", 0, 100)
	defer phase.Done()
	o.write.OnShard = func(_ shard.Written, part float64) { phase.Advance(int(100 * part)) }
	return shard.WriteStream(ctx, set, o.write)
}
