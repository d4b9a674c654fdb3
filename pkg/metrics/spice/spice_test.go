package spice

import (
	"blip2/pkg/internal/atomicfile"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// fakeJava makes a command that answers -version, and otherwise runs a shell script with $in and $out set.
func fakeJava(t *testing.T, version, script string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	path := filepath.Join(t.TempDir(), "java")
	text := fmt.Sprintf(`#!/bin/sh
if [ "$1" = -version ]; then echo 'openjdk version "%s" 2025-04-15' >&2; exit 0; fi
echo "$@" > %s
while [ $# -gt 0 ]; do
  case "$1" in edu.anu.spice.SpiceScorer) in="$2";; -out) out="$2";; esac
  shift
done
%s
`, version, path+".args", script)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// fakeDir is a folder like that of the installed program.
func fakeDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"lib/spice-1.0.jar", "nashorn-core-15.4.jar", "asm-9.6.jar", "other.txt"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const answerOfTwo = `cat > "$out" <<'X'
[{"image_id":"1","scores":{"All":{"pr":0.5,"re":0.25,"f":0.333}},
  "test_tuples":[{"tuple":["dog","brown"],"truth_value":true}],"ref_tuples":[]},
 {"image_id":"0","scores":{"All":{"pr":null,"re":null,"f":null}},"test_tuples":[],"ref_tuples":[]}]
X`

func TestRun(t *testing.T) {
	items := []Item{{"", []string{""}}, {"a brown dog", []string{"a \"dog\"", "caf\u00e9 \U0001F436\x01"}}}
	for version, args := range map[string]struct{ has, lacks string }{
		"17.0.15": {"nashorn-core", "-cache"}, "11.0.2": {"--add-opens", "nashorn-core"},
		"1.8.0_392": {"-Xmx", "--add-opens"},
	} {
		java := fakeJava(t, version, answerOfTwo)
		done := 0
		got, err := Run(context.Background(), items, Options{Dir: fakeDir(t), Java: java,
			Progress: func(n, of int) { done = n }})
		if err != nil {
			t.Fatal(err)
		}
		if !math.IsNaN(got[0].F()) || got[1].F() != 0.333 || done != 2 || !got[1].Candidate[0].Matched {
			t.Errorf("%s: %+v, %d done", version, got, done)
		}
		line, err := os.ReadFile(java + ".args")
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(line), args.has) || strings.Contains(string(line), args.lacks) {
			t.Errorf("%s: called with %s", version, line)
		}
	}
	if m := Mean([]Result{{}, {Scores: map[string]Score{"All": {F: 1}}}}); !math.IsNaN(m) {
		t.Errorf("mean with a result that has no tuples: %v", m)
	}
}

// TestParsesNotKept: a folder that cannot be written to costs the parses, not the scores.
func TestParsesNotKept(t *testing.T) {
	folder := "/sys/blip2-parses" // not even root may make it
	if err := os.Mkdir(folder, 0o755); !atomicfile.NotWritable(err) {
		t.Skipf("%s: %v", folder, err)
	}
	java := fakeJava(t, "17", answerOfTwo)
	var log strings.Builder
	items := []Item{{"a", []string{"b"}}, {"a", []string{"b"}}}
	got, err := Run(t.Context(), items, Options{Dir: fakeDir(t), Java: java, ParseDir: folder,
		Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil || got[1].F() != 0.333 {
		t.Errorf("%+v, %v", got, err)
	}
	line, err := os.ReadFile(java + ".args")
	if err != nil || strings.Contains(string(line), "-cache") || !strings.Contains(log.String(), folder) {
		t.Errorf("called with %s, %v; the log says %q", line, err, log.String())
	}
}

func TestEncode(t *testing.T) {
	items := []Item{{"a \"b\" \\ \x01", []string{"caf\u00e9 \U0001F436", "\xff"}}, {"", []string{""}}}
	text := encode(items)
	var back []struct {
		Test string
		Refs []string
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if back[0].Test != items[0].Candidate || back[0].Refs[0] != items[0].References[0] || back[0].Refs[1] != "\ufffd" {
		t.Errorf("%q", back)
	}
	for _, c := range text {
		if c >= 0x80 {
			t.Fatalf("%q is not ASCII", text)
		}
	}
}

func TestRunErrors(t *testing.T) {
	one := []Item{{"a", []string{"b"}}}
	var java *NoJavaError
	var memory *MemoryError
	var length *LengthError
	for name, c := range map[string]struct {
		version, script string
		items           []Item
		is              func(error) bool
	}{
		"old Java":      {"1.7.0", "", one, func(err error) bool { return errors.As(err, &java) }},
		"no version":    {"x", "", one, func(err error) bool { return errors.As(err, &java) }},
		"out of memory": {"17", "exit 3", one, func(err error) bool { return errors.As(err, &memory) }},
		"says so": {"17", "echo java.lang.OutOfMemoryError >&2; exit 1", one,
			func(err error) bool { return errors.As(err, &memory) }},
		"fails": {"17", "echo went wrong >&2; exit 1", one,
			func(err error) bool { return strings.Contains(err.Error(), "went wrong") }},
		"writes nothing": {"17", "", one, func(err error) bool { return strings.Contains(err.Error(), "no result") }},
		"writes nonsense": {"17", `echo '[{' > "$out"`, one,
			func(err error) bool { return strings.Contains(err.Error(), "cannot be read") }},
		"other ids": {"17", `echo '[{"image_id":"7","scores":{}}]' > "$out"`, one,
			func(err error) bool { return strings.Contains(err.Error(), `"7"`) }},
		"too few": {"17", `echo '[]' > "$out"`, one,
			func(err error) bool { return strings.Contains(err.Error(), "lacks item 0") }},
		"no reference": {"17", "", []Item{{"a", nil}},
			func(err error) bool { return strings.Contains(err.Error(), "item 0 has no reference") }},
		"long caption": {"17", "", []Item{{"a", []string{strings.Repeat("a ", maxWords+1)}}},
			func(err error) bool { return errors.As(err, &length) && length.Reference == 0 }},
	} {
		_, err := Run(context.Background(), c.items, Options{Dir: fakeDir(t), Java: fakeJava(t, c.version, c.script)})
		if err == nil || !c.is(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Run(context.Background(), one, Options{Dir: fakeDir(t), Java: "no-such-java"}); !errors.As(err, &java) {
		t.Errorf("no Java: %v", err)
	}
	_, err := Run(context.Background(), one, Options{Dir: t.TempDir(), Java: fakeJava(t, "17", "")})
	if err == nil || !strings.Contains(err.Error(), "blip2 plugin install spice") {
		t.Errorf("no jars: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, one, Options{Dir: fakeDir(t), Java: fakeJava(t, "17", "exec sleep 60")}); !errors.Is(err,
		context.DeadlineExceeded) {
		t.Errorf("stopped: %v", err)
	}
}
