package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Groups of commands in the help text.
const (
	groupTrain = "train"
	groupUse   = "use"
	groupCheck = "check"
	groupSetup = "setup"
)

// newRootCmd builds the whole command tree.
func newRootCmd(app *App) *cobra.Command {
	root := &cobra.Command{
		Use:   "blip2",
		Short: "Train, evaluate and use BLIP-2 from one binary",
		Long: `blip2 trains BLIP-2 (bootstrapping language-image pre-training with frozen image encoders) from YAML
files.

Results go to stdout, logs and progress to stderr. Options come from flags, then from the environment (BLIP2_BACKEND,
BLIP2_OPTIM_LR, ...), then from the configuration file, then from defaults. Exit codes: 0 done, 1 failed, 2 wrong
usage or configuration, 130 interrupted after saving.`,
		Example: `  blip2 pretrain-stage1 --config configs/quickstart.yaml
  blip2 verify
  blip2 plugin install cpu`,
		Version:           newVersionInfo(app.buildInfo()).Version,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return app.readGlobals(cmd.Flags()) },
	}
	addGlobalFlags(root)
	root.SetVersionTemplate("blip2 {{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(&cobra.Group{ID: groupTrain, Title: "Training:"}, &cobra.Group{ID: groupUse, Title: "Using a model:"},
		&cobra.Group{ID: groupCheck, Title: "Looking into it:"}, &cobra.Group{ID: groupSetup, Title: "Setup:"})
	addCommands(root, groupTrain, newPretrainStage1Cmd(app), newPretrainStage2Cmd(app), newPretrainLMCmd(app))
	addCommands(root, groupUse, newGenerateCmd(app))
	addCommands(root, groupCheck, newConfigCmd(app), newPlanCmd(app), newDataCmd(app), newVerifyCmd(app),
		newReportCmd(app), newScoreCmd(app), newBenchCmd(app), newWeightsCmd(app), newTokenizeCmd(app))
	addCommands(root, groupSetup, newPluginCmd(app), newVersionCmd(app), newCompletionCmd(app))
	root.SetHelpCommand(newHelpCmd())
	app.prepare(root)
	return root
}

func addCommands(root *cobra.Command, group string, cmds ...*cobra.Command) {
	for _, cmd := range cmds {
		cmd.GroupID = group
		root.AddCommand(cmd)
	}
}

// newHelpCmd is cobra's help command, except that an unknown topic is an error.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "help [command]",
		GroupID: groupSetup,
		Short:   "Show how a command is used",
		Example: `  blip2 help config show`,
		RunE: func(cmd *cobra.Command, args []string) error {
			topic, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return unknownCommand(topic, rest[0])
			}
			return topic.Help()
		},
	}
}

// flagError explains a flag that could not be read. A mistyped command shows up here too, as soon as flags follow
// it, because the flags are then looked for on its parent.
func flagError(cmd *cobra.Command, err error) error {
	if name, ok := strayArgument(cmd); ok {
		return unknownCommand(cmd, name)
	}
	var unknown *pflag.NotExistError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
		return fmt.Errorf("unknown flag --%s%s", unknown.GetSpecifiedName(),
			suggest("--"+unknown.GetSpecifiedName(), names))
	case errors.As(err, &invalid):
		return fmt.Errorf("--%s %q is not %s", invalid.GetFlag().Name, invalid.GetValue(), flagType(invalid.GetFlag()))
	}
	return err
}

// strayArgument returns the word in the place of a subcommand when the command only groups others.
func strayArgument(cmd *cobra.Command) (string, bool) {
	if !cmd.HasSubCommands() {
		return "", false
	}
	for _, arg := range cmd.Flags().Args() {
		return arg, true
	}
	return "", false
}

// flagType is the word for a flag's type.
func flagType(f *pflag.Flag) string {
	switch t := f.Value.Type(); {
	case strings.HasPrefix(t, "int"):
		return "a whole number"
	case strings.HasPrefix(t, "uint"), t == "count":
		return "a whole number from 0"
	case strings.HasPrefix(t, "float"):
		return "a number"
	case t == "bool":
		return "true or false"
	case t == "duration":
		return "a duration such as 90s or 2h30m"
	default:
		return "a " + t
	}
}
