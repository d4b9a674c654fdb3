package dataset

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

// encoded are pictures in memory, each with one caption.
type encoded [][]byte

func (e encoded) Name() string  { return "encoded" }
func (e encoded) Len() int      { return len(e) }
func (e encoded) Texts(int) int { return 1 }
func (e encoded) Example(i int) (Example, error) {
	return Example{Key: string(rune('a' + i)), Captions: []string{"a picture"}}, nil
}
func (e encoded) Open(i int) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(e[i])), nil }

// TestTruncatedPictures: pictures cut short are taken unless they are to be rejected; then they are bad samples.
func TestTruncatedPictures(t *testing.T) {
	photo := photoLike(t, 64, 48)
	src := encoded{photo, photo[:len(photo)*6/10], photo, photo}
	for how, want := range map[Truncated]int64{"": 0, TruncatedAccept: 0, TruncatedReject: 1} {
		o := options()
		o.BatchSize, o.MaxBadShare, o.Truncated = 4, 1, how
		l, err := NewLoader(src, letters{}, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Next(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, bad := l.Seen(); bad != want {
			t.Errorf("%q: %d bad samples, want %d: %v", how, bad, want, l.BadSamples())
		}
		l.Close()
	}
	o := options()
	o.Truncated = "ignore"
	if _, err := NewLoader(src, letters{}, o); err == nil || !strings.Contains(err.Error(), `"ignore"`) {
		t.Errorf("an unknown treatment is taken: %v", err)
	}
}

// TestLoaderAugments: RandAugment changes the pictures and nothing else, the same for any number of workers.
func TestLoaderAugments(t *testing.T) {
	src := &made{n: 30}
	o := options()
	plain := digests(t, src, o, 6)
	o.Augment = RandAugment{Ops: 2, Magnitude: 9, Mode: AugmentPIL}
	o.Workers = 1
	augmented := digests(t, src, o, 6)
	if slices.Equal(plain, augmented) {
		t.Error("augmented batches are the plain ones")
	}
	if o.Workers = 3; !slices.Equal(augmented, digests(t, src, o, 6)) {
		t.Error("three workers give other batches than one")
	}
	o.Augment.Ops = 0
	if !slices.Equal(plain, digests(t, src, o, 6)) {
		t.Error("no operations change the batches")
	}
}

// TestWriteEqualsSteps: the way that decodes a part only and resizes into the batch gives what whole decoding, Resize
// and Normalize give one after the other, for every format.
func TestWriteEqualsSteps(t *testing.T) {
	var s scratch // shared: nothing of one picture may leak into the next
	for name := range pictureFiles(t) {
		img, err := DecodeFileAs("testdata/pictures/"+name, TruncatedAccept)
		if err != nil {
			continue
		}
		for row := range int64(4) {
			o := LoaderOptions{ImageSize: 20, Crop: DefaultCrop(), Flip: 0.5, Mean: CLIPMean(), Std: CLIPStd()}
			if row == 3 {
				o.Augment = RandAugment{Ops: 2, Magnitude: 7, Mode: AugmentLAVIS}
			}
			if err := s.load(folder{"testdata/pictures/" + name}, 0, TruncatedAccept, false); err != nil {
				t.Fatal(err)
			}
			tr := o.transform(&s, 1, row)
			got, want := make([]float32, 3*20*20), make([]float32, 3*20*20)
			if err := s.write(got, tr); err != nil {
				t.Fatal(err)
			}
			small := Resize(img, tr.box, 20, 20, Bicubic)
			if tr.flip {
				orient(small, new(RGB), mirrored)
			}
			var g augmenter
			g.apply(small, tr.augment, tr.draws)
			if Normalize(want, small, false, o.Mean, o.Std); !slices.Equal(got, want) {
				t.Fatalf("%s, row %d: the short way differs", name, row)
			}
		}
	}
}

// TestNoAllocationPerPicture: once its memory is there, a worker takes no more for JPEG pictures.
func TestNoAllocationPerPicture(t *testing.T) {
	var s scratch
	data := photoLike(t, 320, 240)
	dst := make([]float32, 3*64*64)
	o := LoaderOptions{ImageSize: 64, Crop: DefaultCrop(), Mean: CLIPMean(), Std: CLIPStd()}
	row := int64(0)
	reader := bytes.NewReader(data)
	work := func() {
		reader.Reset(data)
		if err := s.read(reader); err != nil {
			t.Fatal(err)
		}
		if err := s.open(TruncatedAccept, false); err != nil {
			t.Fatal(err)
		}
		if err := s.write(dst, o.transform(&s, 0, row%8)); err != nil {
			t.Fatal(err)
		}
		row++
	}
	for range 8 {
		work()
	}
	if n := testing.AllocsPerRun(40, work); n > 4 { // reader, box and closure, whatever the picture's size
		t.Errorf("%g allocations per picture", n)
	}
}

func TestBench(t *testing.T) {
	src := encoded{photoLike(t, 60, 40), photoLike(t, 40, 60)}
	r, err := Bench(t.Context(), src, BenchOptions{Count: 5, Size: 16, Workers: []int{1, 2},
		Augment: RandAugment{Ops: 1, Mode: AugmentPIL}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range r.Stages {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "read decode resize augment copy" || len(r.Runs) != 2 ||
		r.Pictures != 5 || r.MeanSize != 2400 || r.Runs[1].Workers != 2 {
		t.Errorf("%s: %+v", got, r)
	}
	broken := append(src, []byte("nothing"))
	_, err = Bench(t.Context(), broken, BenchOptions{Size: 16})
	if err == nil || !strings.Contains(err.Error(), "picture 2") {
		t.Errorf("a broken picture: %v", err)
	}
	if _, err := PictureFolder(t.TempDir()); err == nil {
		t.Error("an empty folder is a set of pictures")
	}
	if src, err := PictureFolder("testdata/pictures"); err != nil || src.Len() < 100 {
		t.Errorf("the test's own folder: %v", err)
	}
}

// TestBenchStream: the whole way is measured of pictures that come in order, too, by stage and number of workers.
func TestBenchStream(t *testing.T) {
	set, closed := streamSet(7, nil)
	r, err := BenchStream(t.Context(), set, BenchOptions{Count: 20, Size: 16, Workers: []int{1, 3}})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range r.Stages {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "read decode resize copy" || len(r.Runs) != 2 || r.Pictures != 20 ||
		r.Runs[1].Workers != 3 || r.MeanBytes == 0 || r.Stages[0].Seconds <= 0 {
		t.Errorf("%s: %+v", got, r)
	}
	if *closed != 4 { // into memory, alone, and two runs
		t.Errorf("%d streams were closed", *closed)
	}
	if r, err := BenchStream(t.Context(), set, BenchOptions{Size: 16}); err != nil || r.Pictures != 7 {
		t.Errorf("without a number: %+v, %v", r, err)
	}
	for name, change := range map[string]func(*counting){
		"sample 4":         func(c *counting) { c.broken = map[int64]error{4: errors.New("member is broken")} },
		"shard 7 at byte":  func(c *counting) { c.fails = 3 },
		"member is broken": func(c *counting) { c.broken = map[int64]error{0: errors.New("member is broken")} },
		"not a JPEG":       func(c *counting) { c.src.broken = map[int]bool{2: true} },
		"at least 1":       func(c *counting) { c.src.n = 7 },
	} {
		set, _ := streamSet(7, change)
		o := BenchOptions{Count: 20, Size: 16, Workers: []int{2}}
		if name == "at least 1" {
			o.Size = 0
		}
		if _, err := BenchStream(t.Context(), set, o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v does not contain %q", err, name)
		}
	}
}
