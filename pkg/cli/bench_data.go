package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/dataset"
	"blip2/pkg/dataset/shard"
)

type benchDataOptions struct {
	images      string
	annotations string
	shards      string
	index       string
	from        []string
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

The pictures are those of a folder, of an annotation file, or of shards, which are read as a training reads them:
anywhere if they have an index or can be given one, else in order; with --shard-index never always in order. With --from
the pictures of a folder are also packed into shards, in a temporary folder, and measured from each kind of source that
is named, or from all:

  folder          the files as they are
  tar             shards read in order
  tar.gz          packed shards, which can only be read in order
  indexed         shards read anywhere by their indexes
  http, http-tar.gz, http-indexed    the same three over HTTP, from a server in this process on this machine; its
                  processor time is counted, too

Shards in order are read ahead in the background, as in a training. The stage "read" is the reading alone, as fast as
pictures come.

scripts/bench_pillow.py measures Python's way on the same pictures.`,
		Example: `  blip2 bench data --images coco/train2014 --count 2000
  blip2 bench data --images coco/train2014 --count 2000 --from all
  blip2 bench data --shards "https://host/web/{00000..00009}.tar" --count 5000
  blip2 bench data --shards "cc3m/{00000..00009}.tar" --shard-index never --json
  blip2 bench data --images coco --annotations coco_karpathy_train.json --memory --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBenchData(cmd.Context(), app, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.images, "images", "", "folder of pictures")
	flags.StringVar(&opts.annotations, "annotations", "", "take the pictures of this file, relative to --images")
	flags.StringVar(&opts.shards, "shards", "", "tar shards, a `path` or URL with braces or *, in place of --images")
	addIndexFlag(cmd, &opts.index)
	flags.StringSliceVar(&opts.from, "from", nil, "kinds of source to compare, or all (default: the given one)")
	flags.IntVar(&opts.count, "count", 0, "pictures per measurement, taken again if there are fewer (default: all; of "+
		"shards in order 1000)")
	flags.IntVar(&opts.size, "size", 224, "side of the result, in pixels")
	flags.IntSliceVar(&opts.workers, "workers", []int{1, 2}, "numbers of workers to measure the whole way with")
	flags.BoolVar(&opts.memory, "memory", false, "read the files into memory first")
	flags.IntVar(&opts.ops, "randaugment", 0, "operations of RandAugment per picture")
	flags.StringVar(&opts.mode, "randaugment-mode", string(dataset.AugmentPIL), "pil or lavis")
	return cmd
}

// benchDataReport is what the command prints of one source.
type benchDataReport struct {
	Kind   string `json:"kind"`
	Source string `json:"source"`
	*dataset.BenchReport
}

// benchDataResult is what the command prints of a source that was given.
type benchDataResult struct {
	benchDataReport
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
	case len(opts.from) > 0 && (opts.shards != "" || opts.memory):
		return usagef("--from goes without --shards and --memory: it packs the pictures of --images itself")
	}
	if err := checkIndex(opts.index, opts.shards); err != nil {
		return err
	}
	if len(opts.from) > 0 {
		return runCompareSources(ctx, app, opts)
	}
	r, err := opts.measure(ctx, app)
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, benchDataResult{r, thisMachine(), newVersionInfo(app.buildInfo())})
	}
	return r.writeText(app.Out)
}

// options are those of the measurement.
func (o benchDataOptions) options(app *App) dataset.BenchOptions {
	const magnitude = 5 // LAVIS's
	seed := int64(0)
	if app.Globals.Seed != nil {
		seed = *app.Globals.Seed
	}
	return dataset.BenchOptions{Count: o.count, Size: o.size, Workers: o.workers, Seed: seed,
		Augment: dataset.RandAugment{Ops: o.ops, Magnitude: magnitude, Mode: dataset.AugmentMode(o.mode)}}
}

// measure measures the source that is given.
func (o benchDataOptions) measure(ctx context.Context, app *App) (benchDataReport, error) {
	if o.shards != "" {
		indexed, set, err := openBenchShards(ctx, app, o.index == "never", o.shards)
		if err != nil {
			return benchDataReport{}, err
		}
		if set != nil {
			return o.measureStream(ctx, app, set)
		}
		defer indexed.Close()
		return o.measurePictures(ctx, app, indexed, "indexed", indexed.Name())
	}
	src, name, err := o.open()
	if err != nil {
		return benchDataReport{}, err
	}
	kind := "folder"
	if o.annotations != "" {
		kind = "annotations"
	}
	return o.measurePictures(ctx, app, src, kind, name)
}

// measurePictures measures pictures that can be read anywhere.
func (o benchDataOptions) measurePictures(ctx context.Context, app *App, src dataset.Pictures, kind, name string) (
	benchDataReport, error) {
	if o.memory {
		var err error
		if src, err = dataset.InMemory(firstOf(src, o.count)); err != nil {
			return benchDataReport{}, err
		}
		name += ", from memory"
	}
	r, err := dataset.Bench(ctx, src, o.options(app))
	return benchDataReport{kind, name, r}, err
}

// countInOrder is how many pictures are measured of shards of which nobody knows how many they hold.
const countInOrder = 1000

// measureStream measures shards that are read in order.
func (o benchDataOptions) measureStream(ctx context.Context, app *App, set *dataset.StreamSet) (benchDataReport,
	error) {
	if o.memory {
		return benchDataReport{}, usagef("--memory is for pictures that can be read anywhere; %s is read in order", set.Name)
	}
	b := o.options(app)
	if b.Count == 0 {
		b.Count = countInOrder
	}
	r, err := dataset.BenchStream(ctx, set, b)
	return benchDataReport{"in order", set.Name, r}, err
}

// openBenchShards opens shards as a training does, but that those in order are read only a little ahead, so that the
// reading ahead is nothing beside what is measured.
func openBenchShards(ctx context.Context, app *App, inOrder bool, pattern string) (*shard.Indexed, *dataset.StreamSet,
	error) {
	return shard.Open(ctx, shard.Options{Log: app.Log, NoIndex: inOrder, Buffer: 16, BufferBytes: 8 << 20}, pattern)
}

// firstOf are the first n of some pictures; all of them if n is 0 or there are fewer.
func firstOf(src dataset.Pictures, n int) dataset.Pictures {
	if n <= 0 || n >= src.Len() {
		return src
	}
	return firstPictures{src, n}
}

type firstPictures struct {
	dataset.Pictures
	n int
}

func (f firstPictures) Len() int { return f.n }

// open gives the pictures of the folder or the annotation file, and what to call them.
func (o benchDataOptions) open() (dataset.Pictures, string, error) {
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

func (r benchDataReport) writeText(out io.Writer) error {
	fmt.Fprintf(out, "%s (%s): %d pictures of %.2f Mpixel and %.0f KB in the mean, cropped and resized to %d×%d, "+
		"JPEG by %s\n\n", r.Source, r.Kind, r.Pictures, r.MeanSize/1e6, r.MeanBytes/1e3, r.Size, r.Size, r.JPEG)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "stage\timages/s\timages per CPU second\tms\t")
	for _, s := range r.Stages {
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.3f\t\n", s.Name, s.PerSecond, s.PerCPU, 1e3*s.Seconds/float64(r.Pictures))
	}
	for _, s := range r.Runs {
		fmt.Fprintf(w, "all, %s\t%.0f\t%.0f\t%.3f\t\n", workers(s.Workers), s.PerSecond, s.PerCPU,
			1e3*s.Seconds/float64(r.Pictures))
	}
	return w.Flush()
}

// workers is a number of workers in words.
func workers(n int) string {
	if n == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", n)
}
