package device

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// entry is a file for a wheel made by a test.
type entry struct {
	name    string
	content []byte
	mode    uint32 // Unix mode, 0 is 0644
}

// zipped makes a wheel's bytes.
func zipped(t *testing.T, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.CreatorVersion = 3 << 8 // Unix
		h.ExternalAttrs = max(e.mode, 0o644) << 16
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// noise returns bytes that do not compress, the same ones for the same seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// testSet is a plugin of two small wheels.
func testSet(t *testing.T) (*pluginSet, map[string][]byte) {
	t.Helper()
	main := zipped(t, entry{"plug/plugin.so", noise(1, 200_000), 0o100755}, entry{"plug/__init__.py", []byte("pass"), 0},
		entry{"plug-1.dist-info/licenses/LICENSE", []byte("licence"), 0})
	tools := zipped(t, entry{"nvidia/cu13/bin/ptxas", noise(2, 50_000), 0}, entry{"nvidia/include/x.h", nil, 0},
		entry{"nvidia/lib/big.alt.so.1", noise(3, 10), 0})
	set := &pluginSet{kind: KindCPU, platform: platform(), plugin: "plug/plugin.so",
		keep: regexp.MustCompile(`\.so(\.\d+)*$|/bin/|/licenses/`), drop: regexp.MustCompile(`\.alt\.so`)}
	files := map[string][]byte{}
	add := func(project, file string, data []byte, unpacked int64) {
		sum := sha256.Sum256(data)
		set.wheels = append(set.wheels, wheel{project: project, version: pinnedVersion(KindCPU), file: file,
			size: int64(len(data)), sha256: hex.EncodeToString(sum[:]), unpacked: unpacked})
		files[file] = data
	}
	add("Plug_In", "plug_in-"+pinnedVersion(KindCPU)+"-py3-none-any.whl", main, 200_007)
	add("tools", "tools-"+pinnedVersion(KindCPU)+"-py3-none-any.whl", tools, 50_000)
	return set, files
}

// mirror is a package index whose faults a test chooses.
type mirror struct {
	*httptest.Server
	set   *pluginSet
	files map[string][]byte
	html  bool

	// fault may answer the n-th request (from 1) for a file or page by itself and return true.
	fault func(w http.ResponseWriter, r *http.Request, n int) bool

	mu    sync.Mutex
	count map[string]int
	log   []string // "path range" of every request
}

func newMirror(t *testing.T, set *pluginSet, files map[string][]byte) *mirror {
	t.Helper()
	m := &mirror{set: set, files: files, count: map[string]int{}}
	m.Server = httptest.NewServer(http.HandlerFunc(m.serve))
	t.Cleanup(m.Close)
	return m
}

func (m *mirror) serve(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	name := path.Base(r.URL.Path)
	m.count[name]++
	n := m.count[name]
	m.log = append(m.log, strings.TrimSpace(r.URL.Path+" "+r.Header.Get("Range")))
	m.mu.Unlock()
	if m.fault != nil && m.fault(w, r, n) {
		return
	}
	if project, ok := strings.CutPrefix(r.URL.Path, "/simple/"); ok && strings.HasSuffix(project, "/") {
		m.page(w, strings.TrimSuffix(project, "/"))
		return
	}
	data, ok := m.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(data))
}

// page answers a request for a project's page.
func (m *mirror) page(w http.ResponseWriter, project string) {
	var files []map[string]any
	var links strings.Builder
	for _, f := range m.set.wheels {
		if normalProject(f.project) != project {
			continue
		}
		files = append(files, map[string]any{"filename": f.file, "url": "../../files/" + f.file,
			"hashes": map[string]string{"sha256": f.sha256}})
		fmt.Fprintf(&links, "<a data-x='1'\n href=\"../../files/%s#sha256=%s\">%s</a><br/>\n", f.file, f.sha256, f.file)
	}
	if m.html {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!DOCTYPE html><html><body>%s</body></html>", links.String())
		return
	}
	w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
	json.NewEncoder(w).Encode(map[string]any{"files": files})
}

// requests returns how often a name was asked for.
func (m *mirror) requests(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count[name]
}

// cut sends only the first n bytes of what was asked for and breaks the connection.
func cut(w http.ResponseWriter, data []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data[:n])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

// testInstaller is an installer of a test set that does not wait and does not look into libraries.
func testInstaller(t *testing.T, set *pluginSet, index, cache string) *installer {
	t.Helper()
	in, err := newInstallerFor(set, InstallOptions{Kind: set.kind, Index: index, CacheDir: cache,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	in.wait = func(ctx context.Context, _ int) error { return ctx.Err() }
	// On a kept connection net/http tries again by itself, and requests could not be counted.
	in.client.Transport.(*http.Transport).DisableKeepAlives = true
	in.verify = func(string) error { return nil }
	return in
}
