package vit

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// kernel is the cubic convolution kernel with A = −0.75 as spec/model.md 4 gives it.
func kernel(t float64) float64 {
	const a = -0.75
	t = math.Abs(t)
	switch {
	case t <= 1:
		return (a+2)*math.Pow(t, 3) - (a+3)*t*t + 1
	case t < 2:
		return a*math.Pow(t, 3) - 5*a*t*t + 8*a*t - 4*a
	}
	return 0
}

// resized is the naive form: every output position sums over a border-extended grid, weighted by the kernel at the
// distance from the source position.
func resized(cfg Config, table []float32, oldGrid, newGrid int) []float64 {
	source := func(i int) float64 {
		if cfg.Arch == CLIP {
			return float64(i) * float64(oldGrid-1) / float64(newGrid-1)
		}
		return (float64(i)+0.5)*(float64(oldGrid)/float64(newGrid)) - 0.5
	}
	out := make([]float64, (1+newGrid*newGrid)*cfg.Width)
	for c := range cfg.Width {
		out[c] = float64(table[c])
		for y := range newGrid {
			for x := range newGrid {
				var sum float64
				for row := -4; row < oldGrid+4; row++ {
					for column := -4; column < oldGrid+4; column++ {
						weight := kernel(source(y)-float64(row)) * kernel(source(x)-float64(column))
						r, k := min(max(row, 0), oldGrid-1), min(max(column, 0), oldGrid-1)
						sum += weight * float64(table[(1+r*oldGrid+k)*cfg.Width+c])
					}
				}
				out[(1+y*newGrid+x)*cfg.Width+c] = sum
			}
		}
	}
	return out
}

func TestResizePositions(t *testing.T) {
	for _, arch := range arches() {
		for _, grids := range [][2]int{{4, 7}, {4, 8}, {7, 4}, {5, 2}, {2, 5}, {16, 26}} {
			from, to := grids[0], grids[1]
			cfg := Config{Arch: arch, Width: 3}
			table := draw(uint64(from), (1+from*from)*cfg.Width)
			got, err := ResizePositions(cfg, table, from, to)
			if err != nil {
				t.Fatal(err)
			}
			want := resized(cfg, table, from, to)
			if len(got) != len(want) {
				t.Fatalf("%s %d→%d: %d values, want %d", arch, from, to, len(got), len(want))
			}
			for i, w := range want {
				if d := math.Abs(float64(got[i]) - w); !(d <= 1e-6*max(1, math.Abs(w))) {
					t.Fatalf("%s %d→%d: value %d is %g, want %g", arch, from, to, i, got[i], w)
				}
			}
			if !slices.Equal(got[:cfg.Width], table[:cfg.Width]) {
				t.Errorf("%s %d→%d: the class position changed", arch, from, to)
			}
		}
	}
}

// TestResizeKeeps: equal grids give the table itself, a constant table stays constant, corners stay where they align.
func TestResizeKeeps(t *testing.T) {
	for _, arch := range arches() {
		cfg := Config{Arch: arch, Width: 2}
		table := draw(5, (1+9)*2)
		same, err := ResizePositions(cfg, table, 3, 3)
		if err != nil || !slices.Equal(same, table) {
			t.Errorf("%s 3→3: %v, error %v; want the table", arch, same, err)
		}
		same[0] = 100
		if table[0] == 100 {
			t.Errorf("%s 3→3: the result shares the argument's memory", arch)
		}
		constant := slices.Repeat([]float32{0.3, -2}, 10)
		wide, err := ResizePositions(cfg, constant, 3, 7)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range wide {
			if math.Abs(float64(v-constant[i%2])) > 1e-6 {
				t.Fatalf("%s: a constant table becomes %g at %d", arch, v, i)
			}
		}
	}
	table := draw(5, 1+9)
	wide, err := ResizePositions(Config{Arch: CLIP, Width: 1}, table, 3, 7)
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[int]float32{1: table[1], 7: table[3], 43: table[7], 49: table[9], 25: table[5]} {
		if math.Abs(float64(wide[at]-want)) > 1e-6 {
			t.Errorf("clip: position %d is %g, want the aligned %g", at, wide[at], want)
		}
	}
	if _, err := ResizePositions(Config{Arch: EVA, Width: 1}, table, 4, 7); err == nil ||
		!strings.Contains(err.Error(), "10") || !strings.Contains(err.Error(), "17") {
		t.Errorf("a table of the wrong size: error %v", err)
	}
}
