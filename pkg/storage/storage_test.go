package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// content is n bytes that tell their place.
func content(n int) []byte {
	data := make([]byte, n)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

// serve starts a web server that serves one file. fault is called with the number of each request, from 0, and says
// whether it has answered itself.
func serve(t *testing.T, data []byte, fault func(n int, w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	var n atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault != nil && fault(int(n.Add(1))-1, w, r) {
			return
		}
		w.Header().Set("ETag", `"one"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(server.Close)
	return server.URL + "/file.tar"
}

// testStore does not wait; it notes the waits.
func testStore(t *testing.T, waits *[]time.Duration) *Store {
	t.Helper()
	s := New(Options{Tries: 4, Stall: 5 * time.Second, Wait: func(ctx context.Context, d time.Duration) error {
		if waits != nil {
			*waits = append(*waits, d)
		}
		return ctx.Err()
	}})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func readRange(s *Store, location string, offset, n int64) ([]byte, error) {
	o, err := s.Open(context.Background(), location)
	if err != nil {
		return nil, err
	}
	defer o.Close()
	r := o.Range(context.Background(), offset, n)
	defer r.Close()
	return io.ReadAll(r)
}

func TestReadsEverywhere(t *testing.T) {
	data := content(100_000)
	path := filepath.Join(t.TempDir(), "file.tar")
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
	s := testStore(t, nil)
	for _, location := range []string{path, "file://" + path, serve(t, data, nil), s3File(t, data, nil),
		gcsFile(t, data, nil)} {
		o, err := s.Open(context.Background(), location)
		if err != nil {
			t.Fatalf("%s: %v", Redact(location), err)
		}
		if info := o.Info(); info.Size != int64(len(data)) || info.Version == "" || !info.Ranges {
			t.Errorf("%s: info is %+v", o.Name(), info)
		}
		for _, part := range [][2]int64{{0, -1}, {0, 10}, {99_990, -1}, {99_990, 10}, {512, 60_000}, {100_000, -1}, {5, 0}} {
			want := data[part[0]:]
			if part[1] >= 0 {
				want = want[:part[1]]
			}
			r := o.Range(context.Background(), part[0], part[1])
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s, %v: %d bytes, %v", o.Name(), part, len(got), err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		p := make([]byte, 1000)
		if err := o.ReadAt(context.Background(), p, 4321); err != nil || !bytes.Equal(p, data[4321:5321]) {
			t.Errorf("%s: ReadAt: %v", o.Name(), err)
		}
		if err := o.ReadAt(context.Background(), p, 99_500); err == nil {
			t.Errorf("%s: read past the end", o.Name())
		}
		if got, err := s.ReadAll(context.Background(), location, 100_000); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: ReadAll: %v", o.Name(), err)
		}
		if _, err := s.ReadAll(context.Background(), location, 99_999); err == nil {
			t.Errorf("%s: ReadAll is not bounded", o.Name())
		}
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	}
}

// hijack breaks a connection after some bytes of an answer.
func hijack(t *testing.T, w http.ResponseWriter, answer string) {
	t.Helper()
	conn, buf, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = buf.WriteString(answer)
	_ = buf.Flush()
	_ = conn.Close()
}

func TestPassingFaults(t *testing.T) {
	data := content(50_000)
	status := func(code int) func(int, http.ResponseWriter, *http.Request) bool {
		return func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n%2 == 1 {
				http.Error(w, "fault", code)
			}
			return n%2 == 1
		}
	}
	partial := func(n int, from, to int) string {
		return fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nETag: \"one\"\r\nContent-Length: %d\r\n"+
			"Content-Range: bytes %d-%d/%d\r\n\r\n", n, from, to, len(data))
	}
	for name, fault := range map[string]func(int, http.ResponseWriter, *http.Request) bool{
		"500": status(500), "502": status(502), "503": status(503), "429": status(429), "408": status(408),
		"connection reset before the answer": func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n == 1 || n == 2 {
				hijack(t, w, "")
				return true
			}
			return false
		},
		"connection reset half-way, twice": func(n int, w http.ResponseWriter, r *http.Request) bool {
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			if n == 1 || n == 2 {
				hijack(t, w, partial(len(data)-from, from, len(data)-1)+string(data[from:from+7000]))
				return true
			}
			return false
		},
		"Content-Length too small": func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n == 1 {
				hijack(t, w, partial(100, 0, len(data)-1)+string(data[:100]))
			}
			return n == 1
		},
		"Content-Length too great": func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n == 1 {
				hijack(t, w, partial(len(data)+5, 0, len(data)-1)+string(data)+"extra")
			}
			return n == 1
		},
		"range ignored": func(n int, w http.ResponseWriter, r *http.Request) bool {
			r.Header.Del("Range")
			return false
		},
		"range ignored from now on": func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				hijack(t, w, partial(len(data), 0, len(data)-1)+string(data[:7000]))
				return true
			}
			if n > 1 {
				r.Header.Del("Range")
			}
			return false
		},
		"nonsense for a range": func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n == 1 {
				w.Header().Set("Content-Range", "bytes 7-3/banana")
				w.WriteHeader(http.StatusPartialContent)
			}
			return n == 1
		},
		"no size": func(n int, w http.ResponseWriter, _ *http.Request) bool {
			for i := 0; i < len(data); i += 10_000 {
				_, _ = w.Write(data[i : i+10_000])
				w.(http.Flusher).Flush()
			}
			return true
		},
		"short reads": func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 0 {
				return false
			}
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(data)-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			for i := 0; i < len(data); i += 500 {
				_, _ = w.Write(data[i : i+500])
				w.(http.Flusher).Flush()
			}
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := readRange(testStore(t, nil), serve(t, data, fault), 0, -1)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestLastingFaults(t *testing.T) {
	data := content(50_000)
	for name, c := range map[string]struct {
		fault     func(n int, w http.ResponseWriter) // for every request after the first
		want      error
		permanent bool
		text      string
	}{
		"disappears": {func(_ int, w http.ResponseWriter) { http.Error(w, "", http.StatusNotFound) },
			fs.ErrNotExist, true, "byte 1000: "},
		"forbidden": {func(_ int, w http.ResponseWriter) { http.Error(w, "", http.StatusForbidden) },
			fs.ErrPermission, true, "403"},
		"replaced": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("ETag", `"two"`)
			w.Header().Set("Content-Range", "bytes 1000-49999/50000")
			w.WriteHeader(206)
		}, ErrChanged, true, "byte 1000: "},
		"shorter": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes 1000-1999/2000")
			w.WriteHeader(206)
		}, ErrChanged, true, "byte 1000: "},
		"cut off": {func(_ int, w http.ResponseWriter) {
			w.Header().Set("Content-Range", "bytes */700")
			w.WriteHeader(416)
		}, nil, true, "bytes */700"},
		"overloaded": {func(_ int, w http.ResponseWriter) { http.Error(w, "", http.StatusServiceUnavailable) },
			nil, false, "(tried 4 times)"},
		"ends early": {func(_ int, w http.ResponseWriter) { hijack(t, w, "HTTP/1.1 200") }, nil, false, "(tried 4 times)"},
		"packed": {func(_ int, w http.ResponseWriter) { w.Header().Set("Content-Encoding", "br") }, nil, true,
			"Content-Encoding"},
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, data, func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n > 0 {
					c.fault(n, w)
				}
				return n > 0
			})
			got, err := readRange(testStore(t, nil), url, 1000, -1)
			var e *Error
			if !errors.As(err, &e) || e.Permanent != c.permanent || c.want != nil && !errors.Is(err, c.want) ||
				e.Offset != 1000 || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "/file.tar") {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
}

func TestStalledServer(t *testing.T) {
	data := content(10_000)
	url := serve(t, data, func(n int, w http.ResponseWriter, r *http.Request) bool {
		switch n {
		case 1: // stops half-way
			w.Header().Set("Content-Range", "bytes 0-9999/10000")
			w.WriteHeader(206)
			_, _ = w.Write(data[:4000])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return true
		case 2: // does not answer
			<-r.Context().Done()
			return true
		}
		return false
	})
	s := New(Options{Stall: 50 * time.Millisecond, Wait: func(context.Context, time.Duration) error { return nil }})
	defer s.Close()
	if got, err := readRange(s, url, 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A server that asks to wait is obeyed, up to the limit; without a wish the waits grow.
func TestWaits(t *testing.T) {
	data := content(1000)
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	wishes := []string{"7", now.Add(90 * time.Second).Format(http.TimeFormat), "100000", "soon", "", ""}
	url := serve(t, data, func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 0 || n > len(wishes) {
			return false
		}
		w.Header().Set("Retry-After", wishes[n-1])
		http.Error(w, "", http.StatusTooManyRequests)
		return true
	})
	var waits []time.Duration
	s := New(Options{Now: func() time.Time { return now }, Wait: func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		return nil
	}})
	defer s.Close()
	if _, err := readRange(s, url, 0, -1); err != nil {
		t.Fatal(err)
	}
	if len(waits) != 6 || waits[0] != 7*time.Second || waits[1] != 90*time.Second || waits[2] != 5*time.Minute {
		t.Fatalf("waits are %v", waits)
	}
	for i, full := range map[int]time.Duration{3: 4 * time.Second, 4: 8 * time.Second, 5: 16 * time.Second} {
		if waits[i] < full/2 || waits[i] > full {
			t.Errorf("wait %d is %v, want %v to %v", i, waits[i], full/2, full)
		}
	}
	if a, b := s.backoff("x", 1, 3), s.backoff("x", 1, 3); a != b {
		t.Errorf("the wait is random: %v, %v", a, b)
	}
	if a, b := s.backoff("x", 1, 3), s.backoff("y", 1, 3); a == b {
		t.Errorf("readers come back together: %v", a)
	}
	if d := s.backoff("x", 1, 1000); d < 15*time.Second || d > 30*time.Second {
		t.Errorf("after many failures: %v", d)
	}
}

func TestInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	url := serve(t, content(1000), func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 1 {
			cancel()
			<-r.Context().Done()
		}
		return n == 1
	})
	s := testStore(t, nil)
	o, err := s.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	r := o.Range(ctx, 0, -1)
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLocalFile(t *testing.T) {
	s := testStore(t, nil)
	dir := t.TempDir()
	path := filepath.Join(dir, "a.tar")
	_, err := s.Open(context.Background(), path)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("a missing file: %v", err)
	}
	if _, err := s.Open(context.Background(), dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder: %v", err)
	}
	if err := os.WriteFile(path, content(1000), 0o666); err != nil {
		t.Fatal(err)
	}
	o, err := s.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := os.Truncate(path, 300); err != nil {
		t.Fatal(err)
	}
	r := o.Range(context.Background(), 0, -1)
	got, err := io.ReadAll(r)
	var e *Error
	if len(got) != 300 || !errors.As(err, &e) || e.Offset != 300 || !e.Permanent || e.Tries != 1 {
		t.Errorf("a file that is cut off: %d bytes, %v", len(got), err)
	}
}

func TestLocations(t *testing.T) {
	for s, want := range map[string]location{
		"a/b.tar":                  {key: "a/b.tar", name: "a/b.tar"},
		"file:///a b/c":            {key: "/a b/c", name: "/a b/c"},
		"s3://b/k/x.tar":           {scheme: "s3", bucket: "s3://b", key: "k/x.tar", name: "s3://b/k/x.tar"},
		"s3://b/k/%41?region=a":    {scheme: "s3", bucket: "s3://b?region=a", key: "k/%41", name: "s3://b/k/%41"},
		"gs://b/k":                 {scheme: "gs", bucket: "gs://b", key: "k", name: "gs://b/k"},
		"http://h/{0..9}.tar":      {scheme: "http", key: "http://h/{0..9}.tar", name: "http://h/{0..9}.tar"},
		"https://me:pw@h/x?sig=ab": {scheme: "https", key: "https://me:pw@h/x?sig=ab", name: "https://h/x"},
	} {
		if got, err := parse(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "ftp://h/x", "s3://", "s3:///k", "s3://b", "s3://b/", "http://", "file://x/y",
		"http://h/\x7f", "https://h/%zz?secret=1"} {
		if l, err := parse(s); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %+v, %v", s, l, err)
		}
	}
	if got := Redact("ftp://me:secret@h"); strings.Contains(got, "secret") {
		t.Error(got)
	}
}
