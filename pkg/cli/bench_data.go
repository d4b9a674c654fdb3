package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/dataset"
	"blip2/pkg/dataset/shard"
	"blip2/pkg/storage"
)

type benchDataOptions struct {
	images      string
	annotations string
	shards      string
	count       int
	size        int
	workers     []int
	memory      bool
	ops         int
	mode        string
}

func newBenchDataCmd(app *App) *cobra.Command {
	var opts benchDataOptions
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Measure how fast pictures become batches",
		Long: `Takes pictures the way of a training: read, decode, random crop, bicubic resize, mirror, normalise into
the batch. It prints the images per second of every stage, measured alone with one worker, and of the whole way with one
worker and with two, by the clock and by processor time. The whole way decodes no more of a picture than its crop needs
and resizes straight into the batch, so that it is faster than its stages one after the other.

scripts/bench_pillow.py measures Python's way on the same pictures.`,
		Example: `  blip2 bench data --images coco/train2014 --count 2000
  blip2 bench data --shards "https://host/web/{00000..00009}.tar"
  blip2 bench data --images coco --annotations coco_karpathy_train.json --memory --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBenchData(cmd.Context(), app, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.images, "images", "", "folder of pictures")
	flags.StringVar(&opts.annotations, "annotations", "", "take the pictures of this file, relative to --images")
	flags.StringVar(&opts.shards, "shards", "", "tar shards with indexes, a `path` or URL, in place of --images")
	flags.IntVar(&opts.count, "count", 0, "pictures per measurement, taken again if there are fewer (default: all)")
	flags.IntVar(&opts.size, "size", 224, "side of the result, in pixels")
	flags.IntSliceVar(&opts.workers, "workers", []int{1, 2}, "numbers of workers to measure the whole way with")
	flags.BoolVar(&opts.memory, "memory", false, "read the files into memory first")
	flags.IntVar(&opts.ops, "randaugment", 0, "operations of RandAugment per picture")
	flags.StringVar(&opts.mode, "randaugment-mode", string(dataset.AugmentPIL), "pil or lavis")
	return cmd
}

// benchDataReport is what the command prints.
type benchDataReport struct {
	Source string `json:"source"`
	*dataset.BenchReport
	Machine benchMachine `json:"machine"`
	Build   versionInfo  `json:"build"`
}

// runBenchData measures and prints.
func runBenchData(ctx context.Context, app *App, opts benchDataOptions) error {
	switch {
	case opts.images == "" && opts.shards == "":
		return usagef("--images is missing: name a folder of pictures, or shards with --shards")
	case opts.shards != "" && (opts.images != "" || opts.annotations != ""):
		return usagef("--shards goes without --images and --annotations")
	}
	src, name, err := opts.open(ctx, app)
	if err != nil {
		return err
	}
	if opts.memory {
		if opts.count > 0 && opts.count < src.Len() {
			src = firstPictures{src, opts.count}
		}
		if src, err = dataset.InMemory(src); err != nil {
			return err
		}
		name += ", from memory"
	}
	const magnitude = 5 // LAVIS's
	seed := int64(0)
	if app.Globals.Seed != nil {
		seed = *app.Globals.Seed
	}
	augment := dataset.RandAugment{Ops: opts.ops, Magnitude: magnitude, Mode: dataset.AugmentMode(opts.mode)}
	result, err := dataset.Bench(ctx, src, dataset.BenchOptions{Count: opts.count, Size: opts.size,
		Workers: opts.workers, Augment: augment, Seed: seed})
	if err != nil {
		return err
	}
	r := benchDataReport{name, result, thisMachine(), newVersionInfo(app.buildInfo())}
	if app.Globals.JSON {
		return writeJSON(app.Out, r)
	}
	return r.writeText(app.Out)
}

// firstPictures are the first n of some pictures.
type firstPictures struct {
	dataset.Pictures
	n int
}

func (f firstPictures) Len() int { return f.n }

// open gives the pictures and what to call them.
func (o benchDataOptions) open(ctx context.Context, app *App) (dataset.Pictures, string, error) {
	if o.shards != "" {
		return o.openShards(ctx, app)
	}
	if o.annotations == "" {
		src, err := dataset.PictureFolder(o.images)
		return src, o.images, err
	}
	src, err := dataset.OpenCaptions(dataset.CaptionFile{Annotations: o.annotations, Images: o.images})
	if err != nil {
		return nil, "", err
	}
	return src, src.Name(), nil
}

// openShards opens shards by their indexes.
func (o benchDataOptions) openShards(ctx context.Context, app *App) (dataset.Pictures, string, error) {
	indexed, _, err := shard.Open(ctx, shard.Options{Log: app.Log}, o.shards)
	if err == nil && indexed == nil {
		err = usagef("%s can only be read in order: give local tars, or tars with their index beside them",
			storage.Redact(o.shards))
	}
	if err != nil {
		return nil, "", err
	}
	return indexed, storage.Redact(o.shards), nil
}

func (r benchDataReport) writeText(out io.Writer) error {
	fmt.Fprintf(out, "%s: %d pictures of %.2f Mpixel and %.0f KB in the mean, cropped and resized to %d×%d, "+
		"JPEG by %s\n\n", r.Source, r.Pictures, r.MeanSize/1e6, r.MeanBytes/1e3, r.Size, r.Size, r.JPEG)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "stage\timages/s\timages per CPU second\tms\t")
	for _, s := range r.Stages {
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.3f\t\n", s.Name, s.PerSecond, s.PerCPU, 1e3*s.Seconds/float64(r.Pictures))
	}
	for _, s := range r.Runs {
		workers := "workers"
		if s.Workers == 1 {
			workers = "worker"
		}
		fmt.Fprintf(w, "all, %d %s\t%.0f\t%.0f\t%.3f\t\n", s.Workers, workers, s.PerSecond, s.PerCPU,
			1e3*s.Seconds/float64(r.Pictures))
	}
	return w.Flush()
}
