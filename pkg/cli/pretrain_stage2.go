package cli

import (
	"context"

	"github.com/spf13/cobra"

	"blip2/pkg/stage2"
	"blip2/pkg/training"
)

func newPretrainStage2Cmd(app *App) *cobra.Command {
	o := &trainFlags{}
	cmd := &cobra.Command{
		Use:   "pretrain-stage2 --config FILE",
		Short: "Train stage 2: a frozen language model learns to see",
		Long: `pretrain-stage2 trains the Q-Former of stage 1 and a projection so that a frozen language model, OPT or
Flan-T5, goes on from a picture as from words: OPT with the language-modelling loss, Flan-T5 with the prefix
language-modelling loss.

It starts from the run or checkpoint that the key stage1 names, and leaves a run folder as pretrain-stage1 does, with
the captions that the model writes and their scores.`,
		Example: `  blip2 pretrain-stage2 --config configs/pretrain_stage2_opt2.7b.yaml --set stage1=runs/stage1
  blip2 pretrain-stage2 --config configs/pretrain_stage2_flant5xl.yaml --set llm.remat=true --set llm.loss_chunk=4k
  blip2 pretrain-stage2 --resume=runs/stage2`,
		Args: func(_ *cobra.Command, args []string) error { return o.checkArgs(args) },
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			return app.runPretrainStage2(cmd.Context(), o)
		},
	}
	o.add(cmd)
	return cmd
}

func (app *App) runPretrainStage2(ctx context.Context, o *trainFlags) error {
	opts, err := o.loadOptions(app)
	if err != nil {
		return err
	}
	cfg, _, err := app.loadStage2(opts)
	if err != nil {
		return err
	}
	return app.train(ctx, o, trainTarget{cfg.Backend, cfg.Devices, cfg.Device, cfg.Run},
		func(t training.Options) (*training.Result, error) { return stage2.Train(ctx, cfg, t) })
}
