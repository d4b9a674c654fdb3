package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/config"
)

func newConfigCmd(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the resolved configuration and all its keys",
	}
	cmd.AddCommand(newConfigShowCmd(app), newConfigKeysCmd(app))
	return cmd
}

// trainCommands are the commands whose configuration can be looked at; the first is the default.
func trainCommands() []string { return []string{commandStage1, commandStage2} }

// Commands that train.
const (
	commandStage1 = "pretrain-stage1"
	commandStage2 = "pretrain-stage2"
	commandLM     = "pretrain-lm"
)

// flagFor is the flag that addFor defines.
const flagFor = "for"

// addFor defines --for, which chooses the command whose configuration is meant.
func addFor(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVar(name, flagFor, commandStage1, "`command` whose configuration is meant: "+
		strings.Join(trainCommands(), " or "))
	if err := cmd.RegisterFlagCompletionFunc(flagFor,
		cobra.FixedCompletions(trainCommands(), cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was defined just above
	}
}

// unknownFor refuses other commands than those of trainCommands.
func unknownFor(name string) error {
	return usagef("--for %q is no command with a configuration%s", name, suggest(name, trainCommands()))
}

func newConfigShowCmd(app *App) *cobra.Command {
	var flags configFlags
	var command string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Print the configuration that a training would use",
		Long: `Prints the configuration of pretrain-stage1, or of the command that --for names, as it results from defaults,
file, environment and flags, with one line of documentation per key. The output is itself a configuration file that
gives the same values. Without --config it shows the defaults, and keys that a training needs may be empty.`,
		Example: `  blip2 config show
  blip2 config show --config configs/quickstart.yaml --set optim.lr=1e-4
  blip2 config show --config configs/quickstart.yaml --json | jq .optim
  blip2 config show --for pretrain-stage2`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runConfigShow(app, command, flags) },
	}
	flags.add(cmd)
	addFor(cmd, &command)
	return cmd
}

func runConfigShow(app *App, command string, flags configFlags) error {
	opts := app.loadOptions(flags)
	opts.Partial = flags.path == ""
	var cfg any
	var err error
	switch command {
	case commandStage1:
		cfg, _, err = app.loadStage1(opts)
	case commandStage2:
		cfg, _, err = app.loadStage2(opts)
	default:
		return unknownFor(command)
	}
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, config.Map(cfg))
	}
	_, err = app.Out.Write(config.YAML(cfg))
	return err
}

func newConfigKeysCmd(app *App) *cobra.Command {
	var command string
	cmd := &cobra.Command{
		Use:   "keys [section]",
		Short: "List every key with type, default and meaning",
		Long: `Lists the keys of the configuration of pretrain-stage1, or of the command that --for names, or those of
one section. Any of them can stand in a file, after --set, or in the environment as BLIP2_ and the key in capitals with
_ for the dot: BLIP2_OPTIM_LR is optim.lr. A file may begin with "extends: other.yaml" to build on another one.`,
		Example: `  blip2 config keys
  blip2 config keys optim
  blip2 config keys --for pretrain-stage2 llm`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return runConfigKeys(app, command, strings.Join(args, ""))
		},
	}
	addFor(cmd, &command)
	return cmd
}

func runConfigKeys(app *App, command, section string) error {
	defaults := map[string]any{commandStage1: config.DefaultStage1(), commandStage2: config.DefaultStage2()}[command]
	if defaults == nil {
		return unknownFor(command)
	}
	var keys []config.KeyInfo
	sections := map[string]bool{}
	var names []string
	for _, k := range config.Keys(defaults) {
		top, _, nested := strings.Cut(k.Key, ".")
		if !sections[top] {
			sections[top], names = true, append(names, top)
		}
		if section == "" || top == section || nested && strings.HasPrefix(k.Key, section+".") {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return usagef("unknown section %q%s", section, suggest(section, names))
	}
	if app.Globals.JSON {
		return writeJSON(app.Out, keys)
	}
	w := tabwriter.NewWriter(app.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tTYPE\tDEFAULT\tMEANING")
	for _, k := range keys {
		meaning := k.Doc
		if k.Allowed != "" {
			meaning += " (" + k.Allowed + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", k.Key, k.Type, k.Default, meaning)
	}
	return w.Flush()
}

// writeJSON writes one indented JSON value.
func writeJSON(w io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}
