package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// reportCmd runs "report" with arguments and returns what it prints.
func reportCmd(t *testing.T, asJSON bool, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newReportCmd(&App{Out: &out, Err: io.Discard, Globals: Globals{JSON: asJSON}})
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	cmd.SetErr(io.Discard)
	err := cmd.Execute()
	return out.String(), err
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "metrics.jsonl"), []byte("{\"step\":1,\"loss\":2}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(dir, "report.html")
	text, err := reportCmd(t, false, dir)
	if err != nil || text != want+"\n" {
		t.Errorf("printed %q, %v; want the path %s", text, err, want)
	}
	if page, err := os.ReadFile(want); err != nil || !bytes.HasPrefix(page, []byte("<!DOCTYPE html>")) {
		t.Errorf("the page: %v, %.40q", err, page)
	}
	text, err = reportCmd(t, true, dir)
	var result map[string]string
	if err != nil || json.Unmarshal([]byte(text), &result) != nil || result["report"] != want {
		t.Errorf("with JSON printed %q, %v", text, err)
	}
}

func TestReportErrors(t *testing.T) {
	empty := t.TempDir()
	var usage *UsageError
	for _, args := range [][]string{{}, {"a", "b"}} {
		if _, err := reportCmd(t, false, args...); !errors.As(err, &usage) {
			t.Errorf("%v: error %v is no UsageError", args, err)
		}
	}
	for dir, want := range map[string]string{empty: "no run folder", filepath.Join(empty, "gone"): "gone"} {
		text, err := reportCmd(t, false, dir)
		if err == nil || errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want a failure with %q", dir, err, want)
		}
		if text != "" {
			t.Errorf("%s: printed %q", dir, text)
		}
	}
}
