package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute"
	"github.com/spf13/cobra"

	"blip2/pkg/device"
	"blip2/pkg/metrics"
	"blip2/pkg/verify"
)

type verifyOptions struct {
	cases string
	kinds []string
}

func newVerifyCmd(app *App) *cobra.Command {
	var opts verifyOptions
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check this machine's numbers against recorded reference cases",
		Long: `Runs recorded cases — inputs, weights and the answers of the reference implementation — and prints, per case,
what was compared, the worst absolute and relative error, the share of the tolerance used, and pass or fail.

Without --cases it runs a few small cases that are inside the program: enough to see whether a new GPU, driver or
plugin computes the image encoder, the three stage-1 losses and all their gradients right. Everything is computed in
float32, with TensorFloat-32 off. Kinds of case that this version cannot run yet are shown as pending and count as
failed. The exit code is 1 if any case fails.`,
		Example: `  blip2 verify
  blip2 verify --backend xla:cuda
  blip2 verify --cases ../shared/golden --kind stage1-forward
  blip2 verify --json | jq '.cases[] | select(.pass | not)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runVerify(cmd.Context(), app, opts) },
	}
	cmd.Flags().StringVar(&opts.cases, "cases", "",
		"folder of cases, or one case (default: the cases inside the program)")
	cmd.Flags().StringSliceVar(&opts.kinds, "kind", nil, "run only cases of this kind; repeat for several")
	return cmd
}

// runVerify runs the cases and writes the report; an error if any case did not pass.
func runVerify(ctx context.Context, app *App, opts verifyOptions) error {
	if err := opts.validate(app); err != nil {
		return err
	}
	var opened *device.Device
	defer func() {
		if err := opened.Close(); err != nil {
			app.Log.Warn("closing the backend", "error", err)
		}
	}()
	report, err := verify.Run(ctx, verify.Options{
		Dir: opts.cases, Kinds: opts.kinds,
		OpenBackend: func(ctx context.Context) (_ compute.Backend, err error) {
			exact := false // TensorFloat-32 keeps 10 bits: far outside every tolerance
			opened, err = device.Open(ctx, device.Options{Backend: app.Globals.Backend, DType: "f32", TF32: &exact,
				Logger: app.Log})
			if err != nil {
				return nil, err
			}
			return opened.Backend, nil
		},
		Scorers: metrics.CaptionScorers(app.Log),
		OnResult: func(r verify.Result) {
			app.Log.Debug("case done", "case", r.Name, "result", string(r.Status), "seconds", r.Seconds)
		},
	})
	if err != nil {
		return err
	}
	if err := writeVerifyReport(app, report); err != nil {
		return err
	}
	if report.Count(verify.Passed) < len(report.Results) {
		return errors.New(report.Summary())
	}
	return nil
}

// validate refuses what can be seen to be wrong before anything runs.
func (o verifyOptions) validate(app *App) error {
	if _, err := device.ParseBackend(app.Globals.Backend); err != nil {
		return &UsageError{Err: err}
	}
	known := append(verify.Kinds(), verify.PendingKinds()...)
	for _, kind := range o.kinds {
		if !slices.Contains(known, kind) {
			slices.Sort(known)
			return usagef("kind %q is unknown; the kinds are %s", kind, strings.Join(known, ", "))
		}
	}
	return nil
}

func writeVerifyReport(app *App, report verify.Report) error {
	if !app.Globals.JSON {
		return report.WriteText(app.Out)
	}
	data, err := json.Marshal(report)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(app.Out, "%s\n", data)
	return err
}
