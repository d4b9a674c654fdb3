package shard

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"blip2/pkg/dataset"
	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/storage"
)

// small are options whose buffers end in the middle of everything.
func small() Options { return Options{Buffer: 7, Lanes: 3, BufferBytes: 200_000} }

// The order is a function of the seed: it is the same from a disk, packed, and over HTTP, every epoch gives every
// sample once, and no two epochs or seeds are alike.
func TestStreamOrder(t *testing.T) {
	shards := shardsOf(t, 10, 3, 25, 1, 12)
	packed := map[string][]byte{}
	for name, data := range shards {
		packed[name] = gzipped(t, data)
	}
	const epoch, n = 51, 51*3 + 20
	url := onServer(t, shards, nil)
	want := sequence(t, openStreams(t, small(), url+"/s{000..004}.tar"), 1, n)
	for i := range 3 {
		got := slices.Sorted(slices.Values(want[i*epoch : (i+1)*epoch]))
		if len(slices.Compact(got)) != epoch {
			t.Errorf("epoch %d has %d samples of %d", i, len(got), epoch)
		}
		if slices.Equal(want[:epoch], want[(i+1)*epoch:min(n, (i+2)*epoch)]) {
			t.Errorf("epoch %d is like the first", i+1)
		}
	}
	if slices.IsSorted(want[:epoch]) {
		t.Error("the order is not shuffled")
	}
	never := small()
	never.NoIndex = true
	for name, folder := range map[string]string{"disk": inFolder(t, shards), "packed": inFolder(t, packed),
		"packed over HTTP": onServer(t, packed, nil)} {
		set := folder + "/s{000..004}.tar"
		if got := sequence(t, openStreams(t, never, set), 1, n); !slices.Equal(got, want) {
			t.Errorf("%s: another order", name)
		}
	}
	if got := sequence(t, openStreams(t, small(), url+"/s{000..004}.tar"), 2, n); slices.Equal(got, want) {
		t.Error("another seed gives the same order")
	}
	inOrder := Options{InOrder: true, Buffer: 1, Lanes: 1}
	if got := sequence(t, openStreams(t, inOrder, url+"/s{000..004}.tar"), 1, epoch); !slices.IsSorted(got) {
		t.Errorf("in order: %q", got)
	}
	resample := Options{Resample: true}
	if got := sequence(t, openStreams(t, resample, url+"/s{000..004}.tar"), 3, 200); len(got) != 200 {
		t.Error(len(got))
	}
}

// A stream that is left at any sample and started again goes on exactly there.
func TestStreamResumes(t *testing.T) {
	shards := shardsOf(t, 10, 3, 25, 1, 12)
	// Damage is part of the order: a broken header, and a shard that is cut off.
	shards["s002.tar"][5*block] ^= 1
	for n := range 40 {
		shards["s002.tar"][n*block] ^= byte(n & 1) // the first bytes of blocks: some are headers
	}
	shards["s004.tar"] = shards["s004.tar"][:len(shards["s004.tar"])-9*block]
	packed := map[string][]byte{}
	for name, data := range shards {
		packed[name] = gzipped(t, data)
	}
	packed["s000.tar"][len(packed["s000.tar"])-6] ^= 1 // the checksum
	packed["s002.tar"] = packed["s002.tar"][:len(packed["s002.tar"])/2]
	for name, url := range map[string]string{"plain": onServer(t, shards, nil), "packed": onServer(t, packed, nil)} {
		t.Run(name, func(t *testing.T) {
			set := openStreams(t, small(), url+"/s{000..004}.tar")
			s := start(t, set, 5, nil)
			const n = 130
			var want []string
			var states [][]byte
			for range n {
				state, err := s.State()
				if err != nil {
					t.Fatal(err)
				}
				states = append(states, state)
				want = append(want, next(t, s, 1)...)
			}
			if bad := slices.ContainsFunc(want, func(s string) bool { return strings.Contains(s, "bad: ") }); !bad {
				t.Error("no damage was met")
			}
			for at := 0; at < n; at += 1 + at%5 {
				state := states[at]
				again := start(t, set, 5, state)
				if got, err := again.State(); err != nil || !bytes.Equal(got, state) {
					t.Errorf("at %d the state %s becomes %s, %v", at, state, got, err)
				}
				if got := next(t, again, min(40, n-at)); !slices.Equal(got, want[at:at+len(got)]) {
					t.Fatalf("from sample %d on the order is\n%q, want\n%q", at, got, want[at:at+len(got)])
				}
				if err := again.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if len(states[n-1]) > 400 {
				t.Errorf("a state has %d bytes", len(states[n-1]))
			}
			if _, err := set.Open(context.Background(), 6, states[9]); err == nil || !strings.Contains(err.Error(), "seed") {
				t.Errorf("the state of another seed: %v", err)
			}
			for _, bad := range []string{"{", `{"of":"x"}`, strings.Replace(string(states[9]), `"turn":`, `"turn":9`, 1),
				strings.Replace(string(states[9]), `"lanes":[`, `"lanes":[[0,0,-5,0],`, 1)} {
				if _, err := set.Open(context.Background(), 5, []byte(bad)); err == nil {
					t.Errorf("the state %s is taken", bad)
				}
			}
		})
	}
}

// A stream goes on where its shards have moved, wherever the program is started, but not on others of the same names.
func TestStreamResumesElsewhere(t *testing.T) {
	shards := map[string][]byte{}
	for name, data := range shardsOf(t, 10, 3, 25) {
		shards["web/"+name], shards["other/"+name] = data, data
	}
	open := func(pattern string) *dataset.StreamSet {
		o := small()
		o.NoIndex = true
		return openStreams(t, o, pattern)
	}
	dir := t.TempDir()
	for name, data := range shards {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o777); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, name), data)
	}
	const pattern = "/s{000..002}.tar"
	first := start(t, open(dir+"/web"+pattern), 5, nil)
	next(t, first, 17)
	state, err := first.State()
	if err != nil {
		t.Fatal(err)
	}
	want := next(t, first, 30)
	t.Chdir(filepath.Join(dir, "web"))
	for _, moved := range []string{"../web" + pattern, "s{000..002}.tar", onServer(t, shards, nil) + "/web" + pattern} {
		if got := next(t, start(t, open(moved), 5, state), 30); !slices.Equal(got, want) {
			t.Errorf("%s goes on with\n%q, want\n%q", moved, got, want)
		}
	}
	if _, err := open(dir+"/other"+pattern).Open(context.Background(), 5, state); err == nil ||
		!strings.Contains(err.Error(), "name of their folder") {
		t.Errorf("other shards of the same names: %v", err)
	}
}

// A stream that goes on reads by ranges what it needs, not the shards from their beginnings.
func TestResumeReadsLittle(t *testing.T) {
	shards := shardsOf(t, 2000)
	var bytesSent atomic.Int64
	url := onServer(t, shards, func(w http.ResponseWriter, r *http.Request) bool {
		if from, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
			var at int64
			_, _ = fmt.Sscanf(from, "%d-", &at)
			if !strings.HasSuffix(from, fmt.Sprintf("-%d", at)) && at > 1 {
				bytesSent.Store(at)
			}
		}
		return false
	})
	set := openStreams(t, Options{Buffer: 50, Lanes: 1}, url+"/s000.tar")
	s := start(t, set, 1, nil)
	next(t, s, 1930)
	state, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	bytesSent.Store(0)
	next(t, start(t, set, 1, state), 10)
	if from := bytesSent.Load(); from < int64(len(shards["s000.tar"]))*9/10 {
		t.Errorf("of %d bytes it reads from byte %d", len(shards["s000.tar"]), from)
	}
}

// Ranks share the shards of an epoch, or each has all of them in an order of its own.
func TestRanks(t *testing.T) {
	shards := shardsOf(t, 5, 5, 5, 5, 5, 5, 5)
	url := onServer(t, shards, nil) + "/s{000..006}.tar"
	var all []string
	for rank := range 3 {
		o := Options{Rank: rank, Ranks: 3, Lanes: 2, Buffer: 4}
		n := 10
		if rank == 0 {
			n = 15
		}
		all = append(all, sequence(t, openStreams(t, o, url), 9, n)...)
	}
	slices.Sort(all)
	if len(slices.Compact(all)) != 35 {
		t.Errorf("the ranks together have %d samples of 35", len(all))
	}
	var first []string
	for rank := range 2 {
		o := Options{Rank: rank, Ranks: 2, Independent: true}
		got := sequence(t, openStreams(t, o, url), 9, 35)
		if slices.Equal(got, first) {
			t.Error("two ranks have the same order")
		}
		first = slices.Clone(got)
		slices.Sort(got)
		if len(slices.Compact(got)) != 35 {
			t.Errorf("rank %d has not everything", rank)
		}
	}
	if _, _, err := Open(context.Background(), Options{Ranks: 8, Store: testStore(t)}, url); err == nil {
		t.Error("7 shards are divided among 8 processes")
	}
}

// Whatever passes, on a web server as bad as they come, the order is that of a good one.
func TestStreamOverBadNetwork(t *testing.T) {
	shards := shardsOf(t, 10, 3, 25, 1, 12)
	want := next(t, start(t, openStreams(t, small(), onServer(t, shards, nil)+"/s{000..004}.tar"), 1, nil), 160)
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(3, 4))
	url := onServer(t, shards, func(w http.ResponseWriter, req *http.Request) bool {
		mu.Lock()
		dice := r.IntN(10)
		mu.Unlock()
		data := shards[strings.TrimPrefix(req.URL.Path, "/")]
		var from int64
		_, _ = fmt.Sscanf(req.Header.Get("Range"), "bytes=%d-", &from)
		switch dice {
		case 0:
			http.Error(w, "", http.StatusInternalServerError)
		case 1:
			w.Header().Set("Retry-After", "3")
			http.Error(w, "", http.StatusTooManyRequests)
		case 2: // breaks off after some bytes
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
			w.Header().Set("Content-Length", fmt.Sprint(int64(len(data))-from))
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(data[from:min(from+3000, int64(len(data)))])
			panic(http.ErrAbortHandler)
		case 3: // ignores the range
			req.Header.Del("Range")
			return false
		default:
			return false
		}
		return true
	})
	o := small()
	o.Store = storage.New(storage.Options{Tries: 30, Wait: testWait})
	defer o.Store.Close()
	if got := sequence(t, openStreams(t, o, url+"/s{000..004}.tar"), 1, 160); !slices.Equal(got, want) {
		t.Error("another order")
	}
}

// What lasts stops the stream with the shard and the offset, and it can be left and continued when it is cured.
func TestStreamStops(t *testing.T) {
	shards := shardsOf(t, 40, 40)
	whole := next(t, start(t, openStreams(t, small(), onServer(t, shards, nil)+"/s{000..001}.tar"), 1, nil), 120)
	var status atomic.Int64
	url := onServer(t, shards, func(w http.ResponseWriter, r *http.Request) bool {
		data := shards[strings.TrimPrefix(r.URL.Path, "/")]
		var from int64
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		if code := int(status.Load()); code != 0 && r.URL.Path == "/s001.tar" {
			if asked := r.Header.Get("Range"); asked == "bytes=0-0" || asked == "bytes=0-1" {
				return false // the opening succeeds
			}
			if from < 20_000 { // the first bytes come, then nothing more
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
				w.Header().Set("Content-Length", fmt.Sprint(int64(len(data))-from))
				w.Header().Set("ETag", fmt.Sprintf(`"%d"`, len(data)))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(data[from:20_000])
				panic(http.ErrAbortHandler)
			}
			http.Error(w, "", code)
			return true
		}
		return false
	})
	for code, want := range map[int]error{404: fs.ErrNotExist, 403: fs.ErrPermission, 503: nil} {
		status.Store(int64(code))
		set := openStreams(t, small(), url+"/s{000..001}.tar")
		s := start(t, set, 1, nil)
		var got []string
		var err error
		for {
			var sample, e = s.Next(context.Background())
			if err = e; err != nil {
				break
			}
			got = append(got, describe(t, &sample))
			if len(got) > 300 {
				t.Fatalf("%d: no end: %q", code, got)
			}
		}
		if want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), "/s001.tar, byte 20000: ") {
			t.Errorf("%d: after %d samples: %v", code, len(got), err)
		}
		state, err := s.State()
		if err != nil {
			t.Fatal(err)
		}
		status.Store(0)
		got = append(got, next(t, start(t, set, 1, state), 120-len(got))...)
		if !slices.Equal(got, whole) {
			t.Errorf("%d: continued, the order is another", code)
		}
	}
	// With leave to lose a shard it goes on, and reports it in its place.
	status.Store(404)
	o := small()
	o.MaxLost = 1
	set := openStreams(t, o, url+"/s{000..001}.tar")
	lost := 0
	for _, sample := range next(t, start(t, set, 1, nil), 120) {
		if strings.Contains(sample, "the shard cannot be read: ") && strings.Contains(sample, "/s001.tar, byte 20000") {
			lost++
		}
	}
	if lost < 1 {
		t.Error("the lost shard is not reported")
	}
}

// A stream whose shards were cut between two runs says so.
func TestResumeInAShorterShard(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 40))
	path := filepath.Join(dir, "s000.tar")
	set := openStreams(t, Options{NoIndex: true, Buffer: 5}, path)
	s := start(t, set, 1, nil)
	next(t, s, 30)
	state, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 5000); err != nil {
		t.Fatal(err)
	}
	again := start(t, set, 1, state)
	_, err = again.Next(context.Background())
	if err == nil || !strings.Contains(err.Error(), "s000.tar ends before byte") {
		t.Errorf("got %v", err)
	}
}

func TestStreamInterrupt(t *testing.T) {
	dir := inFolder(t, shardsOf(t, 40))
	s := start(t, openStreams(t, Options{NoIndex: true}, filepath.Join(dir, "s000.tar")), 1, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 3 { // either answer is right, and neither ends the stream
		if _, err := s.Next(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	next(t, s, 30)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(context.Background()); err == nil {
		t.Error("a closed stream gives samples")
	}
}

func TestNothingInTheShards(t *testing.T) {
	empty := map[string][]byte{"s000.tar": tarOf(t, tar.FormatUSTAR, file{name: "README", data: "x"})}
	s := start(t, openStreams(t, small(), onServer(t, empty, nil)+"/s000.tar"), 1, nil)
	if _, err := s.Next(context.Background()); err == nil || !strings.Contains(err.Error(), "no samples") {
		t.Errorf("got %v", err)
	}
	if _, _, err := Open(context.Background(), Options{Store: testStore(t), Indexer: Indexer{CacheDir: t.TempDir()}},
		filepath.Join(inFolder(t, empty), "s000.tar")); err == nil || !strings.Contains(err.Error(), "no samples") {
		t.Errorf("got %v", err)
	}
}

func testWait(ctx context.Context, _ time.Duration) error { return ctx.Err() }

func logTo(w io.Writer) *slog.Logger { return slog.New(slog.NewTextHandler(w, nil)) }

// Copies of shards are kept, reused without asking for the contents, bounded, and given up when the disk is full.
func TestCache(t *testing.T) {
	shards := shardsOf(t, 10, 10, 10)
	var reads atomic.Int64
	url := onServer(t, shards, func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Range") != "bytes=0-0" {
			reads.Add(1)
		}
		return false
	}) + "/s{000..002}.tar"
	o := small()
	plain := sequence(t, openStreams(t, o, url), 1, 90)
	o.Cache = filepath.Join(t.TempDir(), "cache")
	if got := sequence(t, openStreams(t, o, url), 1, 90); !slices.Equal(got, plain) {
		t.Error("the cache changes the order")
	}
	reads.Store(0)
	if got := sequence(t, openStreams(t, o, url), 1, 90); !slices.Equal(got, plain) || reads.Load() != 0 {
		t.Errorf("the second time there are %d requests", reads.Load())
	}
	o.CacheBytes = int64(len(shards["s000.tar"])+len(shards["s001.tar"])+len(shards["s002.tar"])) - 1
	if got := sequence(t, openStreams(t, o, url), 1, 90); !slices.Equal(got, plain) {
		t.Error("a small cache changes the order")
	}
	_ = os.RemoveAll(o.Cache)
	o.Lanes, o.Cache = 1, filepath.Join(t.TempDir(), "small")
	s := start(t, openStreams(t, o, url), 1, nil)
	next(t, s, 150)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	entries, err := os.ReadDir(o.Cache)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			size += info.Size()
		}
	}
	if size > o.CacheBytes || len(entries) < 1 || len(entries) > 2 { // one if the next was being copied
		t.Errorf("the cache holds %d bytes in %d files, of %d allowed", size, len(entries), o.CacheBytes)
	}
}

func TestFullCacheDisk(t *testing.T) {
	data := shardsOf(t, 10)["s000.tar"]
	url := onServer(t, map[string][]byte{"a.tar": data}, nil) + "/a.tar"
	var log bytes.Buffer
	o, err := Options{Store: testStore(t), Cache: t.TempDir(), Log: logTo(&log)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	c := newCache(&o)
	c.write = func(path string, fill func(io.Writer) error) error {
		return atomicfile.Write(path, func(w io.Writer) error { return fill(fullDisk{w}) })
	}
	for range 2 {
		object, err := o.Store.Open(context.Background(), url)
		if err != nil {
			t.Fatal(err)
		}
		got, err := c.local(context.Background(), o.Store, object)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, len(data))
		if err := got.ReadAt(context.Background(), p, 0); err != nil || !bytes.Equal(p, data) {
			t.Errorf("the shard is not readable: %v", err)
		}
	}
	if n := strings.Count(log.String(), "no longer kept"); n != 1 || !strings.Contains(log.String(), "free some space") {
		t.Errorf("said %d times: %s", n, log.String())
	}
	if entries, _ := os.ReadDir(c.dir); len(entries) != 0 {
		t.Errorf("half a copy is left: %v", entries)
	}
}

// fullDisk takes some bytes.
type fullDisk struct{ w io.Writer }

func (d fullDisk) Write(p []byte) (int, error) {
	if len(p) < 1000 {
		return d.w.Write(p)
	}
	n, _ := d.w.Write(p[:1000])
	return n, syscall.ENOSPC
}
