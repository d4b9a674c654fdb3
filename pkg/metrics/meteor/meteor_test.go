package meteor

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRecordedSegments(t *testing.T) {
	s, r := openFixture(t)
	var segments []Segment
	for _, c := range r.Segments {
		segments = append(segments, c.segment)
	}
	stats, err := s.Score(context.Background(), segments)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range r.Segments {
		if got := stats[i].String(); got != c.stats {
			t.Errorf("%q:\n got %s\nwant %s", c.segment, got, c.stats)
		}
		if got := stats[i].Score(); math.Abs(got-c.score) > 1e-12 {
			t.Errorf("%q: score %v, want %v", c.segment, got, c.score)
		}
		parsed, err := ParseStats(c.stats)
		if err != nil || parsed.String() != c.stats {
			t.Errorf("%s reads as %s: %v", c.stats, parsed, err)
		}
	}
	if got := Corpus(stats); math.Abs(got-r.Corpus) > 1e-12 {
		t.Errorf("corpus %v, want %v", got, r.Corpus)
	}
}

func TestNormalize(t *testing.T) {
	r := load(t)
	p := parsePrefixes([]byte(lines(r.Prefixes...)))
	for _, c := range r.Normalised {
		if got := strings.Join(p.normalize(c[0]), " "); got != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
}

func TestStem(t *testing.T) {
	for _, c := range load(t).Stems {
		if got := stem(c[0]); got != c[1] {
			t.Errorf("%q: %q, want %q", c[0], got, c[1])
		}
	}
}

func TestJavaDouble(t *testing.T) {
	for v, want := range map[float64]string{0: "0.0", 10: "10.0", 0.5: "0.5", 1e7: "1.0E7", 12345678: "1.2345678E7"} {
		if got := javaDouble(v); got != want {
			t.Errorf("%v prints as %s, want %s", v, got, want)
		}
	}
	for _, line := range []string{"", "1.0 2.0", strings.Repeat("x ", 23)} {
		if _, err := ParseStats(line); err == nil {
			t.Errorf("%q is read as statistics", line)
		}
	}
}

// A second Open must use the index of the first, and make another one when the data have changed or it is damaged.
func TestIndexIsKeptAndRebuilt(t *testing.T) {
	r := load(t)
	dir := writeData(t, r)
	path := filepath.Join(dir, IndexName)
	open := func() os.FileInfo {
		t.Helper()
		s, err := Open(context.Background(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := s.Score(context.Background(), []Segment{r.Segments[0].segment})
		if err != nil || stats[0].String() != r.Segments[0].stats {
			t.Errorf("%v, %v", stats, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := open()
	if !os.SameFile(first, open()) {
		t.Error("the index is made twice")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]byte{}, data...)
	changed[len(changed)-9] ^= 1
	for name, damaged := range map[string][]byte{
		"empty": {}, "cut off": data[:len(data)/2], "head only": data[:len(indexMagic)+2],
		"changed": changed,
		"foreign": []byte(strings.Repeat("x", 200)),
	} {
		if err := os.WriteFile(path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(before, open()) {
			t.Errorf("%s index is used", name)
		}
	}
	before := open()
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(filepath.Join(dir, filepath.FromSlash(TablePath)), later, later); err != nil {
		t.Fatal(err)
	}
	if os.SameFile(before, open()) {
		t.Error("a stale index is used")
	}
}

// TestIndexOfACopy: a copy that keeps times to the second, rounded down or up as archives do, has a good index.
func TestIndexOfACopy(t *testing.T) {
	dir := writeData(t, load(t))
	open := func() {
		t.Helper()
		s, err := Open(t.Context(), dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	open()
	before, err := os.Stat(filepath.Join(dir, IndexName))
	if err != nil {
		t.Fatal(err)
	}
	table := filepath.Join(dir, filepath.FromSlash(TablePath))
	info, err := os.Stat(table)
	if err != nil {
		t.Fatal(err)
	}
	down := info.ModTime().Truncate(time.Second)
	for _, rounded := range []time.Time{down, down.Add(time.Second)} {
		if err := os.Chtimes(table, time.Time{}, rounded); err != nil {
			t.Fatal(err)
		}
		open()
		if after, err := os.Stat(filepath.Join(dir, IndexName)); err != nil || !os.SameFile(before, after) {
			t.Errorf("the index was made again: %v", err)
		}
	}
}

// TestTemporaryIndex: an index that cannot be kept scores as any, and leaves nothing.
func TestTemporaryIndex(t *testing.T) {
	r := load(t)
	dir, temp := writeData(t, r), t.TempDir()
	t.Setenv("TMPDIR", temp)
	want, err := sourcesOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := openTemporary(t.Context(), dir, want, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	stats, err := s.Score(t.Context(), []Segment{r.Segments[0].segment})
	if err != nil || stats[0].String() != r.Segments[0].stats {
		t.Errorf("%v, %v", stats, err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, IndexName)); err == nil {
		t.Error("the index is in the data's folder")
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(context.Background(), t.TempDir(), nil); err == nil ||
		!strings.Contains(err.Error(), "blip2 plugin install meteor") {
		t.Errorf("no data: %v", err)
	}
	for name, change := range map[string]string{"table": TablePath, "jar": JarPath} {
		dir := writeData(t, load(t))
		path := filepath.Join(dir, filepath.FromSlash(change))
		write(t, path, func(w io.Writer) error {
			_, err := io.WriteString(w, "not what it should be")
			return err
		})
		if _, err := Open(context.Background(), dir, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("damaged %s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, IndexName)); err == nil {
			t.Errorf("damaged %s: there is an index", name)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s, r := openFixture(t)
	if _, err := s.Score(ctx, []Segment{r.Segments[0].segment}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var none *NoReferenceError
	if _, err := s.Score(context.Background(), []Segment{r.Segments[0].segment, {Candidate: "a"}}); !errors.As(err,
		&none) || none.Segment != 1 {
		t.Errorf("no reference: %v", err)
	}
}

// Repeats make the number of possible alignments explode; time and memory must not.
func TestHostileRepeats(t *testing.T) {
	s, _ := openFixture(t)
	many := func(word string, n int) string { return strings.TrimSpace(strings.Repeat(word+" ", n)) }
	for name, c := range map[string]struct {
		candidate, reference string
		tooLarge             bool
	}{
		"long candidate":    {many("a dog", 50_000), many("a dog", 3), false},
		"long reference":    {many("dog a", 5), many("a dog", 50_000), false},
		"both long":         {many("dog", 100_000), many("dog dog", 100_000), true},
		"squares":           {many("w w big", 150), many("large w w", 150), false},
		"nothing in common": {many("x", 100_000), many("y", 100_000), false},
		"equal":             {many("a b c d e g h", 2000), many("a b c d e g h", 2000), false},
	} {
		start := time.Now()
		_, err := s.Score(context.Background(), []Segment{{c.candidate, []string{c.reference}}})
		var large *TooLargeError
		if errors.As(err, &large) != c.tooLarge || (err != nil) != c.tooLarge {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 30*time.Second {
			t.Errorf("%s takes %s", name, took)
		}
	}
}

func FuzzScore(f *testing.F) {
	s, r := openFixture(f)
	for _, c := range r.Segments[:20] {
		f.Add(c.segment.Candidate, strings.Join(c.segment.References, " "))
	}
	for _, c := range r.Normalised[:50] {
		f.Add(c[0], c[1])
	}
	f.Add("\xff\xfe a\x00b", "\U0001F436 a\u0301 |||")
	f.Fuzz(func(t *testing.T, candidate, reference string) {
		stats, err := s.Score(context.Background(), []Segment{{candidate, []string{reference}}})
		var large *TooLargeError
		if err != nil && !errors.As(err, &large) {
			t.Fatal(err)
		}
		if err != nil {
			return
		}
		got := stats[0]
		if score := got.Score(); !(score >= 0 && score <= 1) {
			t.Errorf("score %v of %s", score, got)
		}
		if got.CandMatched > got.CandLen || got.RefMatched > got.RefLen || got.CandFunction > got.CandLen {
			t.Errorf("impossible statistics %s", got)
		}
	})
}
