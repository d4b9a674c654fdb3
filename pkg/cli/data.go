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
	completeFiles(cmd, "annotations", "questions")
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

// namedSource is a data set under its key in the configuration.
type namedSource struct {
	key    string
	config config.DataSource
	source dataset.Source
}

// open opens every data set by itself. Shards that can only be read in order are an error.
func (f *dataFlags) open(ctx context.Context, app *App, cfg dataConfig) ([]namedSource, error) {
	var out []namedSource
	for _, list := range []struct {
		key     string
		sources []config.DataSource
	}{{"data.train", cfg.Data.Train}, {"data.heldout", cfg.Data.Heldout}} {
		for i, s := range list.sources {
			src, err := configured.Evaluation(ctx, list.key, []config.DataSource{s}, configured.Shards(app.Log))
			if err != nil {
				return nil, err
			}
			out = append(out, namedSource{fmt.Sprintf("%s[%d]", list.key, i), s, src})
		}
	}
	if len(out) == 0 {
		return nil, usagef("the configuration names no data (data.train)")
	}
	return out, nil
}

// progress shows how far a command is.
func (app *App) progress() *runlog.Progress {
	return runlog.NewProgress(runlog.ProgressOptions{
		Out: app.Err, Terminal: isTerminal(app.Err), Quiet: app.Globals.Quiet})
}
