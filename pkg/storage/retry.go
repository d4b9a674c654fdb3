package storage

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"time"
)

// Error says that a file could not be read, after as many tries as allowed.
type Error struct {
	Name      string // path or URL
	Offset    int64  // first byte that could not be had; -1 if the file could not be opened
	Tries     int    // requests in a row that failed
	Permanent bool   // trying again is no use: the file is missing, forbidden or changed
	Err       error
}

// Error names the file and the offset.
func (e *Error) Error() string {
	text := "storage: " + e.Name
	if e.Offset >= 0 {
		text += fmt.Sprintf(", byte %d", e.Offset)
	}
	text += ": " + e.Err.Error()
	if e.Tries > 1 {
		text += fmt.Sprintf(" (tried %d times)", e.Tries)
	}
	return text
}

// Unwrap is the reason.
func (e *Error) Unwrap() error { return e.Err }

// ErrChanged is the reason of an Error for a file that is not the one that was opened.
var ErrChanged = errors.New("the file was replaced while it was being read; start again, or leave the files alone")

// errStalled ends a request that brings nothing.
var errStalled = errors.New("no data came for too long")

// lasting marks an error that trying again cannot cure.
type lasting struct{ error }

func (e lasting) Unwrap() error { return e.error }

// askedToWait is an error of a server that says when to come back.
type askedToWait struct {
	error
	wait time.Duration
}

func (e askedToWait) Unwrap() error { return e.error }

// again decides on an error: it waits and returns nil if the request is to be sent again, and the final error if not.
// failures counts the failed requests in a row, this one included.
func (s *Store) again(ctx context.Context, name string, offset int64, failures int, err error) error {
	final := &Error{Name: name, Offset: offset, Tries: failures, Err: err}
	var last lasting
	switch {
	case ctx.Err() != nil:
		final.Err = ctx.Err()
		return final
	case errors.As(err, &last), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission),
		errors.Is(err, ErrChanged):
		final.Permanent = true
		return final
	case failures >= s.o.Tries:
		return final
	}
	d := s.backoff(name, offset, failures)
	var asked askedToWait
	if errors.As(err, &asked) {
		d = max(d, min(asked.wait, s.o.MaxWait))
	}
	s.o.Log.Warn("trying again", "file", name, "offset", offset, "try", failures+1, "wait", d,
		"error", err.Error()) // as an error, a bucket's would be logged with stack frames over several lines
	if err := s.o.Wait(ctx, d); err != nil {
		final.Err = err
		return final
	}
	return nil
}

// backoff is the wait before the next try: doubled every time, and between half and all of that, so that readers that
// failed together do not return together. It is a function of its arguments.
func (s *Store) backoff(name string, offset int64, failures int) time.Duration {
	d := s.o.MaxBackoff
	if shift := failures - 1; shift < 30 && s.o.Backoff<<shift>>shift == s.o.Backoff {
		d = min(d, s.o.Backoff<<shift)
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "%s %d %d", name, offset, failures)
	return d/2 + time.Duration(float64(d/2)*float64(h.Sum32())/(1<<32))
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// watchdog cancels a request that brings nothing for Options.Stall.
type watchdog struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
}

func (s *Store) watchdog(parent context.Context) *watchdog {
	ctx, cancel := context.WithCancelCause(parent)
	return &watchdog{ctx: ctx, cancel: cancel, stall: s.o.Stall,
		timer: time.AfterFunc(s.o.Stall, func() { cancel(errStalled) })}
}

// pause stops the clock while nobody waits for the server, and resume starts it anew.
func (w *watchdog) pause()  { w.timer.Stop() }
func (w *watchdog) resume() { w.timer.Reset(w.stall) }

func (w *watchdog) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// explain gives the reason of an error that the watchdog itself caused.
func (w *watchdog) explain(err error) error {
	if err != nil && errors.Is(context.Cause(w.ctx), errStalled) {
		return errStalled
	}
	return err
}
