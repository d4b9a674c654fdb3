package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"blip2/pkg/config"
)

// result is what one command line left behind.
type result struct {
	code     int
	out, err string
	app      *App
}

// runApp runs a command line with the given environment.
func runApp(t *testing.T, env []string, args ...string) result {
	t.Helper()
	var out, errw bytes.Buffer
	app := &App{In: strings.NewReader(""), Out: &out, Err: &errw, Environ: env}
	code := app.Run(t.Context(), args)
	return result{code, out.String(), errw.String(), app}
}

func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

const minimal = "text: {vocab: v.txt}\nvision: {freeze: false}\n" +
	"data:\n  train:\n    - {annotations: a.json, images: img}\n"

func TestWrongUsage(t *testing.T) {
	for _, tt := range []struct {
		args string
		env  []string
		want []string // in stderr
	}{
		{args: "confg", want: []string{`unknown command "confg" for "blip2"; did you mean config?`, "--help"}},
		{args: "confg --config x", want: []string{`unknown command "confg"`}},
		{args: "config shw", want: []string{`unknown command "shw" for "blip2 config"; did you mean show?`}},
		{args: "config shw --set x", want: []string{`unknown command "shw" for "blip2 config"`}},
		{args: "help nonsense", want: []string{`unknown command "nonsense" for "blip2"; want one of`}},
		{args: "config show --confg x", want: []string{"unknown flag --confg; did you mean --config?"}},
		{args: "--nonsense", want: []string{"unknown flag --nonsense; want one of --backend"}},
		{args: "version -x", want: []string{"unknown shorthand flag"}},
		{args: "version --seed", want: []string{"flag needs an argument: --seed"}},
		{args: "version --seed x", want: []string{`--seed "x" is not a whole number`}},
		{args: "version --seed -1", want: []string{`--seed "-1" is not a whole number from 0`}},
		{args: "version extra", want: []string{`unexpected argument "extra"`}},
		{args: "version --log-level inf", want: []string{`--log-level "inf" is unknown; did you mean info?`}},
		{args: "version --backend tpu", want: []string{`--backend "tpu": unknown`, "xla:cpu"}},
		{args: "version", env: []string{"BLIP2_JSON=maybe"},
			want: []string{`environment variable BLIP2_JSON "maybe" is not true or false`}},
		{args: "version", env: []string{"BLIP2_SEED=x"}, want: []string{`environment variable BLIP2_SEED "x"`}},
		{args: "version", env: []string{"BLIP2_BACKEND=tpu"}, want: []string{"environment variable BLIP2_BACKEND"}},
		{args: "completion", want: []string{"want one shell", "bash, zsh, fish, powershell"}},
		{args: "completion bsh", want: []string{`unknown shell "bsh"; did you mean bash?`}},
		{args: "config keys optm", want: []string{`unknown section "optm"; did you mean optim?`}},
		{args: "config show --config no-such.yaml", want: []string{"no-such.yaml", "no such file"}},
		{args: "config show --set optim.lrr=1", want: []string{"did you mean optim.lr?"}},
		{args: "config show --set backend=tpu", want: []string{"--set backend=tpu: backend: unknown"}},
	} {
		got := runApp(t, tt.env, strings.Fields(tt.args)...)
		if got.code != ExitUsage || got.out != "" {
			t.Errorf("%q: exit code %d, stdout %q; want %d and nothing", tt.args, got.code, got.out, ExitUsage)
		}
		for _, want := range tt.want {
			if !strings.Contains(got.err, want) {
				t.Errorf("%q: stderr is\n%swant %s", tt.args, got.err, want)
			}
		}
		if strings.Count(got.err, "blip2: ") != 1 || strings.Contains(got.err, "goroutine") {
			t.Errorf("%q: want one error line on stderr, got\n%s", tt.args, got.err)
		}
	}
}

func TestHelpGoesToStdout(t *testing.T) {
	for _, args := range []string{"", "--help", "help", "config", "help config show", "completion -h"} {
		got := runApp(t, nil, strings.Fields(args)...)
		if got.code != ExitOK || got.err != "" || !strings.Contains(got.out, "Usage:") {
			t.Errorf("%q: exit code %d, stderr %q, stdout %q", args, got.code, got.err, got.out)
		}
	}
}

func TestEveryCommandIsDocumented(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		if cmd.Short == "" || !cmd.HasSubCommands() && cmd.Example == "" {
			t.Errorf("%s has no description or no example", cmd.CommandPath())
		}
		for _, line := range strings.Split(cmd.Long+"\n"+cmd.Example, "\n") {
			if len([]rune(line)) > 120 {
				t.Errorf("%s: help line of more than 120 columns: %s", cmd.CommandPath(), line)
			}
		}
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	root := newRootCmd(&App{})
	visit(root)
	for _, cmd := range root.Commands() {
		if cmd.GroupID == "" {
			t.Errorf("%s is in no group", cmd.Name())
		}
	}
}

func TestErrorAsJSON(t *testing.T) {
	for _, args := range [][]string{{"--json", "confg"}, {"version", "--seed", "x", "--json"},
		{"config", "show", "--json", "--set", "x=1"}} {
		got := runApp(t, nil, args...)
		var object struct {
			Error    string `json:"error"`
			ExitCode int    `json:"exit_code"`
		}
		if err := json.Unmarshal([]byte(got.err), &object); err != nil || object.Error == "" ||
			object.ExitCode != ExitUsage || got.out != "" {
			t.Errorf("%q: %v in %q", args, err, got.err)
		}
	}
}

// runFunc runs a command that does what f does.
func runFunc(t *testing.T, ctx context.Context, f func(*cobra.Command) error, args ...string) result {
	t.Helper()
	var out, errw bytes.Buffer
	app := &App{Out: &out, Err: &errw}
	root := newRootCmd(app)
	probe := &cobra.Command{Use: "probe", RunE: func(cmd *cobra.Command, _ []string) error { return f(cmd) }}
	app.prepare(probe)
	root.AddCommand(probe)
	root.SetArgs(append([]string{"probe"}, args...))
	code := app.finish(ctx, root)
	return result{code, out.String(), errw.String(), app}
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
	}{
		{nil, ExitOK},
		{errors.New("disk full"), ExitFailure},
		{usagef("batch size %d is larger than the data set", 3), ExitUsage},
		{fmt.Errorf("training: %w", ErrInterrupted), ExitInterrupted},
		{fmt.Errorf("starting: %w", &UsageError{Err: errors.New("x")}), ExitUsage},
		{fmt.Errorf("loading: %w", &config.Error{Problems: []config.Problem{{Message: "x"}}}), ExitUsage},
		{context.Canceled, ExitFailure},
	} {
		got := runFunc(t, t.Context(), func(*cobra.Command) error { return tt.err })
		if got.code != tt.code {
			t.Errorf("%v: exit code %d, want %d", tt.err, got.code, tt.code)
		}
		if tt.err != nil && got.err != "blip2: "+tt.err.Error()+"\n" {
			t.Errorf("%v is printed as %q", tt.err, got.err)
		}
	}
}

func TestInterruptedWithoutSaving(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	got := runFunc(t, ctx, func(cmd *cobra.Command) error {
		cancel()
		return fmt.Errorf("reading captions: %w", cmd.Context().Err())
	})
	if got.code != ExitFailure || got.err != "blip2: interrupted: reading captions: context canceled\n" {
		t.Errorf("exit code %d, stderr %q", got.code, got.err)
	}
}

func TestPanicBecomesAnError(t *testing.T) {
	boom := func(*cobra.Command) error { panic("shapes differ") }
	got := runFunc(t, t.Context(), boom)
	if got.code != ExitFailure || !strings.Contains(got.err, "blip2: internal error: shapes differ") ||
		strings.Count(got.err, "\n") != 1 || strings.Contains(got.err, "cli_test.go") {
		t.Errorf("exit code %d, stderr %q", got.code, got.err)
	}
	if got := runFunc(t, t.Context(), boom, "--log-level", "debug"); !strings.Contains(got.err, "cli_test.go") {
		t.Errorf("no stack at debug level in %q", got.err)
	}
}

func TestGlobals(t *testing.T) {
	env := []string{"BLIP2_BACKEND=go", "BLIP2_SEED=7", "BLIP2_LOG_LEVEL=debug", "BLIP2_QUIET=true", "BLIP2_JSON="}
	seed := func(g Globals) int64 {
		if g.Seed == nil {
			return -1
		}
		return *g.Seed
	}
	for _, tt := range []struct {
		env  []string
		args []string
		want Globals
		seed int64
	}{
		{nil, nil, Globals{Backend: "auto", LogLevel: "info"}, -1},
		{env, nil, Globals{Backend: "go", LogLevel: "debug", Quiet: true}, 7},
		{env, []string{"--backend", "xla:cpu", "--seed", "0", "--log-level", "error", "--quiet=false", "--json"},
			Globals{Backend: "xla:cpu", LogLevel: "error", JSON: true}, 0},
	} {
		got := runApp(t, tt.env, append([]string{"version"}, tt.args...)...)
		if got.code != ExitOK {
			t.Fatalf("%q: %s", tt.args, got.err)
		}
		g := got.app.Globals
		if s := seed(g); s != tt.seed {
			t.Errorf("%q: seed %d, want %d", tt.args, s, tt.seed)
		}
		if g.Seed = nil; g != tt.want {
			t.Errorf("%q: %+v, want %+v", tt.args, g, tt.want)
		}
	}
}

func TestLogLevel(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string // levels that are printed
	}{
		{nil, "INFO WARN ERROR"},
		{[]string{"--log-level", "debug"}, "DEBUG INFO WARN ERROR"},
		{[]string{"--log-level", "error"}, "ERROR"},
		{[]string{"--quiet"}, "WARN ERROR"},
		{[]string{"--quiet", "--log-level", "error"}, "ERROR"},
		{[]string{"--log-level", "warn"}, "WARN ERROR"},
	} {
		got := runApp(t, nil, append([]string{"version"}, tt.args...)...)
		if got.err != "" {
			t.Errorf("%q wrote %q", tt.args, got.err)
		}
		log := got.app.Log
		log.Debug("DEBUG")
		log.Info("INFO")
		log.Warn("WARN")
		log.Error("ERROR")
		var seen []string
		for _, line := range strings.Split(strings.TrimSpace(got.app.Err.(*bytes.Buffer).String()), "\n") {
			seen = append(seen, line[strings.LastIndex(line, "=")+1:])
		}
		if strings.Join(seen, " ") != tt.want {
			t.Errorf("%q prints %q, want %q", tt.args, seen, tt.want)
		}
	}
	if level := (Globals{LogLevel: "info", Quiet: true}).slogLevel(); level != slog.LevelWarn {
		t.Errorf("quiet is level %v", level)
	}
}

func TestConfigShow(t *testing.T) {
	path := writeFile(t, "c.yaml", minimal+"optim: {lr: 2e-4}\nseed: 1\nbackend: go\n")
	value := func(env []string, args ...string) (seed float64, backend string, lr float64) {
		t.Helper()
		got := runApp(t, env, append([]string{"config", "show", "--json", "--config", path}, args...)...)
		if got.code != ExitOK || got.err != "" {
			t.Fatalf("%q: exit code %d, %s", args, got.code, got.err)
		}
		var c struct {
			Seed    float64
			Backend string
			Optim   struct{ LR float64 }
		}
		if err := json.Unmarshal([]byte(got.out), &c); err != nil {
			t.Fatal(err)
		}
		return c.Seed, c.Backend, c.Optim.LR
	}
	check := func(wantSeed float64, wantBackend string, wantLR float64, env []string, args ...string) {
		t.Helper()
		if seed, backend, lr := value(env, args...); seed != wantSeed || backend != wantBackend || lr != wantLR {
			t.Errorf("%q %q: seed %g, backend %s, lr %g; want %g, %s, %g", env, args, seed, backend, lr,
				wantSeed, wantBackend, wantLR)
		}
	}
	env := []string{"BLIP2_SEED=2", "BLIP2_BACKEND=xla:cpu", "BLIP2_OPTIM_LR=3e-4"}
	check(1, "go", 2e-4, nil)
	check(2, "xla:cpu", 3e-4, env)
	check(3, "xla:cuda", 4e-4, env, "--seed", "3", "--backend", "xla:cuda", "--set", "optim.lr=4e-4")
	check(3, "auto", 2e-4, nil, "--seed=3", "--set", "seed=9", "--set", "backend=auto")
}

func TestConfigShowGivesALoadableFile(t *testing.T) {
	path := writeFile(t, "c.yaml", minimal)
	first := runApp(t, nil, "config", "show", "--config", path, "--set", "run.name=2024")
	if first.code != ExitOK || !strings.Contains(first.out, `name: "2024"`) {
		t.Fatalf("exit code %d, %s%s", first.code, first.err, first.out)
	}
	again := runApp(t, nil, "config", "show", "--config", writeFile(t, "config.yaml", first.out))
	if again.out != first.out {
		t.Errorf("shown again it is\n%s\nwas\n%s", again.out, first.out)
	}
	got := runApp(t, nil, "config", "show")
	if got.code != ExitOK || got.err != "" || !strings.Contains(got.out, "seed: 42") {
		t.Errorf("without a file: exit code %d, stderr %q", got.code, got.err)
	}
	got = runApp(t, nil, "config", "show", "--config", writeFile(t, "c.yaml", "seed: 1\n"))
	if got.code != ExitUsage || !strings.Contains(got.err, "text.vocab: is required") {
		t.Errorf("an incomplete file: exit code %d, stderr %q", got.code, got.err)
	}
}

func TestConfigWarnings(t *testing.T) {
	path := writeFile(t, "c.yaml", minimal+"\n")
	got := runApp(t, []string{"BLIP2_OPTIM_L=1"}, "config", "show", "--config", path, "--set", "vision.freeze=true")
	if got.code != ExitOK || !strings.Contains(got.err, "BLIP2_OPTIM_L has no meaning") ||
		!strings.Contains(got.err, "keeps its random weights") {
		t.Errorf("exit code %d, stderr %q", got.code, got.err)
	}
}

func TestConfigKeys(t *testing.T) {
	got := runApp(t, nil, "config", "keys")
	for _, want := range []string{"KEY", "optim.lr ", "data.train[].images", "vision.arch", "clip, eva", "250k"} {
		if !strings.Contains(got.out, want) {
			t.Errorf("no %q in\n%s", want, got.out)
		}
	}
	got = runApp(t, nil, "config", "keys", "data.augment", "--json")
	var keys []config.KeyInfo
	if err := json.Unmarshal([]byte(got.out), &keys); err != nil || len(keys) != 6 ||
		keys[2].Env != "BLIP2_DATA_AUGMENT_FLIP" {
		t.Errorf("%v: %+v", err, keys)
	}
}

func TestVersion(t *testing.T) {
	build := &debug.BuildInfo{
		Main: debug.Module{Version: "v1.2.3"},
		Deps: []*debug.Module{{Path: "github.com/gomlx/gomlx", Version: "v0.28.3"},
			{Path: "github.com/gomlx/go-xla", Version: "v0.4.2", Replace: &debug.Module{Path: "../fork"}}},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"},
			{Key: "CGO_ENABLED", Value: "1"}},
	}
	want := versionInfo{Version: "v1.2.3", Commit: "abc", Modified: true, CGO: true, GoMLX: "v0.28.3",
		GoXLA: "v0.4.2 => ../fork", Compute: "unknown"}
	got := newVersionInfo(build)
	if got.Go == "" || got.Platform == "" {
		t.Errorf("%+v", got)
	}
	if got.Go, got.Platform = "", ""; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if empty := newVersionInfo(&debug.BuildInfo{}); empty.Version != "(devel)" || empty.commitText() != "unknown" {
		t.Errorf("got %+v", empty)
	}
	var out bytes.Buffer
	app := &App{Out: &out, Err: &out, Build: build}
	if code := app.Run(t.Context(), []string{"version"}); code != 0 ||
		!strings.Contains(out.String(), "abc with changes") || !strings.Contains(out.String(), "v0.28.3") {
		t.Errorf("exit code %d, %s", code, out.String())
	}
	result := runApp(t, nil, "version", "--json")
	var info versionInfo
	if err := json.Unmarshal([]byte(result.out), &info); err != nil || info.Go == "" {
		t.Errorf("%v in %s", err, result.out)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range shells() {
		if got := runApp(t, nil, "completion", shell); got.code != ExitOK || !strings.Contains(got.out, "blip2") {
			t.Errorf("%s: exit code %d, %s", shell, got.code, got.err)
		}
	}
	for args, want := range map[string]string{"weights convert --to": "lavis", "weights assemble --dtype": "bf16",
		"weights assemble --stage": "2", "score captions --metrics": "spice", "score captions --expect": "nocaps-val"} {
		got := runApp(t, nil, append(append([]string{"__complete"}, strings.Fields(args)...), "")...)
		if !slices.Contains(strings.Split(got.out, "\n"), want) {
			t.Errorf("%s is completed with %q, without %s", args, got.out, want)
		}
	}
	if got := runApp(t, nil, "__complete", "--backend", ""); !strings.Contains(got.out, "xla:cuda") {
		t.Errorf("--backend completes to %q", got.out)
	}
}

// failingWriter is a full disk.
type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestOutputThatFails(t *testing.T) {
	for _, args := range []string{"version", "version --json", "config show", "config show --json", "config keys",
		"completion zsh"} {
		var errw bytes.Buffer
		app := &App{Out: failingWriter{}, Err: &errw}
		code := app.Run(t.Context(), strings.Fields(args))
		if code != ExitFailure || !strings.Contains(errw.String(), "no space left") {
			t.Errorf("%q: exit code %d, stderr %q", args, code, errw.String())
		}
	}
}
