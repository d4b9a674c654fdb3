package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"blip2/pkg/config"
)

// Run executes one command line (without the program's name) and returns the exit code. An error is printed once,
// on App.Err: as a line "blip2: ...", or as {"error": ..., "exit_code": ...} with --json.
func (app *App) Run(ctx context.Context, args []string) int {
	app.args = args
	app.Globals.JSON = slices.Contains(args, "--"+flagJSON) // for errors that occur before the flags are read
	root := newRootCmd(app)
	root.SetArgs(append([]string{}, args...)) // never nil, for which cobra would take those of the process
	return app.finish(ctx, root)
}

// finish executes the command tree on the app's streams and reports its error.
func (app *App) finish(ctx context.Context, root *cobra.Command) int {
	root.SetIn(app.In)
	root.SetOut(app.Out)
	root.SetErr(app.Err)
	app.Log = newLogger(app.Err, slog.LevelInfo)
	err := app.execute(ctx, root)
	if err == nil {
		return ExitOK
	}
	code := exitCode(err)
	app.printError(err, code, ctx.Err() != nil)
	return code
}

// execute runs the command. Whatever is refused before the command's own code begins is wrong usage; a panic
// becomes an error.
func (app *App) execute(ctx context.Context, root *cobra.Command) (err error) {
	defer func() {
		if r := recover(); r != nil {
			app.Log.Debug("internal error", "panic", r, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error: %v (a mistake in blip2; --log-level debug shows where)", r)
		}
	}()
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil || app.started {
		return err
	}
	app.hint = fmt.Sprintf("run \"%s --help\" for usage", cmd.CommandPath())
	return &UsageError{Err: err}
}

// exitCode maps an error to the exit code of the program.
func exitCode(err error) int {
	var usage *UsageError
	var wrongConfig *config.Error
	switch {
	case errors.Is(err, ErrInterrupted):
		return ExitInterrupted
	case errors.As(err, &usage), errors.As(err, &wrongConfig):
		return ExitUsage
	}
	return ExitFailure
}

func (app *App) printError(err error, code int, interrupted bool) {
	text := err.Error()
	if interrupted && code == ExitFailure && errors.Is(err, context.Canceled) {
		text = "interrupted: " + text
	}
	if !app.Globals.JSON {
		fmt.Fprintf(app.Err, "blip2: %s\n", visible(strings.TrimRight(text, "\n")))
		if app.hint != "" {
			fmt.Fprintln(app.Err, app.hint)
		}
		return
	}
	line, jsonErr := json.Marshal(struct {
		Error    string `json:"error"`
		ExitCode int    `json:"exit_code"`
	}{text, code})
	if jsonErr != nil {
		line = []byte(jsonErr.Error()) // cannot happen: a text and a number
	}
	fmt.Fprintf(app.Err, "%s\n", line)
}

// prepare makes every command report wrong usage in the same way: commands that only group others refuse unknown
// names, and the moment in which a command's own code begins is recorded.
func (app *App) prepare(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		app.prepare(sub)
	}
	if !cmd.Runnable() {
		cmd.Args = cobra.ArbitraryArgs // checked by the function below, which knows similar names
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		}
		return
	}
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if err != nil && strings.HasPrefix(err.Error(), "unknown command") { // cobra's words for any argument
				return fmt.Errorf("unexpected argument %q", args[0])
			}
			return err
		}
	}
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			app.started, app.command, app.hasFor = true, cmd.Name(), cmd.Flags().Lookup(flagFor) != nil
			return run(cmd, args)
		}
	}
}

// unknownCommand names the nearest subcommand.
func unknownCommand(parent *cobra.Command, name string) error {
	var names []string
	for _, sub := range parent.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return fmt.Errorf("unknown command %q for %q%s", name, parent.CommandPath(), suggest(name, names))
}

// suggest is "; did you mean X?" when a candidate is close or some begin so, and the list of candidates otherwise.
func suggest(name string, candidates []string) string {
	begins := func(c string) bool {
		return name != "" && len(c) >= len(name) && strings.EqualFold(c[:len(name)], name)
	}
	best, near := config.Nearest(name, candidates)
	if some := slices.DeleteFunc(slices.Clone(candidates), func(c string) bool { return !begins(c) }); len(some) > 0 &&
		!(near && begins(best)) {
		return "; did you mean " + strings.Join(some, " or ") + "?"
	}
	if near {
		return "; did you mean " + best + "?"
	}
	return "; want one of " + strings.Join(candidates, ", ")
}
