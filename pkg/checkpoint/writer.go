package checkpoint

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Saved tells of a checkpoint that a Writer has written.
type Saved struct {
	Step   int
	Dir    string
	Pruned []string // directories that were deleted afterwards
}

// WriterOptions are the choices of a Writer.
type WriterOptions struct {
	Policy  Policy      // applied after each checkpoint
	OnSaved func(Saved) // nil, or called in the background after each checkpoint; must not call the Writer
}

// Writer saves snapshots in the background, one at a time, while training goes on.
type Writer struct {
	ctx    context.Context
	runDir string
	opts   WriterOptions
	save   func(context.Context, string, Snapshot) (string, error)

	// idle holds one token while nothing is being written: the error of the last save that was not reported yet.
	idle chan error

	mu      sync.Mutex
	protect []int
}

// StartWriter returns a Writer for a run folder. Cancelling ctx aborts a save in flight without a trace of it, so ctx
// should outlive the first interrupt if the run is to be saved then.
func StartWriter(ctx context.Context, runDir string, opts WriterOptions) *Writer {
	w := &Writer{ctx: ctx, runDir: runDir, opts: opts, save: Save, idle: make(chan error, 1)}
	w.protect = slices.Clone(opts.Policy.Protect)
	w.idle <- nil
	return w
}

// Enqueue starts saving s and returns; it first waits for the save before, if that is still going on. If that one
// failed its error is returned, once, and s is not saved: the caller may give up or enqueue again. The data of s must
// not change until the next Enqueue or Wait has returned.
func (w *Writer) Enqueue(s Snapshot) error {
	if err := <-w.idle; err != nil {
		w.idle <- nil
		return err
	}
	if err := w.ctx.Err(); err != nil {
		w.idle <- nil
		return fmt.Errorf("checkpoint of step %d: %w", s.Step, err)
	}
	go func() { w.idle <- w.saveAndPrune(s) }()
	return nil
}

// Wait waits until nothing is being written and returns the error of the last save unless Enqueue or Wait already
// did. It must be called before the program ends; the Writer can be used on afterwards.
func (w *Writer) Wait() error {
	err := <-w.idle
	w.idle <- nil
	return err
}

// Protect replaces the steps that the policy keeps whatever their age, such as the best by a metric.
func (w *Writer) Protect(steps ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.protect = slices.Clone(steps)
}

func (w *Writer) saveAndPrune(s Snapshot) error {
	dir, err := w.save(w.ctx, w.runDir, s)
	if err != nil {
		return err
	}
	policy := w.opts.Policy
	w.mu.Lock()
	policy.Protect = slices.Clone(w.protect)
	w.mu.Unlock()
	pruned, err := prune(w.runDir, policy, dir)
	if w.opts.OnSaved != nil {
		w.opts.OnSaved(Saved{Step: s.Step, Dir: dir, Pruned: pruned})
	}
	return err
}
