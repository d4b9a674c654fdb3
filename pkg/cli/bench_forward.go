package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"blip2/pkg/device"
	"blip2/pkg/fullsize"
	"blip2/pkg/internal/measure"
	"blip2/pkg/pretrained"
	"blip2/pkg/published"
	"blip2/pkg/weights"
)

type forwardOptions struct {
	model     string
	batch     int
	tokens    int
	dtype     string
	steps     int
	warmup    int
	weights   string
	keep      string
	container string
}

func newBenchForwardCmd(app *App) *cobra.Command {
	var opts forwardOptions
	cmd := &cobra.Command{
		Use:   "forward",
		Short: "Measure loading and inference of a network at its published size",
		Long: `Loads a network of published size as any checkpoint is loaded, runs it, and prints how fast it loads and how
much memory that takes beyond what the process had before, the time to compile and to compute each pass, GFLOP/s, for
single tokens the rate at which weights are read, and the peak of host memory.

Without --weights a checkpoint of random numbers is written first, into a temporary folder that is removed at the end,
or into --keep, where it is used again. It takes as much disk as the weights have bytes. Before loading, the files are
read once, so that they come from the page cache if the machine has room for them.

The work of a pass is that of its matrix products, two operations per multiply-add. Other programs on the machine spoil
the figures: look at the smallest and the largest run.`,
		Example: `  blip2 bench forward --model vit-g --backend xla:cpu
  blip2 bench forward --model opt-2.7b --tokens 64 --keep /tmp/bench
  blip2 bench forward --model flan-t5-xl --weights models/flan-t5-xl --backend xla:cuda --json
  blip2 bench forward --model opt-125m --container pth --backend go`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBenchForward(cmd.Context(), app, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.model, "model", "", "the network: vit-l-qformer, vit-g, qformer, blip-large, clip-vit-l14,\n"+
		"opt-125m to opt-66b, flan-t5-small to flan-t5-xxl")
	flags.IntVar(&opts.batch, "batch", 1, "pictures, texts or both")
	flags.IntVar(&opts.tokens, "tokens", 0,
		"`length` of each text (default: 64 for language models, 77 for CLIP, 4 for BLIP,\n"+
			"1 for qformer)")
	flags.StringVar(&opts.dtype, "dtype", "", "`type` of weights and activations: f32, bf16 or f16 (default: bf16\n"+
		"for more than a billion parameters on XLA, else f32; with --weights: that of the file)")
	flags.IntVar(&opts.steps, "steps", 5, "runs of each pass that are measured")
	flags.IntVar(&opts.warmup, "warmup", 1, "runs before them that are not")
	flags.StringVar(&opts.weights, "weights", "", "checkpoint to load, file or `folder`, in place of random weights")
	flags.StringVar(&opts.keep, "keep", "", "`folder` for the random weights, which stay there and are used again")
	flags.StringVar(&opts.container, "container", fullsize.Safetensors, "of the random weights: "+
		strings.Join(fullsize.Containers(), " or "))
	for name, values := range map[string][]string{"model": fullsize.Names(), "container": fullsize.Containers(),
		"dtype": {"f32", "bf16", "f16"}} {
		if err := cmd.RegisterFlagCompletionFunc(name,
			cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
			panic(err) // the flag was defined just above
		}
	}
	return cmd
}

// forwardReport is what the command prints.
type forwardReport struct {
	Model        string           `json:"model"`
	Weights      string           `json:"weights"` // path of --weights; empty: random numbers
	Written      fullsize.Written `json:"written"` // the random weights
	Backend      string           `json:"backend"`
	Description  string           `json:"backend_description"`
	DeviceMemory string           `json:"device_memory"`
	Machine      benchMachine     `json:"machine"`
	Build        versionInfo      `json:"build"`
	Time         time.Time        `json:"time"` // of the start
	Result       *fullsize.Result `json:"result"`
}

// runBenchForward finds the network and measures it.
func runBenchForward(ctx context.Context, app *App, opts forwardOptions) error {
	network, err := opts.network()
	if err != nil {
		return err
	}
	return opts.measure(ctx, app, network)
}

// measure measures a network and prints.
func (o *forwardOptions) measure(ctx context.Context, app *App, network fullsize.Network) error {
	dev, err := openDevice(ctx, device.Options{Backend: app.Globals.Backend, DType: o.dtype, Logger: app.Log})
	if err != nil {
		return err
	}
	defer func() {
		if err := dev.Close(); err != nil {
			app.Log.Warn("closing the backend", "error", err)
		}
	}()
	dtype, precision, err := o.types(network, dev)
	if err != nil {
		return err
	}
	if err := checkMemory(network, dtype, dev); err != nil {
		return err
	}
	report := newForwardReport(app, network, dev)
	report.Weights = o.weights
	path, remove, err := o.checkpoint(ctx, app, network, dtype, &report)
	if err != nil {
		return err
	}
	defer remove()
	run := fullsize.Options{Network: network, Path: path, Precision: precision, Warmup: o.warmup, Steps: o.steps,
		Sizes: o.sizes(dtype), OnEvent: func(what string, took time.Duration) {
			app.Log.Info(what, "took", took.Round(time.Millisecond))
		}}
	if app.Globals.Seed != nil {
		run.Seed = *app.Globals.Seed
	}
	if report.Result, err = fullsize.Run(ctx, dev.Backend, run); err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, report)
	}
	return report.writeText(app.Out)
}

// network finds the network of --model and checks the numbers; tokens get their default.
func (o *forwardOptions) network() (fullsize.Network, error) {
	names := fullsize.Names()
	if o.model == "" {
		return fullsize.Network{}, usagef("--model is needed: one of %s", strings.Join(names, ", "))
	}
	if !slices.Contains(names, o.model) {
		return fullsize.Network{}, usagef("--model %q is unknown%s", o.model, suggest(o.model, names))
	}
	network, err := fullsize.Find(o.model)
	if err != nil {
		return network, err
	}
	if o.tokens == 0 {
		o.tokens = network.Tokens
	}
	if err := network.Validate(o.sizes(network.DType)); err != nil {
		return network, &UsageError{Err: err}
	}
	switch {
	case o.steps < 1:
		return network, usagef("--steps %d: measure at least 1", o.steps)
	case o.warmup < 0:
		return network, usagef("--warmup %d: give 0 or more", o.warmup)
	case !slices.Contains(fullsize.Containers(), o.container):
		return network, usagef("--container %q is unknown%s", o.container, suggest(o.container, fullsize.Containers()))
	case o.weights != "" && o.keep != "":
		return network, usagef("--keep is for random weights: leave it out with --weights")
	}
	if _, err := parseDType(o.dtype); err != nil {
		return network, err
	}
	return network, nil
}

func (o *forwardOptions) sizes(dtype weights.DType) fullsize.Sizes {
	return fullsize.Sizes{Batch: o.batch, Tokens: o.tokens, Compute: fullsize.ComputeType(dtype)}
}

// types returns the type in which most weights are kept and products are computed, and that of every single tensor. The
// Go backend computes in float32 alone.
func (o *forwardOptions) types(network fullsize.Network, dev *device.Device) (
	dtype weights.DType, precision pretrained.Precision, err error) {
	given, err := parseDType(o.dtype)
	switch {
	case err != nil:
		return "", nil, err
	case dev.Plugin == nil:
		return weights.F32, pretrained.Float32, nil
	case given == "" && o.weights == "":
		return network.DType, pretrained.AsStored, nil
	case o.weights == "":
		return given, pretrained.AsStored, nil
	case given != "":
		return given, pretrained.Frozen(fullsize.ComputeType(given)), nil
	}
	given, err = mostBytes(o.weights)
	return given, pretrained.AsStored, err
}

// mostBytes is the floating-point type of most of a checkpoint's numbers.
func mostBytes(path string) (weights.DType, error) {
	src, err := weights.OpenAny(path)
	if err != nil {
		return "", err
	}
	defer src.Close() // read only: nothing can be lost
	types, err := published.CountTypes(src)
	if err != nil {
		return "", err
	}
	for _, t := range types {
		switch t.DType {
		case weights.F32, weights.BF16, weights.F16:
			return t.DType, nil
		}
	}
	return weights.F32, nil
}

// checkMemory refuses weights that the machine has no memory for, before it begins to swap or kills programs.
func checkMemory(network fullsize.Network, dtype weights.DType, dev *device.Device) error {
	need, left := uint64(network.Bytes(dtype)), measure.AvailableMemory()
	if !onHost(dev) || left == 0 || need <= left {
		return nil
	}
	return fmt.Errorf("%s has %s of weights as %s, and the machine has %s of memory left: close other programs, or "+
		"choose a smaller network or type", network.Name, gigabytes(need), dtype, gigabytes(left))
}

// onHost reports whether a device computes in the host's memory.
func onHost(dev *device.Device) bool { return dev.Plugin == nil || dev.Plugin.Kind == device.KindCPU }

// checkpoint returns the path of the weights and what removes them again; random ones are written unless they are
// there.
func (o *forwardOptions) checkpoint(ctx context.Context, app *App, network fullsize.Network, dtype weights.DType,
	report *forwardReport) (path string, remove func(), err error) {
	remove = func() {}
	if o.weights != "" {
		return o.weights, remove, nil
	}
	dir := o.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "blip2-bench-"); err != nil {
			return "", remove, err
		}
		remove = func() {
			if err := os.RemoveAll(dir); err != nil {
				app.Log.Warn("removing the random weights", "error", err)
			}
		}
	}
	app.Log.Info("writing random weights", "folder", dir, "bytes", network.Bytes(dtype))
	report.Written, err = network.Write(ctx, dir, o.container, dtype)
	if err != nil {
		remove()
		return "", func() {}, err
	}
	return report.Written.Path, remove, nil
}

// newForwardReport fills in what is known before the measurement.
func newForwardReport(app *App, network fullsize.Network, dev *device.Device) forwardReport {
	r := forwardReport{Model: network.Name, Backend: dev.Name, Description: dev.Description, DeviceMemory: "the host's",
		Machine: thisMachine(), Build: newVersionInfo(app.buildInfo()), Time: time.Now().UTC().Truncate(time.Second)}
	if dev.Plugin != nil && dev.Plugin.Kind != device.KindCPU {
		r.DeviceMemory = "not measured"
	}
	return r
}

// writeText writes the report as three tables.
func (r forwardReport) writeText(w io.Writer) error {
	m, tab := r.Result, tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	load := m.Load
	for _, row := range [][2]string{
		{"model", r.Model + ", " + r.weightsText()},
		{"parameters", fmt.Sprintf("%s, kept in %s as %s", millions(m.Parameters), gigabytes(uint64(m.WeightBytes)),
			typesText(m.Types))},
		{"inputs", r.inputsText()},
		{"activations", m.Compute},
		{"backend", r.Backend + ": " + r.Description},
		{"machine", r.Machine.String()},
		{"build", fmt.Sprintf("commit %s, %s %s", r.Build.commitText(), r.Build.Go, r.Build.Platform)},
		{"written", r.writtenText()},
		{"load", fmt.Sprintf("%.2f s (%s), %.2f GB/s, from %s; the files were read once before (%.1f s)", load.Seconds,
			secondsText(load.CPUSeconds, " of processor time"), load.GBPerS, load.Container, load.ReadSeconds)},
		{"memory to load", loadText(load)},
		{"host memory", "peak " + gigabytes(m.PeakMemory)},
		{"device memory", r.DeviceMemory},
	} {
		fmt.Fprintf(tab, "%s\t%s\n", row[0], row[1])
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(tab, "\nPASS\tCOMPILE\tRUN (MEDIAN OF %d)\tPROCESSOR\tGFLOP\tGFLOP/S\tWEIGHTS READ\n", m.Steps)
	for _, p := range m.Passes {
		s, read := p.StepSeconds, ""
		if p.WeightGBPerS > 0 {
			read = fmt.Sprintf("%s, %.1f GB/s", gigabytes(uint64(p.WeightBytes)), p.WeightGBPerS)
		}
		fmt.Fprintf(tab, "%s\t%.1f s\t%.3f s (%.3f to %.3f)\t%s\t%.1f\t%.1f\t%s\n", p.Name, p.CompileSeconds, s.Median,
			s.Min, s.Max, secondsText(p.CPUSeconds, ""), p.FLOPs/1e9, p.GFLOPPerS, read)
	}
	fmt.Fprintln(tab, "\nHOST MEMORY\tTOTAL\tOWN\tFILES")
	r.writeMemory(tab)
	return tab.Flush()
}

// writeMemory writes a row per phase. Peaks of the parts need not be those of one moment.
func (r forwardReport) writeMemory(w io.Writer) {
	row := func(phase string, m measure.Memory) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", phase, gigabytes(m.Total), gigabytes(m.Anon), gigabytes(m.File))
	}
	row("before loading", r.Result.Load.Before)
	row("peak while loading", r.Result.Load.Peak)
	row("loaded", r.Result.Load.After)
	for _, p := range r.Result.Passes {
		row("peak while compiling: "+p.Name, p.PeakCompile)
		row("peak while running: "+p.Name, p.PeakSteps)
	}
}

func (r forwardReport) weightsText() string {
	if r.Weights == "" {
		return "random weights"
	}
	return "weights of " + r.Weights
}

func (r forwardReport) inputsText() string {
	text := fmt.Sprintf("batch %d", r.Result.Batch)
	if r.Result.Tokens > 0 {
		text += fmt.Sprintf(", %d tokens", r.Result.Tokens)
	}
	return text
}

func (r forwardReport) writtenText() string {
	switch w := r.Written; {
	case r.Weights != "":
		return "nothing"
	case w.Seconds == 0:
		return "nothing: the weights were there"
	default:
		return fmt.Sprintf("%s in %.1f s, %.0f MB/s", gigabytes(uint64(w.Bytes)), w.Seconds, float64(w.Bytes)/w.Seconds/1e6)
	}
}

// typesText writes "Float32", or "BFloat16 and Float32" with the most frequent first.
func typesText(types map[string]int) string {
	names := slices.SortedFunc(maps.Keys(types), func(a, b string) int {
		return cmp.Or(cmp.Compare(types[b], types[a]), cmp.Compare(a, b))
	})
	return strings.Join(names, " and ")
}

// loadText says how much memory loading took at its peak beyond what was there before.
func loadText(load fullsize.LoadResult) string {
	if load.Peak.Total == 0 {
		return "not measured"
	}
	return fmt.Sprintf("%s beyond the %s before, %.3f times the tensors", gigabytes(load.Peak.Total-load.Before.Total),
		gigabytes(load.Before.Total), load.Ratio)
}
