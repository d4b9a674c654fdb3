package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/device"
	"blip2/pkg/fullsize"
	"blip2/pkg/model/opt"
	"blip2/pkg/weights"
)

// tinyNetwork stands in for a published one, which no test has the time for.
func tinyNetwork() fullsize.Network {
	return fullsize.NewOPT(opt.Config{Vocab: 29, Hidden: 12, Layers: 2, Heads: 3, FFN: 20, Positions: 16,
		LayerNormEps: 1e-5}).Named("opt-tiny")
}

// benchForward measures the tiny network on the Go backend as the command does once it has found a network.
func benchForward(t *testing.T, asJSON bool, change func(o *forwardOptions)) (string, error) {
	t.Helper()
	var out bytes.Buffer
	app := &App{Out: &out, Err: io.Discard, Log: slog.New(slog.DiscardHandler),
		Globals: Globals{Backend: "go", JSON: asJSON}}
	o := forwardOptions{batch: 2, tokens: 5, steps: 2, container: fullsize.Safetensors}
	change(&o)
	err := o.measure(t.Context(), app, tinyNetwork())
	return out.String(), err
}

func TestBenchForwardText(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	out, err := benchForward(t, false, func(*forwardOptions) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"opt-tiny, random weights", "kept in 0.00 GB as Float32", "batch 2, 5 tokens", "MB/s",
		"from safetensors", "times the tensors", "MEDIAN OF 2", "prompt", "next token", "peak while loading",
		"peak while running: next token"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("%v is left of the random weights, %v", left, err)
	}
}

func TestBenchForwardJSON(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	measure := func() (r forwardReport) {
		out, err := benchForward(t, true, func(o *forwardOptions) { o.keep, o.container = dir, fullsize.PyTorch })
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		return r
	}
	r := measure()
	want := filepath.Join(dir, "opt-tiny-f32.pth")
	if r.Model != "opt-tiny" || r.Backend != "go" || r.Written.Path != want || r.Written.Seconds <= 0 ||
		r.Machine.Cores < 1 || r.Time.IsZero() {
		t.Errorf("report %+v", r)
	}
	if m := r.Result; len(m.Passes) != 2 || m.Load.Container != "PyTorch zip" || m.Passes[1].WeightGBPerS <= 0 ||
		m.Passes[0].StepSeconds.Median <= 0 || m.Batch != 2 || m.Tokens != 5 {
		t.Errorf("result %+v", m)
	}
	if again := measure(); again.Written.Seconds != 0 || again.Written.Path != want {
		t.Errorf("the second time %+v was written", again.Written)
	}
}

// TestBenchForwardWeights loads a user's checkpoint: on the Go backend in float32, whatever its type.
func TestBenchForwardWeights(t *testing.T) {
	w, err := tinyNetwork().Write(t.Context(), t.TempDir(), fullsize.Safetensors, weights.BF16)
	if err != nil {
		t.Fatal(err)
	}
	out, err := benchForward(t, false, func(o *forwardOptions) { o.weights = w.Path })
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"weights of " + w.Path, "as Float32", "written         nothing\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if dtype, err := mostBytes(w.Path); err != nil || dtype != weights.BF16 {
		t.Errorf("the file is mostly %s, %v", dtype, err)
	}
	missing := filepath.Join(t.TempDir(), "none")
	if _, err := benchForward(t, false, func(o *forwardOptions) { o.weights = missing }); err == nil ||
		!strings.Contains(err.Error(), missing) {
		t.Errorf("a missing checkpoint: error %v", err)
	}
}

func TestBenchForwardWrongUsage(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"", "--model is needed: one of blip-large"},
		{"--model vit-h", `--model "vit-h" is unknown; did you mean vit-g?`},
		{"--model opt-125m --batch 0", "a batch of 0"},
		{"--model opt-125m --batch 1000000000000", "at most 65536"},
		{"--model opt-125m --tokens -1", "1 to 2047 tokens, not -1"},
		{"--model opt-125m --tokens 3000", "1 to 2047 tokens, not 3000"},
		{"--model vit-g --tokens 5", "vit-g reads no text"},
		{"--model vit-g --steps 0", "at least 1"},
		{"--model vit-g --warmup -1", "0 or more"},
		{"--model vit-g --dtype f8", `--dtype "f8" is unknown`},
		{"--model vit-g --dtype bf16 --backend go", "use f32 or auto"},
		{"--model vit-g --container zip", `--container "zip" is unknown`},
		{"--model vit-g --weights a --keep b", "leave it out with --weights"},
		{"--model vit-g x", `unexpected argument "x"`},
	} {
		got := runApp(t, nil, append([]string{"bench", "forward"}, strings.Fields(tt.args)...)...)
		if got.code != ExitUsage || !strings.Contains(got.err, tt.want) || got.out != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr\n%swant code %d and %s", tt.args, got.code, got.out, got.err,
				ExitUsage, tt.want)
		}
	}
}

// TestCheckMemory: the largest network that is known does not fit any machine that runs tests, a small one does.
func TestCheckMemory(t *testing.T) {
	dev, err := openDevice(t.Context(), device.Options{Backend: "go"})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := checkMemory(tinyNetwork(), weights.F32, dev); err != nil {
		t.Error(err)
	}
	huge := fullsize.NewOPT(opt.Config{Vocab: 1 << 30, Hidden: 1 << 20, Layers: 1, Heads: 1, FFN: 1, Positions: 1,
		LayerNormEps: 1e-5}).Named("opt-huge")
	if _, err := os.Stat("/proc/meminfo"); err != nil {
		t.Skip("this system does not tell its memory")
	}
	if err := checkMemory(huge, weights.F32, dev); err == nil || !strings.Contains(err.Error(), "opt-huge has 45") ||
		!strings.Contains(err.Error(), "smaller") {
		t.Errorf("a petabyte of weights: %v", err)
	}
}
