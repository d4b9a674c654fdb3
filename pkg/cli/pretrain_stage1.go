package cli

import (
	"context"

	"github.com/spf13/cobra"

	"blip2/pkg/stage1"
	"blip2/pkg/training"
)

func newPretrainStage1Cmd(app *App) *cobra.Command {
	o := &trainFlags{}
	cmd := &cobra.Command{
		Use:   "pretrain-stage1 --config FILE",
		Short: "Train stage 1: the Q-Former with ITC, ITM and ITG",
		Long: `pretrain-stage1 trains the Q-Former on image-text pairs with the three objectives of BLIP-2's first
stage: image-text contrast (ITC), image-text matching with hard negatives (ITM) and image-grounded text generation
(ITG).

It leaves a run folder with the resolved configuration, metrics.jsonl, TensorBoard events, checkpoints, summary.json
and report.html. Ctrl-C finishes the step, saves and exits with 130; --resume goes on from there.`,
		Example: `  blip2 pretrain-stage1 --config configs/quickstart.yaml
  blip2 pretrain-stage1 --config configs/quickstart.yaml --backend xla:cpu --set train.steps=2k
  blip2 pretrain-stage1 --resume=runs/quickstart`,
		Args: func(_ *cobra.Command, args []string) error { return o.checkArgs(args) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			return app.runPretrainStage1(cmd.Context(), o)
		},
	}
	o.add(cmd)
	return cmd
}

func (app *App) runPretrainStage1(ctx context.Context, o *trainFlags) error {
	opts, err := o.loadOptions(app)
	if err != nil {
		return err
	}
	cfg, _, err := app.loadStage1(opts)
	if err != nil {
		return err
	}
	return app.train(ctx, o, trainTarget{cfg.Backend, cfg.Devices, cfg.Device, cfg.Run},
		func(t training.Options) (*training.Result, error) { return stage1.Train(ctx, cfg, t) })
}
