package dataset

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"image"
	"image/color"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// letters is a Tokenizer for tests: one token per byte, 1 = [CLS], 2 = [SEP], 0 = [PAD].
type letters struct{}

func (letters) EncodeCaptionInto(ids, mask []int32, text string) {
	clear(ids)
	clear(mask)
	ids[0] = 1
	n := 1
	for ; n < len(ids)-1 && n <= len(text); n++ {
		ids[n] = int32(text[n-1])
	}
	ids[n] = 2
	for i := range n + 1 {
		mask[i] = 1
	}
}

// made is a Source in memory: picture i has its own colour and three captions.
type made struct {
	n      int
	broken map[int]bool
	blank  map[int]bool
}

func (m *made) Name() string { return "made" }
func (m *made) Len() int     { return m.n }

func (m *made) Texts(int) int { return 3 }

func (m *made) Example(i int) (Example, error) {
	e := Example{Key: fmt.Sprintf("%04d.png", i), ImageID: int64(1000 + i)}
	for c := range 3 {
		e.Captions = append(e.Captions, fmt.Sprintf("picture %d caption %d", i, c))
	}
	if m.blank[i] {
		e.Captions = []string{"!!!", "!!!", "!!!"}
	}
	return e, nil
}

// drawn are the pictures drawn so far: every made source has the same.
var drawn sync.Map

func (m *made) Open(i int) (io.ReadCloser, error) {
	if m.broken[i] {
		return nil, errors.New("broken on purpose")
	}
	if data, ok := drawn.Load(i); ok {
		return io.NopCloser(bytes.NewReader(data.([]byte))), nil
	}
	img := image.NewRGBA(image.Rect(0, 0, 12+i%5, 10+i%3))
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			img.SetRGBA(x, y, color.RGBA{uint8(i), uint8(x * 20), uint8(y * 20), 255})
		}
	}
	var buf bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.NoCompression}
	if err := encoder.Encode(&buf, img); err != nil {
		return nil, err
	}
	drawn.Store(i, buf.Bytes())
	return io.NopCloser(&buf), nil
}

// example is picture i of a source that cannot fail.
func example(t *testing.T, src interface{ Example(int) (Example, error) }, i int) Example {
	t.Helper()
	e, err := src.Example(i)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func options() LoaderOptions {
	return LoaderOptions{BatchSize: 8, ImageSize: 6, MaxTextLen: 12, Seed: 42, Unit: UnitCaption, Flip: 0.5,
		Workers: 2, Prefetch: 2, MaxBadShare: 0.01}
}

// digests are hashes of n batches with everything in them, Release after each.
func digests(t *testing.T, src Source, o LoaderOptions, n int) []string {
	t.Helper()
	l, err := NewLoader(src, letters{}, o)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all []string
	for range n {
		b, err := l.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, digest(t, b))
		b.Release()
	}
	return all
}

func digest(t *testing.T, b *Batch) string {
	t.Helper()
	h := fnv.New64a()
	pixels, err := binary.Append(nil, binary.LittleEndian, b.Pixels)
	if err != nil {
		t.Fatal(err)
	}
	rest := *b
	rest.Pixels = nil
	text, err := json.Marshal(&rest)
	if err != nil {
		t.Fatal(err)
	}
	h.Write(pixels)
	h.Write(text)
	return fmt.Sprintf("%d/%d %x", b.Epoch, b.Index, h.Sum64())
}

// writeFolder writes an annotation file and an image folder with the files named.
func writeFolder(t *testing.T, annotations string, files map[string][]byte) CaptionFile {
	t.Helper()
	dir := t.TempDir()
	c := CaptionFile{Annotations: filepath.Join(dir, "captions.json"), Images: filepath.Join(dir, "images")}
	if err := os.WriteFile(c.Annotations, []byte(annotations), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.Images, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		path := filepath.Join(c.Images, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return c
}
