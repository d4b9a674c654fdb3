package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func shells() []string { return []string{"bash", "zsh", "fish", "powershell"} }

func newCompletionCmd(app *App) *cobra.Command {
	return &cobra.Command{
		Use:   "completion {bash|zsh|fish|powershell}",
		Short: "Print a completion script for a shell",
		Example: `  source <(blip2 completion bash)
  blip2 completion zsh > "${fpath[1]}/_blip2"
  blip2 completion fish > ~/.config/fish/completions/blip2.fish`,
		ValidArgs: shells(),
		Args:      oneShell,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(app.Out, true)
			case "zsh":
				return root.GenZshCompletion(app.Out)
			case "fish":
				return root.GenFishCompletion(app.Out, true)
			default:
				return root.GenPowerShellCompletionWithDesc(app.Out)
			}
		},
	}
}

// oneShell accepts exactly one of the shells.
func oneShell(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want one shell, got %d arguments%s", len(args), suggest("", shells()))
	}
	for _, shell := range shells() {
		if args[0] == shell {
			return nil
		}
	}
	return fmt.Errorf("unknown shell %q%s", args[0], suggest(args[0], shells()))
}

// completeValues makes the shell complete a flag with the values that it takes.
func completeValues(cmd *cobra.Command, flag string, values ...string) {
	complete := cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the caller defined the flag
	}
}
