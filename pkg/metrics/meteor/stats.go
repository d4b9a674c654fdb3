package meteor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// METEOR 1.5's parameters for English, task "rank".
const (
	alpha = 0.85
	beta  = 0.2
	gamma = 0.6
	delta = 0.75 // weight of content words; 1 − delta is that of function words
)

// Counts are words matched by one matcher.
type Counts struct{ CandContent, RefContent, CandFunction, RefFunction float64 }

// Stats are METEOR's statistics of a candidate and its best reference, in words, or sums of them.
type Stats struct {
	CandLen, RefLen           float64
	CandFunction, RefFunction float64          // function words among them
	Matches                   [matchers]Counts // exact, stem, synonym, paraphrase
	Chunks                    float64
	CandMatched, RefMatched   float64
}

// fields are the statistics in the order in which METEOR prints them.
func (s *Stats) fields() []*float64 {
	f := []*float64{&s.CandLen, &s.RefLen, &s.CandFunction, &s.RefFunction}
	for i := range s.Matches {
		m := &s.Matches[i]
		f = append(f, &m.CandContent, &m.RefContent, &m.CandFunction, &m.RefFunction)
	}
	return append(f, &s.Chunks, &s.CandMatched, &s.RefMatched)
}

// String prints the 23 numbers as METEOR answers a SCORE line.
func (s Stats) String() string {
	var b strings.Builder
	for i, v := range s.fields() {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(javaDouble(*v))
	}
	return b.String()
}

// javaDouble prints a number as Java does: 10.0, and 1.0E7 from ten millions on.
func javaDouble(v float64) string {
	if math.Abs(v) < 1e7 {
		text := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(text, ".") {
			text += ".0"
		}
		return text
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(v, 'e', -1, 64), "e+")
	if !strings.Contains(mantissa, ".") {
		mantissa += ".0"
	}
	return mantissa + "E" + strings.TrimLeft(exponent, "0")
}

// ParseStats reads what String prints.
func ParseStats(line string) (Stats, error) {
	var s Stats
	fields := s.fields()
	words := strings.Fields(line)
	if len(words) != len(fields) {
		return s, fmt.Errorf("METEOR statistics have %d numbers, not %d", len(fields), len(words))
	}
	for i, w := range words {
		v, err := strconv.ParseFloat(w, 64)
		if err != nil {
			return s, fmt.Errorf("METEOR statistics: %q is no number", w)
		}
		*fields[i] = v
	}
	return s, nil
}

// whole says whether all words of both sides are matched in one chunk, which counts as no fragmentation at all.
func (s Stats) whole() bool {
	return s.Chunks == 1 && s.CandMatched == s.CandLen && s.RefMatched == s.RefLen
}

// Add sums statistics for the score of a corpus.
func (s *Stats) Add(other Stats) {
	if other.whole() {
		other.Chunks = 0
	}
	mine, others := s.fields(), other.fields()
	for i := range mine {
		*mine[i] += *others[i]
	}
}

// Score is METEOR, from 0 to 1.
func (s Stats) Score() float64 {
	if s.whole() {
		s.Chunks = 0
	}
	var cand, ref float64
	for i, m := range s.Matches {
		cand += weights[i] * (delta*m.CandContent + (1-delta)*m.CandFunction)
		ref += weights[i] * (delta*m.RefContent + (1-delta)*m.RefFunction)
	}
	p := ratio(cand, delta*(s.CandLen-s.CandFunction)+(1-delta)*s.CandFunction)
	r := ratio(ref, delta*(s.RefLen-s.RefFunction)+(1-delta)*s.RefFunction)
	if p == 0 || r == 0 {
		return 0
	}
	mean := 1 / ((1-alpha)/p + alpha/r)
	fragmentation := ratio(s.Chunks, (s.CandMatched+s.RefMatched)/2)
	return mean * (1 - gamma*math.Pow(fragmentation, beta))
}

// ratio is a/b, 0 where b is.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
