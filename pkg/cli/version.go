package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// versionInfo says which build this is, and on which versions of GoMLX it stands.
type versionInfo struct {
	Version  string `json:"version"`  // module version, or (devel)
	Commit   string `json:"commit"`   // empty when the build does not know it
	Modified bool   `json:"modified"` // the tree had changes that were not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
	CGO      bool   `json:"cgo"` // without it there is the Go backend only
	GoMLX    string `json:"gomlx"`
	GoXLA    string `json:"go_xla"`
	Compute  string `json:"compute"`
}

func newVersionCmd(app *App) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of blip2, Go and GoMLX",
		Example: `  blip2 version
  blip2 version --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runVersion(app) },
	}
}

func runVersion(app *App) error {
	info := newVersionInfo(app.buildInfo())
	if app.Globals.JSON {
		return writeJSON(app.Out, info)
	}
	w := tabwriter.NewWriter(app.Out, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{{"blip2", info.Version}, {"commit", info.commitText()},
		{"go", info.Go + " " + info.Platform}, {"cgo", cgoText(info.CGO)}, {"gomlx", info.GoMLX},
		{"go-xla", info.GoXLA}, {"compute", info.Compute}} {
		fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	return w.Flush()
}

// buildInfo is that of App.Build, or what the Go tool wrote into this program.
func (app *App) buildInfo() *debug.BuildInfo {
	if app.Build != nil {
		return app.Build
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return &debug.BuildInfo{}
	}
	return info
}

func newVersionInfo(build *debug.BuildInfo) versionInfo {
	info := versionInfo{
		Version:  build.Main.Version,
		Go:       runtime.Version(),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		GoMLX:    moduleVersion(build, "github.com/gomlx/gomlx"),
		GoXLA:    moduleVersion(build, "github.com/gomlx/go-xla"),
		Compute:  moduleVersion(build, "github.com/gomlx/compute"),
	}
	if info.Version == "" {
		info.Version = "(devel)"
	}
	for _, s := range build.Settings {
		switch s.Key {
		case "vcs.revision":
			info.Commit = s.Value
		case "vcs.modified":
			info.Modified = s.Value == "true"
		case "CGO_ENABLED":
			info.CGO = s.Value == "1"
		}
	}
	return info
}

func (info versionInfo) commitText() string {
	switch {
	case info.Commit == "":
		return "unknown"
	case info.Modified:
		return info.Commit + " with changes"
	}
	return info.Commit
}

func cgoText(enabled bool) string {
	if enabled {
		return "yes"
	}
	return "no (Go backend only)"
}

// moduleVersion finds a dependency; one that is replaced is named with its replacement.
func moduleVersion(build *debug.BuildInfo, path string) string {
	for _, dep := range build.Deps {
		if dep.Path != path {
			continue
		}
		if dep.Replace == nil {
			return dep.Version
		}
		return strings.TrimSpace(fmt.Sprintf("%s => %s %s", dep.Version, dep.Replace.Path, dep.Replace.Version))
	}
	return "unknown"
}
