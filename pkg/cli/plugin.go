package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"blip2/pkg/device"
	"blip2/pkg/metrics/meteor"
)

// pluginKinds are the plugins and data that can be installed.
func pluginKinds() []string { return device.Kinds() }

func newPluginCmd(app *App) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin",
		Short: "Install and check the XLA plugins, and the data of caption scores",
		Long: `The backends xla:cpu and xla:cuda need a PJRT plugin: XLA as a shared library. The versions that work with this
program are pinned in it, each file with its SHA-256, and come as wheels from PyPI; no Python is needed. They are put
into plugins/ in the cache folder (` + device.CacheEnv + `, by default blip2 in the user's cache folder).

An installed plugin comes first. Without one, the folders of PJRT_PLUGIN_LIBRARY_PATH are searched, or if that is not
set ~/.local/lib/go-xla, /usr/local/lib/go-xla and LD_LIBRARY_PATH. Any other plugin is used by naming its file:
--backend xla:/path/plugin.so. Training never downloads anything by itself.

In the same way "meteor" and "spice" install what these two caption scores need beyond this program: word lists and
paraphrases for METEOR, a Java program for SPICE. Without them the scores are reported as not computed.`,
		Example: `  blip2 plugin install cpu
  blip2 plugin check xla:cpu`,
	}
	cmd.AddCommand(newPluginInstallCmd(app), newPluginListCmd(app), newPluginCheckCmd(app), newPluginRemoveCmd(app))
	return cmd
}

// oneKind checks that the only argument is a kind of plugin.
func oneKind(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s takes one plugin: %s", cmd.CommandPath(), strings.Join(pluginKinds(), ", "))
	}
	for _, kind := range pluginKinds() {
		if args[0] == kind {
			return nil
		}
	}
	return fmt.Errorf("unknown plugin %q%s", args[0], suggest(args[0], pluginKinds()))
}

// usageOf turns a refused option into wrong usage.
func usageOf(err error) error {
	var option *device.OptionError
	if errors.As(err, &option) {
		return &UsageError{Err: err}
	}
	return err
}

func newPluginInstallCmd(app *App) *cobra.Command {
	var opts device.InstallOptions
	cmd := &cobra.Command{
		Use:   "install cpu|cuda|meteor|spice",
		Short: "Install the pinned plugin or data",
		Long: `Downloads the wheels of the plugin (cpu: 63 MB, 202 MB on disk; cuda: 2.0 GB with the CUDA libraries, 2.7 GB on
disk; meteor: 104 MB, 170 MB on disk with its index; spice: 492 MB, 419 MB on disk, needs Java 8 to 17), verifies their
SHA-256 and unpacks what is needed. An interrupted download continues with the next call, and a plugin is installed
wholly or not at all. HTTPS_PROXY is heeded. Jars of spice come from Maven Central, or the mirror in
` + device.MavenEnv + `.

For a machine without a network, fetch the wheels elsewhere and hand them over with --from; "blip2 plugin list --json"
names them.`,
		Example: `  blip2 plugin install cpu
  blip2 plugin install cuda --index https://mirror.example/pypi/simple
  blip2 plugin install cuda --from /media/usb/wheels
  blip2 plugin install meteor`,
		Args:      oneKind,
		ValidArgs: pluginKinds(),
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Kind = args[0]
			return runPluginInstall(cmd.Context(), app, opts)
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&opts.From, "from", nil, "take wheels from this file or folder; may be repeated")
	flags.StringVar(&opts.Index, "index", "",
		"simple index to download from (default $"+device.IndexEnv+", $PIP_INDEX_URL or PyPI)")
	flags.BoolVar(&opts.Force, "force", false, "install anew what is installed already")
	flags.BoolVar(&opts.AllowUnpinned, "allow-unpinned", false, "with --from: accept wheels of another checksum")
	return cmd
}

// runPluginInstall installs a plugin and says where it is.
func runPluginInstall(ctx context.Context, app *App, opts device.InstallOptions) error {
	if opts.AllowUnpinned && len(opts.From) == 0 {
		return usagef("--allow-unpinned goes with --from: downloads must have the pinned checksum")
	}
	opts.CacheDir, opts.Logger = app.getenv(device.CacheEnv), app.Log
	if opts.Index == "" {
		opts.Index = app.getenv(device.IndexEnv)
	}
	if !app.Globals.Quiet {
		opts.Progress = newInstallProgress(app.Err).show
	}
	done, err := device.Install(ctx, opts)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", ErrInterrupted, err) // what was downloaded is kept
	}
	if err != nil {
		return usageOf(err)
	}
	if done.Kind == device.KindMETEOR {
		if err := makeMETEORIndex(ctx, app, done.Dir); err != nil {
			return err
		}
	}
	if app.Globals.JSON {
		return json.NewEncoder(app.Out).Encode(done)
	}
	what := fmt.Sprintf("installed the %s plugin %s, %s, in %s", done.Kind, done.Version, megabytes(done.Size), done.Dir)
	if done.Already {
		what = fmt.Sprintf("the %s plugin %s is installed already in %s (--force installs it anew)", done.Kind,
			done.Version, done.Dir)
	}
	if !done.Pinned {
		what += "; it is not the wheel that this program was tested with"
	}
	for _, licence := range done.Licences {
		what += "\n  " + licence
	}
	check := done.Kind
	if len(done.Licences) == 0 {
		check = "xla:" + check
	}
	_, err = fmt.Fprintf(app.Out, "%s\ntry it: blip2 plugin check %s\n", what, check)
	return err
}

// makeMETEORIndex makes the index of METEOR's data if there is none yet, so that nobody else needs to write there.
func makeMETEORIndex(ctx context.Context, app *App, dir string) error {
	scorer, err := meteor.Open(ctx, dir, app.Log)
	if err != nil {
		return err
	}
	return scorer.Close()
}

// installProgress shows a bar per wheel and stage on a terminal, else a line per quarter.
type installProgress struct {
	out      io.Writer
	terminal bool
	stage    string // "download file"
	bar      *progressbar.ProgressBar
	quarter  int64
}

func newInstallProgress(out io.Writer) *installProgress {
	f, ok := out.(*os.File)
	return &installProgress{out: out, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// show is called with every piece of a wheel.
func (p *installProgress) show(now device.Progress) {
	title := fmt.Sprintf("%s %d/%d %s", now.Stage, now.Number, now.Of, shortWheel(now.File))
	if title != p.stage {
		p.stage, p.quarter = title, 0
		if p.terminal {
			p.bar = progressbar.NewOptions64(now.Total, progressbar.OptionSetWriter(p.out), progressbar.OptionSetWidth(20),
				progressbar.OptionSetDescription(title), progressbar.OptionShowBytes(true),
				progressbar.OptionOnCompletion(func() { fmt.Fprintln(p.out) }))
		}
	}
	if p.terminal {
		_ = p.bar.Set64(now.Done) // a bar that cannot be drawn must not stop an installation
		return
	}
	if quarter := 4 * now.Done / max(now.Total, 1); quarter > p.quarter {
		p.quarter = quarter
		fmt.Fprintf(p.out, "%s: %d%% of %s\n", title, 25*quarter, megabytes(now.Total))
	}
}

// shortWheel is project and version of a wheel's file name.
func shortWheel(file string) string {
	parts := strings.SplitN(file, "-", 3)
	return strings.Join(parts[:min(2, len(parts))], " ")
}

// megabytes writes a size as people do: "63 MB", "2.7 GB".
func megabytes(n int64) string {
	if n >= 1e9 {
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	}
	return fmt.Sprintf("%.0f MB", float64(n)/1e6)
}

func newPluginListCmd(app *App) *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List installed and available plugins",
		Example: `  blip2 plugin list --json`,
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return runPluginList(app) },
	}
}

// runPluginList prints the table of plugins.
func runPluginList(app *App) error {
	list, err := device.List(app.getenv(device.CacheEnv))
	if err != nil {
		return err
	}
	if app.Globals.JSON {
		if list == nil {
			list = []device.PluginStatus{}
		}
		return json.NewEncoder(app.Out).Encode(map[string]any{"plugins": list})
	}
	w := tabwriter.NewWriter(app.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PLUGIN\tVERSION\tSTATE\tSIZE\tWHERE")
	for _, p := range list {
		size, where := megabytes(p.Size), p.Path
		if p.Size == 0 {
			size = "-"
		}
		if p.Download > 0 {
			size = fmt.Sprintf("%s (%s to download)", size, megabytes(p.Download))
		}
		if p.Detail != "" {
			where = strings.TrimSpace(where + "  (" + p.Detail + ")")
		}
		version := p.Version
		if version == "" {
			version = "?"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", p.Kind, version, p.State, size, where)
	}
	return w.Flush()
}

func newPluginCheckCmd(app *App) *cobra.Command {
	return &cobra.Command{
		Use:   "check [backend]",
		Short: "Load a backend, multiply matrices on it and measure its speed",
		Long: `Opens a backend (the argument, else --backend), multiplies two matrices on it, compares the product with the
exact one and measures the speed. The files of an installed plugin are verified by their SHA-256 first. With meteor or
spice only the files are verified.`,
		Example: `  blip2 plugin check xla:cpu
  blip2 plugin check --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			backend := app.Globals.Backend
			if len(args) == 1 {
				backend = args[0]
			}
			return runPluginCheck(cmd.Context(), app, backend)
		},
	}
}

// runPluginCheck checks a backend. As in "plugin install", cpu and cuda name plugins.
func runPluginCheck(ctx context.Context, app *App, backend string) error {
	switch backend {
	case device.KindCPU, device.KindCUDA:
		backend = "xla:" + backend
	case device.KindMETEOR, device.KindSPICE:
		return runDataCheck(ctx, app, backend)
	}
	r, err := device.Check(ctx, device.Options{Backend: backend, CacheDir: app.getenv(device.CacheEnv), Logger: app.Log})
	if err != nil {
		return usageOf(err)
	}
	if app.Globals.JSON {
		return json.NewEncoder(app.Out).Encode(r)
	}
	w := tabwriter.NewWriter(app.Out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "backend\t%s on %s, opened in %.2f s\n", r.Backend, r.Platform, r.Open)
	if r.Plugin != "" {
		fmt.Fprintf(w, "plugin\t%s (%s)\n", r.Plugin, r.Source)
		version := "PJRT API " + r.API
		if r.Version != "" {
			version = r.Version + ", " + version
		}
		fmt.Fprintf(w, "version\t%s\n", version)
	}
	for i, name := range r.Devices {
		fmt.Fprintf(w, "device %d\t%s\n", i, name)
	}
	fmt.Fprintf(w, "types\t%s\n", r.DTypes)
	for _, p := range r.Products {
		fmt.Fprintf(w, "%s product\tright (worst error %g), %.0f GFLOP/s at %d×%d\n", p.DType, p.Worst, p.GFLOPS, p.Size,
			p.Size)
	}
	return w.Flush()
}

// runDataCheck verifies the files of installed data.
func runDataCheck(ctx context.Context, app *App, kind string) error {
	dir, err := device.CheckData(ctx, kind, app.getenv(device.CacheEnv))
	if err != nil {
		return usageOf(err)
	}
	if app.Globals.JSON {
		return json.NewEncoder(app.Out).Encode(map[string]any{"kind": kind, "dir": dir, "ok": true})
	}
	_, err = fmt.Fprintf(app.Out, "the files of %s in %s are complete and right\n", kind, dir)
	return err
}

func newPluginRemoveCmd(app *App) *cobra.Command {
	return &cobra.Command{
		Use:       "remove cpu|cuda|meteor|spice",
		Short:     "Delete an installed plugin or data, in all versions",
		Example:   `  blip2 plugin remove cuda`,
		Args:      oneKind,
		ValidArgs: pluginKinds(),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPluginRemove(cmd.Context(), app, args[0])
		},
	}
}

// runPluginRemove deletes the plugins of a kind.
func runPluginRemove(ctx context.Context, app *App, kind string) error {
	gone, freed, err := device.Remove(ctx, kind, app.getenv(device.CacheEnv))
	if err != nil {
		return usageOf(err)
	}
	if app.Globals.JSON {
		if gone == nil {
			gone = []string{}
		}
		return json.NewEncoder(app.Out).Encode(map[string]any{"removed": gone, "bytes": freed})
	}
	if len(gone) == 0 {
		_, err = fmt.Fprintf(app.Out, "no %s plugin is installed\n", kind)
		return err
	}
	_, err = fmt.Fprintf(app.Out, "removed %s, %s freed\n", strings.Join(gone, ", "), megabytes(freed))
	return err
}
