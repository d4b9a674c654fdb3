package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"

	"blip2/pkg/fullsize"
	"blip2/pkg/model/opt"
)

// TestBenchGenerateWrongUsage: mistakes are found before a backend is opened.
func TestBenchGenerateWrongUsage(t *testing.T) {
	for args, want := range map[string]string{
		"":                                   "--model",
		"--model opt-350":                    "did you mean opt-350m?",
		"--model vit-g":                      "no network that writes texts",
		"--model qformer --draw -1":          "-1 texts cannot be drawn",
		"--model qformer --draw 2 --beams 3": "not with 3 beams",
		"--model opt-125m --beams 0":         "0 beams",
		"--model opt-125m --batch 0":         "a batch of 0",
		"--model opt-125m --beams 100000":    "at most 65536 texts",
		"--model opt-125m --new-tokens 1":    "1 new tokens",
		"--model opt-125m --runs 0":          "0 runs",
		"--model opt-125m --dtype f8":        `--dtype "f8"`,
		"--model opt-125m --new-tokens 2048": "more than the 2048",
	} {
		got := runApp(t, nil, append([]string{"bench", "generate"}, strings.Fields(args)...)...)
		if got.code != ExitUsage || !strings.Contains(got.err, want) {
			t.Errorf("%q: exit code %d, stderr %s want %s", args, got.code, got.err, want)
		}
	}
}

// TestBenchGenerate measures a small network, as a table and as JSON.
func TestBenchGenerate(t *testing.T) {
	network := fullsize.NewOPT(opt.Config{Vocab: 29, Hidden: 12, Layers: 2, Heads: 3, FFN: 20, Positions: 40,
		LayerNormEps: 1e-5}).Named("toy")
	run := fullsize.GenerateOptions{Network: network, Beams: 2, NewTokens: 5, Warmup: 1, Runs: 2,
		Sizes: fullsize.Sizes{Batch: 2, Tokens: 6}}
	for _, drawn := range []int{0, 3} {
		if run.Draw = drawn; drawn > 0 {
			run.Beams = 1
		}
		checkBenchGenerate(t, run)
	}
}

func checkBenchGenerate(t *testing.T, run fullsize.GenerateOptions) {
	t.Helper()
	texts := "2 of 5 tokens behind 6, beam 2"
	if run.Draw > 0 {
		texts = "6 of 5 tokens behind 6, drawn for 2 pictures"
	}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		app := &App{Out: &out, Err: io.Discard, Log: slog.New(slog.DiscardHandler)}
		app.Globals = Globals{Backend: "go", JSON: asJSON}
		if err := (benchGenerateOptions{}).measure(t.Context(), app, run); err != nil {
			t.Fatal(err)
		}
		if asJSON {
			var report benchGenerateReport
			if err := json.Unmarshal(out.Bytes(), &report); err != nil || report.Model != "toy" ||
				report.Result.TokensPerS <= 0 {
				t.Errorf("%v in %s", err, out.String())
			}
			continue
		}
		for _, want := range []string{texts, "tokens/s", "first token", "GB/s", "cache", "peak", "2 programs"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("no %s in\n%s", want, out.String())
			}
		}
	}
}
