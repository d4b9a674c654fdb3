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
	config configFlags
	source config.DataSource
}

func (f *dataFlags) add(cmd *cobra.Command) {
	f.config.add(cmd)
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

// load returns the configuration that is meant. A data set given by flags stands alone in data.train.
func (f *dataFlags) load(app *App) (*config.Stage1, error) {
	byFlags := f.source.Annotations != "" || f.source.Shards != ""
	switch {
	case f.config.path == "" && !byFlags:
		return nil, usagef("say which data: --config FILE, --annotations FILE --images FOLDER, or --shards PATTERN")
	case f.config.path != "" && byFlags:
		return nil, usagef("--config goes without --annotations and --shards: the configuration names the data")
	case f.source.Annotations != "" && f.source.Shards != "":
		return nil, usagef("give either --annotations or --shards")
	}
	opts := app.loadOptions(f.config)
	opts.Partial = true
	cfg, _, err := app.loadStage1(opts)
	if err != nil {
		return nil, err
	}
	if byFlags {
		cfg.Data.Train, cfg.Data.Heldout = []config.DataSource{f.source}, nil
	}
	return cfg, nil
}

// namedSource is a data set under its key in the configuration.
type namedSource struct {
	key    string
	config config.DataSource
	source dataset.Source
}

// open opens every data set by itself. Shards that can only be read in order are an error.
func (f *dataFlags) open(ctx context.Context, app *App, cfg *config.Stage1) ([]namedSource, error) {
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
