package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"blip2/pkg/config"
	"blip2/pkg/device"
	"blip2/pkg/report"
	"blip2/pkg/runlog"
	"blip2/pkg/stage1"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
)

// pretrainStage1Options are the options of "pretrain-stage1".
type pretrainStage1Options struct {
	config  configFlags
	resume  string
	maxTime time.Duration
}

// resumeSame is the value of --resume without a folder: the folder that the configuration names.
const resumeSame = "-"

func newPretrainStage1Cmd(app *App) *cobra.Command {
	o := &pretrainStage1Options{}
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
		RunE: func(cmd *cobra.Command, _ []string) error { return app.runPretrainStage1(cmd.Context(), o) },
	}
	o.config.add(cmd)
	cmd.Flags().StringVar(&o.resume, "resume", "",
		"go on with the run in `FOLDER`; without one, with the run that the configuration names")
	cmd.Flags().Lookup("resume").NoOptDefVal = resumeSame
	cmd.Flags().DurationVar(&o.maxTime, "max-time", 0,
		"save and exit in time for this `LIMIT`, such as 11h50m, counted from the start (train.max_time)")
	return cmd
}

// checkArgs refuses arguments. A folder behind --resume looks like one: as the flag's value may be left out, it must be
// joined by "=".
func (o *pretrainStage1Options) checkArgs(args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case o.resume == resumeSame:
		return fmt.Errorf("unexpected argument %q; to go on with that run write --resume=%s", args[0], args[0])
	}
	return fmt.Errorf("unexpected argument %q", args[0])
}

func (app *App) runPretrainStage1(ctx context.Context, o *pretrainStage1Options) error {
	cfg, runDir, err := app.stage1Run(o)
	if err != nil {
		return err
	}
	progress := runlog.NewProgress(runlog.ProgressOptions{
		Out: app.Err, Terminal: isTerminal(app.Err), Quiet: app.Globals.Quiet})
	log := app.logAbove(progress)
	dev, err := device.Open(ctx, device.Options{Backend: cfg.Backend, Devices: int(cfg.Devices), DType: cfg.Device.DType,
		Preallocate: cfg.Device.Preallocate, MemoryFraction: cfg.Device.MemoryFraction.Float(), Logger: log})
	if err != nil {
		return usageOf(err)
	}
	defer dev.Close()
	info := newVersionInfo(app.buildInfo())
	result, err := stage1.Train(ctx, cfg, training.Options{
		RunDir: runDir, Resume: o.resume != "", Device: dev, Log: log, Progress: progress,
		CommandLine: app.commandLine(), Version: info.Version, Commit: info.Commit,
	})
	if err != nil {
		return err
	}
	if err := app.showTraining(runDir, result); err != nil {
		return err
	}
	if result.Status == trainer.Interrupted {
		return fmt.Errorf("%w after step %d in %s; go on with --resume=%s",
			ErrInterrupted, result.Summary.Steps, runDir, runDir)
	}
	return nil
}

// stage1Run loads the configuration and decides on the run folder.
func (app *App) stage1Run(o *pretrainStage1Options) (*config.Stage1, string, error) {
	flags := o.config
	if o.maxTime > 0 {
		flags.set = append(flags.set, "train.max_time="+o.maxTime.String())
	}
	if o.resume != "" && o.resume != resumeSame && flags.path == "" {
		flags.path = filepath.Join(o.resume, runlog.ConfigFile)
	}
	if flags.path == "" {
		return nil, "", usagef("name the configuration with --config, such as --config configs/quickstart.yaml")
	}
	cfg, _, err := app.loadStage1(app.loadOptions(flags))
	if err != nil {
		return nil, "", err
	}
	switch {
	case o.resume != "" && o.resume != resumeSame:
		return cfg, o.resume, nil
	case cfg.Run.Name != "":
		return cfg, filepath.Join(cfg.Run.Dir, cfg.Run.Name), nil
	case o.resume != "":
		return nil, "", usagef("the configuration gives the run no name: say which folder with --resume=FOLDER")
	}
	base := strings.TrimSuffix(filepath.Base(flags.path), filepath.Ext(flags.path))
	return cfg, filepath.Join(cfg.Run.Dir, base+"-"+time.Now().Format("20060102-150405")), nil
}

// showTraining prints the result of a training: summary.json with --json, else the table of recalls and the folder.
func (app *App) showTraining(runDir string, result *training.Result) error {
	if app.Globals.JSON {
		return writeJSON(app.Out, result.Summary)
	}
	if len(result.Summary.Retrieval) > 0 {
		if err := report.WriteRetrieval(app.Out, result.Summary); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(app.Out, "\nrun folder  %s\nreport      %s\n", runDir, result.Report)
	return err
}

// logAbove returns a logger whose lines make room for the progress bar.
func (app *App) logAbove(p *runlog.Progress) *slog.Logger {
	return newLogger(p.Writer(), app.Globals.slogLevel())
}

// commandLine is the command as the user gave it, for the records of a run.
func (app *App) commandLine() string {
	return strings.Join(append([]string{"blip2"}, app.args...), " ")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
