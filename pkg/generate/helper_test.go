package generate

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
)

// chain is a model whose next token depends on the row, the last token and how many tokens there are: logits
// [row][length][last token][token], the last token of an empty text being 0.
type chain struct {
	logits [][][][]float32
	rows   []int
	texts  [][]int32
	steps  int
}

// randomChain draws a chain; spread is the standard deviation of its logits.
func randomChain(seed uint64, rows, lengths, vocab int, spread float64) *chain {
	rng := rand.New(rand.NewPCG(seed, 1))
	c := &chain{}
	for range rows {
		var row [][][]float32
		for range lengths {
			var table [][]float32
			for range vocab {
				line := make([]float32, vocab)
				for i := range line {
					line[i] = float32(spread * rng.NormFloat64())
				}
				table = append(table, line)
			}
			row = append(row, table)
		}
		c.logits = append(c.logits, row)
	}
	return c
}

// fixed is a chain of one row whose logits are the logarithms of the given chances, by last token only.
func fixed(lengths int, chances ...[]float64) *chain {
	var table [][]float32
	for _, line := range chances {
		var logits []float32
		for _, p := range line {
			logits = append(logits, float32(math.Log(p)))
		}
		table = append(table, logits)
	}
	c := &chain{logits: [][][][]float32{nil}}
	for range lengths {
		c.logits[0] = append(c.logits[0], table)
	}
	return c
}

// next returns a copy of the logits behind a text of generated tokens.
func (c *chain) next(row int, text []int32) []float32 {
	last := int32(0)
	if len(text) > 0 {
		last = text[len(text)-1]
	}
	return append([]float32{}, c.logits[row][len(text)][last]...)
}

func (c *chain) all() []float32 {
	var out []float32
	for i, text := range c.texts {
		out = append(out, c.next(c.rows[i], text)...)
	}
	return out
}

func (c *chain) Start(context.Context) ([]float32, error) {
	c.rows, c.texts, c.steps = nil, nil, 0
	for i := range c.logits {
		c.rows, c.texts = append(c.rows, i), append(c.texts, nil)
	}
	return c.all(), nil
}

func (c *chain) Step(_ context.Context, parents []int, tokens []int32) ([]float32, error) {
	c.steps++
	var rows []int
	var texts [][]int32
	for i, p := range parents {
		rows = append(rows, c.rows[p])
		texts = append(texts, append(append([]int32{}, c.texts[p]...), tokens[i]))
	}
	c.rows, c.texts = rows, texts
	return c.all(), nil
}

// prompts are empty ones for every row.
func (c *chain) prompts() [][]int32 { return make([][]int32, len(c.logits)) }

// generated runs the search and fails the test on an error.
func generated(t *testing.T, c *chain, prompts [][]int32, o Options) [][]Text {
	t.Helper()
	out, err := Generate(t.Context(), c, prompts, o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// show writes texts with their scores.
func show(texts []Text) string {
	s := ""
	for _, x := range texts {
		s += fmt.Sprintf("%v %v %.5f %.5f; ", x.Tokens, x.Ended, x.LogProb, x.Score)
	}
	return s
}

// openGo opens the Go backend for the test.
func openGo(t *testing.T) compute.Backend {
	t.Helper()
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	return backend
}
