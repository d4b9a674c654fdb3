package config

import "strings"

// Nearest returns the candidate with the smallest edit distance to name, and whether it is close enough to be what
// was meant. Of equally near ones the first wins. It returns "" when there are no candidates.
func Nearest(name string, candidates []string) (best string, near bool) {
	bestDistance := -1
	for _, c := range candidates {
		if d := editDistance(strings.ToLower(name), strings.ToLower(c)); bestDistance < 0 || d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best, bestDistance >= 0 && bestDistance <= max(1, max(len(name), len(best))/3)
}

// editDistance is the number of insertions, deletions, replacements and swaps of neighbours that turn a into b.
// A swap counts once because it is the commonest slip of a typist.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}

// didYouMean is the part of an error message that names the nearest candidate.
func didYouMean(name string, candidates []string) string {
	best, near := Nearest(name, candidates)
	switch {
	case best == "":
		return ""
	case near:
		return "; did you mean " + best + "?"
	}
	return "; the nearest is " + best
}
