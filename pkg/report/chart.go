package report

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"blip2/pkg/runlog"
)

// pointLimit is how many points of a curve go into the page.
const pointLimit = 800

// chart is one curve over the steps of a run, ready for the template. Lines are SVG paths in a square of 1000 units
// that the page stretches to any size; labels are HTML at a percentage of its sides, so they keep their size.
type chart struct {
	Key, Title, Note string
	Wide             bool
	Last             string // the last value, smoothed
	Spoken           string // the curve in one sentence, for those who do not see it
	Raw, Smooth      string // SVG paths
	X, Y             []tick
	Guide            *tick  // a level to compare with
	Bad              []tick // steps with a value that is not finite
	BadNote          string
	Points           string // JSON [[step, x‰, y‰, text], …] for the pointer
}

// tick is a place on an axis, in percent from the left or from the top, and its label.
type tick struct {
	Pos   string
	Label string
}

// chartSpec says how a measurement is drawn.
type chartSpec struct {
	key, title, note string
	wide             bool
	smooth           bool
	zero             bool    // the axis starts at 0
	guide            float64 // 0 is none
	guideLabel       string
}

// series takes a measurement out of the rows.
func series(rows []runlog.Row, key string) (steps, values []float64) {
	for _, r := range rows {
		if v, ok := r.Value(key); ok {
			steps = append(steps, float64(r.Step))
			values = append(values, v)
		}
	}
	return steps, values
}

// newChart draws a curve; ok is false if the run has no finite value of it.
func newChart(spec chartSpec, steps, values []float64) (c chart, ok bool) {
	lo, hi, ok := spread(values)
	if !ok {
		return chart{}, false
	}
	if spec.zero {
		lo = math.Min(lo, 0)
	}
	if g := spec.guide; g > 0 && g < hi+(hi-lo) && g > lo-(hi-lo) { // a far guide would flatten the curve
		lo, hi = math.Min(lo, g), math.Max(hi, g)
	} else {
		spec.guide = 0
	}
	intervals := 4
	if spec.wide {
		intervals = 5
	}
	x, y := stepScale(steps[0], steps[len(steps)-1], 6), newScale(lo, hi, intervals)
	c = chart{Key: spec.key, Title: spec.title, Note: spec.note, Wide: spec.wide}
	c.X, c.Y = xTicks(x), yTicks(y)
	if spec.guide > 0 {
		c.Guide = &tick{Pos: percent(1 - y.at(spec.guide)), Label: spec.guideLabel}
	}

	curve := values
	if reach := len(values) / 30; spec.smooth && reach >= 1 {
		curve = smooth(values, reach)
		c.Raw = path(steps, values, thin(values, pointLimit), x, y)
	}
	kept := thin(curve, pointLimit)
	c.Smooth = path(steps, curve, kept, x, y)
	c.Points = points(steps, values, curve, kept, x, y)
	c.Last = number(lastFinite(curve))
	c.Spoken = fmt.Sprintf("%s from %s at step %.0f to %s at step %.0f",
		spec.title, number(firstFinite(curve)), steps[0], c.Last, steps[len(steps)-1])
	c.markBad(steps, values, x)
	return c, true
}

// markBad marks the steps whose value was NaN or infinite.
func (c *chart) markBad(steps, values []float64, x scale) {
	count := 0
	for i, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			continue
		}
		if count++; count <= 50 { // more marks than that say nothing more
			c.Bad = append(c.Bad, tick{Pos: percent(x.at(steps[i])), Label: fmt.Sprintf("step %.0f", steps[i])})
		}
	}
	if count > 0 {
		c.BadNote = fmt.Sprintf("%s not finite, first at %s", plural(count, "value"), c.Bad[0].Label)
	}
}

func xTicks(s scale) []tick {
	var out []tick
	for i, label := range s.labels() {
		out = append(out, tick{percent(s.at(s.ticks[i])), label})
	}
	return out
}

func yTicks(s scale) []tick {
	var out []tick
	for i, label := range s.labels() {
		out = append(out, tick{percent(1 - s.at(s.ticks[i])), label})
	}
	return out
}

// path draws the kept points; a value that is not finite leaves a gap, and a point between two gaps is a dot.
func path(steps, values []float64, kept []int, x, y scale) string {
	var out strings.Builder
	drawing, length := false, 0
	dot := func() {
		if drawing && length == 1 {
			out.WriteString("h0")
		}
	}
	for _, i := range kept {
		v := values[i]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			dot()
			drawing = false
			continue
		}
		command := "L"
		if !drawing {
			command, length = "M", 0
		}
		fmt.Fprintf(&out, "%s%s %s", command, permille(x.at(steps[i])), permille(1-y.at(v)))
		drawing = true
		length++
	}
	dot()
	return out.String()
}

// points lists what the pointer reads: step, place of the curve, and the value as measured and as smoothed.
func points(steps, values, curve []float64, kept []int, x, y scale) string {
	out := [][]any{}
	for _, i := range kept {
		if math.IsNaN(curve[i]) || math.IsInf(curve[i], 0) {
			continue
		}
		text := number(curve[i])
		if curve[i] != values[i] {
			text = number(values[i]) + " (smoothed " + text + ")"
		}
		out = append(out, []any{steps[i], math.Round(1000 * x.at(steps[i])), math.Round(1000 * (1 - y.at(curve[i]))), text})
	}
	data, err := json.Marshal(out)
	if err != nil { // finite numbers and texts always encode
		return "[]"
	}
	return string(data)
}

func firstFinite(values []float64) float64 {
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
	}
	return math.NaN()
}

func lastFinite(values []float64) float64 {
	for i := len(values) - 1; i >= 0; i-- {
		if v := values[i]; !math.IsNaN(v) && !math.IsInf(v, 0) {
			return v
		}
	}
	return math.NaN()
}

func percent(share float64) string { return strconv.FormatFloat(100*share, 'f', 2, 64) }

func permille(share float64) string { return trimZeros(strconv.FormatFloat(1000*share, 'f', 1, 64)) }

// plural writes "1 value" or "3 values".
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}
