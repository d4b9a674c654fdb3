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

// TestBenchDataFromEverySource: one run compares all kinds of source, stage by stage and by number of workers.
func TestBenchDataFromEverySource(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir := writePictures(t, 10)
	got := runApp(t, nil, "bench", "data", "--images", dir, "--from", "all", "--json", "--size", "16",
		"--workers", "1,2,3")
	var r struct {
		Sources []struct {
			Kind     string
			Pictures int
			Stages   []struct {
				Name    string
				Seconds float64
			}
			Runs []struct {
				Workers   int
				PerSecond float64 `json:"images_per_s"`
			}
		}
	}
	if err := json.Unmarshal([]byte(got.out), &r); err != nil || got.code != ExitOK || len(r.Sources) != len(benchKinds) {
		t.Fatalf("exit code %d: %v: %s%s", got.code, err, got.out, got.err)
	}
	for i, s := range r.Sources {
		if s.Kind != benchKinds[i] || s.Pictures != 10 || len(s.Stages) != 4 || s.Stages[0].Name != "read" ||
			s.Stages[0].Seconds <= 0 || len(s.Runs) != 3 || s.Runs[2].Workers != 3 || s.Runs[2].PerSecond <= 0 {
			t.Errorf("%+v", s)
		}
	}
	got = runApp(t, nil, "bench", "data", "--images", dir, "--from", "http,tar", "--count", "4", "--size", "16")
	checkSuccess(t, "two", got, "4 pictures", "all, 2 workers")
	if tar, web := strings.Index(got.out, " tar "), strings.Index(got.out, " http "); tar < 0 || web < tar ||
		strings.Contains(got.out, "folder") {
		t.Errorf("%s", got.out)
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) != 0 {
		t.Errorf("left in the temporary folder: %v", left)
	}
}

// TestBenchDataShards: shards are measured as a training reads them, or in order where that is asked for.
func TestBenchDataShards(t *testing.T) {
	_, shards := toyShards(t)
	local := filepath.Join(shards, "shard-{000000..000002}.tar")
	url := onServer(t, shards) + "/shard-{000000..000002}.tar"
	for _, c := range []struct {
		args, want string
	}{
		{local, "(indexed): 15 pictures"},
		{local + " --shard-index never --count 20", "(in order): 20 pictures"},
		{url + " --count 20", "(in order): 20 pictures"},
		{url + ".gz --count 20 --randaugment 1", "(in order): 20 pictures"},
	} {
		got := runApp(t, nil, append([]string{"bench", "data", "--size", "8", "--shards"}, strings.Fields(c.args)...)...)
		checkSuccess(t, c.args, got, c.want, "read", "all, 2 workers")
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
		"a source":     {[]string{"--images", one, "--from", "floppy"}, `"floppy"`},
		"from shards":  {[]string{"--shards", "a.tar", "--from", "tar"}, "--from goes without"},
		"in order":     {[]string{"--images", one, "--shard-index", "never"}, "--shard-index goes with --shards"},
		"in memory":    {[]string{"--shards", "x.tar.gz", "--memory"}, "x.tar.gz"},
		"no such list": {[]string{"--images", t.TempDir(), "--annotations", "none.json"}, "none.json"},
	} {
		got := runApp(t, nil, append([]string{"bench", "data"}, c.args...)...)
		if got.code == ExitOK || !strings.Contains(got.err, c.want) {
			t.Errorf("%s: exit code %d, want an error with %q: %s", name, got.code, c.want, got.err)
		}
	}
}
