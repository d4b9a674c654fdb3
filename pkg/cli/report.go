package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"blip2/pkg/report"
)

func newReportCmd(app *App) *cobra.Command {
	return &cobra.Command{
		Use:   "report RUN",
		Short: "Rebuild the report page of a run",
		Long: `Builds report.html in a run folder from what the run left there and prints its path: retrieval scores
before and after training, the curves of the losses, the learning rate and the speed, and a gallery of pictures with
what the model makes of them. It works on a run that is still training or was interrupted, too; the page then says
what is missing. The page is one file that loads nothing from elsewhere.`,
		Example: `  blip2 report runs/quickstart-20260102-150405
  blip2 report runs/quickstart-20260102-150405 --json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("report takes one run folder, not %d arguments: blip2 report RUN", len(args))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return runReport(app, args[0]) },
	}
}

// runReport builds the page and prints its path.
func runReport(app *App, runDir string) error {
	path, err := report.Build(runDir)
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		return json.NewEncoder(app.Out).Encode(map[string]string{"report": path})
	}
	_, err = fmt.Fprintln(app.Out, path)
	return err
}
