package measure

import (
	"math"
	"testing"
)

func TestSpreadOf(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   Spread
	}{
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{9, 1, 2}, Spread{2, 1, 9}},
		{[]float64{4, 1, 9, 2}, Spread{3, 1, 9}},
	} {
		if got := SpreadOf(tt.values); got != tt.want {
			t.Errorf("SpreadOf(%v) = %v, want %v", tt.values, got, tt.want)
		}
	}
	if got := SpreadOf(nil); !math.IsNaN(got.Median) || !math.IsNaN(got.Min) || !math.IsNaN(got.Max) {
		t.Errorf("SpreadOf(nil) = %v, want NaN", got)
	}
}

func TestMean(t *testing.T) {
	if got := Mean([]float64{1, 2, 6}); got != 3 {
		t.Errorf("Mean = %g, want 3", got)
	}
	if got := Mean(nil); got != 0 {
		t.Errorf("Mean of nothing = %g, want 0", got)
	}
}
