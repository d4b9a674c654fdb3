package dataset

import (
	"context"
	"errors"
	"slices"
	"testing"
)

func TestEvalSet(t *testing.T) {
	src := &made{n: 5, broken: map[int]bool{3: true}}
	e, err := NewEvalSet(src, letters{}, EvalOptions{ImageSize: 4, MaxTextLen: 10, Workers: 3, MaxBadShare: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	if e.NumImages() != 5 || e.NumTexts() != 15 || e.Txt2Img()[4] != 1 || e.Img2Txt()[2][1] != 7 {
		t.Errorf("%d pictures, %d texts, %v, %v", e.NumImages(), e.NumTexts(), e.Txt2Img(), e.Img2Txt())
	}
	ids, mask := e.Texts(4, 6)
	if len(ids) != 20 || ids[0] != 1 || ids[1] != 'p' || mask[9] != 1 {
		t.Errorf("texts %v %v", ids, mask)
	}
	const size = 3 * 4 * 4
	got := make([]float32, 5*size)
	if err := e.Images(context.Background(), 0, 5, got); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		want := make([]float32, size)
		if i != 3 {
			f, err := src.Open(i)
			if err != nil {
				t.Fatal(err)
			}
			img, err := Decode(f)
			if err != nil {
				t.Fatal(err)
			}
			Normalize(want, Resize(img, nil, 4, 4, Bicubic), false, CLIPMean(), CLIPStd())
		}
		if !slices.Equal(got[i*size:(i+1)*size], want) {
			t.Errorf("picture %d differs", i)
		}
	}
	if bad := e.BadSamples(); len(bad) != 1 || bad[0] != (BadSample{Key: "0003.png", Reason: "broken on purpose"}) {
		t.Errorf("bad samples %v", bad)
	}
	src.broken[0] = true
	var share *BadShareError
	if err := e.Images(context.Background(), 0, 5, got); !errors.As(err, &share) || share.Bad != 2 {
		t.Errorf("two of five bad: %v", err)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	if err := e.Images(cancelled, 0, 1, got[:size]); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
