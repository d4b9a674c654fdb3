package cli

import (
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"blip2/pkg/config"
	"blip2/pkg/device"
)

// Names of the global flags. The environment variable is BLIP2_ and the name in capitals, with _ for -.
const (
	flagBackend  = "backend"
	flagSeed     = "seed"
	flagLogLevel = "log-level"
	flagJSON     = "json"
	flagQuiet    = "quiet"
)

func globalFlagNames() []string {
	return []string{flagBackend, flagSeed, flagLogLevel, flagJSON, flagQuiet}
}

func logLevels() []string { return []string{"debug", "info", "warn", "error"} }

func addGlobalFlags(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.String(flagBackend, "auto", strings.Join(device.Backends(), ", "))
	flags.Int64(flagSeed, 0, "seed of everything random (default: the configuration's)")
	flags.String(flagLogLevel, "info", strings.Join(logLevels(), ", "))
	flags.Bool(flagJSON, false, "write results to stdout as JSON")
	flags.Bool(flagQuiet, false, "no progress display, and no log lines below warn")
	complete := func(name string, values []string) {
		err := root.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		if err != nil {
			panic(err) // the flag was defined just above
		}
	}
	complete(flagBackend, device.Backends())
	complete(flagLogLevel, logLevels())
}

// readGlobals sets App.Globals and App.Log from flags and environment.
func (app *App) readGlobals(flags *pflag.FlagSet) error {
	v, err := app.newViper(flags)
	if err != nil {
		return err
	}
	read := globalReader{v: v, flags: flags}
	g := Globals{Backend: v.GetString(flagBackend), LogLevel: v.GetString(flagLogLevel)}
	g.JSON, g.Quiet, g.Seed = read.bool(flagJSON), read.bool(flagQuiet), read.seed()
	if read.err != nil {
		return read.err
	}
	if g.Backend, err = parseBackend(g.Backend); err != nil {
		return fmt.Errorf("%s %q: %w", read.origin(flagBackend), v.GetString(flagBackend), err)
	}
	if !slices.Contains(logLevels(), g.LogLevel) {
		return fmt.Errorf("%s %q is unknown%s", read.origin(flagLogLevel), g.LogLevel, suggest(g.LogLevel, logLevels()))
	}
	app.Globals = g
	app.Log = newLogger(app.Err, g.slogLevel())
	app.flags = map[string]string{}
	for _, name := range []string{flagBackend, flagSeed} { // those that are configuration keys too
		if flags.Changed(name) {
			app.flags[name] = v.GetString(name)
		}
	}
	return nil
}

// newViper layers the flags over the environment. The environment goes in as a configuration map, because viper's
// own lookup reads that of the process and not App.Environ.
func (app *App) newViper(flags *pflag.FlagSet) (*viper.Viper, error) {
	v := viper.New()
	env := map[string]any{}
	for _, name := range globalFlagNames() {
		if err := v.BindPFlag(name, flags.Lookup(name)); err != nil {
			return nil, err
		}
		if value := app.getenv(envName(name)); value != "" {
			env[name] = value
		}
	}
	return v, v.MergeConfigMap(env)
}

// getenv returns the last value of a variable in App.Environ, or "".
func (app *App) getenv(name string) string {
	value := ""
	for _, entry := range app.Environ {
		if key, v, ok := strings.Cut(entry, "="); ok && key == name {
			value = v
		}
	}
	return value
}

func envName(flag string) string {
	return config.EnvName(strings.ReplaceAll(flag, "-", "_"))
}

// globalReader reads typed values and keeps the first error.
type globalReader struct {
	v     *viper.Viper
	flags *pflag.FlagSet
	err   error
}

// origin names the flag, or the variable when the flag was not given.
func (r *globalReader) origin(name string) string {
	if r.flags.Changed(name) {
		return "--" + name
	}
	return "environment variable " + envName(name)
}

func (r *globalReader) fail(name, want string) {
	if r.err == nil {
		r.err = fmt.Errorf("%s %q is not %s", r.origin(name), r.v.GetString(name), want)
	}
}

func (r *globalReader) bool(name string) bool {
	value, err := strconv.ParseBool(r.v.GetString(name))
	if err != nil {
		r.fail(name, "true or false")
	}
	return value
}

func (r *globalReader) seed() *int64 {
	if !r.v.IsSet(flagSeed) {
		return nil
	}
	value, err := strconv.ParseInt(r.v.GetString(flagSeed), 10, 64)
	if err != nil || value < 0 {
		r.fail(flagSeed, "a whole number from 0")
	}
	return &value
}

// slogLevel is the level of the log with Quiet taken into account.
func (g Globals) slogLevel() slog.Level {
	level := slog.LevelInfo
	switch g.LogLevel {
	case "debug":
		level = slog.LevelDebug
	case "warn":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	}
	if g.Quiet {
		return max(level, slog.LevelWarn)
	}
	return level
}

func newLogger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
