package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/dataset/configured"
	"blip2/pkg/runlog"
)

func newDataCmd(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "data",
		Short: "Fetch, check, measure, show and pack data sets",
	}
	cmd.AddCommand(newDataCheckCmd(app), newDataStatsCmd(app), newDataShowCmd(app), newDataIndexCmd(app),
		newDataShardCmd(app), newDataDownloadCmd(app))
	return cmd
}

// dataFlags name data sets: those of a configuration, or one by flags of its own.
type dataFlags struct {
	config  configFlags
	command string
	source  config.DataSource
}

func (f *dataFlags) add(cmd *cobra.Command) {
	f.config.add(cmd)
	addFor(cmd, &f.command)
	flags := cmd.Flags()
	flags.StringVar(&f.source.Annotations, "annotations", "", "annotation `file`, in place of --config")
	flags.StringVar(&f.source.Images, "images", "", "`folder` of its images")
	flags.StringVar(&f.source.Questions, "questions", "", "official VQA questions, with the answers in --annotations")
	flags.StringVar(&f.source.Split, "split", "", "only this split")
	flags.StringVar(&f.source.Format, "format", "", "json, jsonl, csv, tsv or parquet (default: recognised)")
	flags.StringVar(&f.source.ImageName, "image-name", "", "file names by id, such as COCO_train2014_%012d.jpg")
	flags.StringVar(&f.source.Shards, "shards", "", "tar shards, a `path` or URL with braces or *, in place of --config")
	addIndexFlag(cmd, &f.source.Index)
	completeFiles(cmd, "annotations", "questions")
}

// addIndexFlag adds the choice between random access to shards and reading them in order.
func addIndexFlag(cmd *cobra.Command, index *string) {
	cmd.Flags().StringVar(index, "shard-index", "", "with --shards: auto, or never to read them in order (default auto)")
}

// checkIndex refuses other words than those of a configuration.
func checkIndex(index, shards string) error {
	switch {
	case index != "" && index != "auto" && index != "never":
		return usagef("--shard-index is auto or never, not %q", index)
	case index != "" && shards == "":
		return usagef("--shard-index goes with --shards; in a configuration it is the key index of a data set")
	}
	return nil
}

// dataConfig is what a configuration says of data.
type dataConfig struct {
	config.Common
	imageSize int
	maxLen    int    // tokens of a text
	vocab     string // WordPiece vocabulary; "" for none
	caption   dataset.CaptionProcessor
}

// load returns the configuration that is meant. A data set given by flags stands alone in data.train.
func (f *dataFlags) load(app *App) (dataConfig, error) {
	byFlags := f.source.Annotations != "" || f.source.Shards != ""
	switch {
	case f.config.path == "" && !byFlags:
		return dataConfig{}, usagef("say which data: --config FILE, --annotations FILE --images FOLDER, or --shards PATTERN")
	case f.config.path != "" && byFlags:
		return dataConfig{}, usagef("--config goes without --annotations and --shards: the configuration names the data")
	case f.source.Annotations != "" && f.source.Shards != "":
		return dataConfig{}, usagef("give either --annotations or --shards")
	}
	if err := checkIndex(f.source.Index, f.source.Shards); err != nil {
		return dataConfig{}, err
	}
	cfg, err := f.read(app)
	if err == nil && byFlags {
		cfg.Data.Train, cfg.Data.Heldout = []config.DataSource{f.source}, nil
	}
	return cfg, err
}

// read loads the configuration; what a training needs beside data may be missing.
func (f *dataFlags) read(app *App) (dataConfig, error) {
	opts := app.loadOptions(f.config)
	opts.Partial = true
	switch f.command {
	case commandStage1:
		c, _, err := app.loadStage1(opts)
		if err != nil {
			return dataConfig{}, err
		}
		return dataConfig{Common: c.Common(), imageSize: c.Vision.ImageSize, maxLen: c.Text.MaxLen, vocab: c.Text.Vocab,
			caption: dataset.CaptionProcessor{MaxWords: c.Text.MaxWords, Prompt: c.Text.Prompt}}, nil
	case commandStage2:
		c, _, err := app.loadStage2(opts)
		if err != nil {
			return dataConfig{}, err
		}
		return dataConfig{Common: c.Common(), imageSize: c.Vision.ImageSize, maxLen: c.Text.MaxLen,
			caption: dataset.CaptionProcessor{MaxWords: c.Text.MaxWords, Prompt: c.Text.Prompt}}, nil
	}
	return dataConfig{}, unknownFor(f.command)
}

// namedSource is a data set under its key in the configuration: a source, or a stream where shards can only be read in
// order.
type namedSource struct {
	key    string
	config config.DataSource
	dataset.Part
}

// start begins a phase of progress, in pictures, or in percent of a stream.
func (s *namedSource) start(p *runlog.Progress, what string) *runlog.Phase {
	if s.Source == nil {
		return p.Start(what+" "+s.key+", percent", 0, 100)
	}
	return p.Start(what+" "+s.key, 0, s.Source.Len())
}

// open opens every data set by itself: those of data.train first, then those of data.heldout.
func (c dataConfig) open(ctx context.Context, app *App) ([]namedSource, error) {
	out, err := openList(ctx, app, "data.train", c.Data.Train)
	if err != nil {
		return nil, err
	}
	heldout, err := openList(ctx, app, "data.heldout", c.Data.Heldout)
	if out = append(out, heldout...); len(out) == 0 && err == nil {
		err = usagef("the configuration names no data (data.train)")
	}
	return out, err
}

// openList opens the data sets of a list.
func openList(ctx context.Context, app *App, list string, sources []config.DataSource) ([]namedSource, error) {
	var out []namedSource
	shards := configured.Shards(app.Log)
	for i, s := range sources {
		key := fmt.Sprintf("%s[%d]", list, i)
		part, err := configured.One(ctx, key, s, shards)
		if err != nil {
			return nil, err
		}
		out = append(out, namedSource{key, s, part})
	}
	return out, nil
}

// partsOf are the data sets alone.
func partsOf(sets []namedSource) []dataset.Part {
	parts := make([]dataset.Part, len(sets))
	for i := range sets {
		parts[i] = sets[i].Part
	}
	return parts
}

// progress shows how far a command is.
func (app *App) progress() *runlog.Progress {
	return runlog.NewProgress(runlog.ProgressOptions{
		Out: app.Err, Terminal: isTerminal(app.Err), Quiet: app.Globals.Quiet})
}
