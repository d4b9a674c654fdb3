package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"blip2/pkg/device"
)

// needPins skips a test where no plugin can be installed.
func needPins(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("no plugins for " + runtime.GOOS + "/" + runtime.GOARCH)
	}
}

// emptyCache is an environment whose plugin store is empty.
func emptyCache(t *testing.T) (env []string, dir string) {
	t.Helper()
	dir = t.TempDir()
	return []string{device.CacheEnv + "=" + dir}, dir
}

func TestPluginWrongUsage(t *testing.T) {
	needPins(t)
	env, _ := emptyCache(t)
	so := writeFile(t, "plugin.so", "")
	for args, want := range map[string]string{
		"plugin install":                      "takes one plugin: cpu, cuda, meteor, spice",
		"plugin install cpu cuda":             "takes one plugin",
		"plugin install cud":                  "did you mean cuda?",
		"plugin instal cpu":                   "did you mean install?",
		"plugin install cpu --index pypi.org": "must be the URL of a simple index",
		"plugin install cpu --allow-unpinned": "goes with --from",
		"plugin install cpu --from " + so:     "xla:/path/plugin.so",
		"plugin remove tpu":                   `unknown plugin "tpu"`,
		"plugin check tensorrt":               "valid backends: go, xla:cpu",
		"plugin check gpu":                    "did you mean xla:cuda?",
		"plugin check go xla:cpu":             "at most 1 arg",
		"plugin list cpu":                     `unexpected argument "cpu"`,
	} {
		got := runApp(t, env, strings.Fields(args)...)
		if got.code != ExitUsage || !strings.Contains(got.err, want) || got.out != "" {
			t.Errorf("blip2 %s: code %d, stderr %q, stdout %q; want %q", args, got.code, got.err, got.out, want)
		}
	}
}

func TestPluginFailures(t *testing.T) {
	needPins(t)
	env, dir := emptyCache(t)
	for args, want := range map[string]string{
		"plugin install cpu --from " + filepath.Join(dir, "none.whl"): "none.whl",
		"plugin install cpu --from " + dir:                            "lacks 1 wheel of the cpu plugin",
		"plugin check xla:" + filepath.Join(dir, "none.so"):           "", // the words depend on the build
	} {
		got := runApp(t, env, strings.Fields(args)...)
		if got.code != ExitFailure || !strings.Contains(got.err, want) || got.err == "" {
			t.Errorf("blip2 %s: code %d, stderr %q; want %q", args, got.code, got.err, want)
		}
	}
}

func TestPluginInstallInterrupted(t *testing.T) {
	needPins(t)
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}))
	defer server.Close()
	env, _ := emptyCache(t)
	var errw bytes.Buffer
	app := &App{In: strings.NewReader(""), Out: io.Discard, Err: &errw, Environ: env}
	code := app.Run(ctx, []string{"plugin", "install", "cpu", "--index", server.URL})
	if code != ExitInterrupted || !strings.Contains(errw.String(), "interrupted") {
		t.Errorf("code %d, %q", code, errw.String())
	}
}

func TestPluginListAndRemove(t *testing.T) {
	env, dir := emptyCache(t)
	if err := os.MkdirAll(filepath.Join(dir, "plugins", "cpu-0.1"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := runApp(t, env, "plugin", "list")
	if text.code != ExitOK || !strings.HasPrefix(text.out, "PLUGIN") || !strings.Contains(text.out, "damaged") {
		t.Errorf("list: code %d, %q, %s", text.code, text.out, text.err)
	}
	got := runApp(t, env, "plugin", "list", "--json")
	var list struct{ Plugins []device.PluginStatus }
	if err := json.Unmarshal([]byte(got.out), &list); err != nil {
		t.Fatalf("%v in %q", err, got.out)
	}
	if len(list.Plugins) == 0 || list.Plugins[0].State != device.StateDamaged || list.Plugins[0].Version != "0.1" {
		t.Errorf("list: %+v", list)
	}
	removed := runApp(t, env, "plugin", "remove", "cpu")
	if removed.code != ExitOK || !strings.Contains(removed.out, "cpu-0.1") {
		t.Errorf("remove: code %d, %q, %s", removed.code, removed.out, removed.err)
	}
	again := runApp(t, env, "plugin", "remove", "cpu")
	if again.code != ExitOK || !strings.Contains(again.out, "no cpu plugin is installed") {
		t.Errorf("second remove: code %d, %q, %s", again.code, again.out, again.err)
	}
	none := runApp(t, env, "plugin", "remove", "cpu", "--json")
	if none.code != ExitOK || strings.TrimSpace(none.out) != `{"bytes":0,"removed":[]}` {
		t.Errorf("third remove: code %d, %q", none.code, none.out)
	}
}

func TestPluginCheck(t *testing.T) {
	env, _ := emptyCache(t)
	text := runApp(t, env, "plugin", "check", "go")
	for _, want := range []string{"backend", "go on ", "device 0", "f32 product", "GFLOP/s"} {
		if text.code != ExitOK || !strings.Contains(text.out, want) {
			t.Errorf("no %q: code %d, %q, %s", want, text.code, text.out, text.err)
		}
	}
	got := runApp(t, env, "plugin", "check", "--backend", "go", "--json")
	var report device.Report
	if err := json.Unmarshal([]byte(got.out), &report); err != nil {
		t.Fatalf("%v in %q", err, got.out)
	}
	if report.Backend != "go" || len(report.Products) != 1 || report.Products[0].GFLOPS <= 0 {
		t.Errorf("report: %+v", report)
	}
}

func TestInstallProgressLines(t *testing.T) {
	var out strings.Builder
	p := newInstallProgress(&out)
	const file = "nvidia_cublas-13.4.0.1-py3-none-manylinux_2_27_x86_64.whl"
	for _, stage := range []string{"download", "unpack"} {
		for done := int64(0); done <= 400e6; done += 1e6 {
			p.show(device.Progress{Stage: stage, File: file, Number: 2, Of: 14, Done: done, Total: 400e6})
		}
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 8 || lines[0] != "download 2/14 nvidia_cublas 13.4.0.1: 25% of 400 MB" ||
		lines[7] != "unpack 2/14 nvidia_cublas 13.4.0.1: 100% of 400 MB" {
		t.Errorf("%d lines: %q", len(lines), lines)
	}
}
