package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"blip2/pkg/device"
	"blip2/pkg/fullsize"
	"blip2/pkg/weights"
)

type benchGenerateOptions struct {
	model     string
	batch     int
	tokens    int
	beams     int
	draw      int
	newTokens int
	dtype     string
	runs      int
	warmup    int
	weights   string
}

func newBenchGenerateCmd(app *App) *cobra.Command {
	var opts benchGenerateOptions
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Measure how fast a language model or a captioner writes texts",
		Long: `Loads a network of published size and lets it write texts of a fixed length: a language model behind
embeddings, as those of a picture's 32 queries and a prompt are; the captioners of stage 1 (qformer) and of BLIP
(blip-large) about random features of pictures, behind a prompt. Image encoders are not measured here. Printed are
tokens per second, the time to the first token and of every further one, early and late in the text, the memory of the
cache, and the rate at which weights are read.

Without --weights the weights are random and made in memory; nothing is written. Other programs on the machine spoil the
figures: look at the smallest and the largest run. scripts/bench_hf_generate.py measures the same in transformers.`,
		Example: `  blip2 bench generate --model opt-350m --beams 5 --new-tokens 20 --backend xla:cpu
  blip2 bench generate --model flan-t5-base --batch 8 --json
  blip2 bench generate --model opt-2.7b --dtype bf16 --beams 1
  blip2 bench generate --model blip-large --batch 8 --beams 3
  blip2 bench generate --model blip-large --batch 8 --draw 10`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if opts.draw > 0 && !cmd.Flags().Changed("beams") {
				opts.beams = 1
			}
			return runBenchGenerate(cmd.Context(), app, opts)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.model, "model", "", "the network: opt-125m to opt-66b, flan-t5-small to flan-t5-xxl, qformer,\n"+
		"blip-large")
	flags.IntVar(&opts.batch, "batch", 1, "pictures")
	flags.IntVar(&opts.tokens, "tokens", 0, "`number` of tokens in front of each text (default: 40 for language models,\n"+
		"queries included; 1 for qformer, 4 for blip-large)")
	flags.IntVar(&opts.beams, "beams", 5, "texts that run side by side for each picture; 1 is greedy search")
	flags.IntVar(&opts.draw, "draw", 0, "draw so many `texts` for each picture in place of a search, as captions are\n"+
		"drawn for web pictures: from the most likely tokens that make up 0.9")
	flags.IntVar(&opts.newTokens, "new-tokens", 20, "tokens that every text gets")
	flags.StringVar(&opts.dtype, "dtype", "", "`type` of weights and activations: f32, bf16 or f16 (default: bf16\n"+
		"for more than a billion parameters on XLA, else f32)")
	flags.IntVar(&opts.runs, "runs", 5, "runs that are measured")
	flags.IntVar(&opts.warmup, "warmup", 1, "runs before them that are not")
	flags.StringVar(&opts.weights, "weights", "", "checkpoint to load, file or `folder`, in place of random weights")
	for name, values := range map[string][]string{"model": fullsize.Writers(), "dtype": {"f32", "bf16", "f16"}} {
		if err := cmd.RegisterFlagCompletionFunc(name,
			cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flag was defined just above
		}
	}
	return cmd
}

// benchGenerateReport is what the command prints.
type benchGenerateReport struct {
	Model       string                   `json:"model"`
	Weights     string                   `json:"weights"` // path of --weights; empty: random numbers
	DType       weights.DType            `json:"dtype"`
	Backend     string                   `json:"backend"`
	Description string                   `json:"backend_description"`
	Machine     benchMachine             `json:"machine"`
	Build       versionInfo              `json:"build"`
	Time        time.Time                `json:"time"` // of the start
	Result      *fullsize.GenerateResult `json:"result"`
}

// parse checks the flags; what depends on the backend is left.
func (o benchGenerateOptions) parse() (fullsize.GenerateOptions, error) {
	names := fullsize.Writers()
	if !slices.Contains(names, o.model) {
		return fullsize.GenerateOptions{}, usagef("--model %q is no network that writes texts%s", o.model,
			suggest(o.model, names))
	}
	network, err := fullsize.Find(o.model)
	if err != nil {
		return fullsize.GenerateOptions{}, err
	}
	run := fullsize.GenerateOptions{Network: network, Beams: o.beams, Draw: o.draw, NewTokens: o.newTokens,
		Warmup: o.warmup, Runs: o.runs, Path: o.weights,
		Sizes: fullsize.Sizes{Batch: o.batch, Tokens: cmp.Or(o.tokens, network.UsualPrompt())}}
	if run.DType, err = parseDType(o.dtype); err != nil {
		return run, err
	}
	if err := run.Validate(); err != nil {
		return run, &UsageError{Err: err}
	}
	return run, nil
}

// runBenchGenerate measures and prints.
func runBenchGenerate(ctx context.Context, app *App, opts benchGenerateOptions) error {
	run, err := opts.parse()
	if err != nil {
		return err
	}
	return opts.measure(ctx, app, run)
}

// measure measures what was parsed.
func (o benchGenerateOptions) measure(ctx context.Context, app *App, run fullsize.GenerateOptions) error {
	dev, err := openDevice(ctx, device.Options{Backend: app.Globals.Backend, DType: o.dtype, Logger: app.Log})
	if err != nil {
		return err
	}
	defer closeDevice(app, dev)
	switch {
	case dev.Plugin == nil: // the Go backend computes in float32 alone
		run.DType = weights.F32
	case run.DType == "":
		run.DType = run.Network.DType
	}
	run.Sizes.Compute = fullsize.ComputeType(run.DType)
	if err := checkMemory(run.Network, run.DType, dev); err != nil {
		return err
	}
	if app.Globals.Seed != nil {
		run.Seed = *app.Globals.Seed
	}
	run.OnEvent = func(what string, took time.Duration) { app.Log.Info(what, "took", took.Round(time.Millisecond)) }
	report := benchGenerateReport{Model: run.Network.Name, Weights: o.weights, DType: run.DType, Backend: dev.Name,
		Description: dev.Description, Machine: thisMachine(), Build: newVersionInfo(app.buildInfo()),
		Time: time.Now().UTC().Truncate(time.Second)}
	if report.Result, err = fullsize.Generate(ctx, dev.Backend, run); err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, report)
	}
	return report.writeText(app.Out)
}

// closeDevice frees a backend; that it could not be freed does not make a result wrong.
func closeDevice(app *App, dev *device.Device) {
	if err := dev.Close(); err != nil {
		app.Log.Warn("closing the backend", "error", err)
	}
}

// writeText writes the report as a table.
func (r benchGenerateReport) writeText(w io.Writer) error {
	m, tab := r.Result, tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	source := "random weights"
	if r.Weights != "" {
		source = "weights of " + r.Weights
	}
	milliseconds := func(s float64) string { return fmt.Sprintf("%.1f ms", 1e3*s) }
	texts := fmt.Sprintf("%d of %d tokens behind %d, beam %d", m.Batch, m.NewTokens, m.Tokens, m.Beams)
	if m.Drawn > 0 {
		texts = fmt.Sprintf("%d of %d tokens behind %d, drawn for %d pictures", m.Batch*m.Drawn, m.NewTokens, m.Tokens,
			m.Batch)
	}
	for _, row := range [][2]string{
		{"model", r.Model + ", " + source},
		{"parameters", fmt.Sprintf("%s, kept in %s as %s", millions(m.Parameters), gigabytes(uint64(m.WeightBytes)),
			r.DType)},
		{"texts", texts},
		{"activations", m.Compute},
		{"backend", r.Backend + ": " + r.Description},
		{"machine", r.Machine.String()},
		{"build", fmt.Sprintf("commit %s, %s %s", r.Build.commitText(), r.Build.Go, r.Build.Platform)},
		{"load", fmt.Sprintf("%.2f s", m.LoadSeconds)},
		{"compile", fmt.Sprintf("%.1f s, %d programs", m.CompileSeconds, m.Compilations)},
		{"run", fmt.Sprintf("%.3f s (median of %d; %.3f to %.3f)", m.Seconds.Median, m.Runs, m.Seconds.Min, m.Seconds.Max)},
		{"processor time", secondsText(m.CPUSeconds, " per run, all cores together")},
		{"speed", fmt.Sprintf("%.1f tokens/s", m.TokensPerS)},
		{"first token", milliseconds(m.FirstToken.Median)},
		{"further tokens", fmt.Sprintf("%s each (%s to %s); early %s, late %s", milliseconds(m.NextToken.Median),
			milliseconds(m.NextToken.Min), milliseconds(m.NextToken.Max), milliseconds(m.Early), milliseconds(m.Late))},
		{"weights read", fmt.Sprintf("%s per token, %.1f GB/s", gigabytes(uint64(m.ReadBytes)), m.WeightGBPerS)},
		{"cache", fmt.Sprintf("%.2f MB, computed %.2f MB (%.2f MB with a copy of the prompt for every text)",
			float64(m.CacheBytes)/1e6, float64(m.CacheComputed)/1e6, float64(m.CacheTiled)/1e6)},
		{"host memory", "peak " + gigabytes(m.PeakMemory)},
	} {
		fmt.Fprintf(tab, "%s\t%s\n", row[0], row[1])
	}
	return tab.Flush()
}
