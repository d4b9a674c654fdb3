package shard

import (
	"fmt"
	"strconv"
	"strings"
)

// maxExpanded bounds the names that a pattern with braces may stand for, and maxExpandedBytes their total length.
const (
	maxExpanded      = 1 << 20
	maxExpandedBytes = 1 << 27
)

// maxBraces bounds nesting, and maxPattern the length of a pattern.
const (
	maxBraces  = 20
	maxPattern = 64 << 10
)

// Expand writes out the braces of a pattern as a shell does: {a,b} is either, {08..11} counts with the zeros, {0..9..3}
// counts in steps, {c..a} are letters, and braces may stand inside braces. Braces that are none of these stay as they
// are, and so does what follows a backslash.
func Expand(pattern string) ([]string, error) {
	return expandTo(pattern, maxExpanded)
}

// expandTo is Expand to so many names.
func expandTo(pattern string, most int) ([]string, error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("shard: %.200s…: the pattern is longer than %d bytes", pattern, maxPattern)
	}
	names, err := expand(pattern, 0, most)
	if err != nil {
		return nil, fmt.Errorf("shard: %.200s: %w", pattern, err)
	}
	if strings.Contains(pattern, `\`) {
		escapes := strings.NewReplacer(`\{`, "{", `\}`, "}", `\,`, ",")
		for i, name := range names {
			names[i] = escapes.Replace(name)
		}
	}
	return names, nil
}

func expand(s string, depth, most int) ([]string, error) {
	if depth > maxBraces {
		return nil, fmt.Errorf("braces are nested more than %d deep", maxBraces)
	}
	results := []string{""}
	for s != "" {
		open, end, parts := firstBrace(s)
		choices := []string{""}
		if parts != nil {
			var err error
			if choices, err = expandParts(parts, depth, most); err != nil {
				return nil, err
			}
		}
		if len(results)*len(choices) > most {
			return nil, tooMany(most)
		}
		size := len(choices) * len(results) * open
		for _, left := range results {
			size += len(choices) * len(left)
		}
		for _, choice := range choices {
			size += len(results) * len(choice)
		}
		if size > maxExpandedBytes {
			return nil, fmt.Errorf("the names that it stands for are too long altogether")
		}
		joined := make([]string, 0, len(results)*len(choices))
		for _, left := range results {
			for _, choice := range choices {
				joined = append(joined, left+s[:open]+choice)
			}
		}
		results, s = joined, s[end:]
	}
	return results, nil
}

func tooMany(most int) error { return fmt.Errorf("it stands for more than %d names", most) }

// firstBrace finds the first pair of braces that means something: s[open:end], and what stands between its commas, or
// the two or three parts of a range. Without one, open and end are the length of s.
func firstBrace(s string) (open, end int, parts []string) {
	var starts []int
	var commas [][]int
	best := -1
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '{':
			starts, commas = append(starts, i), append(commas, nil)
		case ',':
			if n := len(commas); n > 0 {
				commas[n-1] = append(commas[n-1], i)
			}
		case '}':
			n := len(starts) - 1
			if n < 0 {
				continue
			}
			start, cuts := starts[n], commas[n]
			starts, commas = starts[:n], commas[:n]
			if found := split(s, start, i, cuts); found != nil && (best < 0 || start < best) {
				best, open, end, parts = start, start, i+1, found
			}
			if best >= 0 && (len(starts) == 0 || starts[0] > best) {
				return open, end, parts
			}
		}
	}
	if best < 0 {
		return len(s), len(s), nil
	}
	return open, end, parts
}

// split gives the choices between the braces at start and end; nil if they are none.
func split(s string, start, end int, commas []int) []string {
	if len(commas) == 0 {
		if _, ok := parseRange(s[start+1 : end]); ok {
			return []string{s[start+1 : end]}
		}
		return nil
	}
	var parts []string
	from := start + 1
	for _, at := range append(commas, end) {
		parts = append(parts, s[from:at])
		from = at + 1
	}
	return parts
}

func expandParts(parts []string, depth, most int) ([]string, error) {
	if r, ok := parseRange(parts[0]); ok && len(parts) == 1 {
		return r.names(most)
	}
	var all []string
	for _, part := range parts {
		names, err := expand(part, depth+1, most)
		if err != nil {
			return nil, err
		}
		if all = append(all, names...); len(all) > most {
			return nil, tooMany(most)
		}
	}
	return all, nil
}

// countRange is {from..to..step}.
type countRange struct {
	from, to, step int64
	width          int // digits, with a sign's place; 0 for as many as needed
	letters        bool
}

func parseRange(s string) (countRange, bool) {
	parts := strings.Split(s, "..")
	if len(parts) != 2 && len(parts) != 3 {
		return countRange{}, false
	}
	r := countRange{step: 1}
	if len(parts) == 3 {
		step, err := strconv.ParseInt(parts[2], 10, 32)
		if err != nil {
			return r, false
		}
		r.step = max(step, -step, 1)
	}
	if isLetter(parts[0]) && isLetter(parts[1]) {
		r.from, r.to, r.letters = int64(parts[0][0]), int64(parts[1][0]), true
		return r, true
	}
	var err1, err2 error
	r.from, err1 = strconv.ParseInt(parts[0], 10, 48)
	r.to, err2 = strconv.ParseInt(parts[1], 10, 48)
	if err1 != nil || err2 != nil || parts[0][0] == '+' || parts[1][0] == '+' {
		return r, false
	}
	if isPadded(parts[0]) || isPadded(parts[1]) {
		r.width = max(len(parts[0]), len(parts[1]))
	}
	return r, r.width <= 32
}

func isLetter(s string) bool {
	return len(s) == 1 && 'a' <= s[0]|0x20 && s[0]|0x20 <= 'z'
}

func isPadded(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return len(s) > 1 && s[0] == '0'
}

func (r countRange) names(most int) ([]string, error) {
	step := r.step
	n := (r.to-r.from)/step + 1
	if r.to < r.from {
		n, step = (r.from-r.to)/step+1, -step
	}
	if n > int64(most) {
		return nil, tooMany(most)
	}
	names := make([]string, n)
	for i := range names {
		v := r.from + int64(i)*step
		if r.letters {
			names[i] = string(rune(v))
		} else {
			names[i] = fmt.Sprintf("%0*d", r.width, v)
		}
	}
	return names, nil
}
