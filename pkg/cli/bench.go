package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
	"blip2/pkg/stage1"
	"blip2/pkg/tokenizer"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
)

type benchOptions struct {
	config  configFlags
	model   string
	dtype   string
	devices int
	batch   int
	steps   int
	warmup  int
	parts   bool

	accumulate  int
	microBatch  int
	contrastive bool
}

// benchModel is a model that `bench` knows by name: a configuration file of the project, or settings over the
// defaults, with the vocabulary of bert-base-uncased.
type benchModel struct {
	name string
	path string
	set  []string
}

func benchModels() []benchModel {
	qformer := "qformer.preset=bert-base"
	return []benchModel{
		{name: "quickstart", path: filepath.Join("configs", "quickstart.yaml")},
		{name: "vitl", set: []string{"vision.preset=clip-vit-l14", qformer}},
		{name: "vitg", set: []string{"vision.preset=eva-vit-g14", qformer}},
	}
}

// benchBatch is the batch of the named big models: small enough for a laptop.
const benchBatch = 8

func newBenchCmd(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast this machine trains, infers and scores",
	}
	cmd.AddCommand(newBenchStage1Cmd(app), newBenchStage2Cmd(app), newBenchForwardCmd(app), newBenchGenerateCmd(app),
		newBenchMetricsCmd(app), newBenchDataCmd(app))
	return cmd
}

func newBenchStage1Cmd(app *App) *cobra.Command {
	var opts benchOptions
	cmd := &cobra.Command{
		Use:   "stage1",
		Short: "Measure one training step of stage 1",
		Long: `Trains a stage-1 model of random weights on random pairs, by the code that pretrain-stage1 trains with, and
prints the time to compile the step, the time of a step, pictures per second, GFLOP/s and the peak of host memory.
Nothing is read but the configuration and its vocabulary, and nothing is written.

The work of a step is that of its matrix products, two operations per multiply-add; the table shows it by part. Other
programs on the machine spoil the figures: look at the smallest and the largest step.

With --parts every part of the step is measured too, as a program of its own: forward, and as in a step with its
gradients. Its rate is compared with that of a large matrix product, measured just before it. A step whose layers are so
narrow that there is nothing to compute tells how much time is spent around the program at most.`,
		Example: `  blip2 bench stage1
  blip2 bench stage1 --model vitl --backend xla:cpu --parts
  blip2 bench stage1 --config configs/quickstart.yaml --set vision.freeze=true --batch 64
  blip2 bench stage1 --model vitg --backend xla:cuda --batch 96 --steps 20 --json
  blip2 bench stage1 --model vitl --batch 64 --micro-batch 8 --contrastive`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBenchStage1(cmd.Context(), app, opts) },
	}
	opts.config.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&opts.model, "model", "", "quickstart (the default), vitl or vitg, in place of --config;\n"+
		"vitl and vitg: the paper's frozen encoder at 224 pixels and the full Q-Former")
	flags.IntVar(&opts.batch, "batch", 0, "pairs per step (default: the configuration's; 8 for vitl and vitg)")
	flags.IntVar(&opts.steps, "steps", 5, "steps that are measured")
	flags.IntVar(&opts.warmup, "warmup", 1, "steps before them that are not")
	flags.IntVar(&opts.accumulate, "accumulate", 0,
		"cut a batch into so many micro-batches (default: the configuration's)")
	flags.IntVar(&opts.microBatch, "micro-batch", 0, "the same by the pairs of a micro-batch")
	flags.BoolVar(&opts.contrastive, "contrastive", false, "ITC and hard negatives over the whole batch all the same")
	addDevices(cmd, &opts.devices)
	flags.BoolVar(&opts.parts, "parts", false, "measure every part of a step by itself too")
	flags.StringVar(&opts.dtype, "dtype", "", "auto, f32, bf16 or f16 (default: the configuration's)")
	names := make([]string, 0, len(benchModels()))
	for _, m := range benchModels() {
		names = append(names, m.name)
	}
	if err := cmd.RegisterFlagCompletionFunc("model",
		cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was defined just above
	}
	return cmd
}

// addDevices defines --devices.
func addDevices(cmd *cobra.Command, devices *int) {
	cmd.Flags().IntVar(devices, "devices", 0, "devices that share a batch (default: the configuration's); XLA on the\n"+
		"processor offers as many virtual ones")
}

// benchReport is what the command prints.
type benchReport struct {
	Model        string              `json:"model"` // name of --model, or path of --config
	ImageEncoder string              `json:"image_encoder"`
	Frozen       bool                `json:"frozen_image_encoder"`
	QFormer      string              `json:"qformer"`
	LLM          string              `json:"language_model,omitempty"`
	Backend      string              `json:"backend"`
	Description  string              `json:"backend_description"`
	DTypes       string              `json:"dtypes"`
	DeviceMemory string              `json:"device_memory"`
	Machine      benchMachine        `json:"machine"`
	Build        versionInfo         `json:"build"`
	Time         time.Time           `json:"time"` // of the start
	Result       *stage1.BenchResult `json:"result"`
}

// runBenchStage1 measures and prints.
func runBenchStage1(ctx context.Context, app *App, opts benchOptions) error {
	name, cfg, err := opts.load(app)
	if err != nil {
		return err
	}
	vocab, err := benchVocabulary(cfg)
	if err != nil {
		return err
	}
	dev, err := openBenchDevice(ctx, app, cfg)
	if err != nil {
		return err
	}
	defer func() {
		if err := dev.Close(); err != nil {
			app.Log.Warn("closing the backend", "error", err)
		}
	}()
	net := stage1.NewConfig(cfg, vocab)
	net.Compute = dev.DTypes.Compute
	report := newBenchReport(app, name, benchSizes{net.Vision, net.QFormer, net.FreezeVision}, dev)
	report.QFormer += fmt.Sprintf(", %d text tokens, vocabulary %d", net.MaxTextLen, net.QFormer.Vocab)
	app.Log.Info("measuring", "model", name, "backend", dev.Name, "batch", cfg.Train.BatchSize)
	report.Result, err = stage1.Bench(ctx, dev.Backend, stage1.BenchOptions{
		Config: net, Optimizer: training.NewOptimizer(cfg.Optim), LR: cfg.Optim.LR,
		Batch: cfg.Train.BatchSize, Warmup: opts.warmup, Steps: opts.steps, Seed: cfg.Seed,
		Devices: dev.Devices, SpreadFrozen: cfg.Mesh.ShardFrozen, ByParts: opts.parts,
		OnStep: func(step int, took time.Duration, r trainer.Result) {
			app.Log.Info("step done", "step", step, "took", took.Round(time.Millisecond),
				"counts", step >= opts.warmup, "loss", r.Loss)
		},
	})
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, report)
	}
	return report.writeText(app.Out)
}

// openBenchDevice opens the backend of the configuration.
func openBenchDevice(ctx context.Context, app *App, cfg *config.Stage1) (*device.Device, error) {
	return openDevice(ctx, device.Options{Backend: cfg.Backend, Devices: int(cfg.Devices), DType: cfg.Device.DType,
		Preallocate: cfg.Device.Preallocate, MemoryFraction: float64(cfg.Device.MemoryFraction), Logger: app.Log})
}

// openDevice opens a backend; a wrong option is wrong usage.
func openDevice(ctx context.Context, o device.Options) (*device.Device, error) {
	dev, err := device.Open(ctx, o)
	var option *device.OptionError
	if errors.As(err, &option) {
		return nil, &UsageError{Err: err}
	}
	return dev, err
}

// benchSizes are what the models of both stages have.
type benchSizes struct {
	vision  vit.Config
	qformer qformer.Config
	frozen  bool
}

// newBenchReport fills in all but the result.
func newBenchReport(app *App, name string, net benchSizes, dev *device.Device) benchReport {
	v, q := net.vision, net.qformer
	r := benchReport{
		Model: name,
		ImageEncoder: fmt.Sprintf("%s ViT, %d blocks of width %d, %d tokens at %d px", strings.ToUpper(v.Arch), v.Layers,
			v.Width, v.Tokens(), v.ImageSize),
		Frozen:  net.frozen,
		QFormer: fmt.Sprintf("%d layers of width %d, %d queries", q.Layers, q.Hidden, q.Queries),
		Backend: dev.Name, Description: dev.Description, DTypes: dev.DTypes.String(), DeviceMemory: "the host's",
		Machine: thisMachine(), Build: newVersionInfo(app.buildInfo()), Time: time.Now().UTC().Truncate(time.Second),
	}
	if dev.Plugin != nil && dev.Plugin.Kind != device.KindCPU {
		r.DeviceMemory = "not measured"
	}
	return r
}

// load returns the configuration to measure, with the command's own flags in it, and what to call it.
func (o benchOptions) load(app *App) (string, *config.Stage1, error) {
	if o.config.path != "" && o.model != "" {
		return "", nil, usagef("give --model or --config, not both")
	}
	switch {
	case o.batch < 0 || o.batch == 1:
		return "", nil, usagef("--batch %d: ITM needs a negative for every pair, so at least 2", o.batch)
	case o.steps < 1:
		return "", nil, usagef("--steps %d: measure at least 1", o.steps)
	case o.devices < 0:
		return "", nil, usagef("--devices %d: give 1 or more", o.devices)
	case o.warmup < 0:
		return "", nil, usagef("--warmup %d: give 0 or more", o.warmup)
	}
	opts, name := app.loadOptions(o.config), o.config.path
	if name == "" {
		model, err := o.namedModel()
		if err != nil {
			return "", nil, err
		}
		name, opts.Path = model.name, model.path
		// Before the user's own settings, so that those win.
		opts.Set = append(append([]string{}, model.set...), opts.Set...)
	}
	opts.Partial = true // no data is needed
	cfg, _, err := app.loadStage1(opts)
	if err != nil {
		return "", nil, err
	}
	if opts.Path == "" {
		cfg.Train.BatchSize = benchBatch
	}
	if o.batch > 0 {
		cfg.Train.BatchSize = o.batch
	}
	if o.devices > 0 {
		cfg.Devices = config.Devices(o.devices)
	}
	if o.dtype != "" {
		cfg.Device.DType = o.dtype
	}
	return name, cfg, o.cut(&cfg.Train)
}

// cut says how a batch is cut.
func (o benchOptions) cut(t *config.Train) error {
	switch {
	case o.accumulate < 0 || o.microBatch < 0:
		return usagef("--accumulate and --micro-batch: give 1 or more")
	case o.accumulate > 0 && o.microBatch > 0:
		return usagef("give --accumulate or --micro-batch, not both")
	case o.accumulate > 0:
		t.Accumulate, t.MicroBatchSize = o.accumulate, 0
	case o.microBatch > 0:
		t.Accumulate, t.MicroBatchSize = 1, o.microBatch
	}
	t.ContrastiveAccumulation = t.ContrastiveAccumulation || o.contrastive
	switch parts := t.MicroBatches(); {
	case t.BatchSize%parts != 0 || t.MicroBatchSize > 0 && t.BatchSize/parts != t.MicroBatchSize:
		return usagef("a batch of %d cannot be cut into equal micro-batches: choose a divisor", t.BatchSize)
	case parts > 1 && t.BatchSize/parts < 2 && !t.ContrastiveAccumulation:
		return usagef("micro-batches of one pair have no negatives for ITM: make them larger or give --contrastive")
	case parts == 1 && o.contrastive:
		return usagef("--contrastive is for --accumulate or --micro-batch")
	}
	return nil
}

// namedModel finds the model of --model.
func (o benchOptions) namedModel() (benchModel, error) {
	models := benchModels()
	if o.model == "" {
		o.model = models[0].name
	}
	var names []string
	for _, m := range models {
		names = append(names, m.name)
		if m.name != o.model {
			continue
		}
		if m.path != "" {
			if _, err := os.Stat(m.path); err != nil {
				return m, usagef("--model %s is %s of the project's folder, and it is not here: %w\n"+
					"run the command in that folder, or name a file with --config", m.name, m.path, err)
			}
		}
		return m, nil
	}
	return benchModel{}, usagef("--model %q is unknown%s", o.model, suggest(o.model, names))
}

// benchVocabulary is that of the configuration, or of bert-base-uncased if it names none.
func benchVocabulary(cfg *config.Stage1) (stage1.Vocabulary, error) {
	if cfg.Text.Vocab == "" {
		return stage1.BERTVocabulary(), nil
	}
	words, err := tokenizer.LoadWordPiece(cfg.Text.Vocab)
	if err != nil {
		return stage1.Vocabulary{}, fmt.Errorf("text.vocab: %w; or measure --model vitl, which needs no file", err)
	}
	return stage1.VocabularyOf(words), nil
}

// writeText writes the report as two tables.
func (r benchReport) writeText(w io.Writer) error {
	m, tab := r.Result, tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	trained := "trained"
	if r.Frozen {
		trained = "frozen"
	}
	llm := [][2]string{}
	if r.LLM != "" {
		llm = append(llm, [2]string{"language model", r.LLM + ", frozen"})
	}
	for _, row := range slices.Concat([][2]string{
		{"model", r.Model + ", random weights"},
		{"image encoder", r.ImageEncoder + ", " + trained},
		{"Q-Former", r.QFormer},
	}, llm, [][2]string{
		{"parameters", fmt.Sprintf("%s, %s of them trained", millions(m.Parameters), millions(m.TrainableParameters))},
		{"batch", batchText(m)},
		{"devices", fmt.Sprintf("%d, each with %s of weights and optimizer state", m.Devices, gigabytes(m.DeviceState))},
		{"backend", r.Backend + ": " + r.Description},
		{"number types", r.DTypes},
		{"machine", r.Machine.String()},
		{"build", fmt.Sprintf("commit %s, %s %s", r.Build.commitText(), r.Build.Go, r.Build.Platform)},
		{"initialise", fmt.Sprintf("%.1f s", m.InitSeconds)},
		{"compile", fmt.Sprintf("%.1f s", m.CompileSeconds)},
		{"step", fmt.Sprintf("%.3f s (median of %d; %.3f to %.3f)", m.StepSeconds.Median, m.Steps, m.StepSeconds.Min,
			m.StepSeconds.Max)},
		{"processor time", secondsText(m.CPUSeconds, " per step, all cores together")},
		{"speed", fmt.Sprintf("%.2f img/s, %.1f GFLOP/s", m.ImgPerS, m.GFLOPPerS)},
		{"host memory", fmt.Sprintf("peak %s (%s with the weights drawn, %s in the steps)", gigabytes(m.PeakMemory),
			gigabytes(m.PeakMemoryInit), gigabytes(m.PeakMemorySteps))},
		{"device memory", r.DeviceMemory},
	}) {
		fmt.Fprintf(tab, "%s\t%s\n", row[0], row[1])
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(tab, "\nGFLOP PER STEP\tFORWARD\tBACKWARD\tSHARE")
	for _, p := range m.Parts {
		fmt.Fprintf(tab, "%s\t%.2f\t%.2f\t%.1f%%\n", p.Part, p.Forward/1e9, p.Backward/1e9,
			100*p.Total()/m.StepFLOPs)
	}
	fmt.Fprintf(tab, "all\t\t%.2f\t\n", m.StepFLOPs/1e9)
	if m.RepeatedFLOPs > 0 {
		fmt.Fprintf(tab, "once more, to save memory\t\t%.2f\t%.1f%%\n", m.RepeatedFLOPs/1e9, 100*m.RepeatedFLOPs/m.StepFLOPs)
	}
	if m.Time != nil {
		writeParts(tab, m)
	}
	return tab.Flush()
}

// batchText says how large a batch is and how it is cut.
func batchText(m *stage1.BenchResult) string {
	text := fmt.Sprintf("%d pairs", m.Batch)
	switch {
	case m.MicroBatches > 1 && m.Coupled:
		text += fmt.Sprintf(" in %d micro-batches; ITC and hard negatives over all", m.MicroBatches)
	case m.MicroBatches > 1:
		text += fmt.Sprintf(" in %d micro-batches", m.MicroBatches)
	}
	return text
}

// writeParts writes where the time of a step goes.
func writeParts(tab *tabwriter.Writer, m *stage1.BenchResult) {
	t := m.Time
	fmt.Fprintln(tab, "\nPART BY ITSELF\tFORWARD\tWHOLE\tOF A STEP\tPROCESSOR\tGFLOP/S\tOF A LARGE PRODUCT")
	for _, p := range t.Parts {
		forward, rate, share := fmt.Sprintf("%.3f s", p.Forward.Median), fmt.Sprintf("%.0f", p.GFLOPPerS),
			fmt.Sprintf("%.0f%%", 100*p.Share)
		if p.FLOPs == 0 {
			forward, rate, share = "", "", ""
		}
		fmt.Fprintf(tab, "%s\t%s\t%.3f s\t%.1f%%\t%s\t%s\t%s\n", p.Part, forward, p.Whole.Median,
			100*p.Whole.Median/m.StepSeconds.Median, secondsText(p.CPU, ""), rate, share)
	}
	fmt.Fprintf(tab, "all\t\t%.3f s\t%.1f%%\t%s\t\t\n", t.Seconds, 100*t.Seconds/m.StepSeconds.Median,
		secondsText(t.CPU, ""))
	fmt.Fprintf(tab, "\nlarge product\t%.0f GFLOP/s (%.0f to %.0f)\n", t.Product.Median, t.Product.Min, t.Product.Max)
	fmt.Fprintf(tab, "around the program\tat most %.4f s, %.2f%% of a step\n", t.Overhead.Median,
		100*t.Overhead.Median/m.StepSeconds.Median)
}

func millions(n int) string { return fmt.Sprintf("%.2f M", float64(n)/1e6) }

// secondsText writes a time and what it is; 0 is not measured.
func secondsText(seconds float64, what string) string {
	if seconds == 0 {
		return "not measured"
	}
	return fmt.Sprintf("%.2f s%s", seconds, what)
}

// gigabytes writes a size in units of 10⁹ bytes; 0 is not measured.
func gigabytes(n uint64) string {
	if n == 0 {
		return "not measured"
	}
	return fmt.Sprintf("%.2f GB", float64(n)/1e9)
}
