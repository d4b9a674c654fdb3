//go:build turbojpeg && cgo && linux

package turbojpeg

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"blip2/pkg/dataset/jpeg"
)

// TestEqualSamples: the library and our decoder give the same samples of every picture, in whole and in part, and the
// same answer to truncated ones.
func TestEqualSamples(t *testing.T) {
	if !Available() {
		t.Skip("libturbojpeg.so.0 is not there (Debian: libturbojpeg0)")
	}
	names, err := filepath.Glob(filepath.Join("..", "testdata", "pictures", "*.jpg"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no pictures: %v", err)
	}
	d := NewDecoder()
	byLibrary := 0
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		w, h, err := d.Open(data)
		if err != nil {
			continue
		}
		middle := jpeg.Part{Left: w / 3, Top: h / 3, Width: (w + 2) / 3, Height: (h + 2) / 3}
		for _, part := range []jpeg.Part{{Width: w, Height: h}, middle} {
			for _, lenient := range []bool{false, true} {
				var own jpeg.Decoder
				if _, _, err := own.Open(data); err != nil {
					t.Fatal(err)
				}
				if _, _, err := d.Open(data); err != nil {
					t.Fatal(err)
				}
				got, want := make([]byte, 3*part.Width*part.Height), make([]byte, 3*part.Width*part.Height)
				gotErr, wantErr := d.Decode(got, part, lenient), own.Decode(want, part, lenient)
				if !errors.Is(gotErr, wantErr) || gotErr == nil && !bytes.Equal(got, want) {
					t.Errorf("%s %+v: samples or errors differ: %v, want %v", filepath.Base(name), part, gotErr,
						wantErr)
				}
				if d.library {
					byLibrary++
				}
			}
		}
	}
	if byLibrary == 0 {
		t.Error("the library decoded nothing")
	}
}
