package cli

import (
	"encoding/json"
	"image"
	"image/jpeg"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// writePictures writes n small JPEG pictures.
func writePictures(t *testing.T, n int) string {
	t.Helper()
	dir := t.TempDir()
	for i := range n {
		f, err := os.Create(filepath.Join(dir, string(rune('a'+i))+".jpg"))
		if err != nil {
			t.Fatal(err)
		}
		if err := jpeg.Encode(f, image.NewRGBA(image.Rect(0, 0, 40, 30)), nil); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBenchData(t *testing.T) {
	dir := writePictures(t, 3)
	got := runApp(t, nil, "bench", "data", "--images", dir, "--count", "5", "--size", "16")
	for _, want := range []string{"5 pictures", "decode", "resize", "copy", "all, 1 worker", "all, 2 workers"} {
		if got.code != ExitOK || !strings.Contains(got.out, want) {
			t.Errorf("exit code %d, no %q in\n%s%s", got.code, want, got.out, got.err)
		}
	}
	if strings.Contains(got.out, "augment") {
		t.Error("a stage that is not done is shown")
	}
}

func TestBenchDataJSON(t *testing.T) {
	dir := writePictures(t, 2)
	got := runApp(t, nil, "bench", "data", "--images", dir, "--memory", "--json", "--workers", "3",
		"--randaugment", "2")
	var report struct {
		Pictures int
		JPEG     string           `json:"jpeg_decoder"`
		Stages   []map[string]any `json:"stages"`
		Runs     []map[string]any `json:"runs"`
	}
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || got.code != ExitOK {
		t.Fatalf("exit code %d: %v: %s%s", got.code, err, got.out, got.err)
	}
	if report.Pictures != 2 || report.JPEG == "" || len(report.Stages) != 5 || len(report.Runs) != 1 ||
		report.Runs[0]["workers"] != 3.0 {
		t.Errorf("%+v", report)
	}
}

func TestBenchDataRefuses(t *testing.T) {
	one := writePictures(t, 1)
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no folder":    {nil, "--images"},
		"no pictures":  {[]string{"--images", t.TempDir()}, "holds no pictures"},
		"no such":      {[]string{"--images", filepath.Join(t.TempDir(), "none")}, "none"},
		"mode":         {[]string{"--images", one, "--randaugment", "2", "--randaugment-mode", "x"}, `"x"`},
		"no workers":   {[]string{"--images", one, "--workers", "0"}, "0 workers"},
		"no such list": {[]string{"--images", t.TempDir(), "--annotations", "none.json"}, "none.json"},
	} {
		got := runApp(t, nil, append([]string{"bench", "data"}, c.args...)...)
		if got.code == ExitOK || !strings.Contains(got.err, c.want) {
			t.Errorf("%s: exit code %d, want an error with %q: %s", name, got.code, c.want, got.err)
		}
	}
}
