package shard

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"blip2/pkg/internal/measure"
)

// manySamples writes shards of tiny samples and returns their folder.
func manySamples(t *testing.T, n, perShard int) string {
	t.Helper()
	dir := t.TempDir()
	for first := 0; first < n; first += perShard {
		file, err := os.Create(filepath.Join(dir, fmt.Sprintf("s%05d.tar", first/perShard)))
		if err != nil {
			t.Fatal(err)
		}
		buffered := bufio.NewWriterSize(file, 1<<20)
		w := &tarWriter{w: buffered}
		for i := first; i < min(n, first+perShard); i++ {
			key := fmt.Sprintf("%09d", i)
			if err := errors.Join(w.add(key+".jpg", []byte("\xff\xd8"+key)),
				w.add(key+".json", []byte(`["caption `+strconv.Itoa(i)+`", "another"]`))); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.close(), buffered.Flush(), file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestSoak streams and indexes a million samples: memory stays flat, and the index is what it should be per sample.
func TestSoak(t *testing.T) {
	if os.Getenv("BLIP2_LONG") == "" {
		t.Skip("a million samples take a minute; BLIP2_LONG=1 runs this")
	}
	const n, perShard = 1_000_000, 10_000
	dir := manySamples(t, n, perShard)
	ctx := context.Background()
	heap := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}

	s := start(t, openStreams(t, Options{NoIndex: true}, filepath.Join(dir, "*.tar")), 1, nil)
	begin := time.Now()
	var least, most float64
	for i := range n + n/2 {
		if _, err := s.Next(ctx); err != nil {
			t.Fatal(err)
		}
		if i%100_000 == 99_999 {
			h := heap()
			if least == 0 {
				least, most = h, h
			}
			least, most = min(least, h), max(most, h)
		}
	}
	rate := float64(n+n/2) / time.Since(begin).Seconds()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("streamed %d samples at %.0f/s, heap between %.1f and %.1f MB, peak of the process %.0f MB", n+n/2, rate, least,
		most, float64(measure.PeakMemory())/1e6)
	if most > 2*least+20 {
		t.Errorf("the heap grows from %.1f to %.1f MB", least, most)
	}

	before := heap()
	begin = time.Now()
	x := openSource(t, Options{}, filepath.Join(dir, "*.tar"))
	build := time.Since(begin)
	begin = time.Now()
	again := openSource(t, Options{}, filepath.Join(dir, "*.tar"))
	open := time.Since(begin)
	perSample := (heap() - before) / 2 * 1e6 / n
	t.Logf("indexed %d samples in %.2f s, opened again in %.3f s, heap of %.2f bytes per sample beside the %d of the file",
		x.Len(), build.Seconds(), open.Seconds(), perSample, entrySize)
	if x.Len() != n || again.Len() != n || perSample > 2 {
		t.Errorf("%d and %d samples, %.1f bytes of heap per sample", x.Len(), again.Len(), perSample)
	}
	begin = time.Now()
	before = heap()
	const reads = 200_000
	for k := range reads {
		i := k * 7919 % n
		e, err := x.Example(i)
		if err != nil {
			t.Fatal(err)
		}
		r, err := x.Open(i)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil || e.Captions[0] != "caption "+strconv.Itoa(i) || len(data) != 11 {
			t.Fatalf("sample %d: %q, %d bytes, %v", i, e.Captions, len(data), err)
		}
	}
	rate = reads / time.Since(begin).Seconds()
	t.Logf("read %d samples anywhere at %.0f/s, heap %.1f MB more", reads, rate, heap()-before)
}
