package report

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var nan, inf = math.NaN(), math.Inf(1)

func TestScaleLabels(t *testing.T) {
	tests := []struct {
		lo, hi float64
		n      int
		want   string
	}{
		{2.1, 11.8, 5, "2 4 6 8 10 12"},
		{0, 5e-4, 4, "0 2e-4 4e-4 6e-4"},
		{0.18, 0.71, 4, "0 0.2 0.4 0.6 0.8"},
		{0.05, 0.07, 4, "0.050 0.055 0.060 0.065 0.070"},
		{0, 62, 4, "0 20 40 60 80"},
		{0, 41000, 4, "0 20k 40k 60k"},
		{-1.5, 1.5, 3, "-2 -1 0 1 2"},
		{3, 3, 4, "2.6 2.8 3.0 3.2 3.4"},
		{0, 0, 2, "-1 0 1"},
		{1e9, 3e9, 2, "1e9 2e9 3e9"},
	}
	for _, tc := range tests {
		s := newScale(tc.lo, tc.hi, tc.n)
		if got := strings.Join(s.labels(), " "); got != tc.want {
			t.Errorf("%g to %g: %s, want %s", tc.lo, tc.hi, got, tc.want)
		}
		if s.lo > tc.lo || s.hi < tc.hi {
			t.Errorf("%g to %g: the axis %g to %g cuts values off", tc.lo, tc.hi, s.lo, s.hi)
		}
	}
}

func TestStepScale(t *testing.T) {
	s := stepScale(5, 600, 6)
	if got := strings.Join(s.labels(), " "); got != "100 200 300 400 500 600" || s.lo != 5 || s.hi != 600 {
		t.Errorf("5 to 600: %s on %g to %g", got, s.lo, s.hi)
	}
	if got := strings.Join(stepScale(1, 4, 6).labels(), " "); got != "1 2 3 4" {
		t.Errorf("1 to 4: %s; steps are whole numbers", got)
	}
	if s := stepScale(7, 7, 6); s.at(7) != 0.5 {
		t.Errorf("one step stands at %g, want in the middle", s.at(7))
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 3.21449: "3.214", 62.314: "62.31", 512.34: "512.3",
		12345: "12345", 0.05: "0.05", 1e-4: "1e-4", 2.5e-5: "2.5e-5", -0.5: "-0.500", 3e9: "3e9", inf: "not finite"} {
		if got := number(v); got != want {
			t.Errorf("%g is %q, want %q", v, got, want)
		}
	}
}

func TestSpread(t *testing.T) {
	if lo, hi, ok := spread([]float64{nan, 3, 1, inf, 2}); lo != 1 || hi != 3 || !ok {
		t.Errorf("range %g to %g, %v", lo, hi, ok)
	}
	if _, _, ok := spread([]float64{nan, math.Inf(-1)}); ok {
		t.Error("a range without finite values")
	}
	long := make([]float64, 1000)
	for i := range long {
		long[i] = float64(i % 10)
	}
	long[3] = 1e6
	if _, hi, _ := spread(long); hi != 9+4.5 {
		t.Errorf("one peak of a million puts the end at %g, want 13.5", hi)
	}
}

func TestSmooth(t *testing.T) {
	got := smooth([]float64{1, 1, 4, 1, 1}, 1)
	if want := []float64{1, 1.75, 2.5, 1.75, 1}; !reflect.DeepEqual(got, want) {
		t.Errorf("a peak becomes %v, want %v", got, want)
	}
	got = smooth([]float64{2, nan, 2, nan, nan, nan, inf}, 1)
	if got[1] != 2 || got[3] != 2 || !math.IsNaN(got[5]) {
		t.Errorf("around gaps: %v", got)
	}
}

func TestThin(t *testing.T) {
	values := make([]float64, 10000)
	values[0] = nan
	values[4321], values[4322] = 7, -7
	kept := thin(values, 100)
	if len(kept) > 102 || kept[0] != 0 || kept[len(kept)-1] != 9999 {
		t.Errorf("%d indices from %d to %d", len(kept), kept[0], kept[len(kept)-1])
	}
	if !slices.Contains(kept, 4321) || !slices.Contains(kept, 4322) {
		t.Error("the peaks are lost")
	}
	if !slices.IsSorted(kept) {
		t.Error("not in order")
	}
	if got := thin([]float64{5, 6, 7}, 100); !reflect.DeepEqual(got, []int{0, 1, 2}) {
		t.Errorf("a short series is thinned to %v", got)
	}
}
