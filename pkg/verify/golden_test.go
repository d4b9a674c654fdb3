package verify

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/weights"
)

// weightsTensor is a tensor of a file.
type weightsTensor = weights.Tensor

// copyGolden copies the first recorded case of the kind, and of the model if one is given, into a fresh folder, which
// it returns.
func copyGolden(t *testing.T, kind, model string) string {
	t.Helper()
	root := goldenDir(t)
	cases, err := findCases(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range cases {
		c, err := loadCase(root, name)
		var config struct {
			Model string `json:"model"`
		}
		if err != nil || c.Kind != kind || c.config(&config) != nil || model != "" && config.Model != model {
			continue
		}
		dir := filepath.Join(t.TempDir(), filepath.Base(name))
		if err := os.CopyFS(dir, os.DirFS(c.Dir)); err != nil {
			t.Fatal(err)
		}
		if err := writable(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	t.Skipf("no recorded case of kind %s %s", kind, model)
	return ""
}

// writable makes a copied folder's files ones that may be changed.
func writable(dir string) error {
	return filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.Chmod(path, 0o755)
		}
		return os.Chmod(path, 0o644)
	})
}

// runGoldenMutations spoils a recorded case of the kind and the model in every given way.
func runGoldenMutations(t *testing.T, kind, model string, mutations []mutation) {
	open := opener(t, "go")
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			dir := copyGolden(t, kind, model)
			m.spoil(t, dir)
			report, err := Run(t.Context(), Options{Dir: dir, OpenBackend: open})
			if err != nil {
				t.Fatal(err)
			}
			r := report.Results[0]
			if r.Status != Failed || r.Err == nil || !strings.Contains(r.Err.Error(), m.says) {
				t.Errorf("%s, error %v; want a failure that says %q", r.Status, r.Err, m.says)
			}
		})
	}
}

// flip changes the lowest bit of an integer tensor's second value.
func flip(t *testing.T, set map[string]weights.Tensor, name string) {
	t.Helper()
	tensor, ok := set[name]
	if !ok {
		t.Fatalf("the case has no tensor %s", name)
	}
	at := tensor.Data[8:16]
	binary.LittleEndian.PutUint64(at, binary.LittleEndian.Uint64(at)^1)
}

// changeJSON rewrites a JSON file of the case.
func changeJSON(file string, change func(map[string]any)) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		path := filepath.Join(dir, filepath.FromSlash(file))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var value map[string]any
		if err := json.Unmarshal(data, &value); err != nil {
			t.Fatal(err)
		}
		change(value)
		if data, err = json.Marshal(value); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
