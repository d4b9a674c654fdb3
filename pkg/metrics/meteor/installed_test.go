package meteor

import (
	"context"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"blip2/pkg/device"
)

// openInstalled opens METEOR's own data; without them the test is skipped.
func openInstalled(t testing.TB) *Scorer {
	t.Helper()
	if testing.Short() {
		t.Skip("METEOR's data are for the long part")
	}
	dir, err := device.DataDir(device.KindMETEOR, "")
	if err != nil {
		t.Skip(err)
	}
	s, err := Open(context.Background(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// goldenFolders are the recorded cases of captions.
func goldenFolders(t testing.TB) []string {
	t.Helper()
	root := os.Getenv("BLIP2_GOLDEN")
	if root == "" {
		root = filepath.Join("..", "..", "..", "..", "shared", "golden")
	}
	found, err := filepath.Glob(filepath.Join(root, "captions-*"))
	if err != nil || len(found) == 0 {
		t.Skipf("no recorded captions in %s", root)
	}
	return found
}

// TestGolden compares statistics and scores with the recorded ones, from the recorded tokens.
func TestGolden(t *testing.T) {
	s := openInstalled(t)
	for _, dir := range goldenFolders(t) {
		var expected struct {
			Corpus struct{ METEOR *float64 }
			Images []struct {
				Candidate  string   `json:"candidate_tokens"`
				References []string `json:"reference_tokens"`
				METEOR     float64
				Stats      string `json:"meteor_stats"`
			}
		}
		data, err := os.ReadFile(filepath.Join(dir, "expected.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &expected); err != nil {
			t.Fatal(err)
		}
		if expected.Corpus.METEOR == nil || len(expected.Images) == 0 || expected.Images[0].Stats == "" {
			continue
		}
		var segments []Segment
		for _, im := range expected.Images {
			segments = append(segments, Segment{im.Candidate, im.References})
		}
		stats, err := s.Score(context.Background(), segments)
		if err != nil {
			t.Fatal(err)
		}
		for i, im := range expected.Images {
			if got := stats[i].String(); got != im.Stats || math.Abs(stats[i].Score()-im.METEOR) > 1e-9 {
				t.Errorf("%s, image %d: %s, %v, want %s, %v", dir, i, got, stats[i].Score(), im.Stats, im.METEOR)
			}
		}
		if got := Corpus(stats); math.Abs(got-*expected.Corpus.METEOR) > 1e-9 {
			t.Errorf("%s: corpus %v, want %v", dir, got, *expected.Corpus.METEOR)
		}
	}
}
