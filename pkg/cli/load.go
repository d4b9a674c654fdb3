package cli

import (
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"blip2/pkg/config"
	"blip2/pkg/device"
)

// configFlags are the flags of every command that takes a configuration.
type configFlags struct {
	path string
	set  []string
}

// add defines --config and --set.
func (f *configFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.path, "config", "", "configuration `file` (YAML)")
	cmd.Flags().StringArrayVar(&f.set, "set", nil,
		"`key=value` that beats file and environment, such as optim.lr=1e-4; repeat for several")
	if err := cmd.MarkFlagFilename("config", "yaml", "yml"); err != nil {
		panic(err) // the flag was defined just above
	}
}

// loadOptions collects the sources of a configuration, the global flags among them.
func (app *App) loadOptions(f configFlags) config.LoadOptions {
	return config.LoadOptions{
		Path:      f.path,
		Set:       f.set,
		Env:       app.Environ,
		Overrides: app.flags,
		Parsers:   map[string]func(string) (string, error){flagBackend: parseBackend},
	}
}

// loadStage1 loads the configuration of stage 1 and logs its warnings. A mistake in it ends the program with
// ExitUsage.
func (app *App) loadStage1(opts config.LoadOptions) (*config.Stage1, *config.Sources, error) {
	cfg, sources, err := config.LoadStage1(opts)
	for _, warning := range sources.Warnings {
		app.Log.Warn(warning)
	}
	return cfg, sources, app.meantFor(commandStage1, opts, err)
}

// loadStage2 is loadStage1 for stage 2.
func (app *App) loadStage2(opts config.LoadOptions) (*config.Stage2, *config.Sources, error) {
	cfg, sources, err := config.LoadStage2(opts)
	for _, warning := range sources.Warnings {
		app.Log.Warn(warning)
	}
	return cfg, sources, app.meantFor(commandStage2, opts, err)
}

// loadLM is loadStage1 for the language model from scratch.
func (app *App) loadLM(opts config.LoadOptions) (*config.LM, error) {
	cfg, sources, err := config.LoadLM(opts)
	for _, warning := range sources.Warnings {
		app.Log.Warn(warning)
	}
	return cfg, app.meantFor(commandLM, opts, err)
}

// meantFor replaces the mistakes of a configuration that another command would take as it is by that one thing.
func (app *App) meantFor(command string, opts config.LoadOptions, err error) error {
	var wrong *config.Error
	if opts.Path == "" || !errors.As(err, &wrong) {
		return err
	}
	_, _, one := config.LoadStage1(opts)
	_, _, two := config.LoadStage2(opts)
	_, _, lm := config.LoadLM(opts)
	var other string
	switch {
	case one == nil:
		other = commandStage1
	case two == nil:
		other = commandStage2
	case lm == nil:
		other = commandLM
	default:
		return err
	}
	remedy := ""
	if app.hasFor && slices.Contains(trainCommands(), other) {
		remedy = ": add --for " + other
	} else if strings.HasPrefix(app.command, "pretrain-") {
		remedy = ": start that command with it"
	}
	return usagef("%s is a configuration of %s, not of %s%s", opts.Path, other, command, remedy)
}

// parseBackend is device.ParseBackend with an error that leaves out what its callers say: option and value.
func parseBackend(name string) (string, error) {
	canonical, err := device.ParseBackend(name)
	var wrong *device.OptionError
	if errors.As(err, &wrong) {
		return "", errors.New(wrong.Reason)
	}
	return canonical, err
}
