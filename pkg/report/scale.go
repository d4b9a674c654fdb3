package report

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// scale maps values to shares of an axis.
type scale struct {
	lo, hi float64
	ticks  []float64
}

// newScale returns a scale whose ends are ticks, with about n intervals of 1, 2 or 5 times a power of ten.
func newScale(lo, hi float64, n int) scale {
	if !(hi > lo) { // one value only, or none
		pad := math.Max(math.Abs(lo)*0.1, 1e-12)
		if lo == 0 {
			pad = 1
		}
		lo, hi = lo-pad, lo+pad
	}
	step := niceStep((hi - lo) / float64(n))
	first, last := math.Floor(lo/step+1e-9), math.Ceil(hi/step-1e-9)
	s := scale{lo: first * step, hi: last * step}
	for i := first; i <= last; i++ {
		s.ticks = append(s.ticks, i*step)
	}
	return s
}

// stepScale returns the scale of the steps from first to last: it ends where the run ends, so ticks may not.
func stepScale(first, last float64, n int) scale {
	if !(last > first) {
		first, last = first-1, first+1
	}
	s := scale{lo: first, hi: last}
	step := math.Max(niceStep((last-first)/float64(n)), 1)
	for i := math.Ceil(first / step); i*step <= last; i++ {
		s.ticks = append(s.ticks, i*step)
	}
	return s
}

// niceStep is the smallest of 1, 2, 5 times a power of ten that is at least about x.
func niceStep(x float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 5} {
		if x <= m*power*1.0001 {
			return m * power
		}
	}
	return 10 * power
}

// at is the place of v on the axis, 0 at its start and 1 at its end.
func (s scale) at(v float64) float64 { return (v - s.lo) / (s.hi - s.lo) }

// labels writes the ticks with the digits that tell them apart.
func (s scale) labels() []string {
	out := make([]string, len(s.ticks))
	for i, v := range s.ticks {
		out[i] = tickLabel(v, s.ticks)
	}
	return out
}

func tickLabel(v float64, ticks []float64) string {
	step := math.Abs(v)
	if len(ticks) > 1 {
		step = ticks[1] - ticks[0]
	}
	largest := math.Max(math.Abs(ticks[0]), math.Abs(ticks[len(ticks)-1]))
	switch {
	case math.Abs(v) < step/1e6:
		return "0"
	case largest < 1e-3 || largest >= 1e7:
		return exponent(v)
	case largest >= 10000 && step >= 1000:
		return trimZeros(strconv.FormatFloat(v/1000, 'f', 1, 64)) + "k"
	}
	digits := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	return strconv.FormatFloat(v, 'f', digits, 64)
}

// exponent writes 2e-4 rather than 2e-04.
func exponent(v float64) string {
	mantissa, power, _ := strings.Cut(strconv.FormatFloat(v, 'e', 1, 64), "e")
	n, err := strconv.Atoi(power)
	if err != nil { // NaN and infinities have no power
		return mantissa
	}
	return trimZeros(mantissa) + "e" + strconv.Itoa(n)
}

func trimZeros(s string) string {
	if !strings.Contains(s, ".") {
		return s
	}
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// number writes a measurement with about four digits.
func number(v float64) string {
	a := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "not finite"
	case a == 0:
		return "0"
	case a < 1e-3 || a >= 1e7:
		return exponent(v)
	case a >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a >= 0.1:
		return strconv.FormatFloat(v, 'f', 3, 64)
	default:
		return trimZeros(strconv.FormatFloat(v, 'f', 5, 64))
	}
}

// spread is the range of the finite values without lone peaks, which would flatten the rest of a long curve: an end
// is moved in if it is further from the middle 98 % of the values than half of their range.
func spread(values []float64) (lo, hi float64, ok bool) {
	v := slices.DeleteFunc(slices.Clone(values), func(x float64) bool { return math.IsNaN(x) || math.IsInf(x, 0) })
	if len(v) == 0 {
		return 0, 0, false
	}
	slices.Sort(v)
	cut := len(v) / 100
	inner := v[cut : len(v)-cut]
	lo, hi = inner[0], inner[len(inner)-1]
	room := (hi - lo) / 2
	return math.Max(v[0], lo-room), math.Min(v[len(v)-1], hi+room), true
}

// smooth is the mean of each value and its neighbours within reach, weighted by nearness. It looks both ways, so the
// curve does not lag behind as a running mean does. Values that are not finite do not count.
func smooth(values []float64, reach int) []float64 {
	out := make([]float64, len(values))
	for i := range values {
		var sum, weight float64
		for j := max(0, i-reach); j <= min(len(values)-1, i+reach); j++ {
			v := values[j]
			if math.IsNaN(v) || math.IsInf(v, 0) {
				continue
			}
			w := float64(reach + 1 - max(i-j, j-i))
			sum += w * v
			weight += w
		}
		out[i] = sum / weight // NaN where no neighbour is finite
	}
	return out
}

// thin picks at most about n indices of values that keep its shape: from each of n/2 equal stretches the lowest and
// the highest, and both ends.
func thin(values []float64, n int) []int {
	if len(values) <= n {
		out := make([]int, len(values))
		for i := range out {
			out[i] = i
		}
		return out
	}
	out := []int{0}
	stretches := n / 2
	for s := range stretches {
		from, to := s*len(values)/stretches, (s+1)*len(values)/stretches
		low, high := from, from
		for i := from; i < to; i++ {
			if values[i] < values[low] || math.IsNaN(values[low]) {
				low = i
			}
			if values[i] > values[high] || math.IsNaN(values[high]) {
				high = i
			}
		}
		out = append(out, min(low, high), max(low, high))
	}
	out = append(out, len(values)-1)
	slices.Sort(out)
	return slices.Compact(out)
}
