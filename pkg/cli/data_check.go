package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"blip2/pkg/dataset/audit"
)

type dataCheckOptions struct {
	data    dataFlags
	journal string
	workers int
}

func newDataCheckCmd(app *App) *cobra.Command {
	var opts dataCheckOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Decode every picture and process every text",
		Long: `Decodes every picture of the data sets and processes every text, and lists what a training could not use:
pictures that cannot be decoded or are missing, and texts of which the processor leaves nothing. Pictures whose file
ends too early are named, too (a training takes what is there, as the reference does), and pictures that occur twice.
Sizes are compared with the published ones, where the file is known by its name or the configuration says what to
expect.

Shards that can only be read in order (packed ones, those elsewhere without an index beside them, or any with
--shard-index never) are read once from front to back; shards that are missing are listed.

With --journal an interrupted check goes on where it was. What was good is not looked at again, and of shards that are
read in order nothing is: remove the file to look at them anew. The exit code is 1 if anything cannot be used.`,
		Example: `  blip2 data check --config configs/pretrain_stage1_vitl.yaml --journal check.journal
  blip2 data check --annotations coco_karpathy_train.json --images coco/images --workers 16
  blip2 data check --shards "cc3m/{00000..00331}.tar" --json
  blip2 data check --shards "s3://bucket/laion/*.tar.gz" --journal check.journal --workers 32`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runCheckData(cmd.Context(), app, opts) },
	}
	opts.data.add(cmd)
	cmd.Flags().StringVar(&opts.journal, "journal", "", "remember in this `file` what was good; further data sets get .1, .2, ...")
	cmd.Flags().IntVar(&opts.workers, "workers", 0, "pictures decoded at once (default: data.workers)")
	return cmd
}

// checkedSet is a data set that was checked.
type checkedSet struct {
	Key string `json:"key"`
	*audit.CheckReport
	Sizes []string `json:"unexpected_sizes"`
}

func runCheckData(ctx context.Context, app *App, opts dataCheckOptions) error {
	cfg, err := opts.data.load(app)
	if err != nil {
		return err
	}
	sets, err := cfg.open(ctx, app)
	if err != nil {
		return err
	}
	workers := opts.workers
	if workers <= 0 {
		workers = cfg.Data.Workers
	}
	progress := app.progress()
	reports := make([]checkedSet, len(sets))
	for i, s := range sets {
		phase := s.start(progress, "checking")
		report, err := s.check(ctx, audit.CheckOptions{Workers: workers, Journal: numbered(opts.journal, i),
			Progress: phase.Advance})
		phase.Done()
		if err != nil {
			if ctx.Err() != nil && opts.journal != "" {
				return fmt.Errorf("%w in %s; the same command goes on", ErrInterrupted, opts.journal)
			}
			return err
		}
		reports[i] = checkedSet{Key: s.key, CheckReport: report, Sizes: unexpectedSizes(s, report.Pictures, report.Texts)}
	}
	if err := app.showChecks(reports); err != nil {
		return err
	}
	for _, r := range reports {
		if !r.Good() {
			return errors.New("there are samples that a training cannot use")
		}
	}
	return nil
}

func (s *namedSource) check(ctx context.Context, o audit.CheckOptions) (*audit.CheckReport, error) {
	if s.Source == nil {
		return audit.CheckStream(ctx, s.Stream, o)
	}
	return audit.Check(ctx, s.Source, o)
}

// numbered is the name of the i-th of several files.
func numbered(path string, i int) string {
	if path == "" || i == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, i)
}

// unexpectedSizes compares a data set with what the configuration expects, or else with what is published.
func unexpectedSizes(s namedSource, pictures, texts int) []string {
	e := s.config.Expect
	size := audit.Size{Pictures: e.Images.Int(), Texts: e.Texts.Int(), Within: e.Within.Float()}
	if size.Pictures == 0 && size.Texts == 0 && s.config.Split == "" {
		path := s.config.Annotations
		if s.config.Questions != "" {
			path = s.config.Questions
		}
		size, _ = audit.KnownSize(path)
	}
	return append([]string{}, size.Compare(pictures, texts)...)
}

func (app *App) showChecks(reports []checkedSet) error {
	if app.Globals.JSON {
		return writeJSON(app.Out, reports)
	}
	for _, r := range reports {
		if err := r.write(app.Out); err != nil {
			return err
		}
	}
	return nil
}

// listed is how many problems of each kind the text shows.
const listed = 20

func (r checkedSet) write(w io.Writer) error {
	fmt.Fprintf(w, "%s (%s): %d pictures, %d texts\n", r.Name, r.Key, r.Pictures, r.Texts)
	for _, line := range r.Sizes {
		fmt.Fprintf(w, "  unexpected size: %s\n", line)
	}
	fmt.Fprintf(w, "  %d unreadable, %d truncated, %d without text, %d twice\n", r.Unreadable, r.Truncated, r.EmptyTexts,
		r.Duplicates)
	for i, p := range r.Problems {
		if i == listed {
			fmt.Fprintf(w, "  ... (all that are kept: --json)\n")
			break
		}
		fmt.Fprintf(w, "  %s: %s: %s\n", p.Kind, p.Key, p.Reason)
	}
	for i, d := range r.Twice {
		if i == listed {
			break
		}
		fmt.Fprintf(w, "  twice: %s is %s\n", d.Key, d.First)
	}
	return nil
}
