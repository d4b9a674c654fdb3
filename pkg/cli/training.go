package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	"blip2/pkg/trainer"
	"blip2/pkg/training"
)

// trainFlags are the flags of every command that trains.
type trainFlags struct {
	config  configFlags
	resume  string
	maxTime time.Duration
}

// The values of --resume that are no folders. Both mean the folder that the configuration names.
const (
	resumeSame = "-"    // --resume alone: there is a run to go on with
	resumeAuto = "auto" // go on with the run, or start it if it is not there yet
)

// add defines the flags.
func (f *trainFlags) add(cmd *cobra.Command) {
	f.config.add(cmd)
	cmd.Flags().StringVar(&f.resume, "resume", "",
		"go on with the run in `FOLDER`; without one, with the run that the configuration names; auto: the same, and start "+
			"it if it is not there yet")
	cmd.Flags().Lookup("resume").NoOptDefVal = resumeSame
	cmd.Flags().DurationVar(&f.maxTime, "max-time", 0,
		"save and exit in time for this `LIMIT`, such as 11h50m, counted from the start (train.max_time)")
}

// resumeFolder is the folder that --resume names; empty if it names none.
func (f *trainFlags) resumeFolder() string {
	if f.resume == resumeSame || f.resume == resumeAuto {
		return ""
	}
	return f.resume
}

// goesOn says whether the run in a folder is to go on, rather than to start there.
func (f *trainFlags) goesOn(runDir string) bool {
	if f.resume != resumeAuto {
		return f.resume != ""
	}
	_, err := os.Stat(filepath.Join(runDir, runlog.ConfigFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// checkArgs refuses arguments. A folder behind --resume looks like one: as the flag's value may be left out, it must be
// joined by "=".
func (f *trainFlags) checkArgs(args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case f.resume == resumeSame:
		return fmt.Errorf("unexpected argument %q; to go on with that run write --resume=%s", args[0], args[0])
	}
	return fmt.Errorf("unexpected argument %q", args[0])
}

// check refuses values that name no folder and no time.
func (f *trainFlags) check(cmd *cobra.Command) error {
	if f.resume == "" && cmd.Flags().Changed("resume") {
		return usagef("--resume= names no folder: write --resume=FOLDER, or --resume alone for the run that the " +
			"configuration names")
	}
	if f.maxTime < 0 {
		return usagef("--max-time %s: must not be negative", f.maxTime)
	}
	return nil
}

// loadOptions are the sources of the configuration: the file that is named, or that of the run to go on with.
func (f *trainFlags) loadOptions(app *App) (config.LoadOptions, error) {
	flags := f.config
	if f.maxTime > 0 {
		flags.set = append(flags.set, "train.max_time="+f.maxTime.String())
	}
	if folder := f.resumeFolder(); folder != "" && flags.path == "" {
		flags.path = filepath.Join(folder, runlog.ConfigFile)
		if _, err := os.Stat(flags.path); errors.Is(err, fs.ErrNotExist) {
			return config.LoadOptions{}, usagef("--resume=%s: there is no run: %w", folder, err)
		}
	}
	if flags.path == "" {
		return config.LoadOptions{}, usagef("name the configuration with --config, such as --config configs/quickstart.yaml")
	}
	return app.loadOptions(flags), nil
}

// runDir decides on the run folder.
func (f *trainFlags) runDir(run config.Run) (string, error) {
	switch {
	case f.resumeFolder() != "":
		return f.resumeFolder(), nil
	case run.Name != "":
		return filepath.Join(run.Dir, run.Name), nil
	case f.resume != "":
		return "", usagef("the configuration gives the run no name: say which folder with --resume=FOLDER")
	}
	base := strings.TrimSuffix(filepath.Base(f.config.path), filepath.Ext(f.config.path))
	return filepath.Join(run.Dir, base+"-"+time.Now().Format("20060102-150405")), nil
}

// trainTarget is where a training runs and what it leaves.
type trainTarget struct {
	backend string
	devices config.Devices
	device  config.Device
	run     config.Run
}

// train opens the device, does a training on it and shows the result.
func (app *App) train(ctx context.Context, f *trainFlags, t trainTarget,
	do func(o training.Options) (*training.Result, error)) error {
	runDir, err := f.runDir(t.run)
	if err != nil {
		return err
	}
	progress := runlog.NewProgress(runlog.ProgressOptions{
		Out: app.Err, Terminal: isTerminal(app.Err), Quiet: app.Globals.Quiet})
	log := app.logAbove(progress)
	dev, err := device.Open(ctx, device.Options{Backend: t.backend, Devices: int(t.devices), DType: t.device.DType,
		Preallocate: t.device.Preallocate, MemoryFraction: t.device.MemoryFraction.Float(), Logger: log})
	if err != nil {
		return usageOf(err)
	}
	defer dev.Close()
	info := newVersionInfo(app.buildInfo())
	result, err := do(training.Options{
		RunDir: runDir, Resume: f.goesOn(runDir), Device: dev, Log: log, Progress: progress,
		CommandLine: app.commandLine(), Version: info.Version, Commit: info.Commit,
	})
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Canceled) && f.goesOn(runDir) {
		return fmt.Errorf("%w before this start made a step; go on with --resume=%s", ErrInterrupted, runDir)
	}
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

// showTraining prints the result of a training: summary.json with --json, else the tables of scores and the folder.
func (app *App) showTraining(runDir string, result *training.Result) error {
	if app.Globals.JSON {
		return writeJSON(app.Out, result.Summary)
	}
	if len(result.Summary.Retrieval) > 0 {
		if err := report.WriteRetrieval(app.Out, result.Summary); err != nil {
			return err
		}
	}
	if len(result.Summary.Captions) > 0 {
		if err := app.showCaptions(runDir, result.Summary); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(app.Out, "\nrun folder  %s\nreport      %s\n", runDir, result.Report)
	return err
}

// shownSamples is how many captions a training shows.
const shownSamples = 6

// showCaptions prints the scores of captions and some of them.
func (app *App) showCaptions(runDir string, s runlog.Summary) error {
	if err := report.WriteCaptions(app.Out, s); err != nil {
		return err
	}
	gallery, err := runlog.ReadGallery(runDir)
	if err != nil {
		return nil // there is none: report.gallery is 0, or the training was cut short
	}
	fmt.Fprintln(app.Out)
	return report.WriteSamples(app.Out, gallery, shownSamples)
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
