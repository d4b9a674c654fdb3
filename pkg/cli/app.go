// Package cli is the command line of blip2: one file per command, each with an options struct, a constructor
// newXCmd(app) and a function that does the work. Streams and the environment are injected through App, so that
// every command is tested without a process.
//
// Results go to App.Out, logs and progress to App.Err. A command returns its error; App.Run prints it once and
// turns it into the exit code.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
)

// Exit codes of the blip2 program.
const (
	ExitOK          = 0   // the command did what was asked
	ExitFailure     = 1   // it was asked rightly, but failed
	ExitUsage       = 2   // wrong flag, argument, command or configuration; nothing was started
	ExitInterrupted = 130 // interrupted, and the state was saved
)

// App carries what commands need from the outside world.
type App struct {
	In       io.Reader
	Out, Err io.Writer
	Environ  []string         // "NAME=value" strings, as os.Environ returns them
	Build    *debug.BuildInfo // of the program; nil for what the Go tool wrote into it

	// Globals and Log are set before a command runs.
	Globals Globals
	Log     *slog.Logger // to Err, at Globals.LogLevel

	args    []string          // the command line, without the program's name
	flags   map[string]string // global flags that were given on the command line and are also config keys
	hint    string            // how to get help, after wrong usage of a command
	started bool              // a command's own code has begun: errors from now on are failures, not wrong usage
	command string            // its name
	hasFor  bool              // it has --for, which chooses among configurations
}

// Globals are the options that every command understands. Precedence: flag, environment (BLIP2_BACKEND,
// BLIP2_SEED, BLIP2_LOG_LEVEL, BLIP2_JSON, BLIP2_QUIET), default. Commands with a configuration take backend and
// seed from the loaded configuration instead, where a file may name them too.
type Globals struct {
	Backend  string // go, xla:cpu, xla:cuda, xla:/path/plugin.so or auto (the default)
	Seed     *int64 // nil when neither flag nor environment names one
	LogLevel string // debug, info (the default), warn or error
	JSON     bool   // results on Out are JSON
	Quiet    bool   // no progress display, and no log lines below warn
}

// UsageError says that the command line or the configuration is wrong: exit code 2.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the cause to errors.Is and errors.As.
func (e *UsageError) Unwrap() error { return e.Err }

// usagef formats a UsageError.
func usagef(format string, args ...any) error { return &UsageError{Err: fmt.Errorf(format, args...)} }

// ErrInterrupted is returned (possibly wrapped) by a command that was interrupted and has saved its state, so
// that the work can be taken up again: exit code 130.
var ErrInterrupted = errors.New("interrupted; the state was saved")

// Main runs one command line (without the program's name) on the given streams and the environment of the process,
// and returns the exit code. ctx is cancelled by the first interrupt; see NotifyInterrupt.
func Main(ctx context.Context, args []string, in io.Reader, out, err io.Writer) int {
	app := &App{In: in, Out: out, Err: err, Environ: os.Environ()}
	return app.Run(ctx, args)
}
