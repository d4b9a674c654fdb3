package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// wheelRequest says whether r is for a wheel and not for an index page.
func wheelRequest(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, ".whl") }

func TestInstallFromMirror(t *testing.T) {
	for _, html := range []bool{false, true} {
		t.Run(fmt.Sprintf("html=%t", html), func(t *testing.T) {
			set, files := testSet(t)
			m := newMirror(t, set, files)
			m.html = html
			in := testInstaller(t, set, m.URL+"/simple", t.TempDir())
			var stages []string
			in.o.Progress = func(p Progress) {
				if p.Done == p.Total {
					stages = append(stages, fmt.Sprintf("%s %d/%d", p.Stage, p.Number, p.Of))
				}
			}
			got, err := in.run(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			checkInstalled(t, in.store, got)
			want := "[download 1/2 download 2/2 unpack 1/2 unpack 2/2]"
			if s := fmt.Sprint(dedup(stages)); s != want {
				t.Errorf("progress %s, want %s", s, want)
			}
			if left, _ := os.ReadDir(in.store.downloads()); len(left) != 0 {
				t.Errorf("downloads are left behind: %v", left)
			}
			again, err := in.run(context.Background())
			if err != nil || !again.Already || m.requests(set.wheels[0].file) != 1 {
				t.Errorf("second run: %+v, %v, %d requests", again, err, m.requests(set.wheels[0].file))
			}
		})
	}
}

// dedup drops repetitions of neighbours.
func dedup(s []string) (out []string) {
	for i, x := range s {
		if i == 0 || x != s[i-1] {
			out = append(out, x)
		}
	}
	return out
}

// checkInstalled compares an installation of the test set with its wheels.
func checkInstalled(t *testing.T, s store, got *Installation) {
	t.Helper()
	own, reason := s.find(KindCPU)
	if own == nil {
		t.Fatalf("not installed: %s", reason)
	}
	if got != nil && (own.plugin() != got.Plugin || !got.Pinned || got.Version != pinnedVersion(KindCPU)) {
		t.Errorf("unexpected installation %+v in %s", got, own.plugin())
	}
	data, err := os.ReadFile(own.plugin())
	if err != nil || string(data) != string(noise(1, 200_000)) {
		t.Errorf("the plugin has other bytes (%v)", err)
	}
	for name, want := range map[string]string{"nvidia/cu13/bin/ptxas": "-rwxr-xr-x", "plug/plugin.so": "-rwxr-xr-x",
		"plug-1.dist-info/licenses/LICENSE": "-rw-r--r--", "plug/__init__.py": "", "nvidia/include/x.h": "",
		"nvidia/lib/big.alt.so.1": ""} {
		info, err := os.Stat(filepath.Join(own.dir, name))
		if (err == nil) != (want != "") || err == nil && info.Mode().String() != want {
			t.Errorf("%s: %v, %v; want %q", name, info, err, want)
		}
	}
	if len(own.m.Files) != 3 || len(own.m.Wheels) != 2 || !own.m.Pinned {
		t.Errorf("manifest: %+v", own.m)
	}
	entries, err := os.ReadDir(s.plugins())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != ".lock" && e.Name() != filepath.Base(own.dir) {
			t.Errorf("%s is left behind", e.Name())
		}
	}
}

func TestDownloadSurvivesFaults(t *testing.T) {
	set, files := testSet(t)
	file := set.wheels[0].file
	data := files[file]
	for name, c := range map[string]struct {
		fault    func(w http.ResponseWriter, r *http.Request, n int) bool
		requests int // for the first wheel
	}{
		"cut and resumed": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if path.Base(r.URL.Path) == file && n == 1 {
				cut(w, data, 50_000)
			}
			return false
		}, 2},
		"cut often, each time with some bytes": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if path.Base(r.URL.Path) == file && n <= 15 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", (n-1)*1000, len(data)-1, len(data)))
				if n > 1 {
					w.Header().Set("Content-Length", fmt.Sprint(len(data)-(n-1)*1000))
					w.WriteHeader(http.StatusPartialContent)
				}
				w.Write(data[(n-1)*1000 : n*1000])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
			return false
		}, 16},
		"server without Range": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if path.Base(r.URL.Path) != file {
				return false
			}
			if n == 1 {
				cut(w, data, 50_000)
			}
			w.Write(data)
			return true
		}, 2},
		"server sends the wrong range": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if path.Base(r.URL.Path) != file || n > 2 {
				return false
			}
			if n == 1 {
				cut(w, data, 50_000)
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(data)-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[7:])
			return true
		}, 3},
		"errors of the server": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n <= 3 {
				http.Error(w, "busy", []int{500, 503, 429}[n-1])
				return true
			}
			return false
		}, 4},
		"range not satisfiable": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if path.Base(r.URL.Path) != file {
				return false
			}
			if n == 1 {
				cut(w, data, 50_000)
			}
			if n == 2 {
				http.Error(w, "", http.StatusRequestedRangeNotSatisfiable)
			}
			return n == 2
		}, 3},
		"damaged bytes in the first part": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if path.Base(r.URL.Path) == file && n == 1 {
				bad := append([]byte{data[0] ^ 1}, data[1:]...)
				cut(w, bad, 50_000)
			}
			return false
		}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t, set, files)
			m.fault = c.fault
			in := testInstaller(t, set, m.URL+"/simple", t.TempDir())
			got, err := in.run(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			checkInstalled(t, in.store, got)
			if n := m.requests(file); n != c.requests {
				t.Errorf("%d requests, want %d: %q", n, c.requests, m.log)
			}
		})
	}
}

func TestDownloadGivesUp(t *testing.T) {
	set, files := testSet(t)
	file := set.wheels[0].file
	data := files[file]
	for name, c := range map[string]struct {
		fault func(w http.ResponseWriter, r *http.Request, n int) bool
		want  []string
		tries int // for the wheel
	}{
		"dead server": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			http.Error(w, "", 502)
			return true
		}, []string{"package index", "502", "tried 6 times"}, 0},
		"server that hangs up": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if wheelRequest(r) {
				panic(http.ErrAbortHandler)
			}
			return false
		}, []string{file, "tried 6 times"}, maxTries},
		"not found": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if wheelRequest(r) {
				http.NotFound(w, r)
			}
			return wheelRequest(r)
		}, []string{file, "404"}, 1},
		"other bytes of the same size": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if wheelRequest(r) {
				w.Write(noise(9, len(data)))
			}
			return wheelRequest(r)
		}, []string{file, "SHA-256", "expected " + set.wheels[0].sha256}, 1},
		"other size": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if wheelRequest(r) {
				fmt.Fprint(w, "<html>please log in</html>")
			}
			return wheelRequest(r)
		}, []string{"has 26 bytes", fmt.Sprint("expected ", len(data))}, 1},
		"endless bytes": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if wheelRequest(r) {
				w.(http.Flusher).Flush() // no Content-Length
				w.Write(data)
				w.Write(data)
			}
			return wheelRequest(r)
		}, []string{"more than the expected"}, 1},
		"index with another checksum": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if !wheelRequest(r) {
				w.Header().Set("Content-Type", "text/html")
				fmt.Fprintf(w, `<a href="/files/%s#sha256=abc">%s</a>`, file, file)
			}
			return !wheelRequest(r)
		}, []string{"SHA-256 is abc", set.wheels[0].sha256}, 0},
		"index without the file": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if !wheelRequest(r) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `{"files":[]}`)
			}
			return !wheelRequest(r)
		}, []string{"does not list " + file, "--index", "--from"}, 0},
		"index that is no index": {func(w http.ResponseWriter, r *http.Request, n int) bool {
			if !wheelRequest(r) {
				w.Header().Set("Content-Type", "application/json")
				fmt.Fprint(w, `oops`)
			}
			return !wheelRequest(r)
		}, []string{"not a simple index page"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMirror(t, set, files)
			m.fault = c.fault
			in := testInstaller(t, set, m.URL+"/simple", t.TempDir())
			_, err := in.run(context.Background())
			if err == nil {
				t.Fatal("installed")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
			if n := m.requests(file); n != c.tries {
				t.Errorf("%d requests for the wheel, want %d", n, c.tries)
			}
			if own, _ := in.store.find(KindCPU); own != nil {
				t.Error("something is installed")
			}
		})
	}
}

func TestStalledConnection(t *testing.T) {
	set, files := testSet(t)
	m := newMirror(t, set, files)
	release := make(chan struct{})
	m.fault = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if !wheelRequest(r) || n > 1 {
			return false
		}
		data := files[path.Base(r.URL.Path)]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:20_000])
		w.(http.Flusher).Flush()
		<-release // holds the connection without sending
		return true
	}
	defer close(release)
	in := testInstaller(t, set, m.URL+"/simple", t.TempDir())
	in.stall = 300 * time.Millisecond
	got, err := in.run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, in.store, got)
	if n := m.requests(set.wheels[0].file); n != 2 {
		t.Errorf("%d requests, want 2", n)
	}
}

func TestInterruptedDownloadContinues(t *testing.T) {
	set, files := testSet(t)
	m := newMirror(t, set, files)
	cache := t.TempDir()
	m.fault = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if !wheelRequest(r) || n > 1 {
			return false
		}
		data := files[path.Base(r.URL.Path)]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:100_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	in := testInstaller(t, set, m.URL+"/simple", cache)
	ctx, cancel := context.WithCancel(context.Background())
	in.o.Progress = func(p Progress) {
		if p.Done == 100_000 {
			cancel()
		}
	}
	_, err := in.run(ctx)
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "continues the download") {
		t.Fatalf("got %v", err)
	}
	part := filepath.Join(in.store.downloads(), set.wheels[0].sha256+".part")
	have := sizeOf(part)
	if have != 100_000 {
		t.Fatalf("%d bytes are kept of the download, want 100000", have)
	}
	got, err := testInstaller(t, set, m.URL+"/simple", cache).run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	checkInstalled(t, in.store, got)
	want := fmt.Sprintf("/files/%s bytes=%d-", set.wheels[0].file, have)
	if !strings.Contains(strings.Join(m.log, "\n"), want) {
		t.Errorf("no request %q in %q", want, m.log)
	}
}

func TestNoNetwork(t *testing.T) {
	set, _ := testSet(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	plain.Close() // nobody answers any more
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	for _, c := range []struct{ index, want string }{
		{plain.URL, "use --from"}, {secure.URL, "SSL_CERT_FILE"},
	} {
		in := testInstaller(t, set, c.index, t.TempDir())
		tries := 0
		in.wait = func(context.Context, int) error { tries++; return nil }
		_, err := in.run(context.Background())
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.index, err, c.want)
		}
		if lasting := c.index == secure.URL; lasting && tries != 0 {
			t.Errorf("%s: tried %d times", c.index, tries+1)
		}
	}
}

func TestIndexURL(t *testing.T) {
	t.Setenv(IndexEnv, "")
	t.Setenv("PIP_INDEX_URL", "")
	check := func(flag, want string) {
		t.Helper()
		if u, err := indexURL(flag); err != nil || u.String() != want {
			t.Errorf("indexURL(%q) = %v, %v; want %s", flag, u, err, want)
		}
	}
	check("", defaultIndex)
	t.Setenv("PIP_INDEX_URL", "https://pip/simple")
	check("", "https://pip/simple")
	t.Setenv(IndexEnv, "http://ours/simple/")
	check("", "http://ours/simple/")
	check("https://flag/x", "https://flag/x")
	for _, bad := range []string{"pypi.org/simple", "file:///x", "http://", "::"} {
		var option *OptionError
		if _, err := indexURL(bad); !errors.As(err, &option) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestPasswordsStayOutOfErrors(t *testing.T) {
	set, files := testSet(t)
	m := newMirror(t, set, files)
	m.fault = func(w http.ResponseWriter, r *http.Request, n int) bool {
		if _, password, ok := r.BasicAuth(); !ok || password != "secret" {
			http.Error(w, "", http.StatusTeapot)
			return true
		}
		http.Error(w, "", http.StatusForbidden)
		return true
	}
	index := strings.Replace(m.URL, "http://", "http://me:secret@", 1) + "/simple"
	_, err := testInstaller(t, set, index, t.TempDir()).run(context.Background())
	if err == nil || !strings.Contains(err.Error(), "403") || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
	m.Close()
	_, err = testInstaller(t, set, index, t.TempDir()).run(context.Background())
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestCacheDir(t *testing.T) {
	t.Setenv(CacheEnv, "/some/cache")
	if dir, err := CacheDir(); err != nil || dir != "/some/cache" {
		t.Errorf("%q, %v", dir, err)
	}
	if dir, err := cacheDir("relative"); err != nil || !filepath.IsAbs(dir) || filepath.Base(dir) != "relative" {
		t.Errorf("%q, %v", dir, err)
	}
	t.Setenv(CacheEnv, "")
	t.Setenv("XDG_CACHE_HOME", "/xdg")
	if dir, err := CacheDir(); err != nil || filepath.Base(dir) != "blip2" {
		t.Errorf("%q, %v", dir, err)
	}
}
