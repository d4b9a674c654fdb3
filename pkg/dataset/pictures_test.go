package dataset

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// pictureFiles are the pictures that scripts/make_pictures.py wrote, and what Pillow makes of them.
func pictureFiles(t testing.TB) map[string]map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "pictures", "expected.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]string
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// TestPicturesEqualPillow: every format and variant, whole, truncated and damaged, gives Pillow's samples to the last
// bit, in strict reading and in tolerant.
func TestPicturesEqualPillow(t *testing.T) {
	for name, modes := range pictureFiles(t) {
		data, err := os.ReadFile(filepath.Join("testdata", "pictures", name))
		if err != nil {
			t.Fatal(err)
		}
		for mode, how := range map[string]Truncated{"strict": TruncatedReject, "lenient": TruncatedAccept} {
			got := "error"
			img, err := DecodeAs(bytes.NewReader(data), how)
			if err == nil {
				got = fmt.Sprintf("%dx%d %x", img.W, img.H, sha256.Sum256(img.Pix))
			}
			if got != modes[mode] {
				t.Errorf("%s %s: %s (%v), want %s", name, mode, got, err, modes[mode])
			}
		}
	}
}

// TestScansCutAnywhere: of a picture of several scans that ends anywhere, inside a scan or in a segment between two, a
// tolerant reading gives what Pillow gives.
func TestScansCutAnywhere(t *testing.T) {
	stored, err := os.ReadFile(filepath.Join("testdata", "pictures", "cuts.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]struct {
		From, Step int
		SHA256     []string // its first 16 digits
	}
	if err := json.Unmarshal(stored, &all); err != nil || len(all) == 0 {
		t.Fatal(len(all), err)
	}
	for name, c := range all {
		data, err := os.ReadFile(filepath.Join("testdata", "pictures", name))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range c.SHA256 {
			n := c.From + i*c.Step
			img, err := DecodeAs(bytes.NewReader(data[:n]), TruncatedAccept)
			if err != nil {
				t.Errorf("%s, %d bytes: %v", name, n, err)
				continue
			}
			if got := fmt.Sprintf("%x", sha256.Sum256(img.Pix)); got[:16] != want {
				t.Errorf("%s, %d bytes: %s, want %s", name, n, got[:16], want)
			}
		}
	}
}
