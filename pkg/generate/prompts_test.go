package generate

import (
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/recompute"
	"blip2/pkg/model/nn"
)

// prompted is summing behind prompts: a row starts from the sum of its number and its prompt.
func (s summing) prompted(t *testing.T) *CachedProgram {
	t.Helper()
	backend, store := s.open(t)
	p, err := NewCachedProgram(backend, store,
		func(scope *mlx.Scope, in []*graph.Node, room nn.Room) (*graph.Node, []*graph.Node, []*graph.Node) {
			in[1].AssertDims(in[2].Shape().Dimensions...)
			// A token counts for its distance from the end: padding on the right would change that.
			g, dims := in[1].Graph(), in[1].Shape().Dimensions
			distance := graph.MulScalar(graph.AddScalar(graph.Iota(g, in[1].Shape(), 1), -dims[1]), -1)
			tokens := graph.Mul(graph.Mul(in[1], in[2]), distance)
			start := graph.Add(in[0], graph.ReduceSum(graph.Add(tokens, in[2]), 1))
			sums := graph.BroadcastToDims(graph.InsertAxes(start, -1), dims[0], room.Texts)
			return s.line(scope, start), nil, []*graph.Node{sums}
		},
		func(scope *mlx.Scope, _, cache []*graph.Node, parents, tokens *graph.Node) (*graph.Node, []*graph.Node) {
			sums := graph.Add(picked(cache[0], parents), tokens)
			return s.line(scope, sums), []*graph.Node{sums}
		})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// TestContinue: prompts of different length, also longer than the shortest length of a program, stand against the end;
// what is no token is said to be none; and penalties see the prompts.
func TestContinue(t *testing.T) {
	s := summing{vocab: 11}
	p, table, starts := s.prompted(t), slices.Concat(s.table()...), []int32{4, 0, 9}
	for _, prompts := range [][][]int32{{{1}, {2, 3}, {5}}, {{1, 2, 3}, {0}, slices.Repeat([]int32{4}, 13)}} {
		for _, o := range []Options{
			{MaxNewTokens: 7, EOS: 3}, {Beams: 3, Return: 2, MaxNewTokens: 7, EOS: 3, RepetitionPenalty: 1.3},
		} {
			in := []*tensors.Tensor{tensors.FromFlatDataAndDimensions(starts, len(starts))}
			got, err := p.Continue(t.Context(), in, prompts, 19, o)
			if err != nil {
				t.Fatal(err)
			}
			want, err := Generate(t.Context(), &recompute.Model{Prompts: prompts,
				Logits: func(rows []int32, texts [][]int32) (all []float32, _ error) {
					for i, text := range texts {
						sum, prompt := starts[rows[i]], prompts[rows[i]]
						for k, token := range prompt {
							sum += token*int32(len(prompt)-k) + 1
						}
						for _, token := range text[len(prompt):] {
							sum += token
						}
						all = append(all, table[int(sum)%s.vocab*s.vocab:][:s.vocab]...)
					}
					return all, nil
				}}, prompts, o)
			if err != nil {
				t.Fatal(err)
			}
			for r := range want {
				if show(got[r]) != show(want[r]) {
					t.Errorf("%v, %+v, row %d: %s, want %s", prompts, o, r, show(got[r]), show(want[r]))
				}
			}
		}
	}
	if n := p.Stats().Compilations; n != 6 { // the step does not depend on the prompt's length here
		t.Errorf("%d programs, want 4 that read prompts and 2 for steps", n)
	}
}

// TestContinueRefuses what cannot be: the last token needs no position, all others do.
func TestContinueRefuses(t *testing.T) {
	p := summing{vocab: 11}.prompted(t)
	for says, c := range map[string]struct {
		prompts   [][]int32
		positions int
		tokens    int
	}{
		"prompt 1 has no tokens":                             {[][]int32{{1}, {}}, 9, 2},
		"a prompt of 3 and 4 new tokens are more than the 5": {[][]int32{{1}, {1, 2, 3}}, 5, 4},
		"more than the 9 that the model knows":               {[][]int32{{1}, {2}}, 9, 1<<63 - 1},
	} {
		in := []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]int32{0, 0}, 2)}
		_, err := p.Continue(t.Context(), in, c.prompts, c.positions, Options{MaxNewTokens: c.tokens})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
	if got, err := p.Continue(t.Context(), nil, nil, 6, Options{MaxNewTokens: 4}); err != nil || len(got) != 0 {
		t.Errorf("no prompts: %v, %v", got, err)
	}
	in := []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]int32{0}, 1)}
	if _, err := p.Continue(t.Context(), in, [][]int32{{1, 2, 3}}, 6, Options{MaxNewTokens: 4}); err != nil {
		t.Errorf("3 and 4 tokens at 6 positions: %v", err)
	}
}

func TestBucket(t *testing.T) {
	for length, want := range map[int]int{0: 8, 1: 8, 8: 8, 9: 16, 16: 16, 17: 32, 33: 64} {
		if got := bucket(length); got != want {
			t.Errorf("prompts of %d are padded to %d, want %d", length, got, want)
		}
	}
}
