package cli

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/dataset/audit"
	"blip2/pkg/internal/toydata"
)

// toyShards writes the toy data set as shards of five samples with two duplicates, and with captions in the last that
// are no JSON. It returns the configuration's folder and that of the shards.
func toyShards(t *testing.T) (dir, shards string) {
	t.Helper()
	dir = toySet(t)
	images := filepath.Join(dir, toydata.ImagesDir)
	data, err := os.ReadFile(filepath.Join(images, "00.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"02.jpg", "08.jpg"} {
		if err := os.WriteFile(filepath.Join(images, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	shards = filepath.Join(dir, "shards")
	got := runApp(t, nil, "data", "shard", "--annotations", filepath.Join(dir, toydata.CaptionFile), "--images", images,
		"--out", shards, "--samples", "5")
	checkSuccess(t, "shard", got, "4 shards with 16 samples")
	last := filepath.Join(shards, "shard-000003.tar")
	if data, err = os.ReadFile(last); err != nil {
		t.Fatal(err)
	}
	data[bytes.LastIndex(data, []byte(`{"captions"`))] = '<'
	if err := os.WriteFile(last, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, shards
}

// onServer serves the shards of a folder, without their indexes, and as .tar.gz.
func onServer(t *testing.T, shards string) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := filepath.Join(shards, filepath.Base(r.URL.Path))
		switch {
		case strings.HasSuffix(name, ".index"):
			http.NotFound(w, r)
		case strings.HasSuffix(name, ".gz"):
			data, err := os.ReadFile(strings.TrimSuffix(name, ".gz"))
			if err != nil {
				http.NotFound(w, r)
				return
			}
			z := gzip.NewWriter(w)
			_, _ = z.Write(data)
			_ = z.Close()
		default:
			http.ServeFile(w, r, name)
		}
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// TestDataCommandsOnStreams: shards that can only be read in order, from a disk, over HTTP and packed, are checked,
// measured, packed anew and shown like those with indexes.
func TestDataCommandsOnStreams(t *testing.T) {
	dir, shards := toyShards(t)
	url := onServer(t, shards)
	var check, stats string
	var packed map[string][]byte
	local := filepath.Join(shards, "*.tar")
	for i, args := range [][]string{{local}, {local, "--shard-index", "never"}, {url + "/shard-{000000..000003}.tar"},
		{url + "/shard-{000000..000003}.tar.gz"}} {
		args = append([]string{"--shards"}, args...)
		name := strings.Join(args, " ")
		got := runApp(t, nil, append([]string{"data", "check", "--json"}, args...)...)
		if got.code != ExitFailure || !strings.Contains(got.out, "shard-000003.tar") {
			t.Fatalf("%s: code %d\n%s%s", name, got.code, got.out, got.err)
		}
		found := checkSummary(t, got.out)
		if i == 0 {
			check = found
		} else if found != check {
			t.Errorf("%s:\n%s, want\n%s", name, found, check)
		}
		got = runApp(t, nil, append([]string{"data", "stats", "--json", "--sample", "-1"}, args...)...)
		checkSuccess(t, name, got, `"texts": 30`, `"unusable": 1`)
		if found := statsSummary(t, got.out); i == 0 {
			stats = found
		} else if found != stats {
			t.Errorf("%s:\n%s, want\n%s", name, found, stats)
		}
		checkSuccess(t, name, runApp(t, nil, append([]string{"data", "stats", "--counts"}, args...)...), "16")
		out := filepath.Join(t.TempDir(), "packed")
		got = runApp(t, nil, append([]string{"data", "shard", "--out", out, "--max-bad", "1", "--samples", "4"}, args...)...)
		checkSuccess(t, name, got, "4 shards with 15 samples", "1 left out")
		if found := tarsIn(t, out); i == 0 {
			packed = found
		} else if i < 3 && !reflect.DeepEqual(found, packed) { // of packed shards the keys are others
			t.Errorf("%s: other shards are written", name)
		}
		page := filepath.Join(t.TempDir(), "page.html")
		got = runApp(t, nil, append([]string{"data", "show", "--out", page, "--batch", "6"}, args...)...)
		checkSuccess(t, name, got, page)
	}
	mixed := "data.train=[{annotations: " + filepath.Join(dir, toydata.CaptionFile) + ", images: " +
		filepath.Join(dir, toydata.ImagesDir) + "}, {shards: '" + url + "/shard-{000000..000002}.tar'}]"
	got := runApp(t, nil, "data", "shard", "--config", filepath.Join(dir, toydata.ConfigFile), "--set", mixed, "--out",
		filepath.Join(t.TempDir(), "both"))
	checkSuccess(t, "both kinds", got, "1 shards with 31 samples")
	got = runApp(t, nil, "data", "show", "--shards", url+"/shard-000000.tar", "--index", "4")
	checkFailure(t, "a place of a stream", got, ExitUsage, "can only be read in order")
	checkFailure(t, "a word", runApp(t, nil, "data", "check", "--shards", "a.tar", "--shard-index", "always"), ExitUsage,
		`not "always"`)
}

// checkSummary is what a check found, but for the words in which damage is described.
func checkSummary(t *testing.T, text string) string {
	t.Helper()
	var sets []audit.CheckReport
	if err := json.Unmarshal([]byte(text), &sets); err != nil || len(sets) != 1 {
		t.Fatalf("%v\n%s", err, text)
	}
	s := sets[0]
	s.Name = ""
	for i := range s.Problems {
		s.Problems[i].Reason = ""
	}
	out, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(string(out), ".tar.gz", ".tar")
}

// statsSummary is what was measured.
func statsSummary(t *testing.T, text string) string {
	t.Helper()
	var s struct{ Details []audit.Stats }
	if err := json.Unmarshal([]byte(text), &s); err != nil || len(s.Details) != 1 {
		t.Fatalf("%v\n%s", err, text)
	}
	s.Details[0].Name = ""
	out, err := json.Marshal(s.Details[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// tarsIn are the shards in a folder.
func tarsIn(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%v, %v", names, err)
	}
	all := map[string][]byte{}
	for _, name := range names {
		if all[filepath.Base(name)], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// TestCheckOfStreamGoesOn: with a journal, what was read of a stream is not read again, also after the shards failed.
func TestCheckOfStreamGoesOn(t *testing.T) {
	_, shards := toyShards(t)
	var asked []string
	broken := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if strings.HasSuffix(r.URL.Path, ".index") || broken && strings.HasSuffix(r.URL.Path, "2.tar") {
			http.Error(w, "", http.StatusTeapot) // an answer that no further try would change
			return
		}
		http.ServeFile(w, r, filepath.Join(shards, filepath.Base(r.URL.Path)))
	}))
	t.Cleanup(server.Close)
	journal := filepath.Join(t.TempDir(), "journal")
	args := []string{"data", "check", "--json", "--shard-index", "never", "--journal", journal,
		"--shards", server.URL + "/shard-{000000..000003}.tar"}
	got := runApp(t, nil, args...)
	if got.code != ExitFailure || !strings.Contains(got.err, "/shard-000002.tar: the server answers") {
		t.Errorf("code %d: %s", got.code, got.err)
	}
	asked, broken = nil, false
	got = runApp(t, nil, args...)
	if slices.Contains(asked, "/shard-000000.tar") || !strings.Contains(got.out, `"pictures": 16`) ||
		!strings.Contains(got.out, `"duplicates": 2`) {
		t.Errorf("asked for %v: %s%s", asked, got.out, got.err)
	}
	before, err := os.ReadFile(journal)
	if err != nil {
		t.Fatal(err)
	}
	asked = nil
	again := runApp(t, nil, args...)
	after, err := os.ReadFile(journal)
	if err != nil || !bytes.Equal(before, after) || again.out != got.out {
		t.Errorf("a check that is complete changes: %v\n%s", err, again.out)
	}
}
