package cli

import "github.com/spf13/cobra"

func newScoreCmd(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "score",
		Short: "Judge result files as the official tools do",
		Long: `Scores files of results against files of annotations, with the numbers of the field's official tools, without
Python or Java. Scores go to stdout; what may make them wrong (pictures without a result, results without a picture,
results given twice, a split of an unexpected size) is said on stderr.`,
		Example: `  blip2 score captions --results results.json --annotations coco_karpathy_test_gt.json`,
	}
	cmd.AddCommand(newScoreCaptionsCmd(app))
	return cmd
}
