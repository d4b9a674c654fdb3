package verify

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"

	"blip2/pkg/device"
	"blip2/pkg/metrics"
	"blip2/pkg/metrics/caption"
)

// goldenDir returns the folder of recorded cases: BLIP2_GOLDEN, else ../shared/golden beside the repository.
func goldenDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("BLIP2_GOLDEN")
	if dir == "" {
		root, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		for root != filepath.Dir(root) {
			if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
				break
			}
			root = filepath.Dir(root)
		}
		dir = filepath.Join(root, "..", "shared", "golden")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no recorded cases: %v (set BLIP2_GOLDEN to their folder)", err)
	}
	return dir
}

// opener opens the named backend once for the test.
func opener(t *testing.T, name string) func(context.Context) (compute.Backend, error) {
	return func(ctx context.Context) (compute.Backend, error) {
		exact := false
		d, err := device.Open(ctx, device.Options{Backend: name, DType: "f32", TF32: &exact})
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d.Backend, nil
	}
}

// runGolden runs every recorded case; pending ones are counted, but do not fail. METEOR is checked where its data are
// installed, SPICE, which takes minutes, by blip2 verify alone.
func runGolden(t *testing.T, dir, backend string) {
	report, err := Run(t.Context(), Options{Dir: dir, OpenBackend: opener(t, backend),
		Scorers: []caption.Scorer{metrics.METEOR(slog.New(slog.DiscardHandler))}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(report.Summary())
	for _, r := range report.Results {
		if r.Status == Pending {
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			t.Logf("%s %s: %d compared, worst abs %.2g, rel %.2g, %s of tolerance at %s, %.2f s",
				r.Kind, r.Status, r.Compared, r.WorstAbs, r.WorstRel, percent(r.Share), r.Worst, r.Seconds)
			if r.Status == Failed {
				t.Error(r.Err)
			}
		})
	}
}

func TestGolden(t *testing.T) { runGolden(t, goldenDir(t), "go") }

func TestEmbedded(t *testing.T) { runGolden(t, "", "go") }

// TestGoldenOnBackend repeats the cases on the backend that BLIP2_TEST_BACKEND names, such as xla:cpu.
func TestGoldenOnBackend(t *testing.T) {
	backend := os.Getenv("BLIP2_TEST_BACKEND")
	if backend == "" || backend == "go" {
		t.Skip("BLIP2_TEST_BACKEND names no further backend")
	}
	runGolden(t, goldenDir(t), backend)
}

// TestKinds holds the two lists against the table of the recorded cases' README: every kind is built or pending.
func TestKinds(t *testing.T) {
	pending := PendingKinds()
	if !slices.IsSorted(pending) {
		t.Error("PendingKinds is not sorted")
	}
	for _, kind := range pending {
		if slices.Contains(Kinds(), kind) {
			t.Errorf("%s is both built and pending", kind)
		}
	}
	readme, err := os.ReadFile(filepath.Join(goldenDir(t), "README.md"))
	if err != nil {
		t.Skipf("no table of kinds: %v", err)
	}
	var table []string
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z0-9, -]+) \|`).FindAllStringSubmatch(string(readme), -1) {
		if row[1] != "kind" {
			table = append(table, strings.Split(row[1], ", ")...)
		}
	}
	slices.Sort(table)
	known := append(Kinds(), pending...)
	slices.Sort(known)
	if !slices.Equal(table, known) {
		t.Errorf("kinds in the table: %v\nbuilt or pending:   %v", table, known)
	}
}

// writeCase writes a case of JSON files only.
func writeCase(t *testing.T, root, name string, files map[string]string) {
	t.Helper()
	dir := filepath.Join(root, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for file, text := range files {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// scheduleCase is a small good case of kind lr-schedule whose rate at step 5 is the given one.
func scheduleCase(rate string) map[string]string {
	return map[string]string{
		caseFile: `{"name":"x","kind":"lr-schedule","tolerance":{"atol":1e-15,"rtol":1e-12},"config":{"items":[
			{"name":"a","scheduler":"constant_lr","init_lr":1e-3,"min_lr":0,"warmup_start_lr":0,"warmup_steps":10,
			"max_epoch":2,"steps_per_epoch":20,"total_steps":40,"steps":[5,30]}]}}`,
		expectedFile: `{"items":[{"name":"a","lavis":[` + rate + `,1e-3]}]}`,
	}
}

func TestRunBrokenCases(t *testing.T) {
	root := t.TempDir()
	writeCase(t, root, "good", scheduleCase("5e-4"))
	writeCase(t, root, "nested/good", scheduleCase("5e-4"))
	writeCase(t, root, "tools", map[string]string{"make.py": ""}) // not a case
	wrong := map[string]struct {
		files map[string]string
		says  string
	}{
		"wrong-value": {scheduleCase("5.000001e-4"), "a/lavis[0]"},
		"unknown":     {map[string]string{caseFile: `{"kind":"riddle"}`}, `kind "riddle" is unknown`},
		"no-kind":     {map[string]string{caseFile: `{}`}, "names no kind"},
		"bad-json":    {map[string]string{caseFile: `{"kind":`}, caseFile},
		"no-json":     {map[string]string{expectedFile: `{}`}, caseFile},
		"no-expected": {map[string]string{caseFile: scheduleCase("1")[caseFile]}, expectedFile},
		"bad-outputs": {map[string]string{caseFile: scheduleCase("1")[caseFile], outputsFile: "x"}, outputsFile},
		"bad-config": {map[string]string{caseFile: `{"kind":"lr-schedule","config":{"items":3},
			"tolerance":{"atol":0,"rtol":0}}`, expectedFile: "{}"}, "config"},
		"no-tolerance": {map[string]string{caseFile: `{"kind":"lr-schedule","config":{"items":[]}}`,
			expectedFile: "{}"}, "tolerance"},
		"nothing": {map[string]string{caseFile: `{"kind":"lr-schedule","config":{"items":[]},
			"tolerance":{"atol":0,"rtol":0}}`, expectedFile: "{}"}, "compares nothing"},
	}
	for name, w := range wrong {
		writeCase(t, root, name, w.files)
	}
	later := 0
	for _, kind := range PendingKinds() {
		writeCase(t, root, "later/"+kind, map[string]string{caseFile: `{"kind":"` + kind + `"}`})
		later++
	}
	if err := os.Symlink(filepath.Join(root, "good"), filepath.Join(root, "linked")); err != nil {
		t.Fatal(err)
	}

	report, err := Run(t.Context(), Options{Dir: root})
	if err != nil {
		t.Fatal(err)
	}
	if got := report.Count(Passed); got != 3 {
		t.Errorf("%d passed, want good, nested/good and linked", got)
	}
	if got := report.Count(Pending); got != later {
		t.Errorf("%d pending, want %d", got, later)
	}
	if got, want := len(report.Results), 3+later+len(wrong); got != want {
		t.Errorf("%d results, want %d", got, want)
	}
	for _, r := range report.Results {
		w, bad := wrong[r.Name]
		if !bad {
			continue
		}
		if r.Status != Failed || r.Err == nil || !strings.Contains(r.Err.Error(), w.says) {
			t.Errorf("%s: %s, error %v, want a failure that says %q", r.Name, r.Status, r.Err, w.says)
		}
	}
	checkReport(t, report)
}

// checkReport holds both forms of a report against its counts.
func checkReport(t *testing.T, report Report) {
	t.Helper()
	data, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var decoded struct {
		Passed, Failed int
		Cases          []map[string]any
	}
	if err := json.Unmarshal(data, &decoded); err != nil {
		t.Fatal(err)
	}
	passed := report.Count(Passed)
	total := len(report.Results)
	if decoded.Passed != passed || decoded.Failed != total-passed || len(decoded.Cases) != total {
		t.Errorf("JSON says %d passed, %d failed, %d cases", decoded.Passed, decoded.Failed, len(decoded.Cases))
	}
	for _, c := range decoded.Cases {
		if len(c) != 7 || c["pass"].(bool) != (c["error"] == "") {
			t.Errorf("JSON row %v", c)
		}
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	summary := fmt.Sprintf("%d passed, %d failed", passed, len(report.Results)-passed)
	for _, r := range report.Results {
		if !strings.Contains(text.String(), r.Name) {
			t.Errorf("the table does not name %s", r.Name)
		}
	}
	if !strings.Contains(text.String(), summary) {
		t.Errorf("no line %q in:\n%s", summary, text.String())
	}
}

func TestRunSelection(t *testing.T) {
	root := t.TempDir()
	writeCase(t, root, "a", scheduleCase("5e-4"))
	writeCase(t, root, "b", map[string]string{caseFile: `{"kind":"generate"}`})
	report, err := Run(t.Context(), Options{Dir: root, Kinds: []string{"lr-schedule"}})
	if err != nil || len(report.Results) != 1 || report.Results[0].Name != "a" {
		t.Errorf("kind lr-schedule gave %+v, %v", report, err)
	}
	report, err = Run(t.Context(), Options{Dir: filepath.Join(root, "a")})
	if err != nil || len(report.Results) != 1 || report.Results[0].Status != Passed {
		t.Errorf("a case as root gave %+v, %v", report, err)
	}
	for name, o := range map[string]Options{
		"no such folder": {Dir: filepath.Join(root, "none")},
		"a file":         {Dir: filepath.Join(root, "a", caseFile)},
		"no case":        {Dir: t.TempDir()},
		"no such kind":   {Dir: root, Kinds: []string{"vit-clip"}},
	} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Run(t.Context(), Options{Kinds: []string{"generate"}}); err == nil ||
		!strings.Contains(err.Error(), "no case of kind generate among the 8 of the program; name a folder of cases") {
		t.Errorf("a kind that is not in the program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, Options{Dir: root}); err == nil {
		t.Error("cancelled: no error")
	}
}

func TestCheckTurnsPanicsIntoErrors(t *testing.T) {
	dir := t.TempDir()
	writeCase(t, dir, "a", scheduleCase("1"))
	c, err := loadCase(dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	err = check(c, &checker{}, func(*Case, *checker) error { panic("boom") })
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("error %v does not tell the panic", err)
	}
}

func TestFileStaysInside(t *testing.T) {
	c := &Case{Dir: "case", env: &environment{dataDir: "data"}}
	for name, want := range map[string]string{
		"outputs/a.png": filepath.Join("case", "outputs", "a.png"),
		"data:x/b.jpg":  filepath.Join("data", "x", "b.jpg"),
	} {
		if got, err := c.file(name); err != nil || got != want {
			t.Errorf("file(%q) = %q, %v, want %q", name, got, err, want)
		}
	}
	for _, name := range []string{"../x", "data:../x", "/etc/x", "a/../../x", ""} {
		if got, err := c.file(name); err == nil && name != "" {
			t.Errorf("file(%q) = %q, want an error", name, got)
		}
	}
}
