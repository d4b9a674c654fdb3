package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"blip2/pkg/config"
	"blip2/pkg/dataset/configured"
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
		Long: `Writes the pictures and captions of the data sets (data.train) as webdataset tar shards with their indexes, the
pictures as they are. The bytes depend on the data and the options alone. A shard appears under its name when it is
complete; after an interrupt the same command goes on with the first that is missing. shards.json beside them says what
was written and what was left out.`,
		Example: `  blip2 data shard --annotations coco_karpathy_train.json --images coco/images --out shards/coco
  blip2 data shard --config data.yaml --out shards/all --samples 5000 --size 512`,
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
	src, err := configured.Evaluation(ctx, "data.train", append([]config.DataSource{}, cfg.Data.Train...),
		configured.Shards(app.Log))
	if err != nil {
		return err
	}
	phase := app.progress().Start("packing", 0, src.Len())
	opts.write.MaxBytes = opts.sizeMB * 1e6
	opts.write.OnShard = func(done shard.Written) { phase.Advance(done.End) }
	manifest, err := shard.Write(ctx, src, opts.write)
	phase.Done()
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
