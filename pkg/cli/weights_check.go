package cli

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/naming"
	"blip2/pkg/published"
)

func newWeightsCheckCmd(app *App) *cobra.Command {
	var opts weightsCheckOptions
	cmd := &cobra.Command{
		Use:   "check A B",
		Short: "Compare two checkpoints, whatever their names, containers and types",
		Long: `Says whether two checkpoints are the same network with the same numbers, and the largest difference of each
tensor. The exit code is 1 if they are not the same model, or if a difference is above --tolerance.`,
		Example: `  blip2 weights check models/blip2-opt-2.7b models/converted
  blip2 weights check --tolerance 1e-2 models/f32 models/bf16`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !(opts.tolerance >= 0) {
				return usagef("--tolerance %g: give a number of 0 or more", opts.tolerance)
			}
			opts.a, opts.b = args[0], args[1]
			return runWeightsCheck(cmd.Context(), app, opts)
		},
	}
	cmd.Flags().Float64Var(&opts.tolerance, "tolerance", 0, "largest difference that counts as the same")
	cmd.Flags().BoolVar(&opts.all, "all", false, "list every tensor, not only those that differ")
	return cmd
}

type weightsCheckOptions struct {
	a, b      string
	tolerance float64
	all       bool
}

func runWeightsCheck(ctx context.Context, app *App, opts weightsCheckOptions) error {
	var sides [2]*published.Checkpoint
	for i, path := range []string{opts.a, opts.b} {
		run, err := findRun(app, path)
		if err != nil {
			return err
		}
		if sides[i], err = published.Open(run.path, published.Hints{}); err != nil {
			return err
		}
		defer sides[i].Close() // read only: nothing can be lost
	}
	a, b := sides[0], sides[1]
	c, err := published.Compare(ctx, a, b)
	if err != nil {
		return err
	}
	same := c.Same(opts.tolerance)
	if app.Globals.JSON {
		err = writeJSON(app.Out, struct {
			Same bool `json:"same"`
			*published.Comparison
		}{same, c})
	} else {
		err = writeComparison(app.Out, c, same, opts.all)
	}
	if err == nil && !same {
		err = fmt.Errorf("%s and %s are not the same", opts.a, opts.b)
	}
	return err
}

// shownDifferences is how many tensors are listed without --all.
const shownDifferences = 20

func writeComparison(w io.Writer, c *published.Comparison, same, all bool) error {
	fmt.Fprintf(w, "A: %s (%s)\nB: %s (%s)\n", c.FormatA, c.ModelA, c.FormatB, c.ModelB)
	for _, line := range append(naming.NoteLines("only in A:", c.OnlyA), naming.NoteLines("only in B:", c.OnlyB)...) {
		fmt.Fprintln(w, line)
	}
	equal, bits, shown, more := 0, 0, 0, 0
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, d := range c.Tensors {
		same := d.MaxAbs == 0 && d.Reason == ""
		if same {
			equal++
		}
		if d.Bits {
			bits++
		}
		if !all && (same || shown == shownDifferences) {
			if !same {
				more++
			}
			continue
		}
		if shown++; shown == 1 {
			fmt.Fprintln(tab, "LARGEST DIFFERENCE\tTYPES\tSHAPE\tTENSOR")
		}
		what := fmt.Sprintf("%.3g", d.MaxAbs)
		if d.Reason != "" {
			what = d.Reason
		}
		fmt.Fprintf(tab, "%s\t%s %s\t%v\t%s\n", what, d.A, d.B, d.Shape, d.Name)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(w, "and %d more that differ (all with --all or --json)\n", more)
	}
	verdict := "the same model"
	if !same {
		verdict = "NOT the same model"
	}
	_, err := fmt.Fprintf(w,
		"%s: of %d tensors in both %d have equal numbers, %d of them bit for bit; %d only in A, %d only in B; "+
			"largest difference %.3g\n", verdict, len(c.Tensors), equal, bits, len(c.OnlyA), len(c.OnlyB), c.MaxAbs)
	return err
}
