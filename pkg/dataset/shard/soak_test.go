package shard

import (
	"bufio"
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

const soakSamples, soakPerShard = 1_000_000, 10_000

// memoryAt is what the process held at one moment, in MB.
type memoryAt struct {
	minutes        float64
	heap, resident float64
}

// heapNow is the size of what is in use, in MB.
func heapNow() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}

// soakTime is how long TestSoak streams: BLIP2_SOAK_MINUTES, or as long as one and a half epochs take.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("BLIP2_SOAK_MINUTES")
	if text == "" {
		return 0
	}
	minutes, err := strconv.ParseFloat(text, 64)
	if err != nil || minutes < 0 {
		t.Fatalf("BLIP2_SOAK_MINUTES is %q; want a number of minutes", text)
	}
	return time.Duration(minutes * float64(time.Minute))
}

// TestSoak streams and indexes a million samples: memory stays flat, and the index is what it should be per sample.
func TestSoak(t *testing.T) {
	if os.Getenv("BLIP2_LONG") == "" {
		t.Skip("a million samples take a minute; BLIP2_LONG=1 runs this, and BLIP2_SOAK_MINUTES says for how long")
	}
	dir := manySamples(t, soakSamples, soakPerShard)
	t.Run("stream", func(t *testing.T) { soakStream(t, filepath.Join(dir, "*.tar")) })
	t.Run("index", func(t *testing.T) { soakIndex(t, filepath.Join(dir, "*.tar")) })
}

// soakStream streams one epoch after the other. What the process holds, resident and on the heap, must not be more late
// than it was early: the first tenth of the time is for warming up, and behind it the largest of the second half is
// compared with the largest of the first.
func soakStream(t *testing.T, shards string) {
	const least, every = soakSamples + soakSamples/2, 20_000
	s := start(t, openStreams(t, Options{NoIndex: true}, shards), 1, nil)
	begin, duration := time.Now(), soakTime(t)
	var seen []memoryAt
	n := 0
	for ; n < least || time.Since(begin) < duration; n++ {
		sample, err := s.Next(t.Context())
		if err != nil || sample.Err != nil {
			t.Fatal(err, sample.Err)
		}
		if n%every == every-1 {
			heap := heapNow()
			seen = append(seen, memoryAt{time.Since(begin).Minutes(), heap, float64(measure.MemoryNow().Anon) / 1e6})
		}
	}
	rate := float64(n) / time.Since(begin).Seconds()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(seen); i += max(1, len(seen)/20) {
		t.Logf("after %5.2f minutes: heap %6.1f MB, resident %6.1f MB", seen[i].minutes, seen[i].heap, seen[i].resident)
	}
	seen = seen[len(seen)/10:]
	early, late := largest(seen[:len(seen)/2]), largest(seen[len(seen)/2:])
	t.Logf("streamed %d samples, %.1f epochs, at %.0f/s; heap at most %.1f MB early and %.1f late, resident %.1f and "+
		"%.1f, peak of the process %.0f MB", n, float64(n)/soakSamples, rate, early.heap, late.heap, early.resident,
		late.resident, float64(measure.PeakMemory())/1e6)
	more := func(early float64) float64 { return 10 + early/5 } // MB that come and go with garbage collection
	if late.heap > early.heap+more(early.heap) || late.resident > early.resident+more(early.resident) {
		t.Errorf("memory grows: heap from %.1f to %.1f MB, resident from %.1f to %.1f MB", early.heap, late.heap,
			early.resident, late.resident)
	}
}

// largest is the most of each kind of memory.
func largest(seen []memoryAt) (most memoryAt) {
	for _, m := range seen {
		most.heap, most.resident = max(most.heap, m.heap), max(most.resident, m.resident)
	}
	return most
}

// soakIndex indexes the shards and reads them anywhere.
func soakIndex(t *testing.T, shards string) {
	before := heapNow()
	begin := time.Now()
	x := openSource(t, Options{}, shards)
	build := time.Since(begin)
	begin = time.Now()
	again := openSource(t, Options{}, shards)
	open := time.Since(begin)
	perSample := (heapNow() - before) / 2 * 1e6 / soakSamples
	t.Logf("indexed %d samples in %.2f s, opened again in %.3f s, heap of %.2f bytes per sample beside the %d of the file",
		x.Len(), build.Seconds(), open.Seconds(), perSample, entrySize)
	if x.Len() != soakSamples || again.Len() != soakSamples || perSample > 2 {
		t.Errorf("%d and %d samples, %.1f bytes of heap per sample", x.Len(), again.Len(), perSample)
	}
	begin = time.Now()
	before = heapNow()
	const reads = 200_000
	for k := range reads {
		i := k * 7919 % soakSamples
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
	rate := reads / time.Since(begin).Seconds()
	t.Logf("read %d samples anywhere at %.0f/s, heap %.1f MB more", reads, rate, heapNow()-before)
}
