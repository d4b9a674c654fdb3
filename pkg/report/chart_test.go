package report

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"blip2/pkg/runlog"
)

func TestPath(t *testing.T) {
	x, y := scale{lo: 0, hi: 10}, scale{lo: 0, hi: 1}
	tests := []struct {
		name          string
		steps, values []float64
		want          string
	}{
		{"line", []float64{0, 5, 10}, []float64{0, 0.5, 1}, "M0 1000L500 500L1000 0"},
		{"gap", []float64{0, 2, 4, 6, 8}, []float64{0, 1, nan, 1, 0}, "M0 1000L200 0M600 0L800 1000"},
		{"dots", []float64{0, 2, 4, 6}, []float64{1, inf, nan, 0}, "M0 0h0M600 1000h0"},
		{"nothing", []float64{0}, []float64{nan}, ""},
		{"rounding", []float64{1, 10}, []float64{1.0 / 3, 0.12345}, "M100 666.7L1000 876.5"},
	}
	for _, tc := range tests {
		kept := thin(tc.values, pointLimit)
		if got := path(tc.steps, tc.values, kept, x, y); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func ramp(n int) (steps, values []float64) {
	for i := range n {
		steps = append(steps, float64(10*(i+1)))
		values = append(values, 8-4*float64(i)/float64(n-1))
	}
	return steps, values
}

func TestChart(t *testing.T) {
	steps, values := ramp(60)
	values[30] = nan
	spec := chartSpec{key: "loss", title: "Loss", smooth: true, guide: 5, guideLabel: "guessing"}
	c, ok := newChart(spec, steps, values)
	if !ok {
		t.Fatal("no chart")
	}
	if c.Spoken != "Loss from 7.955 at step 10 to 4.045 at step 600" {
		t.Errorf("spoken %q", c.Spoken)
	}
	if c.Raw == "" || c.Smooth == "" || c.Raw == c.Smooth || strings.Contains(c.Raw+c.Smooth, "NaN") {
		t.Errorf("paths %q and %q", c.Raw, c.Smooth)
	}
	if c.BadNote != "1 value not finite, first at step 310" || len(c.Bad) != 1 {
		t.Errorf("note %q, marks %v", c.BadNote, c.Bad)
	}
	if c.Guide == nil || c.Guide.Pos != "75.00" {
		t.Errorf("guide %v on %v", c.Guide, c.Y)
	}
	var points [][]any
	if err := json.Unmarshal([]byte(c.Points), &points); err != nil || len(points) != 60 {
		t.Fatalf("%d points, %v", len(points), err)
	}
	if text := points[30][3]; text != "not finite (smoothed 5.966)" {
		t.Errorf("text at the gap %q", text)
	}
}

func TestChartFarGuide(t *testing.T) {
	steps, values := ramp(10)
	c, ok := newChart(chartSpec{title: "ITC", guide: 100, guideLabel: "guessing"}, steps, values)
	if !ok || c.Guide != nil || c.Y[len(c.Y)-1].Label != "8" {
		t.Errorf("a guide at 100 of a curve from 8 to 4: %v, axis %v", c.Guide, c.Y)
	}
}

func TestChartOfNothing(t *testing.T) {
	if _, ok := newChart(chartSpec{title: "Loss"}, []float64{1, 2}, []float64{nan, inf}); ok {
		t.Error("a chart of no finite value")
	}
	c, ok := newChart(chartSpec{title: "Loss", smooth: true, zero: true}, []float64{1, 2}, []float64{0, 0})
	if !ok || strings.Contains(c.Smooth, "NaN") {
		t.Errorf("a flat line: %v, %q", ok, c.Smooth)
	}
}

func TestSeries(t *testing.T) {
	rows := []runlog.Row{{Step: 1, Fields: []runlog.Field{runlog.F("a", 5)}}, {Step: 2},
		{Step: 3, Fields: []runlog.Field{runlog.F("b", 1), runlog.F("a", nan)}}}
	steps, values := series(rows, "a")
	if len(steps) != 2 || steps[1] != 3 || values[0] != 5 || !math.IsNaN(values[1]) {
		t.Errorf("steps %v, values %v", steps, values)
	}
}
