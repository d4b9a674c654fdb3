package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// verifyApp is an App as a command finds it once the global flags are read.
func verifyApp(out *bytes.Buffer, json bool) *App {
	return &App{Out: out, Err: io.Discard, Log: slog.New(slog.DiscardHandler),
		Globals: Globals{Backend: "go", JSON: json}}
}

func TestVerifyBuiltInCases(t *testing.T) {
	var out bytes.Buffer
	if err := runVerify(t.Context(), verifyApp(&out, false), verifyOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"vit-clip", "stage1-forward", "worst abs", " passed, 0 failed"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

func TestVerifyFailure(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "broken")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "case.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	err := runVerify(t.Context(), verifyApp(&out, true), verifyOptions{cases: filepath.Dir(dir)})
	var usage *UsageError
	if err == nil || errors.As(err, &usage) {
		t.Errorf("error %v, want a failure", err)
	}
	var report struct {
		Passed, Failed int
		Cases          []struct{ Name, Error string }
	}
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if report.Failed != 1 || len(report.Cases) != 1 || report.Cases[0].Name != "broken" || report.Cases[0].Error == "" {
		t.Errorf("report %s", out.String())
	}
}

func TestVerifyUsage(t *testing.T) {
	for name, c := range map[string]struct {
		backend string
		opts    verifyOptions
	}{
		"unknown kind":    {"go", verifyOptions{kinds: []string{"vit-klip"}}},
		"unknown backend": {"abacus", verifyOptions{}},
	} {
		var out bytes.Buffer
		app := verifyApp(&out, false)
		app.Globals.Backend = c.backend
		var usage *UsageError
		if err := runVerify(t.Context(), app, c.opts); !errors.As(err, &usage) {
			t.Errorf("%s: error %v, want a usage error", name, err)
		}
		if out.Len() > 0 {
			t.Errorf("%s: wrote %q", name, out.String())
		}
	}
}
