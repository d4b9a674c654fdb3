package graphtest

import "math/rand/v2"

// Tree is a made-up search for texts: every row has a number of them, and at each step each text goes on from one of
// its row's texts of the step before and gets one more token.
type Tree struct {
	Rows, Texts, Steps int
	Parents            [][]int32 // by step, [rows · texts]: number of the text within its row
	Tokens             [][]int32 // by step, [rows · texts]
}

// NewTree draws a search over tokens from 1 to vocab-1. At the first step all texts go on from the row's first.
func NewTree(seed uint64, rows, texts, steps, vocab int) Tree {
	rng := rand.New(rand.NewPCG(seed, 0))
	t := Tree{Rows: rows, Texts: texts, Steps: steps}
	for step := range steps {
		parents, tokens := make([]int32, rows*texts), make([]int32, rows*texts)
		for i := range parents {
			if step > 0 {
				parents[i] = rng.Int32N(int32(texts))
			}
			tokens[i] = 1 + rng.Int32N(int32(vocab-1))
		}
		t.Parents, t.Tokens = append(t.Parents, parents), append(t.Tokens, tokens)
	}
	return t
}

// Text returns the tokens of a row's text behind the prompt, after the given step, counted from 0.
func (t Tree) Text(step, row, text int) []int32 {
	out := make([]int32, step+1)
	for ; step >= 0; step-- {
		at := row*t.Texts + text
		out[step], text = t.Tokens[step][at], int(t.Parents[step][at])
	}
	return out
}

// Whole returns all texts after all steps, step after step, row after row: ids [texts, prompt+steps] of what each begins
// with, prompts [rows][prompt], and its tokens, then zeros; and how many there are of each.
func (t Tree) Whole(prompts [][]int32) (ids []int32, lengths []int) {
	for step := range t.Steps {
		for row := range t.Rows {
			for text := range t.Texts {
				whole := append(append([]int32{}, prompts[row]...), t.Text(step, row, text)...)
				lengths = append(lengths, len(whole))
				ids = append(append(ids, whole...), make([]int32, t.Steps-step-1)...)
			}
		}
	}
	return ids, lengths
}
