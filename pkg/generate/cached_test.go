package generate

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// summing is a network whose next token follows from the number that a row starts from plus all tokens of the text, so
// that it matters which text a token is appended to.
type summing struct{ vocab int }

// line returns the logits that belong to sums of any shape.
func (s summing) line(scope *mlx.Scope, sums *graph.Node) *graph.Node {
	table := scope.GetVariable("table").NodeValue(sums.Graph())
	return graph.Gather(table, graph.InsertAxes(graph.ModScalar(sums, s.vocab), -1))
}

// program returns the network with a cache: the sums, and a count of the tokens that all texts share.
func (s summing) program(t *testing.T, rooms *[]nn.Room) *CachedProgram {
	t.Helper()
	backend, store := s.open(t)
	p, err := NewCachedProgram(backend, store,
		func(scope *mlx.Scope, in []*graph.Node, room nn.Room) (*graph.Node, []*graph.Node, []*graph.Node) {
			*rooms = append(*rooms, room)
			count, rows := graph.Scalar(in[0].Graph(), dtypes.Int32, 0), in[0].Shape().Dimensions[0]
			sums := graph.BroadcastToDims(graph.InsertAxes(in[0], -1), rows, room.Texts)
			return s.line(scope, in[0]), []*graph.Node{graph.MulScalar(in[0], 0)}, []*graph.Node{sums, count}
		},
		func(scope *mlx.Scope, fixed, cache []*graph.Node, parents, tokens *graph.Node) (*graph.Node, []*graph.Node) {
			dims := parents.Shape().Dimensions
			texts := graph.Iota(parents.Graph(), shapes.Make(dtypes.Int32, dims[0], dims[1], dims[1]), 2)
			chosen := graph.Equal(texts, graph.BroadcastToShape(graph.InsertAxes(parents, -1), texts.Shape()))
			sums := graph.BroadcastToShape(graph.InsertAxes(cache[0], 1), texts.Shape())
			sums = graph.Add(graph.ReduceSum(graph.Where(chosen, sums, graph.ZerosLike(sums)), -1), tokens)
			zero := graph.MulScalar(graph.ReduceAllSum(fixed[0]), 0)
			return s.line(scope, graph.Add(sums, graph.BroadcastToDims(zero, dims...))),
				[]*graph.Node{sums, graph.AddScalar(cache[1], 1)}
		})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// open returns a backend and a store with the table.
func (s summing) open(t *testing.T) (compute.Backend, *mlx.Store) {
	t.Helper()
	store, backend := mlx.NewStore(), openGo(t)
	table := randomChain(8, 1, 1, s.vocab, 2).logits[0][0]
	if err := model.Set(store, "table", []int{s.vocab, s.vocab}, slices.Concat(table...)); err != nil {
		t.Fatal(err)
	}
	return backend, store
}

// TestCachedProgram: with a cache comes out what comes out without one.
func TestCachedProgram(t *testing.T) {
	s := summing{vocab: 11}
	var rooms []nn.Room
	withCache := s.program(t, &rooms)
	backend, store := s.open(t)
	without, err := NewProgram(backend, store,
		func(_ *mlx.Scope, in []*graph.Node) []*graph.Node { return in },
		func(scope *mlx.Scope, encoded []*graph.Node, rows, ids, _ *graph.Node) *graph.Node {
			start := graph.Gather(encoded[0], graph.InsertAxes(rows, -1))
			return s.line(scope, graph.Add(start, graph.ReduceSum(ids, 1))) // padding is 0
		})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(without.Close)
	starts := []int32{4, 0, 9}
	prompts := [][]int32{nil, nil, nil}
	for _, o := range []Options{
		{MaxNewTokens: 9, EOS: 3}, {Beams: 3, Return: 3, MaxNewTokens: 9, EOS: 3, LengthPenalty: 1},
		{Beams: 4, Return: 2, MaxNewTokens: 8, EOS: 5, RepetitionPenalty: 1.3, LenRule: LenRulePaper},
		{Return: 2, MaxNewTokens: 12, EOS: 3, Sampling: &Sampling{TopK: 5}},
	} {
		in := []*tensors.Tensor{tensors.FromFlatDataAndDimensions(starts, len(starts))}
		got, err := withCache.Generate(t.Context(), in, prompts, o)
		if err != nil {
			t.Fatal(err)
		}
		in = []*tensors.Tensor{tensors.FromFlatDataAndDimensions(starts, len(starts))}
		want, err := without.Generate(t.Context(), Input{Tensors: in, Prompts: prompts, MaxLength: 20}, o)
		if err != nil {
			t.Fatal(err)
		}
		for r := range want {
			if show(got[r]) != show(want[r]) {
				t.Errorf("%+v, row %d: %s, want %s", o, r, show(got[r]), show(want[r]))
			}
		}
	}
	if !slices.Equal(rooms, []nn.Room{{Tokens: 16, Texts: 1}, {Tokens: 16, Texts: 3}, {Tokens: 8, Texts: 4},
		{Tokens: 16, Texts: 2}}) {
		t.Errorf("programs for %v, want 16 tokens for 9 and 12, and 8 for 8", rooms)
	}
}

// TestCachedErrors: what the network does wrong becomes an error.
func TestCachedErrors(t *testing.T) {
	backend, store := summing{vocab: 4}.open(t)
	broken := float32(math.NaN())
	p, err := NewCachedProgram(backend, store,
		func(_ *mlx.Scope, in []*graph.Node, _ nn.Room) (*graph.Node, []*graph.Node, []*graph.Node) {
			return graph.MulScalar(in[0], broken), nil, in[:1]
		},
		func(_ *mlx.Scope, _, cache []*graph.Node, _, _ *graph.Node) (*graph.Node, []*graph.Node) {
			return cache[0], cache
		})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	for _, beams := range []int{1, 2} {
		in := []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]float32{1, 2, 3, 4}, 1, 4)}
		if _, err := p.Generate(t.Context(), in, [][]int32{nil}, Options{Beams: beams, MaxNewTokens: 2}); err == nil ||
			!strings.Contains(err.Error(), "not a number") {
			t.Errorf("%d beams: error %v", beams, err)
		}
	}
	in := []*tensors.Tensor{tensors.FromFlatDataAndDimensions([]float32{1, 2, 3}, 3)}
	if _, err := p.Generate(t.Context(), in, [][]int32{nil, nil}, Options{MaxNewTokens: 2}); err == nil ||
		!strings.Contains(err.Error(), "3 logits for 2 rows") {
		t.Errorf("error %v", err)
	}
}

// TestLogProbs: one logit that is no finite number makes all of its text no number, on both kinds of backends, and no
// other text.
func TestLogProbs(t *testing.T) {
	t.Run("go", func(t *testing.T) { checkLogProbs(t, graphtest.Open(t, "go")) })
	t.Run("xla", func(t *testing.T) { checkLogProbs(t, graphtest.OpenXLA(t)) })
}

func checkLogProbs(t *testing.T, backend compute.Backend) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	logits := []float32{1, 2, 3, 4, nan, 1, 2, 3, 1, 2, inf, 3, -inf, -inf, -inf, -inf, 5, -inf, 5, 5}
	out := graphtest.Run(t, backend, mlx.NewStore(), func(_ *mlx.Scope, in []*graph.Node) []*graph.Node {
		return []*graph.Node{logProbsOf(in[0])}
	}, tensors.FromFlatDataAndDimensions(logits, 5, 4))[0]
	for row, want := range [][]float64{{-3.4401897, -2.4401897, -1.4401897, -0.4401897}, nil, nil, nil,
		{-1.0986123, math.Inf(-1), -1.0986123, -1.0986123}} {
		for i, v := range out[4*row:][:4] {
			got := float64(v)
			if want == nil && math.IsNaN(got) || want != nil && (got == want[i] || math.Abs(got-want[i]) < 1e-6) {
				continue
			}
			t.Errorf("text %d: %v, want %v", row, out[4*row:][:4], want)
			break
		}
	}
}

// TestLogProbsOfManyTokens: the sum over a large vocabulary is exact to some parts in a million.
func TestLogProbsOfManyTokens(t *testing.T) {
	const vocab = 50272
	logits := graphtest.Normals(3, vocab, 0.5)
	logits[7] = 12
	sum := 0.0
	for _, v := range logits {
		sum += math.Exp(float64(v))
	}
	out := graphtest.Run(t, graphtest.Open(t, "go"), mlx.NewStore(), func(_ *mlx.Scope, in []*graph.Node) []*graph.Node {
		return []*graph.Node{logProbsOf(in[0])}
	}, tensors.FromFlatDataAndDimensions(logits, 1, vocab))[0]
	if got, want := float64(out[7]), 12-math.Log(sum); math.Abs(got-want) > 3e-6 {
		t.Errorf("log-probability %.8f, want %.8f", got, want)
	}
}
