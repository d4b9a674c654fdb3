package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/gomlx/compute/dtypes"
	"github.com/spf13/cobra"

	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/internal/measure"
	"blip2/pkg/plan"
	"blip2/pkg/stage1"
	"blip2/pkg/stage2"
)

type planOptions struct {
	config      configFlags
	command     string
	gpu         string
	devices     int
	utilisation float64
}

// gpuCPU is the name of this machine's processor among the devices of plan.
const gpuCPU = "CPU"

func newPlanCmd(app *App) *cobra.Command {
	var opts planOptions
	names := []string{gpuCPU}
	for _, d := range plan.GPUs() {
		names = append(names, d.Name)
	}
	cmd := &cobra.Command{
		Use:   "plan --config FILE",
		Short: "Say what a training needs: memory, work and time",
		Long: `Says before a training what it needs: trained and frozen parameters, memory on each device by component, the work
of a step, pictures per second and wall time at a given utilisation, and the largest micro-batch that fits. Memory is
predicted from the graph of the step; no weights are read or made.

The predicted total is within a tenth of what XLA reports for the compiled step on models that were compared.`,
		Example: `  blip2 plan --config configs/pretrain_stage1_vitg.yaml --gpu A100-40G --devices 16
  blip2 plan --config configs/pretrain_stage1_vitl.yaml --gpu CPU --set train.batch_size=8
  blip2 plan --for pretrain-stage2 --config configs/pretrain_stage2_opt2.7b.yaml --gpu H100 --devices 8 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runPlan(cmd.Context(), app, opts) },
	}
	opts.config.add(cmd)
	addFor(cmd, &opts.command)
	flags := cmd.Flags()
	flags.StringVar(&opts.gpu, "gpu", plan.A100with40, "device: "+strings.Join(names, ", "))
	flags.IntVar(&opts.devices, "devices", 0, "devices that share a batch (default: the configuration's, or 1)")
	flags.Float64Var(&opts.utilisation, "utilisation", 0.5, "share of the greatest rate that is reached")
	if err := cmd.RegisterFlagCompletionFunc("gpu",
		cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was defined just above
	}
	return cmd
}

func runPlan(ctx context.Context, app *App, opts planOptions) error {
	if opts.devices < 0 || !(opts.utilisation > 0 && opts.utilisation <= 1) {
		return usagef("--devices must not be negative, and --utilisation must be above 0 and at most 1")
	}
	dev, err := opts.device(ctx, app)
	if err != nil {
		return err
	}
	subject, err := opts.subject(app, dev.Name == gpuCPU)
	if err != nil {
		return err
	}
	if opts.devices > 0 {
		subject.Devices = opts.devices
	}
	// Graphs are built on the Go backend: it is there on every machine.
	backend, err := device.Open(ctx, device.Options{Backend: "go", Logger: app.Log})
	if err != nil {
		return err
	}
	defer backend.Close()
	p, err := plan.Make(backend.Backend, subject, dev, opts.utilisation)
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, p)
	}
	return writePlan(app.Out, p)
}

// device finds the device, or measures this machine's processor.
func (opts planOptions) device(ctx context.Context, app *App) (plan.Device, error) {
	var names []string
	for _, d := range plan.GPUs() {
		if strings.EqualFold(d.Name, opts.gpu) {
			return d, nil
		}
		names = append(names, d.Name)
	}
	if !strings.EqualFold(opts.gpu, gpuCPU) {
		return plan.Device{}, usagef("--gpu %q is not known%s", opts.gpu, suggest(opts.gpu, append(names, gpuCPU)))
	}
	name := app.Globals.Backend
	if name == "" || name == "xla:cuda" {
		name = "auto"
	}
	dev, err := device.Open(ctx, device.Options{Backend: name, Logger: app.Log})
	if err != nil {
		return plan.Device{}, usageOf(err)
	}
	defer dev.Close()
	rate := dev.PeakFLOPs()
	return plan.Device{Name: gpuCPU, Memory: int64(measure.AvailableMemory()), Half: rate, Single: rate}, nil
}

// subject is the training that the configuration describes. What is only needed to run it may be missing.
func (opts planOptions) subject(app *App, cpu bool) (plan.Subject, error) {
	if opts.config.path == "" && len(opts.config.set) == 0 {
		return plan.Subject{}, usagef("name the configuration with --config")
	}
	load := app.loadOptions(opts.config)
	load.Partial = true
	switch opts.command {
	case commandStage1:
		cfg, _, err := app.loadStage1(load)
		if err != nil {
			return plan.Subject{}, err
		}
		vocab, err := benchVocabulary(cfg)
		if errors.Is(err, fs.ErrNotExist) {
			app.Log.Info("the vocabulary is not there yet: planning with that of bert-base-uncased", "file", cfg.Text.Vocab)
			vocab, err = stage1.BERTVocabulary(), nil
		}
		if err != nil {
			return plan.Subject{}, err
		}
		s, err := plan.Stage1(cfg, vocab, planDType(cfg.Device.DType, cpu))
		s.Devices = int(cfg.Devices)
		return s, err
	case commandStage2:
		cfg, _, err := app.loadStage2(load)
		if err != nil {
			return plan.Subject{}, err
		}
		model, err := stage2.FromConfig(cfg)
		if name := filepath.Base(cfg.LLM.Path); errors.Is(err, fs.ErrNotExist) {
			if byName, known, wrong := stage2ByName(cfg, name); known {
				app.Log.Info("the language model is not there yet: planning with the sizes of its name", "name", name)
				model, err = byName, wrong
			}
		}
		if err != nil {
			return plan.Subject{}, err
		}
		dtype := planDType(cfg.Device.DType, cpu)
		s, err := plan.Stage2(cfg, model, dtype, planLLM(cfg.LLM, dtype))
		s.Devices = int(cfg.Devices)
		return s, err
	}
	return plan.Subject{}, unknownFor(opts.command)
}

// planDType is the type that a device computes in.
func planDType(name string, cpu bool) dtypes.DType {
	switch {
	case name == "bf16" || name == "auto" && !cpu:
		return dtypes.BFloat16
	case name == "f16":
		return dtypes.Float16
	}
	return dtypes.Float32
}

// planLLM is the type in which the language model is stored.
func planLLM(c config.LLM, compute dtypes.DType) dtypes.DType {
	if c.DType == "auto" {
		return compute
	}
	return planDType(c.DType, true)
}

func writePlan(w io.Writer, p *plan.Plan) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	m := p.Memory
	fit := "fits"
	if !p.Fits {
		fit = "DOES NOT FIT"
	}
	memory := func(n int64) string { return fmt.Sprintf("%.2f GB", float64(n)/1e9) }
	for _, row := range [][2]string{
		{"device", fmt.Sprintf("%d × %s, %s each, %.0f TFLOP/s", p.Devices, p.Device.Name, memory(p.Device.Memory),
			p.FLOPs/p.Step/p.Utilise/float64(p.Devices)/1e12)},
		{"parameters", fmt.Sprintf("%s trained, %s frozen", millions(p.Trained), millions(p.NotTrained))},
		{"batch", fmt.Sprintf("%d pairs, %d of them on a device at a time", p.Batch, p.MicroBatch)},
		{"", ""},
		{"memory of a device", fmt.Sprintf("%s: %s", memory(p.Total), fit)},
		{"  trained weights", memory(m.Weights)},
		{"  frozen weights", memory(m.Frozen)},
		{"  optimizer", memory(m.Optimizer)},
		{"  sums of gradients", memory(m.Accumulators)},
		{"  gradients", memory(m.Gradients)},
		{"  activations and workspace", memory(m.Activations)},
		{"  batch", memory(m.Batch)},
		{"largest micro-batch", fmt.Sprintf("%d pairs", p.Largest)},
		{"", ""},
		{"work of a step", fmt.Sprintf("%.2f TFLOP", p.FLOPs/1e12)},
	} {
		fmt.Fprintf(tab, "%s\t%s\n", row[0], row[1])
	}
	for _, part := range p.Parts {
		fmt.Fprintf(tab, "  %s\t%.2f TFLOP\t%.1f %%\n", part.Part, part.Total()/1e12, 100*part.Total()/p.FLOPs)
	}
	fmt.Fprintf(tab, "\nat %.0f %% utilisation\t%.3g s per step, %.4g pictures/s\n", 100*p.Utilise, p.Step, p.ImgPerS)
	fmt.Fprintf(tab, "wall time\t%s\n", p.Wall.Round(time.Second))
	return tab.Flush()
}
