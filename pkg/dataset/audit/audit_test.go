package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"blip2/pkg/dataset"
)

// pictures is a source in memory that counts how often pictures are opened.
type pictures struct {
	files    [][]byte
	captions [][]string
	opened   []int
}

func (p *pictures) Name() string    { return "pictures" }
func (p *pictures) Len() int        { return len(p.files) }
func (p *pictures) Texts(i int) int { return len(p.captions[i]) }

func (p *pictures) Example(i int) (dataset.Example, error) {
	return dataset.Example{Key: fmt.Sprintf("%d.jpg", i), Captions: p.captions[i]}, nil
}

func (p *pictures) Open(i int) (io.ReadCloser, error) {
	p.opened[i]++
	if p.files[i] == nil {
		return nil, errors.New("no such file")
	}
	return io.NopCloser(bytes.NewReader(p.files[i])), nil
}

func picture(t *testing.T, n int) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 40, 20+n))
	for y := range 20 + n {
		for x := range 40 {
			img.Set(x, y, color.RGBA{uint8(x * 6), uint8(y * n), uint8(x ^ y), 255})
		}
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, nil); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// newPictures is six pictures: 2 is cut short, 3 is missing, 4 is that of 1 again, 5 is no picture and has an empty
// text.
func newPictures(t *testing.T) *pictures {
	t.Helper()
	p := &pictures{opened: make([]int, 6)}
	for i := range 6 {
		p.files = append(p.files, picture(t, i))
		p.captions = append(p.captions, []string{"a picture", fmt.Sprintf("number %d of them", i)})
	}
	p.files[2] = p.files[2][:len(p.files[2])-30] // within the last lines of the picture
	p.files[3] = nil
	p.files[4] = p.files[1]
	p.files[5] = []byte("<html>not found</html>")
	p.captions[5] = append(p.captions[5], " .! ")
	return p
}

func TestCheckFindsEveryProblem(t *testing.T) {
	r, err := Check(t.Context(), newPictures(t), CheckOptions{Workers: 3})
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range r.Problems {
		found = append(found, p.Kind+" "+p.Key)
	}
	want := []string{"truncated 2.jpg", "unreadable 3.jpg", "no text 5.jpg", "unreadable 5.jpg"}
	if !slices.Equal(found, want) || r.Unreadable != 2 || r.Truncated != 1 || r.EmptyTexts != 1 || r.Good() {
		t.Errorf("found %v, want %v: %+v", found, want, r)
	}
	if r.Pictures != 6 || r.Texts != 13 || r.Duplicates != 1 || !reflect.DeepEqual(r.Twice, []Duplicate{{"4.jpg", "1.jpg"}}) {
		t.Errorf("%+v", r)
	}
}

// TestCheckGoesOn: what a journal has as good is not opened again, and the report is the same.
func TestCheckGoesOn(t *testing.T) {
	whole, err := Check(t.Context(), newPictures(t), CheckOptions{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	journal := filepath.Join(t.TempDir(), "journal")
	p := newPictures(t)
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Check(ctx, p, CheckOptions{Workers: 1, Journal: journal, Progress: func(done int) {
		if done == 2 {
			cancel()
		}
	}}); !errors.Is(err, context.Canceled) {
		t.Fatalf("interrupted: %v", err)
	}
	again, err := Check(t.Context(), p, CheckOptions{Workers: 1, Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(again, whole) {
		t.Errorf("continued %+v\nwhole %+v", again, whole)
	}
	if !slices.Equal(p.opened, []int{1, 1, 1, 1, 1, 1}) {
		t.Errorf("pictures were opened %v times", p.opened)
	}
	other := newPictures(t)
	other.captions[0][0] = "of another set"
	if _, err := Check(t.Context(), other, CheckOptions{Workers: 1, Journal: journal}); err != nil || other.opened[0] != 1 {
		t.Errorf("the journal of another data set was used: opened %v, %v", other.opened, err)
	}
	if err := os.WriteFile(journal, []byte("BLIP2CHK and nonsense"), 0o644); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(t.Context(), p, CheckOptions{Workers: 1, Journal: journal}); err != nil || !reflect.DeepEqual(r, whole) {
		t.Errorf("with a damaged journal: %+v, %v", r, err)
	}
}

func TestMeasure(t *testing.T) {
	p := newPictures(t)
	s, err := Measure(t.Context(), p, StatsOptions{Sample: -1, Within: 3,
		Length: func(text string) int { return len(strings.Fields(text)) + 1 }})
	if err != nil {
		t.Fatal(err)
	}
	if s.Texts != 13 || s.PerImage.Max != 3 || s.PerImage.Min != 2 || s.Words.Median != 2 || s.Words.Max != 4 {
		t.Errorf("%+v", s)
	}
	if want := 7. / 13; *s.Fit != want || s.Tokens.Max != 5 {
		t.Errorf("%g fit, want %g; %+v", *s.Fit, want, s.Tokens)
	}
	z := s.Sizes
	if z.Opened != 6 || z.Failed != 2 || z.Formats["jpeg"] != 4 || z.Width.Min != 40 || z.Height.Max != 22 {
		t.Errorf("%+v", z)
	}
	total := 0
	for _, b := range s.Words.Bins {
		total += b.Count
	}
	if total != 13 {
		t.Errorf("bins %+v", s.Words.Bins)
	}
}

func TestKnownSizes(t *testing.T) {
	size, ok := KnownSize("/data/coco_karpathy_test.json.gz")
	if !ok || size.Pictures != 5000 || size.Texts != 25010 {
		t.Fatalf("%+v, %v", size, ok)
	}
	if d := size.Compare(5000, 25010); len(d) != 0 {
		t.Errorf("%v", d)
	}
	if d := size.Compare(4999, 25010); len(d) != 1 || !strings.Contains(d[0], "4999 pictures, expected 5000") {
		t.Errorf("%v", d)
	}
	if d := (Size{Pictures: 100, Within: 0.2}).Compare(85, 7); len(d) != 0 {
		t.Errorf("%v", d)
	}
	if _, ok := KnownSize("captions.json"); ok {
		t.Error("captions.json is nobody's name")
	}
}
