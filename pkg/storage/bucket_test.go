package storage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

type fault func(n int, w http.ResponseWriter, r *http.Request) bool

// s3Server starts an S3 server with the bucket "data" and returns the options to put behind an address, and the means
// to put objects there. fault may answer the requests for reading, which it counts from 0.
func s3Server(t *testing.T, f fault) (options string, put func(key string, data []byte)) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	back := s3mem.New()
	if err := back.CreateBucket("data"); err != nil {
		t.Fatal(err)
	}
	fake := gofakes3.New(back).Server()
	var mu sync.Mutex
	n := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		i := n
		if n++; f != nil && f(i, w, r) {
			mu.Unlock()
			return
		}
		mu.Unlock()
		fake.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return "?region=us-east-1&use_path_style=true&endpoint=" + server.URL, func(key string, data []byte) {
		if _, err := back.PutObject("data", key, nil, bytes.NewReader(data), int64(len(data)), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func s3File(t *testing.T, data []byte, f fault) string {
	t.Helper()
	options, put := s3Server(t, f)
	put("a/file.tar", data)
	return "s3://data/a/file.tar" + options
}

// gcsFile starts a server that knows one object as Google Cloud Storage does, and returns its address.
func gcsFile(t *testing.T, data []byte, f fault) string {
	t.Helper()
	n := 0
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		i := n
		if n++; f != nil && f(i, w, r) {
			mu.Unlock()
			return
		}
		mu.Unlock()
		generation := r.URL.Query().Get("generation")
		if generation != "" && generation != "77" {
			http.Error(w, "", http.StatusNotFound)
			return
		}
		w.Header().Set("X-Goog-Generation", "77")
		switch r.URL.Path {
		case "/storage/v1/b/data/o/a/file.tar":
			_ = json.NewEncoder(w).Encode(map[string]string{"bucket": "data", "name": "a/file.tar",
				"size": strconv.Itoa(len(data)), "generation": "77", "updated": "2026-01-02T03:04:05Z"})
		case "/data/a/file.tar":
			http.ServeContent(w, r, "", time.Unix(1e9, 0), bytes.NewReader(data))
		default:
			http.Error(w, "", http.StatusNotFound)
		}
	}))
	t.Cleanup(server.Close)
	t.Setenv("STORAGE_EMULATOR_HOST", strings.TrimPrefix(server.URL, "http://"))
	return "gs://data/a/file.tar"
}

// Both kinds of bucket survive what passes, and name what lasts.
func TestBucketFaults(t *testing.T) {
	data := content(60_000)
	for kind, file := range map[string]func(*testing.T, []byte, fault) string{"s3": s3File, "gs": gcsFile} {
		t.Run(kind, func(t *testing.T) {
			var waits []time.Duration
			got, err := readRange(testStore(t, &waits), file(t, data, func(n int, w http.ResponseWriter, r *http.Request) bool {
				switch n {
				case 0, 3:
					http.Error(w, "", http.StatusInternalServerError)
				case 2:
					w.Header().Set("Retry-After", "9")
					http.Error(w, "", http.StatusServiceUnavailable)
				case 4:
					hijack(t, w, fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nContent-Length: 59000\r\nX-Goog-Generation: 77\r\n"+
						"Content-Range: bytes 1000-59999/60000\r\n\r\n%s", data[1000:8000]))
				default:
					return false
				}
				return true
			}), 1000, -1)
			if err != nil || !bytes.Equal(got, data[1000:]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			// Google's library goes on by itself when a body breaks off.
			if want := map[string]int{"s3": 4, "gs": 3}[kind]; len(waits) != want || waits[1] != 9*time.Second {
				t.Errorf("waits are %v", waits)
			}
			for code, want := range map[int]error{404: fs.ErrNotExist, 403: fs.ErrPermission, 412: ErrChanged, 503: nil} {
				_, err := readRange(testStore(t, nil), file(t, data, func(n int, w http.ResponseWriter, _ *http.Request) bool {
					if n > 0 {
						http.Error(w, "", code)
					}
					return n > 0
				}), 1000, -1)
				var e *Error
				if !errors.As(err, &e) || e.Offset != 1000 || want != nil && !errors.Is(err, want) ||
					e.Permanent != (want != nil) || !strings.Contains(err.Error(), "data/a/file.tar, byte 1000") {
					t.Errorf("%d: %v", code, err)
				}
			}
		})
	}
}

// An object that is replaced is not mixed with what was read of the first.
func TestS3Pinned(t *testing.T) {
	options, put := s3Server(t, nil)
	put("x.tar", content(1000))
	s := testStore(t, nil)
	o, err := s.Open(context.Background(), "s3://data/x.tar"+options)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	p := make([]byte, 10)
	if err := o.ReadAt(context.Background(), p, 5); err != nil {
		t.Fatal(err)
	}
	put("x.tar", bytes.Repeat([]byte{1}, 999))
	if err := o.ReadAt(context.Background(), p, 5); !errors.Is(err, ErrChanged) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Open(context.Background(), "s3://data/nosuch.tar"+options); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Open(context.Background(), "s3://data/x.tar?banana=1"); err == nil {
		t.Error("an unknown option is taken")
	}
}

// Without credentials nothing is asked for, let alone again and again, and what to do is said. Public buckets need
// none.
func TestS3Credentials(t *testing.T) {
	options, put := s3Server(t, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") != "" {
			http.Error(w, "", http.StatusForbidden)
		}
		return r.Header.Get("Authorization") != ""
	})
	put("x.tar", content(1000))
	address := "s3://data/x.tar" + options
	if got, err := readRange(testStore(t, nil), address+"&anonymous=true", 0, -1); len(got) != 1000 || err != nil {
		t.Errorf("a public bucket: %d bytes, %v", len(got), err)
	}
	if _, err := readRange(testStore(t, nil), address, 0, -1); !errors.Is(err, fs.ErrPermission) ||
		!strings.Contains(err.Error(), "credentials") {
		t.Errorf("wrong credentials: %v", err)
	}
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"} {
		t.Setenv(name, "")
	}
	for _, name := range []string{"AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"} {
		t.Setenv(name, filepath.Join(t.TempDir(), "none"))
	}
	var waits []time.Duration
	s := testStore(t, &waits)
	_, err := s.Open(context.Background(), address)
	var e *Error
	if !errors.As(err, &e) || !e.Permanent || !strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("no credentials: %v", err)
	}
	if _, err = s.List(context.Background(), "s3://data/*.tar"+options); err == nil ||
		!strings.Contains(err.Error(), "AWS_ACCESS_KEY_ID") {
		t.Errorf("no credentials for a list: %v", err)
	}
	if len(waits) > 0 {
		t.Errorf("tried again after %v", waits)
	}
}

// A new try is told in one line, whatever the error is made of.
func TestRetryInOneLine(t *testing.T) {
	file := s3File(t, content(1000), func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 0 {
			http.Error(w, "", http.StatusInternalServerError)
		}
		return n == 0
	})
	var log bytes.Buffer
	s := New(Options{Log: slog.New(slog.NewTextHandler(&log, nil)),
		Wait: func(context.Context, time.Duration) error { return nil }})
	t.Cleanup(func() { _ = s.Close() })
	if _, err := readRange(s, file, 0, -1); err != nil {
		t.Fatal(err)
	}
	if text := log.String(); strings.Count(text, "\n") != 1 || strings.Contains(text, ".go:") {
		t.Errorf("the log is %q", text)
	}
}

func TestList(t *testing.T) {
	options, put := s3Server(t, nil)
	for _, key := range []string{"a/2.tar", "a/1.tar", "a/1.json", "a/b/3.tar", "b/4.tar"} {
		put(key, []byte("x"))
	}
	s := testStore(t, nil)
	got, err := s.List(context.Background(), "s3://data/a/*.tar"+options)
	if err != nil || len(got) != 2 || got[0] != "s3://data/a/1.tar"+options || got[1] != "s3://data/a/2.tar"+options {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := s.List(context.Background(), "s3://data/c/*.tar"+options); err == nil {
		t.Error("an empty list is no error")
	}
	if _, err := s.List(context.Background(), "http://h/*.tar"); err == nil || !strings.Contains(err.Error(), "braces") {
		t.Errorf("got %v", err)
	}
}
