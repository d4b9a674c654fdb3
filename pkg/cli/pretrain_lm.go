package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"blip2/pkg/device"
	"blip2/pkg/lm"
	"blip2/pkg/runlog"
)

func newPretrainLMCmd(app *App) *cobra.Command {
	var flags configFlags
	cmd := &cobra.Command{
		Use:   "pretrain-lm --config FILE",
		Short: "Train a small language model on captions, to try stage 2 without downloads",
		Long: `pretrain-lm trains a small OPT from scratch on captions, or a small T5 (model.arch: t5), with a tokenizer made
for them, and writes a folder as those of facebook/opt-* and google/flan-t5-* are: the language model that
pretrain-stage2 freezes, where no published one is at hand. A real stage 2 takes a published one.

Ctrl-C ends it and leaves nothing.`,
		Example: `  blip2 pretrain-lm --config configs/quickstart_lm.yaml
  blip2 pretrain-lm --config configs/quickstart_lm_t5.yaml --set model.layers=4 --set out=runs/lm`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return app.runPretrainLM(cmd.Context(), flags) },
	}
	flags.add(cmd)
	return cmd
}

func (app *App) runPretrainLM(ctx context.Context, flags configFlags) error {
	if flags.path == "" {
		return usagef("name the configuration with --config, such as --config configs/quickstart_lm.yaml")
	}
	cfg, err := app.loadLM(app.loadOptions(flags))
	if err != nil {
		return err
	}
	progress := runlog.NewProgress(runlog.ProgressOptions{
		Out: app.Err, Terminal: isTerminal(app.Err), Quiet: app.Globals.Quiet})
	log := app.logAbove(progress)
	dev, err := device.Open(ctx, device.Options{Backend: cfg.Backend, Devices: 1, DType: cfg.Device.DType,
		Preallocate: cfg.Device.Preallocate, MemoryFraction: cfg.Device.MemoryFraction.Float(), Logger: log})
	if err != nil {
		return usageOf(err)
	}
	defer dev.Close()
	result, err := lm.Train(ctx, cfg, lm.Options{Device: dev, Log: log, Progress: progress})
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, result)
	}
	_, err = fmt.Fprintf(app.Out, "language model  %s\n%s of %d captions, vocabulary %d, loss %.3f, %.0f s\n", result.Dir,
		millions(result.Parameters)+" parameters", result.Captions, result.Vocab, result.Loss, result.Seconds)
	return err
}
