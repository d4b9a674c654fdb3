// Package measure tells what a program has used of the machine, memory and processor time, and sums up repeated
// measurements.
package measure

import (
	"math"
	"runtime"
	"slices"
)

// Processors is how many processors the process may use: those of the machine, or of the container where that has a
// limit, or GOMAXPROCS of the environment.
var Processors = runtime.GOMAXPROCS(0)

// Spread describes a handful of measurements.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// SpreadOf returns median, smallest and largest of some values; the median of an even number of values is the mean of
// the middle two. Of none all three are NaN.
func SpreadOf(values []float64) Spread {
	if len(values) == 0 {
		return Spread{Median: math.NaN(), Min: math.NaN(), Max: math.NaN()}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return Spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1]}
}

// Mean returns the mean of some values, 0 of none.
func Mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / max(float64(len(values)), 1)
}
