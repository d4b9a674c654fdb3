package dataset

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSameBatchesForAnyWorkers(t *testing.T) {
	src := &made{n: 50, broken: map[int]bool{7: true, 31: true}, blank: map[int]bool{3: true}}
	o := options()
	o.MaxBadShare = 1
	const n = 45 // 150 rows: 18 batches per epoch
	o.Workers, o.Prefetch = 1, 1
	want := digests(t, src, o, n)
	if slices.Equal(want[:18], want[18:36]) {
		t.Error("two epochs are the same")
	}
	for _, workers := range []int{2, 3, 16} {
		o.Workers, o.Prefetch = workers, workers+1
		if got := digests(t, src, o, n); !slices.Equal(got, want) {
			t.Errorf("%d workers give other batches than one", workers)
		}
	}
	o.Seed++
	if got := digests(t, src, o, n); got[0] == want[0] {
		t.Error("another seed gives the same batch")
	}
}

func TestResumeAnywhere(t *testing.T) {
	src := &made{n: 20, broken: map[int]bool{5: true}}
	o := options()
	o.MaxBadShare = 1
	for _, unit := range []Unit{UnitCaption, UnitImage} {
		o.Unit, o.Start = unit, Position{}
		l, err := NewLoader(src, letters{}, o)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		var at []Position
		for range 30 {
			b, err := l.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			want, at = append(want, digest(t, b)), append(at, b.Position())
		}
		l.Close()
		random := rand.New(rand.NewPCG(1, 2))
		for range 10 {
			k := random.IntN(len(at) - 2)
			o.Start = at[k]
			if got := digests(t, src, o, 2); !slices.Equal(got, want[k+1:k+3]) {
				t.Errorf("unit %s: resumed after batch %d: %v, want %v", unit, k, got, want[k+1:k+3])
			}
		}
	}
}

func TestEpochCoversRows(t *testing.T) {
	src := &made{n: 16}
	o := options()
	l, err := NewLoader(src, letters{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if l.Rows() != 48 || l.BatchesPerEpoch() != 6 {
		t.Fatalf("%d rows, %d batches per epoch; want 48 and 6", l.Rows(), l.BatchesPerEpoch())
	}
	for epoch := range int64(3) {
		seen := map[string]int{}
		for range l.BatchesPerEpoch() {
			b, err := l.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if b.Epoch != epoch {
				t.Fatalf("batch of epoch %d, want %d", b.Epoch, epoch)
			}
			for i, c := range b.Captions {
				seen[c]++
				e := example(t, src, int(b.ImageIndex[i]))
				if b.Keys[i] != e.Key || !slices.Contains(e.Captions, c) {
					t.Fatalf("row %q of picture %s has index %d", c, b.Keys[i], b.ImageIndex[i])
				}
			}
			b.Release()
		}
		if len(seen) != 48 {
			t.Errorf("epoch %d has %d different rows, want 48", epoch, len(seen))
		}
	}
}

func TestUnitImageDrawsCaptions(t *testing.T) {
	src := &made{n: 8}
	o := options()
	o.Unit = UnitImage
	l, err := NewLoader(src, letters{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	drawn := map[string]bool{}
	for range 40 {
		b, err := l.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		images := slices.Clone(b.ImageIndex)
		slices.Sort(images)
		if len(slices.Compact(images)) != 8 {
			t.Fatalf("a picture occurs twice in a batch: %v", b.ImageIndex)
		}
		for _, c := range b.Captions {
			drawn[c] = true
		}
	}
	if len(drawn) != 24 {
		t.Errorf("%d different captions drawn in 40 epochs, want all 24", len(drawn))
	}
}

func TestBadSamplesAreReplaced(t *testing.T) {
	src := &made{n: 40, broken: map[int]bool{7: true}, blank: map[int]bool{9: true}}
	o := options()
	o.Unit, o.MaxBadShare = UnitImage, 0.06
	l, err := NewLoader(src, letters{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 25 { // five epochs: 10 of 200 samples are bad
		b, err := l.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		images := map[int64]bool{}
		for i, at := range b.ImageIndex {
			if src.broken[int(at)] || src.blank[int(at)] {
				t.Errorf("picture %d in a batch", at)
			}
			if b.TextIDs[i*12] != 1 || b.Keys[i] != example(t, src, int(at)).Key {
				t.Errorf("slot %d was not filled for picture %d", i, at)
			}
			images[at] = true
		}
		if len(images) != len(b.ImageIndex) {
			t.Errorf("a replacement repeats a picture of the batch: %v", b.ImageIndex)
		}
	}
	seen, bad := l.Seen()
	if seen != 200 || bad != 10 {
		t.Errorf("%d of %d bad, want 10 of 200", bad, seen)
	}
	got := l.BadSamples()
	slices.SortFunc(got, func(a, b BadSample) int { return strings.Compare(a.Key, b.Key) })
	want := []BadSample{{"0007.png", "broken on purpose", "made"},
		{"0009.png", errNoCaption.Error(), "made"}}
	if !slices.Equal(got, want) {
		t.Errorf("bad samples %v, want %v", got, want)
	}
}

func TestTooManyBadSamples(t *testing.T) {
	src := &made{n: 40, broken: map[int]bool{1: true, 2: true, 3: true}}
	o := options()
	o.Unit = UnitImage
	failedAt := func(workers int) int {
		o.Workers = workers
		l, err := NewLoader(src, letters{}, o)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for i := range 100 {
			_, err := l.Next(context.Background())
			if err == nil {
				continue
			}
			var share *BadShareError
			if !errors.As(err, &share) || share.Bad < 1 || len(share.Examples) == 0 {
				t.Fatalf("error %v", err)
			}
			for _, part := range []string{"made", "max_bad_share", share.Examples[0].Key, "broken on purpose"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error %q does not name %q", err, part)
				}
			}
			if _, again := l.Next(context.Background()); again != err {
				t.Errorf("after the failure Next gives %v", again)
			}
			return i
		}
		t.Fatal("no error")
		return 0
	}
	if one, many := failedAt(1), failedAt(8); one != many || one > 10 {
		t.Errorf("stops at batch %d with one worker, at %d with eight", one, many)
	}
}

// TestBadShareIsTheEpochs: one bad row of a hundred is not more than one percent, however the epochs are ordered.
func TestBadShareIsTheEpochs(t *testing.T) {
	src := &made{n: 100, broken: map[int]bool{50: true}}
	o := options()
	o.Unit, o.MaxBadShare, o.BatchSize = UnitImage, 0.01, 10
	digests(t, src, o, 200)
	if got := badAllowed(0.01, 10, 129_000_000); got < 12 || got > 25 {
		t.Errorf("%.1f bad samples allowed at the beginning of a large set", got)
	}
	if got := badAllowed(0.01, 1_000_000, 129_000_000); got < 10_000 || got > 10_400 {
		t.Errorf("%.1f bad samples allowed among a million", got)
	}
	if badAllowed(0, 10, 5000) != 0 {
		t.Error("a share of 0 allows bad samples")
	}
}

func TestNothingReadable(t *testing.T) {
	src := &made{n: 8, broken: map[int]bool{}}
	for i := range src.n {
		src.broken[i] = true
	}
	o := options()
	o.MaxBadShare = 1
	l, err := NewLoader(src, letters{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := l.Next(context.Background()); err == nil || !strings.Contains(err.Error(), "made") {
		t.Errorf("error %v, want one that names the source", err)
	}
}

func TestLoaderRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *LoaderOptions)
		want   string
	}{
		"batch":    {func(o *LoaderOptions) { o.BatchSize = 13 }, "batch of 13"},
		"size":     {func(o *LoaderOptions) { o.ImageSize = 0 }, "image size"},
		"text":     {func(o *LoaderOptions) { o.MaxTextLen = 1 }, "text length"},
		"workers":  {func(o *LoaderOptions) { o.Workers = 0 }, "workers"},
		"prefetch": {func(o *LoaderOptions) { o.Prefetch = -1 }, "prefetched"},
		"unit":     {func(o *LoaderOptions) { o.Unit = "row" }, `"row"`},
		"scale":    {func(o *LoaderOptions) { o.Crop = Crop{[2]float64{0.9, 0.5}, [2]float64{1, 1}} }, "area"},
		"ratio":    {func(o *LoaderOptions) { o.Crop = Crop{[2]float64{0.5, 1}, [2]float64{0, 1}} }, "aspect"},
		"flip":     {func(o *LoaderOptions) { o.Flip = 1.5 }, "flipping"},
		"share":    {func(o *LoaderOptions) { o.MaxBadShare = -1 }, "bad samples"},
		"start":    {func(o *LoaderOptions) { o.Start.Index = 99 }, "row 99"},
	} {
		o := options()
		c.change(&o)
		l, err := NewLoader(&made{n: 4}, letters{}, o)
		if err == nil {
			l.Close()
			t.Errorf("%s: accepted", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %q does not contain %q", name, err, c.want)
		}
	}
}

func TestInterruptAndClose(t *testing.T) {
	before := runtime.NumGoroutine()
	o := options()
	want := digests(t, &made{n: 30}, o, 3)
	l, err := NewLoader(&made{n: 30}, letters{}, o)
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	for i := 0; i < len(want); {
		// An interrupted wait loses no batch.
		b, err := l.Next(cancelled)
		if errors.Is(err, context.Canceled) {
			b, err = l.Next(context.Background())
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := digest(t, b); got != want[i] {
			t.Errorf("batch %d is %s, want %s", i, got, want[i])
		}
		i++
	}
	l.Close()
	l.Close()
	if _, err := l.Next(context.Background()); err == nil {
		t.Error("Next works after Close")
	}
	for range 200 { // goroutines that have returned may be counted for an instant
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

func TestPermutation(t *testing.T) {
	for _, n := range []int64{1, 2, 3, 4, 5, 7, 8, 100, 1000, 4097} {
		order := epochOrder(1, 2, n)
		seen := make([]bool, n)
		for i := range n {
			at := order.at(i)
			if at < 0 || at >= n || seen[at] {
				t.Fatalf("n = %d: position %d gives row %d", n, i, at)
			}
			seen[at] = true
		}
	}
}

// TestPermutationIsUniform counts where row 0 lands over many epochs; χ² with 99 degrees of freedom is below 149 with
// probability 0.999, and the seed is fixed.
func TestPermutationIsUniform(t *testing.T) {
	const n, epochs = 100, 20000
	counts, pairs := [n]float64{}, [n]float64{}
	for e := range int64(epochs) {
		order := epochOrder(5, e, n)
		counts[order.at(0)]++
		pairs[(order.at(11)-order.at(10)+n)%n]++
	}
	chi, chiPairs := 0.0, 0.0
	for i := range n {
		chi += (counts[i] - epochs/n) * (counts[i] - epochs/n) / (epochs / n)
		if i > 0 {
			const want = epochs / float64(n-1)
			chiPairs += (pairs[i] - want) * (pairs[i] - want) / want
		}
	}
	if chi > 149 || chiPairs > 149 {
		t.Errorf("χ² of the first position %.1f, of the distance of neighbours %.1f", chi, chiPairs)
	}
}

func TestFlipShare(t *testing.T) {
	flips := 0
	for row := range int64(10000) {
		s := newStream(42, 1, row, purposeFlip)
		if s.float64() < 0.5 {
			flips++
		}
	}
	if flips < 4800 || flips > 5200 {
		t.Errorf("%d of 10000 flipped", flips)
	}
}
