package answer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/internal/toymodel"
	"blip2/pkg/naming"
)

// networks are those that write, with their kinds.
var networks = map[string]Kind{naming.BLIP2OPT: KindOPT, naming.BLIP2T5: KindT5, naming.BLIP2Stage1: KindStage1,
	naming.BLIPCaption: KindBLIP}

// opened opens the small folder of a network.
func opened(t *testing.T, network string) *Checkpoint {
	t.Helper()
	c, err := Open(Source{Model: toymodel.Folder(t, network)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// loaded is a model on the test's backend.
func loaded(t *testing.T, c *Checkpoint) (*Model, compute.Backend) {
	t.Helper()
	backend := graphtest.Open(t, "go")
	m, err := c.Load(t.Context(), backend, dtypes.Float32)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m, backend
}

// pixels are those of a picture of its own for every seed.
func pixels(t *testing.T, c *Checkpoint, seed int) []float32 {
	t.Helper()
	in := Inputs{}
	img, err := in.Decode(t.Context(), toymodel.Picture(t, t.TempDir(), "p.png", seed))
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.Pixels(img)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// encoded encodes pictures of their own, all at once.
func encoded(t *testing.T, m *Model, n int) []Picture {
	t.Helper()
	var all [][]float32
	for i := range n {
		all = append(all, pixels(t, m.Checkpoint, i))
	}
	pictures, err := m.Encode(t.Context(), all...)
	if err != nil {
		t.Fatal(err)
	}
	return pictures
}

// says checks that an error contains all texts.
func says(t *testing.T, what string, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want one that says %q", what, texts)
		return
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%s: error %q does not say %q", what, err, text)
		}
	}
}

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}
