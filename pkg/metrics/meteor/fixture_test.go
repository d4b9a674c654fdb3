package meteor

import (
	"archive/zip"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorded is testdata/recorded.json: what METEOR 1.5 answered with small tables of our own ("-l en -norm", with -d and
// -a), what its normaliser made of odd lines, and stems by the Stemmer class of its jar.
type recorded struct {
	Synsets, Exceptions [][2]string
	Paraphrases         [][2]string
	Function, Prefixes  []string
	Segments            []recordedSegment
	Corpus              float64
	Normalised, Stems   [][2]string
}

// recordedSegment is [candidate, references, statistics, score].
type recordedSegment struct {
	segment Segment
	stats   string
	score   float64
}

func (r *recordedSegment) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&r.segment.Candidate, &r.segment.References, &r.stats, &r.score})
}

// load reads the recordings.
func load(t testing.TB) *recorded {
	t.Helper()
	data, err := os.ReadFile("testdata/recorded.json")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorded{}
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// lines puts every string on a line.
func lines(list ...string) string { return strings.Join(list, "\n") + "\n" }

// pairLines puts every pair on two lines.
func pairLines(pairs [][2]string) string {
	var b strings.Builder
	for _, p := range pairs {
		b.WriteString(lines(p[:]...))
	}
	return b.String()
}

// writeData makes a folder with a jar and a paraphrase table like METEOR's.
func writeData(t testing.TB, r *recorded) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var table strings.Builder
	for _, p := range r.Paraphrases {
		table.WriteString(lines("0.5", p[0], p[1]))
	}
	write(t, filepath.Join(dir, filepath.FromSlash(TablePath)), func(w io.Writer) error {
		z := gzip.NewWriter(w)
		_, err := io.WriteString(z, table.String())
		if err != nil {
			return err
		}
		return z.Close()
	})
	write(t, filepath.Join(dir, filepath.FromSlash(JarPath)), func(w io.Writer) error {
		z := zip.NewWriter(w)
		for name, text := range map[string]string{
			"function/english.words": lines(r.Function...), "nonbreaking/english.prefixes": lines(r.Prefixes...),
			"synonym/english.synsets": pairLines(r.Synsets), "synonym/english.exceptions": pairLines(r.Exceptions),
		} {
			f, err := z.Create(name)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(f, text); err != nil {
				return err
			}
		}
		return z.Close()
	})
	return dir
}

// write makes a file and its folders.
func write(t testing.TB, path string, fill func(io.Writer) error) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fill(f); err != nil {
		t.Fatal(err)
	}
}

// openFixture opens a scorer of the small tables.
func openFixture(t testing.TB) (*Scorer, *recorded) {
	t.Helper()
	r := load(t)
	s, err := Open(context.Background(), writeData(t, r), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s, r
}
