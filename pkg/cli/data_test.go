package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/dataset/download"
	"blip2/pkg/internal/toydata"
)

// checkSuccess checks that a command succeeded and that its result has the texts.
func checkSuccess(t *testing.T, name string, got result, says ...string) {
	t.Helper()
	if got.code != ExitOK {
		t.Fatalf("%s: exit code %d\n%s", name, got.code, got.err)
	}
	for _, want := range says {
		if !strings.Contains(got.out, want) {
			t.Errorf("%s: no %q in\n%s", name, want, got.out)
		}
	}
}

// toySet writes the toy data set.
func toySet(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := toydata.Write(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestDataCheck(t *testing.T) {
	dir := toySet(t)
	config := filepath.Join(dir, toydata.ConfigFile)
	journal := filepath.Join(dir, "check.journal")
	got := runApp(t, nil, "data", "check", "--config", config, "--journal", journal)
	checkSuccess(t, "good data", got, "toys (data.train[0]): 12 pictures, 24 texts", "0 unreadable",
		"new toys (data.heldout[0]): 4 pictures")
	for _, name := range []string{journal, journal + ".1"} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, toydata.ImagesDir, "02.jpg")); err != nil {
		t.Fatal(err)
	}
	got = runApp(t, nil, "data", "check", "--json", "--annotations", filepath.Join(dir, toydata.CaptionFile),
		"--images", filepath.Join(dir, toydata.ImagesDir))
	var sets []struct {
		Pictures, Unreadable int
		Problems             []struct{ Key, Kind string }
	}
	if err := json.Unmarshal([]byte(got.out), &sets); err != nil || got.code != ExitFailure || len(sets) != 1 {
		t.Fatalf("%v, code %d\n%s", err, got.code, got.out)
	}
	if s := sets[0]; s.Pictures != 16 || s.Unreadable != 1 || len(s.Problems) != 1 || s.Problems[0].Key != "02.jpg" {
		t.Errorf("%+v", s)
	}
}

func TestDataStats(t *testing.T) {
	dir := toySet(t)
	config := filepath.Join(dir, toydata.ConfigFile)
	got := runApp(t, nil, "data", "stats", "--config", config, "--set",
		"data.train=[{annotations: "+filepath.Join(dir, toydata.CaptionFile)+", images: "+filepath.Join(dir, toydata.ImagesDir)+
			", name: toys, expect: {images: 20}}]")
	checkSuccess(t, "stats", got, "toys", "mixed by images", "16 pictures, expected 20 (-20.0 %)", "words per text",
		"tokens per text", "8 jpeg, 8 png")
	got = runApp(t, nil, "data", "stats", "--config", config, "--json", "--counts")
	var s struct {
		Epoch   int64 `json:"rows_per_epoch"`
		Train   []struct{ Pictures, Texts int }
		Details []any
	}
	if err := json.Unmarshal([]byte(got.out), &s); err != nil || s.Epoch != 24 || s.Train[0].Texts != 24 || s.Details != nil {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestDataShow: the page is that of the training's own loader, at any position.
func TestDataShow(t *testing.T) {
	dir := toySet(t)
	config := filepath.Join(dir, toydata.ConfigFile)
	page := func(args ...string) string {
		out := filepath.Join(dir, "page.html")
		got := runApp(t, nil, append([]string{"data", "show", "--config", config, "--out", out}, args...)...)
		checkSuccess(t, strings.Join(args, " "), got, out)
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	two := page("--batches", "2")
	if n := strings.Count(two, "<figure>"); n != 12 || !strings.Contains(two, "data:image/jpeg") || strings.Contains(two, "src=\"http") {
		t.Errorf("%d pictures", n)
	}
	_, second, ok := strings.Cut(two, "up to row 12 of epoch 0")
	if !ok {
		t.Fatal("no second batch")
	}
	_, alone, ok := strings.Cut(page("--index", "6"), "up to row 12 of epoch 0")
	if !ok || alone != second {
		t.Error("the second batch by itself is another one")
	}
}

func TestDataShardAndIndex(t *testing.T) {
	dir := toySet(t)
	out := filepath.Join(dir, "shards")
	got := runApp(t, nil, "data", "shard", "--config", filepath.Join(dir, toydata.ConfigFile), "--out", out, "--samples", "5")
	checkSuccess(t, "shard", got, "3 shards with 12 samples", "0 left out")
	shards, _ := filepath.Glob(filepath.Join(out, "*.tar"))
	if len(shards) != 3 {
		t.Fatalf("%v", shards)
	}
	got = runApp(t, nil, append([]string{"data", "index", "--rebuild"}, shards...)...)
	checkSuccess(t, "index", got, "3 shards with 12 samples (0 of them cannot be used); 3 indexes built")
	got = runApp(t, nil, "data", "check", "--shards", filepath.Join(out, "*.tar"))
	checkSuccess(t, "check of shards", got, "12 pictures, 24 texts", "0 unreadable")
	page := filepath.Join(t.TempDir(), "error-page.tar")
	if err := os.WriteFile(page, []byte("<html>"+strings.Repeat(" ", 2000)+"</html>"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got = runApp(t, nil, "data", "index", page); got.code != ExitFailure ||
		!strings.Contains(got.err, page+" holds nothing that can be used: is it a webdataset tar?") {
		t.Errorf("index of no tar: %+v", got)
	}
}

func TestDataDownloadDryRun(t *testing.T) {
	for _, s := range download.Sets() {
		got := runApp(t, nil, "data", "download", s.Name, "--dry-run", "--dir", t.TempDir())
		checkSuccess(t, s.Name, got, s.Licence, s.Files[0].URL)
	}
	checkFailure(t, "unknown", runApp(t, nil, "data", "download", "imagenet", "--dry-run"), ExitUsage, "imagenet", "coco")
}

func TestDataUsage(t *testing.T) {
	for args, want := range map[string]string{
		"check":                              "--annotations FILE",
		"stats --annotations a --shards b":   "either --annotations or --shards",
		"show --config c.yaml --shards b":    "--config goes without",
		"check --annotations no.json":        "no.json",
		"shard --annotations a.json":         "--out is missing",
		"index s3://bucket/a.tar":            "not on this machine",
		"show --annotations a --batches 0":   "--batches",
		"stats --for nothing --shards a.tar": "nothing",
	} {
		got := runApp(t, nil, append([]string{"data"}, strings.Fields(args)...)...)
		if got.code == ExitOK || !strings.Contains(got.err, want) {
			t.Errorf("data %s: code %d, %q does not say %q", args, got.code, got.err, want)
		}
	}
}
