package shard

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"blip2/pkg/dataset"
	"blip2/pkg/storage"
)

// file is a member for a test's tar.
type file struct {
	name, data string
	flag       byte // 0 is a regular file
}

// tarOf writes a tar of members.
func tarOf(t testing.TB, format tar.Format, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Size: int64(len(f.data)), Mode: 0o600, Format: format, Typeflag: f.flag}
		if f.flag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if f.flag == tar.TypeSymlink || f.flag == tar.TypeLink {
			h.Linkname = "elsewhere"
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// numbered is samples first … first+n-1 as files: pictures of some hundred bytes and two ranked captions.
func numbered(first, n int) []file {
	var files []file
	for i := first; i < first+n; i++ {
		key := fmt.Sprintf("%06d", i)
		files = append(files, file{name: key + ".jpg", data: pixels(i)},
			file{name: key + ".json", data: fmt.Sprintf(`["caption %d", "second %d", "third %d"]`, i, i, i)})
	}
	return files
}

// pixels is the picture of sample i.
func pixels(i int) string {
	r := rand.New(rand.NewPCG(uint64(i), 5))
	data := make([]byte, 100+r.IntN(1500))
	for j := range data {
		data[j] = byte(r.Uint32())
	}
	return "\xff\xd8" + string(data)
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeFile(t testing.TB, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o666); err != nil {
		t.Fatal(err)
	}
}

// shardsOf makes shards of numbered samples: sizes[i] of them in shard i. It returns their contents by name.
func shardsOf(t testing.TB, sizes ...int) map[string][]byte {
	t.Helper()
	shards := map[string][]byte{}
	first := 0
	for i, n := range sizes {
		shards[fmt.Sprintf("s%03d.tar", i)] = tarOf(t, tar.FormatUSTAR, numbered(first, n)...)
		first += n
	}
	return shards
}

// inFolder writes shards to a folder and returns it.
func inFolder(t testing.TB, shards map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range shards {
		writeFile(t, filepath.Join(dir, name), data)
	}
	return dir
}

// onServer serves shards and returns the address of their folder. fault may answer in place of the server.
func onServer(t testing.TB, shards map[string][]byte, fault func(w http.ResponseWriter, r *http.Request) bool) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault != nil && fault(w, r) {
			return
		}
		data, ok := shards[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(data)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// testStore tries again at once.
func testStore(t testing.TB) *storage.Store {
	t.Helper()
	s := storage.New(storage.Options{Tries: 4, Wait: testWait})
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// openSource opens shards that must be a source.
func openSource(t testing.TB, o Options, patterns ...string) *Indexed {
	t.Helper()
	if o.Indexer.CacheDir == "" {
		o.Indexer.CacheDir = t.TempDir()
	}
	if o.Store == nil {
		o.Store = testStore(t)
	}
	x, set, err := Open(context.Background(), o, patterns...)
	if err != nil || x == nil || set != nil {
		t.Fatalf("%v: a source %v, a stream %v, %v", patterns, x != nil, set != nil, err)
	}
	t.Cleanup(func() { _ = x.Close() })
	return x
}

// openStreams opens shards that must be a stream.
func openStreams(t testing.TB, o Options, patterns ...string) *dataset.StreamSet {
	t.Helper()
	if o.Store == nil {
		o.Store = testStore(t)
	}
	x, set, err := Open(context.Background(), o, patterns...)
	if err != nil || x != nil || set == nil {
		t.Fatalf("%v: a source %v, a stream %v, %v", patterns, x != nil, set != nil, err)
	}
	return set
}

// start starts a stream that ends with the test.
func start(t testing.TB, set *dataset.StreamSet, seed int64, state []byte) dataset.Stream {
	t.Helper()
	s, err := set.Open(context.Background(), seed, state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// next takes n samples and describes them; it checks that what is good is right.
func next(t testing.TB, s dataset.Stream, n int) []string {
	t.Helper()
	var all []string
	for range n {
		sample, err := s.Next(context.Background())
		if err != nil {
			t.Fatalf("after %d samples: %v", len(all), err)
		}
		all = append(all, describe(t, &sample))
	}
	return all
}

func describe(t testing.TB, s *dataset.Sample) string {
	t.Helper()
	if s.Err != nil {
		return s.Example.Key + " bad: " + s.Err.Error()
	}
	var i int
	if _, err := fmt.Sscanf(s.Example.Captions[0], "caption %d", &i); err != nil {
		t.Fatalf("%s: captions %q", s.Example.Key, s.Example.Captions)
	}
	if string(s.Picture) != pixels(i) || !strings.HasSuffix(s.Example.Key, fmt.Sprintf("/%06d", i)) ||
		len(s.Example.Captions) != 2 {
		t.Errorf("sample %d comes as %s with %d bytes and captions %q", i, s.Example.Key, len(s.Picture),
			s.Example.Captions)
	}
	return s.Example.Key
}

// sequence is the first n samples of a stream, which it closes.
func sequence(t testing.TB, set *dataset.StreamSet, seed int64, n int) []string {
	t.Helper()
	s := start(t, set, seed, nil)
	all := next(t, s, n)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}
