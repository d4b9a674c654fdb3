package retrieval

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
)

// nan is the score of a model that diverged.
func nan() float32 { return float32(math.NaN()) }

func TestRecall(t *testing.T) {
	descending := make([]float32, 12) // candidate c has rank c
	for c := range descending {
		descending[c] = float32(-c)
	}
	for name, tt := range map[string]struct {
		scores [][]float32
		own    [][]int
		want   Scores
	}{
		"no query":         {nil, nil, Scores{}},
		"no candidate":     {[][]float32{{}}, [][]int{nil}, Scores{}},
		"no own candidate": {[][]float32{{3, 2}, {1, 2}}, [][]int{nil, {1}}, Scores{50, 50, 50}},
		"ranks 0, 1, 4, 9, 10": {[][]float32{descending, descending, descending, descending, descending},
			[][]int{{0}, {1}, {4}, {9}, {10}}, Scores{20, 60, 80}},
		"the best own one counts": {[][]float32{descending}, [][]int{{11, 7, 3}}, Scores{0, 100, 100}},
		"fewer candidates than K": {[][]float32{{1, 2, 3}}, [][]int{{0}}, Scores{0, 100, 100}},
		"ties rank in order":      {[][]float32{{5, 5, 5}, {5, 5, 5}}, [][]int{{0}, {1}}, Scores{50, 100, 100}},
		"unranked ones tie": {[][]float32{{NotRanked, 1, NotRanked}, {NotRanked, 1, NotRanked}},
			[][]int{{1}, {2}}, Scores{50, 100, 100}},
		"not a number ranks last": {[][]float32{{nan(), 1}, {nan(), -1e30}}, [][]int{{0}, {0}}, Scores{0, 100, 100}},
		"infinities are numbers": {[][]float32{{float32(math.Inf(-1)), nan()}}, [][]int{{0}},
			Scores{100, 100, 100}},
	} {
		if got := Recall(tt.scores, tt.own); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

// TestRecallOfNothing: a model whose scores say nothing is not better than chance.
func TestRecallOfNothing(t *testing.T) {
	const n = 40
	own := make([][]int, n)
	for q := range own {
		own[q] = []int{q}
	}
	for name, v := range map[string]float32{"equal": 0.5, "not numbers": nan()} {
		if got, want := Recall(Matrix(n, n, v), own), (Scores{2.5, 12.5, 25}); got != want {
			t.Errorf("scores that are all %s: %v, chance is %v", name, got, want)
		}
	}
}

// TestRecallAgainstSorting compares with sorting every row.
func TestRecallAgainstSorting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		queries, candidates := 1+rng.IntN(20), 1+rng.IntN(30)
		scores, own := Matrix(queries, candidates, 0), make([][]int, queries)
		var hits [3]float64
		for q, row := range scores {
			for c := range row {
				row[c] = float32(rng.IntN(12)) // many ties
			}
			own[q] = rng.Perm(candidates)[:rng.IntN(min(candidates, 5)+1)]
			order := TopK(row, candidates)
			for i, k := range []int{1, 5, 10} {
				found := slices.ContainsFunc(order[:min(k, candidates)], func(c int) bool { return slices.Contains(own[q], c) })
				if found {
					hits[i] += 100 / float64(queries)
				}
			}
		}
		got := Recall(scores, own)
		for i, v := range []float64{got.R1, got.R5, got.R10} {
			if math.Abs(v-hits[i]) > 1e-9 {
				t.Fatalf("%d queries, %d candidates: %v, sorting gives %v", queries, candidates, got, hits)
			}
		}
	}
}

// TestChanceAgainstCounting goes through all rankings of a few candidates.
func TestChanceAgainstCounting(t *testing.T) {
	const candidates = 7
	own := [][]int{{0}, {1, 2}, {3, 4, 5}, nil, {0, 1, 2, 3, 4, 5, 6}}
	var sum [3]float64
	rankings := 0
	permutations(candidates, func(order []int) {
		rankings++
		for _, mine := range own {
			for i, k := range []int{1, 5, 10} {
				if slices.ContainsFunc(order[:min(k, candidates)], func(c int) bool { return slices.Contains(mine, c) }) {
					sum[i]++
				}
			}
		}
	})
	got := Chance(candidates, own)
	for i, v := range []float64{got.R1, got.R5, got.R10} {
		if want := 100 * sum[i] / float64(rankings*len(own)); math.Abs(v-want) > 1e-9 {
			t.Errorf("cut-off %d: %v, counting gives %v", i, v, want)
		}
	}
	if got := Chance(100, [][]int{{7}}); math.Abs(got.R1-1) > 1e-12 || math.Abs(got.R10-10) > 1e-12 {
		t.Errorf("one of 100: %v", got)
	}
	if got := Chance(100, nil); got != (Scores{}) {
		t.Errorf("without queries: %v", got)
	}
}

// permutations calls f with every order of 0 … n−1.
func permutations(n int, f func([]int)) {
	order := make([]int, 0, n)
	used := make([]bool, n)
	var extend func()
	extend = func() {
		if len(order) == n {
			f(order)
			return
		}
		for c := range n {
			if used[c] {
				continue
			}
			used[c], order = true, append(order, c)
			extend()
			used[c], order = false, order[:len(order)-1]
		}
	}
	extend()
}

func TestTopK(t *testing.T) {
	for name, tt := range map[string]struct {
		row  []float32
		k    int
		want []int
	}{
		"best first":           {[]float32{0.1, 0.9, 0.5}, 2, []int{1, 2}},
		"ties in order":        {[]float32{1, 2, 2, 1, 2}, 4, []int{1, 2, 4, 0}},
		"all":                  {[]float32{1, 3, 2}, 3, []int{1, 2, 0}},
		"more than there are":  {[]float32{1, 3}, 16, []int{1, 0}},
		"none":                 {[]float32{1, 3}, 0, []int{}},
		"of nothing":           {nil, 5, []int{}},
		"not a number is last": {[]float32{nan(), -3, nan(), 4}, 4, []int{3, 1, 0, 2}},
	} {
		if got := TopK(tt.row, tt.k); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
	rng := rand.New(rand.NewPCG(3, 4))
	row := make([]float32, 200)
	for i := range row {
		row[i] = rng.Float32()
	}
	best := TopK(row, 10)
	sorted := slices.Clone(row)
	sort.Slice(sorted, func(a, b int) bool { return sorted[a] > sorted[b] })
	for i, c := range best {
		if row[c] != sorted[i] {
			t.Fatalf("place %d: %g, want %g", i, row[c], sorted[i])
		}
	}
}

func TestTranspose(t *testing.T) {
	m := Matrix(2, 3, 0)
	for i := range m {
		for j := range m[i] {
			m[i][j] = float32(10*i + j)
		}
	}
	got := Transpose(m)
	want := [][]float32{{0, 10}, {1, 11}, {2, 12}}
	if !slices.EqualFunc(got, want, slices.Equal[[]float32]) {
		t.Errorf("%v, want %v", got, want)
	}
	if !slices.EqualFunc(Transpose(got), m, slices.Equal[[]float32]) {
		t.Error("transposing twice changes the matrix")
	}
	if Transpose(nil) != nil {
		t.Error("nothing has a transpose")
	}
}
