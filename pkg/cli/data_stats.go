package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"blip2/pkg/dataset"
	"blip2/pkg/dataset/audit"
	"blip2/pkg/dataset/configured"
	"blip2/pkg/tokenizer"
)

type dataStatsOptions struct {
	data   dataFlags
	sample int
	counts bool
}

func newDataStatsCmd(app *App) *cobra.Command {
	var opts dataStatsOptions
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "Count pictures and texts, and measure them",
		Long: `Counts the pictures and texts of the data sets, shows what an epoch takes of each under the configured
mixture, and compares the numbers with what the configuration expects or what is published. Unless --counts is given, it
also reads every text, for the lengths in words and (if the configuration names a vocabulary) in tokens, and opens some
pictures for their sizes.

Shards that can only be read in order are read once from front to back, with --counts only where nothing says how many
pictures to expect; all their pictures are measured.`,
		Example: `  blip2 data stats --config configs/pretrain_stage1_vitl.yaml --counts
  blip2 data stats --annotations coco_karpathy_train.json --images coco/images --sample 2000 --json
  blip2 data stats --shards "https://host/web/{00000..00009}.tar.gz"`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDataStats(cmd.Context(), app, opts) },
	}
	opts.data.add(cmd)
	cmd.Flags().IntVar(&opts.sample, "sample", 500, "pictures of each set to open for their size; -1 for all")
	cmd.Flags().BoolVar(&opts.counts, "counts", false, "only count")
	return cmd
}

// dataStats is what the command prints.
type dataStats struct {
	Mix     string          `json:"mix"`
	Epoch   int64           `json:"rows_per_epoch"`
	Shares  []dataset.Share `json:"train"`
	Sizes   []string        `json:"unexpected_sizes"`
	Details []audit.Stats   `json:"details,omitempty"`
}

func runDataStats(ctx context.Context, app *App, opts dataStatsOptions) error {
	cfg, err := opts.data.load(app)
	if err != nil {
		return err
	}
	sets, details, err := opts.look(ctx, app, cfg)
	if err != nil {
		return err
	}
	s, err := newDataStats(cfg, sets[:len(cfg.Data.Train)], details)
	if err != nil {
		return err
	}
	if !opts.counts {
		s.Details = details
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, s)
	}
	return s.write(app.Out, cfg.maxLen)
}

// look opens the data sets and measures them. With --counts it opens those of data.train alone, and reads only what has
// to be counted.
func (opts dataStatsOptions) look(ctx context.Context, app *App, cfg dataConfig) ([]namedSource, []audit.Stats, error) {
	if opts.counts {
		sets, err := openList(ctx, app, "data.train", cfg.Data.Train)
		if err != nil {
			return nil, nil, err
		}
		details, err := countStreams(ctx, app, sets)
		return sets, details, err
	}
	sets, err := cfg.open(ctx, app)
	if err != nil {
		return nil, nil, err
	}
	details, err := opts.measure(ctx, app, cfg, sets)
	return sets, details, err
}

// newDataStats mixes the data sets of data.train. details are what was measured of each of them; the zero value where
// nothing was.
func newDataStats(cfg dataConfig, sets []namedSource, details []audit.Stats) (dataStats, error) {
	for i := range sets {
		if s := sets[i].Stream; s != nil && s.Pictures == 0 {
			s.Pictures = int64(details[i].Pictures)
		}
	}
	training, err := configured.Mix(cfg.Data, partsOf(sets))
	if err != nil {
		return dataStats{}, err
	}
	s := dataStats{Mix: cfg.Data.Mix.By, Epoch: training.Mixture.Rows(), Shares: training.Mixture.Shares(),
		Sizes: []string{}}
	for i := range s.Shares {
		share := &s.Shares[i]
		if sets[i].Stream != nil && details[i].Pictures > 0 {
			share.Pictures, share.Texts = int64(details[i].Pictures), int64(details[i].Texts)
		}
		for _, line := range unexpectedSizes(sets[i], int(share.Pictures), int(share.Texts)) {
			s.Sizes = append(s.Sizes, share.Name+": "+line)
		}
	}
	return s, nil
}

// countStreams reads the data sets whose size nobody knows.
func countStreams(ctx context.Context, app *App, sets []namedSource) ([]audit.Stats, error) {
	out := make([]audit.Stats, len(sets))
	progress := app.progress()
	for i := range sets {
		s := &sets[i]
		if s.Stream == nil || s.Stream.Pictures > 0 {
			continue
		}
		phase := s.start(progress, "counting")
		stats, err := audit.MeasureStream(ctx, s.Stream, audit.StatsOptions{Progress: phase.Advance})
		phase.Done()
		if err != nil {
			return nil, err
		}
		out[i] = *stats
	}
	return out, nil
}

// measure looks at every data set.
func (opts dataStatsOptions) measure(ctx context.Context, app *App, cfg dataConfig, sets []namedSource) ([]audit.Stats,
	error) {
	o := audit.StatsOptions{Sample: opts.sample, Within: cfg.maxLen}
	if cfg.vocab != "" {
		tok, err := tokenizer.LoadWordPiece(cfg.vocab)
		if err != nil {
			return nil, fmt.Errorf("text.vocab: %w", err)
		}
		o.Length = func(text string) int { return len(tok.Encode(text)) }
	}
	progress := app.progress()
	var out []audit.Stats
	for _, s := range sets {
		phase := s.start(progress, "reading")
		o.Progress = phase.Advance
		var stats *audit.Stats
		var err error
		if s.Source != nil {
			stats, err = audit.Measure(ctx, s.Source, o)
		} else {
			stats, err = audit.MeasureStream(ctx, s.Stream, o)
		}
		phase.Done()
		if err != nil {
			return nil, err
		}
		out = append(out, *stats)
	}
	return out, nil
}

func (s dataStats) write(w io.Writer, maxLen int) error {
	fmt.Fprintf(w, "%-28s%14s%14s%16s%9s\n", "data set", "pictures", "texts", "rows per epoch", "share")
	pictures, texts := int64(0), int64(0)
	for _, share := range s.Shares {
		pictures, texts = pictures+share.Pictures, texts+share.Texts
		fmt.Fprintf(w, "%-28s%14d%14d%16d%8.2f%%\n", share.Name, share.Pictures, share.Texts, share.Quota,
			100*float64(share.Quota)/float64(max(s.Epoch, 1)))
	}
	fmt.Fprintf(w, "%-28s%14d%14d%16d   mixed by %s\n", "all", pictures, texts, s.Epoch, s.Mix)
	for _, line := range s.Sizes {
		fmt.Fprintf(w, "unexpected size: %s\n", line)
	}
	for _, d := range s.Details {
		fmt.Fprintf(w, "\n%s\n", d.Name)
		if d.Unusable > 0 {
			fmt.Fprintf(w, "  %d of %d pictures cannot be used: blip2 data check names them\n", d.Unusable, d.Pictures)
		}
		writeHistogram(w, "texts per picture", d.PerImage)
		writeHistogram(w, "words per text", d.Words)
		if d.Tokens != nil {
			writeHistogram(w, "tokens per text", *d.Tokens)
			fmt.Fprintf(w, "  %-20s%.2f %% of the texts\n", fmt.Sprintf("at most %d tokens", maxLen), 100**d.Fit)
		}
		if p := d.Sizes; p != nil {
			var formats []string
			for _, name := range slices.Sorted(maps.Keys(p.Formats)) {
				formats = append(formats, fmt.Sprintf("%d %s", p.Formats[name], name))
			}
			fmt.Fprintf(w, "  %-20s%d opened, %d failed: %s\n", "pictures", p.Opened, p.Failed, strings.Join(formats, ", "))
			writeHistogram(w, "width", p.Width)
			writeHistogram(w, "height", p.Height)
			writeHistogram(w, "bytes", p.Bytes)
		}
	}
	return nil
}

// writeHistogram writes the figures of a histogram and its bars.
func writeHistogram(w io.Writer, name string, h audit.Histogram) {
	fmt.Fprintf(w, "  %-20smean %.1f, median %d, 99 %% at most %d, %d to %d\n", name, h.Mean, h.Median, h.P99, h.Min, h.Max)
	const columns = 40
	most := 1
	for _, b := range h.Bins {
		most = max(most, b.Count)
	}
	for _, b := range h.Bins {
		bar := strings.Repeat("█", (b.Count*columns+most-1)/most)
		fmt.Fprintf(w, "  %18s  %s %d\n", fmt.Sprintf("%d to %d", b.From, b.To), bar, b.Count)
	}
}
