package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/t5"
	"blip2/pkg/stage1"
	"blip2/pkg/stage2"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
)

func newBenchStage2Cmd(app *App) *cobra.Command {
	var opts benchOptions
	cmd := &cobra.Command{
		Use:   "stage2",
		Short: "Measure one training step of stage 2",
		Long: `Trains a stage-2 model of random weights on random pairs, by the code that pretrain-stage2 trains with, as
bench stage1 does for stage 1. Texts are as long as text.max_len allows. --model takes the sizes of a published
language model behind the paper's ViT-g and Q-Former; nothing is downloaded. With --config the language model's folder
is looked at for its sizes.

llm.remat and llm.loss_chunk trade time for memory: measure both ways.`,
		Example: `  blip2 bench stage2 --model opt-125m --backend xla:cpu --set vision.layers=2
  blip2 bench stage2 --model flan-t5-xl --backend xla:cuda --batch 16 --dtype bf16 --set llm.remat=true
  blip2 bench stage2 --config configs/quickstart_stage2.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBenchStage2(cmd.Context(), app, opts) },
	}
	opts.config.add(cmd)
	flags := cmd.Flags()
	names := slices.Concat(opt.Presets(), t5.Presets())
	flags.StringVar(&opts.model, "model", "", "a language model by its name on the hub, in place of --config")
	flags.IntVar(&opts.batch, "batch", 0, "pairs per step (default: the configuration's; 8 with --model)")
	flags.IntVar(&opts.steps, "steps", 5, "steps that are measured")
	flags.IntVar(&opts.warmup, "warmup", 1, "steps before them that are not")
	addDevices(cmd, &opts.devices)
	flags.StringVar(&opts.dtype, "dtype", "", "auto, f32, bf16 or f16 (default: the configuration's)")
	if err := cmd.RegisterFlagCompletionFunc("model",
		cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was defined just above
	}
	return cmd
}

// stage2 returns the configuration to measure, with the command's own flags in it, the model, and what to call it.
func (o benchOptions) stage2(app *App) (string, *config.Stage2, stage2.Config, error) {
	var net stage2.Config
	switch {
	case (o.config.path == "") == (o.model == ""):
		return "", nil, net, usagef("give --model or --config, and not both")
	case o.batch < 0:
		return "", nil, net, usagef("--batch %d: at least 1", o.batch)
	case o.steps < 1:
		return "", nil, net, usagef("--steps %d: measure at least 1", o.steps)
	case o.devices < 0:
		return "", nil, net, usagef("--devices %d: give 1 or more", o.devices)
	case o.warmup < 0:
		return "", nil, net, usagef("--warmup %d: give 0 or more", o.warmup)
	}
	loaded := app.loadOptions(o.config)
	loaded.Partial = true // no data is needed
	cfg, _, err := app.loadStage2(loaded)
	if err != nil {
		return "", nil, net, err
	}
	if o.model != "" {
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
	if o.model == "" {
		net, err = stage2.FromConfig(cfg)
		return o.config.path, cfg, net, err
	}
	net, known, err := stage2ByName(cfg, o.model)
	if !known {
		return "", nil, net, usagef("--model %q is unknown%s", o.model,
			suggest(o.model, slices.Concat(opt.Presets(), t5.Presets())))
	}
	return o.model, cfg, net, err
}

// stage2ByName is the model with a language model of the sizes that its name on the hub stands for.
func stage2ByName(cfg *config.Stage2, name string) (net stage2.Config, known bool, err error) {
	if llm, err := opt.Preset(name); err == nil {
		net, err = stage2.WithLLM(cfg, &llm, nil)
		return net, true, err
	}
	llm, err := t5.Preset(name)
	if err != nil {
		return net, false, nil
	}
	net, err = stage2.WithLLM(cfg, nil, &llm)
	return net, true, err
}

// runBenchStage2 measures and prints.
func runBenchStage2(ctx context.Context, app *App, opts benchOptions) error {
	name, cfg, net, err := opts.stage2(app)
	if err != nil {
		return err
	}
	dev, err := openDevice(ctx, device.Options{Backend: cfg.Backend, Devices: int(cfg.Devices), DType: cfg.Device.DType,
		Preallocate: cfg.Device.Preallocate, MemoryFraction: float64(cfg.Device.MemoryFraction), Logger: app.Log})
	if err != nil {
		return err
	}
	defer func() {
		if err := dev.Close(); err != nil {
			app.Log.Warn("closing the backend", "error", err)
		}
	}()
	net.Compute = dev.DTypes.Compute
	r := newBenchReport(app, name, benchSizes{net.Vision, net.QFormer, net.FreezeVision}, dev)
	output := 0
	if net.T5 != nil {
		output = cfg.Text.MaxLen
		r.LLM = fmt.Sprintf("T5, %d and %d layers of width %d, vocabulary %d", net.T5.EncoderLayers, net.T5.DecoderLayers,
			net.T5.Hidden, net.T5.Vocab)
	} else {
		r.LLM = fmt.Sprintf("OPT, %d layers of width %d, vocabulary %d", net.OPT.Layers, net.OPT.Hidden, net.OPT.Vocab)
	}
	r.QFormer += fmt.Sprintf(", %d text tokens", cfg.Text.MaxLen)
	app.Log.Info("measuring", "model", name, "backend", dev.Name, "batch", cfg.Train.BatchSize)
	result, err := stage2.Bench(ctx, dev.Backend, stage2.BenchOptions{
		Config: net, Optimizer: training.NewOptimizer(cfg.Optim), LR: cfg.Optim.LR, Batch: cfg.Train.BatchSize,
		Length: cfg.Text.MaxLen, Output: output, Stored: stage2.StoredType(cfg.LLM, dev.DTypes.Frozen),
		Warmup: opts.warmup, Steps: opts.steps, Seed: cfg.Seed,
		Devices: dev.Devices, SpreadFrozen: cfg.Mesh.ShardFrozen,
		OnStep: func(step int, took time.Duration, done trainer.Result) {
			app.Log.Info("step done", "step", step, "took", took.Round(time.Millisecond),
				"counts", step >= opts.warmup, "loss", done.Loss)
		},
	})
	if err != nil {
		return err
	}
	r.Result = &stage1.BenchResult{BenchResult: *result}
	if app.Globals.JSON {
		return writeJSON(app.Out, r)
	}
	return r.writeText(app.Out)
}
