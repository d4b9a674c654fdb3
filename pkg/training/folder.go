package training

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"blip2/pkg/checkpoint"
	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// openFolder makes the run folder with the resolved configuration, or checks the one to go on in.
func (r *Run) openFolder(context.Context) error {
	saved := filepath.Join(r.RunDir, runlog.ConfigFile)
	_, err := os.Stat(saved)
	switch {
	case r.Resume:
		if err != nil {
			return fmt.Errorf("resume: %s is no run folder: %w; leave out --resume to start a run there", r.RunDir, err)
		}
		return r.keepLog()
	case err == nil:
		return fmt.Errorf("%s holds a run already: add --resume to go on with it, or choose another run.name", r.RunDir)
	}
	if err := os.MkdirAll(r.RunDir, 0o777); err != nil {
		return fmt.Errorf("run folder: %w; choose a folder that can be written with run.dir", err)
	}
	others, err := os.ReadDir(r.RunDir)
	if err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	if err := r.keepLog(); err != nil { // before anything is written: another training may have been quicker
		return err
	}
	r.fresh = len(others) == 0
	r.Log.Info("run folder", "path", r.RunDir)
	return r.keepConfig()
}

// keepLog lets log lines go to log.txt of the run folder too. While it is open it is locked: of two trainings in one
// folder each would cut off the other's measurements and replace its checkpoints.
func (r *Run) keepLog() error {
	path := filepath.Join(r.RunDir, runlog.LogFile)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return fmt.Errorf("run folder: %w", atomicfile.Explain(err))
	}
	r.onClose(file.Close)
	release, free := atomicfile.Claim(path)
	r.onClose(release)
	if !free {
		return fmt.Errorf("%s is in use by a training that goes on: wait for it or stop it, or choose another run.name",
			r.RunDir)
	}
	r.logFile = slog.New(slog.NewTextHandler(file, nil))
	r.Log = slog.New(slog.NewMultiHandler(r.Log.Handler(), r.logFile.Handler()))
	return nil
}

// undo removes what a start that failed before its first step has left, so that it can be repeated.
func (r *Run) undo() {
	if !r.fresh {
		return
	}
	for _, name := range []string{beforeFile, runlog.LogFile, runlog.ConfigFile} {
		if err := os.Remove(filepath.Join(r.RunDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.Log.Warn("cleaning up after a failed start", "error", err)
		}
	}
	if err := os.Remove(r.RunDir); err != nil {
		r.Log.Warn("cleaning up after a failed start", "error", err)
	}
}

// restore brings back the newest good checkpoint of a run that goes on.
func (r *Run) restore(context.Context) error {
	if !r.Resume {
		return nil
	}
	loaded, skipped, err := checkpoint.LoadLatest(r.RunDir)
	for _, damage := range skipped {
		r.Log.Warn("checkpoint skipped", "reason", damage)
	}
	if errors.Is(err, checkpoint.ErrNone) && len(skipped) == 0 {
		r.Log.Warn("the run has no checkpoint yet: it starts from the beginning", "path", r.RunDir)
		return r.keepConfig()
	}
	if errors.Is(err, checkpoint.ErrNone) {
		return fmt.Errorf("resume: %w; bring the folder back from a copy, or start a new run", err)
	}
	if err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	defer loaded.Close()
	var state trainer.State
	if err := loaded.DecodeState(&state); err != nil {
		return fmt.Errorf("resume: checkpoint %s: %w", loaded.Dir, err)
	}
	if state.Command != r.stage.Command() {
		return fmt.Errorf("resume: checkpoint %s is of %q, not of %s", loaded.Dir, state.Command, r.stage.Command())
	}
	if hash := r.stage.Config().Hash(); state.ConfigHash != hash {
		return fmt.Errorf("resume: %s was made with other settings (%s): go on with the run's own %s, or start a new run",
			loaded.Dir, r.changed(state.ConfigHash, hash), runlog.ConfigFile)
	}
	if err := r.checkData(state.DataRows); err != nil {
		return fmt.Errorf("resume: %s: %w", loaded.Dir, err)
	}
	if err := trainer.Restore(r.Store, r.model.Task.Params, loaded); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	if err := r.step.Resume(state.Progress); err != nil {
		return fmt.Errorf("resume: checkpoint %s: %w", loaded.Dir, err)
	}
	r.At = trainer.Position{Step: loaded.Step, Epoch: state.Epoch, Index: state.Index, Streams: state.Streams}
	r.Log.Info("resumed", "checkpoint", loaded.Dir, "step", r.At.Step)
	return r.keepConfig()
}

// changed names the settings that are others than in the run's own configuration; where that does not tell them, as it
// was edited, the hashes stand for them.
func (r *Run) changed(was, is string) string {
	const most = 4
	changes := r.stage.Config().Changed(filepath.Join(r.RunDir, runlog.ConfigFile))
	switch n := len(changes); {
	case n == 0:
		return fmt.Sprintf("hash %.12s, now %.12s", was, is)
	case n > most:
		changes = append(changes[:most:most], fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(changes, ", ")
}

// keepConfig writes the resolved configuration. A run that goes on may have other settings for what does not decide
// the arithmetic, such as the logging.
func (r *Run) keepConfig() error {
	if err := runlog.WriteFile(filepath.Join(r.RunDir, runlog.ConfigFile), r.stage.Config().YAML()); err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	return nil
}
