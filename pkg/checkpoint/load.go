package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	"blip2/pkg/weights"
)

// Loaded is an open, verified checkpoint. The caller closes it.
type Loaded struct {
	Dir       string
	Step      int
	State     json.RawMessage // what Snapshot.State marshalled to; see DecodeState
	Model     *weights.File
	Optimizer *weights.File // nil if the checkpoint has none
}

// Latest returns the directory of the newest good checkpoint of a run folder: of those whose every file agrees with
// its manifest the one with the highest step. skipped holds one error for each newer checkpoint that is damaged or
// incomplete, naming it and what is wrong with it. Without a good one err wraps ErrNone.
func Latest(runDir string) (dir string, skipped []error, err error) {
	v, skipped, err := latest(runDir)
	return v.dir, skipped, err
}

// latest is Latest with what verifying had to decode.
func latest(runDir string) (v verified, skipped []error, err error) {
	found, err := list(runDir)
	if err != nil {
		return verified{}, nil, err
	}
	for _, c := range found {
		v, err := verifyNumbered(c)
		if err == nil {
			return v, skipped, nil
		}
		skipped = append(skipped, err)
	}
	err = fmt.Errorf("%s: %w", filepath.Join(runDir, Folder), ErrNone)
	if len(skipped) > 0 {
		err = fmt.Errorf("%w; damaged are %d, the newest: %w", err, len(skipped), skipped[0])
	}
	return verified{}, skipped, err
}

// verifyNumbered verifies a checkpoint in the place where Save put it: its name and its contents must agree.
func verifyNumbered(c numbered) (verified, error) {
	v, err := verify(c.dir)
	if err == nil && v.state.Step != c.step {
		err = fmt.Errorf("%s: contains step %d: it was renamed", c.dir, v.state.Step)
	}
	return v, err
}

// Load verifies a checkpoint directory, whatever its name, and opens it.
func Load(dir string) (*Loaded, error) {
	v, err := verify(dir)
	if err != nil {
		return nil, err
	}
	return open(v)
}

// LoadLatest is Latest followed by Load, verifying once.
func LoadLatest(runDir string) (l *Loaded, skipped []error, err error) {
	v, skipped, err := latest(runDir)
	if err != nil {
		return nil, skipped, err
	}
	l, err = open(v)
	return l, skipped, err
}

func open(v verified) (_ *Loaded, err error) {
	l := &Loaded{Dir: v.dir, Step: v.state.Step, State: v.state.State}
	defer func() {
		if err != nil {
			_ = l.Close()
		}
	}()
	if l.Model, err = weights.Open(filepath.Join(v.dir, ModelFile)); err != nil {
		return nil, err
	}
	if _, ok := v.manifest.Files[OptimizerFile]; ok {
		if l.Optimizer, err = weights.Open(filepath.Join(v.dir, OptimizerFile)); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// DecodeState decodes State into v, a pointer, as strictly as DecodeStrict.
func (l *Loaded) DecodeState(v any) error {
	if err := DecodeStrict(l.State, v); err != nil {
		return fmt.Errorf("%s: the state does not fit this version of the program: %w", filepath.Join(l.Dir, StateFile), err)
	}
	return nil
}

// Close closes the tensor files; data that alias them must not be used any more.
func (l *Loaded) Close() error {
	var errs []error
	for _, f := range []*weights.File{l.Model, l.Optimizer} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
