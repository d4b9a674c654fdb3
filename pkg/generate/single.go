package generate

import "math/rand/v2"

// single is the search with one beam: texts that run side by side without knowing of each other, greedily or drawn.
type single struct {
	options Options
	open    []hypothesis
	number  []int        // of each open text in the result
	rngs    []*rand.Rand // of all texts; nil for greedy search
	out     []Text
}

func newSingle(o Options, row int, start []hypothesis) *single {
	s := &single{options: o, open: start, out: make([]Text, len(start))}
	for i := range start {
		s.number = append(s.number, i)
		if o.Sampling != nil {
			s.rngs = append(s.rngs, o.Sampling.rng(row, i))
		}
	}
	return s
}

func (s *single) running() []hypothesis { return s.open }

func (s *single) texts() []Text { return s.out }

// advance appends a token to every open text and closes those that end with it.
func (s *single) advance(scores [][]float32, _ int) {
	var open []hypothesis
	var number []int
	for i, h := range s.open {
		at := s.number[i]
		var token int32
		if s.rngs != nil {
			token = draw(scores[i], s.rngs[at])
		} else {
			token = largest(scores[i])
		}
		h = h.extend(token, 0)
		s.out[at] = Text{Tokens: h.tokens, Ended: token == s.options.EOS}
		if !s.out[at].Ended {
			open, number = append(open, h), append(number, at)
		}
	}
	s.open, s.number = open, number
}

// written appends the nth tokens of the row's texts.
func (s *single) written(tokens []Token, row, n int) []Token {
	for i, text := range s.out {
		if len(text.Tokens) == n {
			tokens = append(tokens, Token{Row: row, Text: i, ID: text.Tokens[n-1]})
		}
	}
	return tokens
}

// largest returns the index of the largest score, the first among equals.
func largest(scores []float32) int32 {
	best := 0
	for i, v := range scores {
		if v > scores[best] {
			best = i
		}
	}
	return int32(best)
}
