package download

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"blip2/pkg/storage"
)

// server serves one file and remembers which part of it was asked for.
type server struct {
	*httptest.Server
	data   []byte
	ranges []string
	stall  atomic.Bool // answers stop after 400 kB, until the client gives up
}

// stalling is a writer of such an answer.
type stalling struct {
	http.ResponseWriter
	ctx  context.Context
	left int
}

func (w *stalling) Write(p []byte) (int, error) {
	if len(p) <= w.left {
		w.left -= len(p)
		return w.ResponseWriter.Write(p)
	}
	n, _ := w.ResponseWriter.Write(p[:w.left])
	w.left = 0
	_ = http.NewResponseController(w.ResponseWriter).Flush()
	<-w.ctx.Done()
	return n, w.ctx.Err()
}

func newServer(t *testing.T, data []byte) *server {
	t.Helper()
	s := &server{data: data}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ranges = append(s.ranges, r.Header.Get("Range"))
		w.Header().Set("ETag", `"1"`)
		if s.stall.Load() {
			w = &stalling{w, r.Context(), 400_000}
		}
		http.ServeContent(w, r, "x", time.Unix(1, 0), bytes.NewReader(s.data))
	}))
	t.Cleanup(s.Close)
	return s
}

func sum(data []byte) string {
	s := md5.Sum(data)
	return hex.EncodeToString(s[:])
}

func options(t *testing.T, dir string) Options {
	t.Helper()
	store := storage.New(storage.Options{Tries: 1})
	t.Cleanup(func() { _ = store.Close() })
	return Options{Dir: dir, Store: store}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFetchGoesOn(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 100_000)
	s, dir := newServer(t, data), t.TempDir()
	f := File{URL: s.URL + "/a.json", Path: "set/a.json", MD5: sum(data)}
	ctx, cancel := context.WithCancel(t.Context())
	o := options(t, dir)
	o.Progress = func(_ File, done, _ int64) {
		if done > 300_000 {
			cancel()
		}
	}
	s.stall.Store(true)
	if _, err := Fetch(ctx, f, o); err == nil {
		t.Fatal("an interrupted download succeeded")
	}
	s.stall.Store(false)
	if _, err := os.Stat(filepath.Join(dir, "set", "a.json")); err == nil {
		t.Fatal("a part of the file has its name")
	}
	first := int64(-1)
	o.Progress = func(_ File, done, size int64) {
		if first < 0 {
			first = done
		}
		if size != int64(len(data)) {
			t.Errorf("size %d", size)
		}
	}
	outcome, err := Fetch(t.Context(), f, o)
	if err != nil || outcome != Fetched || read(t, dir, "set", "a.json") != string(data) || first <= 300_000 {
		t.Fatalf("%s, %v; it went on at %d", outcome, err, first)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, "set")); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	if outcome, err := Fetch(t.Context(), f, o); err != nil || outcome != Present {
		t.Errorf("again: %s, %v", outcome, err)
	}
}

// TestOtherVersion: bytes of a version that the server has no more are not mixed with those of the present one.
func TestOtherVersion(t *testing.T) {
	data := []byte("the new version of the file")
	s, dir := newServer(t, data), t.TempDir()
	f := File{URL: s.URL + "/a.json", Path: "a.json"}
	part := filepath.Join(dir, "a.json"+partSuffix)
	if err := errors.Join(os.WriteFile(part, []byte("the old ver"), 0o644),
		os.WriteFile(part+versionSuffix, []byte("27 another"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if _, err := Fetch(t.Context(), f, options(t, dir)); err != nil || read(t, dir, "a.json") != string(data) {
		t.Errorf("%q, %v", read(t, dir, "a.json"), err)
	}
}

func TestWrongChecksum(t *testing.T) {
	s, dir := newServer(t, []byte("something else")), t.TempDir()
	_, err := Fetch(t.Context(), File{URL: s.URL + "/a", Path: "a", MD5: sum([]byte("it"))}, options(t, dir))
	if err == nil || !strings.Contains(err.Error(), "MD5") || !strings.Contains(err.Error(), s.URL) {
		t.Errorf("error %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

func zipOf(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	for name, text := range files {
		f, err := w.Create(name)
		if err == nil {
			_, err = f.Write([]byte(text))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestArchivesAreUnpacked(t *testing.T) {
	data := zipOf(t, map[string]string{"train2014/1.jpg": "one", "train2014/2.jpg": "two", "__MACOSX/x": "fork"})
	s, dir := newServer(t, data), t.TempDir()
	f := File{URL: s.URL + "/train.zip", Path: "archives/train.zip", Into: "coco/images"}
	if _, err := Fetch(t.Context(), f, options(t, dir)); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "coco", "images", "train2014", "2.jpg") != "two" {
		t.Error("2.jpg")
	}
	for _, gone := range []string{"archives/train.zip", "coco/images/__MACOSX"} {
		if _, err := os.Stat(filepath.Join(dir, gone)); err == nil {
			t.Errorf("%s is there", gone)
		}
	}
	asked := len(s.ranges)
	if outcome, err := Fetch(t.Context(), f, options(t, dir)); err != nil || outcome != Present || len(s.ranges) != asked {
		t.Errorf("again: %s, %v, %d requests", outcome, err, len(s.ranges)-asked)
	}
}

func TestHostileArchives(t *testing.T) {
	for name, data := range map[string][]byte{
		"leaves the folder": zipOf(t, map[string]string{"../out": "x"}),
		"absolute":          zipOf(t, map[string]string{"/out": "x"}),
		"no archive":        []byte("PK but no zip"),
	} {
		s, dir := newServer(t, data), t.TempDir()
		_, err := Fetch(t.Context(), File{URL: s.URL + "/a.zip", Path: "in/a.zip", Into: "in/a"}, options(t, dir))
		if err == nil || !strings.Contains(err.Error(), "a.zip") {
			t.Errorf("%s: error %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, "in", "out")); err == nil {
			t.Errorf("%s: a file outside was written", name)
		}
	}
}

func TestSets(t *testing.T) {
	seen := map[string]string{}
	for _, s := range Sets() {
		if s.Licence == "" || s.Home == "" || len(s.Files) == 0 || s.What == "" {
			t.Errorf("%+v", s)
		}
		for _, f := range s.Files {
			if !filepath.IsLocal(filepath.FromSlash(f.Path)) || !strings.HasPrefix(f.URL, "http") || f.MD5 != "" && len(f.MD5) != 32 {
				t.Errorf("%s: %+v", s.Name, f)
			}
			if other, ok := seen[f.Path]; ok && other != f.URL {
				t.Errorf("%s is written twice", f.Path)
			}
			seen[f.Path] = f.URL
			if strings.HasSuffix(f.URL, ".zip") != (f.Into != "") {
				t.Errorf("%s: an archive is unpacked and a file is not", f.URL)
			}
		}
	}
	if _, err := Find([]string{"coco", "cocoa"}); err == nil || !strings.Contains(err.Error(), `"cocoa"`) {
		t.Errorf("error %v", err)
	}
}
