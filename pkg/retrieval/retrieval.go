// Package retrieval computes image–text retrieval recall from score matrices (spec/evaluation.md 4).
package retrieval

import (
	"cmp"
	"slices"
)

// Scores are recalls in percent, 0 to 100.
type Scores struct{ R1, R5, R10 float64 }

// Recall ranks the candidates of every query by score, best first, and returns how often one of the query's own
// candidates is among the first 1, 5 and 10. scores is [queries][candidates], own lists the right candidates of every
// query. Equal scores rank in the order of the candidates, and a score that is not a number ranks last.
func Recall(scores [][]float32, own [][]int) Scores {
	if len(scores) == 0 {
		return Scores{}
	}
	var hits [3]int
	for q, row := range scores {
		rank := bestRank(row, own[q])
		for i, k := range cutoffs {
			if rank >= 0 && rank < k {
				hits[i]++
			}
		}
	}
	share := func(n int) float64 { return 100 * float64(n) / float64(len(scores)) }
	return Scores{share(hits[0]), share(hits[1]), share(hits[2])}
}

// cutoffs are the K of R@K.
var cutoffs = [3]int{1, 5, 10}

// bestRank is the rank, from 0, of the best-ranked own candidate; −1 without any.
func bestRank(row []float32, own []int) int {
	if len(own) == 0 {
		return -1
	}
	best := own[0]
	for _, c := range own[1:] {
		if before(row, c, best) {
			best = c
		}
	}
	rank := 0
	for other := range row {
		if before(row, other, best) {
			rank++
		}
	}
	return rank
}

// before says whether candidate a ranks before b. cmp.Compare, because a NaN compares as neither better nor worse: a
// model that diverged would be perfect.
func before(row []float32, a, b int) bool {
	order := cmp.Compare(row[a], row[b])
	return order > 0 || order == 0 && a < b
}

// Chance returns what a random ranking scores on average: with n candidates of which m are the query's own, the share
// of queries with a hit among the first k is 1 − C(n−m, k)/C(n, k).
func Chance(candidates int, own [][]int) Scores {
	if len(own) == 0 {
		return Scores{}
	}
	var sum [3]float64
	for _, mine := range own {
		for i, k := range cutoffs {
			sum[i] += 1 - missProbability(candidates, len(mine), k)
		}
	}
	n := float64(len(own))
	return Scores{100 * sum[0] / n, 100 * sum[1] / n, 100 * sum[2] / n}
}

// missProbability is the chance that k of n candidates, drawn without replacement, contain none of m.
func missProbability(n, m, k int) float64 {
	p := 1.0
	for i := range min(k, n) {
		p *= max(0, float64(n-m-i)) / float64(n-i)
	}
	return p
}

// TopK returns the indices of the k highest scores, best first; equal scores in the order of the candidates, scores
// that are not numbers last.
func TopK(row []float32, k int) []int {
	order := make([]int, len(row))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(row[b], row[a]) })
	return order[:min(k, len(order))]
}

// NotRanked is the score of a candidate that did not reach the second, ITM, round.
const NotRanked = -100

// Matrix makes a matrix of rows×columns with every element set to v.
func Matrix(rows, columns int, v float32) [][]float32 {
	m := make([][]float32, rows)
	for i := range m {
		m[i] = make([]float32, columns)
		for j := range m[i] {
			m[i][j] = v
		}
	}
	return m
}

// Transpose returns the matrix with rows and columns exchanged.
func Transpose(m [][]float32) [][]float32 {
	if len(m) == 0 {
		return nil
	}
	out := Matrix(len(m[0]), len(m), 0)
	for i, row := range m {
		for j, v := range row {
			out[j][i] = v
		}
	}
	return out
}
