package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"blip2/pkg/dataset/download"
	"blip2/pkg/runlog"
	"blip2/pkg/storage"
)

type dataDownloadOptions struct {
	dir    string
	dryRun bool
	keep   bool
}

func newDataDownloadCmd(app *App) *cobra.Command {
	var opts dataDownloadOptions
	var names []string
	for _, s := range download.Sets() {
		names = append(names, s.Name)
	}
	cmd := &cobra.Command{
		Use:   "download " + strings.Join(names, "|"),
		Short: "Fetch data sets from where their makers publish them",
		Long: `Fetches the annotation files and, where they are given out freely, the pictures of data sets, from their makers'
addresses. Licences are shown first. Files are compared with their published checksums, archives are unpacked, and an
interrupted download goes on with the next call. --dry-run only says what would be fetched, from where to where.`,
		Example: `  blip2 data download coco --dry-run
  blip2 data download coco vqav2 okvqa --dir data`,
		Args:      cobra.MinimumNArgs(1),
		ValidArgs: names,
		RunE:      func(cmd *cobra.Command, args []string) error { return runDataDownload(cmd.Context(), app, args, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.dir, "dir", "data", "`folder` of data")
	flags.BoolVar(&opts.dryRun, "dry-run", false, "fetch nothing")
	flags.BoolVar(&opts.keep, "keep-archives", false, "keep archives after they were unpacked")
	return cmd
}

func runDataDownload(ctx context.Context, app *App, names []string, opts dataDownloadOptions) error {
	sets, err := download.Find(names)
	if err != nil {
		return &UsageError{Err: err}
	}
	if app.Globals.JSON && opts.dryRun {
		return writeJSON(app.Out, sets)
	}
	store := storage.New(storage.Options{Log: app.Log})
	defer store.Close()
	for _, s := range sets {
		if err := writeSet(app.Out, s); err != nil {
			return err
		}
		if opts.dryRun {
			continue
		}
		for _, f := range s.Files {
			if err := app.fetch(ctx, store, f, opts); err != nil {
				return err
			}
		}
	}
	return nil
}

// fetch fetches one file with its progress.
func (app *App) fetch(ctx context.Context, store *storage.Store, f download.File, opts dataDownloadOptions) error {
	progress := app.progress()
	var phase *runlog.Phase
	outcome, err := download.Fetch(ctx, f, download.Options{Dir: opts.dir, Store: store, Keep: opts.keep,
		Progress: func(f download.File, done, size int64) {
			const mega = 1_000_000
			if phase == nil {
				phase = progress.Start("MB of "+f.Path, int(done/mega), max(int(size/mega), 1))
			}
			phase.Advance(int(done / mega))
		}})
	if phase != nil {
		phase.Done()
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(app.Out, "  %s: %s\n", outcome, f.Path)
	return err
}

func writeSet(w io.Writer, s download.Set) error {
	fmt.Fprintf(w, "%s: %s\n  licence: %s\n  home: %s\n", s.Name, s.What, s.Licence, s.Home)
	for _, f := range s.Files {
		size, sum, into := "", "", ""
		if f.Size > 0 {
			size = fmt.Sprintf(", about %.0f GB", float64(f.Size)/1e9)
		}
		if f.MD5 != "" {
			sum = ", MD5 " + f.MD5
		}
		if f.Into != "" {
			into = ", unpacked into " + f.Into
		}
		fmt.Fprintf(w, "  %s -> %s%s%s%s\n", f.URL, f.Path, into, size, sum)
	}
	if s.Note != "" {
		fmt.Fprintf(w, "  note: %s\n", s.Note)
	}
	return nil
}
