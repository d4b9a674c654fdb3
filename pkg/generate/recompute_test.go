package generate

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
)

// TestRecompute: a text's successors follow its ids, and batches keep their size.
func TestRecompute(t *testing.T) {
	var got Batch
	m := Recompute([][]int32{{5, 6}, {7}}, 2, 20, func(_ context.Context, b Batch) ([]float32, error) {
		got = b
		logits := make([]float32, 3*len(b.Rows))
		for i := range logits {
			logits[i] = float32(i)
		}
		return logits, nil
	})
	check := func(step string, logits []float32, texts int, b Batch) {
		t.Helper()
		if len(logits) != 3*texts || !slices.Equal(got.Rows, b.Rows) || !slices.Equal(got.Lengths, b.Lengths) ||
			got.Length != b.Length || !slices.Equal(got.IDs, b.IDs) {
			t.Errorf("%s: %d logits, batch %+v, want %d texts, batch %+v", step, len(logits), got, texts, b)
		}
	}
	ids := func(length int, texts ...[]int32) []int32 {
		out := make([]int32, len(texts)*length)
		for i, text := range texts {
			copy(out[i*length:], text)
		}
		return out
	}
	ctx := t.Context()
	logits, err := m.Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	check("start", logits, 2, Batch{Rows: []int32{0, 1, 0, 0}, Lengths: []int32{2, 1, 2, 2}, Length: 8,
		IDs: ids(8, []int32{5, 6}, []int32{7}, []int32{5, 6}, []int32{5, 6})})
	if logits, err = m.Step(ctx, []int{0, 0, 1, 1}, []int32{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	check("step", logits, 4, Batch{Rows: []int32{0, 0, 1, 1}, Lengths: []int32{3, 3, 2, 2}, Length: 8,
		IDs: ids(8, []int32{5, 6, 1}, []int32{5, 6, 2}, []int32{7, 3}, []int32{7, 4})})
	if logits, err = m.Step(ctx, []int{3, 2}, []int32{8, 9}); err != nil {
		t.Fatal(err)
	}
	check("row 0 done, row 1 turned round", logits, 2, Batch{Rows: []int32{1, 1, 1, 1}, Lengths: []int32{3, 3, 3, 3},
		Length: 8, IDs: ids(8, []int32{7, 4, 8}, []int32{7, 3, 9}, []int32{7, 4, 8}, []int32{7, 4, 8})})
}

func TestBucket(t *testing.T) {
	for length, want := range map[int]int{0: 8, 1: 8, 8: 8, 9: 16, 16: 16, 17: 32, 33: 64} {
		if got := bucket(length); got != want {
			t.Errorf("texts of %d are padded to %d, want %d", length, got, want)
		}
	}
}

func TestRecomputeErrors(t *testing.T) {
	wrong := errors.New("no memory")
	for says, m := range map[string]Model{
		"longer than the 3": Recompute([][]int32{{1, 2, 3, 4}}, 1, 3, nil),
		"no memory": Recompute([][]int32{{1}}, 1, 3, func(context.Context, Batch) ([]float32, error) {
			return nil, wrong
		}),
		"3 logits for 2 texts": Recompute([][]int32{{1}}, 2, 3, func(context.Context, Batch) ([]float32, error) {
			return []float32{1, 2, 3}, nil
		}),
	} {
		if _, err := Generate(t.Context(), m, [][]int32{nil}, Options{MaxNewTokens: 2}); err == nil ||
			!strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
	narrow := Recompute([][]int32{{1}}, 1, 9, func(_ context.Context, b Batch) ([]float32, error) {
		return []float32{1, 2, 3}, nil
	})
	if _, err := Generate(t.Context(), narrow, [][]int32{nil}, Options{Beams: 2, MaxNewTokens: 2}); err == nil ||
		!strings.Contains(err.Error(), "2 texts for 1 rows") {
		t.Errorf("more beams than the model has places for: error %v", err)
	}
}

// TestProgram runs a network whose next token follows from the sum of the row's bias and what the last token says, and
// compares it with the same on the host.
func TestProgram(t *testing.T) {
	const rows, vocab = 3, 12
	host := randomChain(4, rows, 1, vocab, 2)
	table := slices.Concat(host.logits[0][0]...)
	bias := slices.Concat(host.logits[1][0][0], host.logits[1][0][1], host.logits[1][0][2])
	want := &chain{}
	for r := range rows {
		var lines [][]float32
		for token := range vocab {
			line := slices.Clone(table[token*vocab:][:vocab])
			for i := range line {
				line[i] += 2 * bias[r*vocab+i]
			}
			lines = append(lines, line)
		}
		want.logits = append(want.logits, slices.Repeat([][][]float32{lines}, 20))
	}
	store := mlx.NewStore()
	if err := model.Set(store, "table", []int{vocab, vocab}, table); err != nil {
		t.Fatal(err)
	}
	encodings := 0
	p, err := NewProgram(openGo(t), store,
		func(_ *mlx.Scope, in []*graph.Node) []*graph.Node {
			encodings++
			return []*graph.Node{graph.MulScalar(in[0], 2)}
		},
		func(scope *mlx.Scope, encoded []*graph.Node, rows, ids, lengths *graph.Node) *graph.Node {
			at := graph.OneHot(graph.AddScalar(lengths, -1), ids.Shape().Dimensions[1], dtypes.Int32)
			last := graph.ReduceSum(graph.Mul(ids, at), 1)
			lines := graph.Gather(scope.GetVariable("table").NodeValue(ids.Graph()), graph.InsertAxes(last, -1))
			return graph.Add(lines, graph.Gather(encoded[0], graph.InsertAxes(rows, -1)))
		})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	in := Input{Tensors: []*tensors.Tensor{tensors.FromFlatDataAndDimensions(bias, rows, vocab)},
		Prompts: [][]int32{{9, 0}, {0}, {4, 5, 0}}, MaxLength: 18}
	for _, o := range []Options{
		{MaxNewTokens: 12, EOS: 3}, {Beams: 3, Return: 2, MaxNewTokens: 12, EOS: 3, LengthPenalty: 1},
		{Beams: 2, MaxNewTokens: 12, EOS: 3, RepetitionPenalty: 1.4},
	} {
		for range 2 {
			got, err := p.Generate(t.Context(), in, o)
			if err != nil {
				t.Fatal(err)
			}
			for r, texts := range generated(t, want, in.Prompts, o) {
				if show(got[r]) != show(texts) {
					t.Errorf("%+v, row %d: %s, want %s", o, r, show(got[r]), show(texts))
				}
			}
		}
	}
	if encodings != 1 {
		t.Errorf("the encoder was built %d times", encodings)
	}
	in.Seen = [][]int32{nil, nil, {1, 2}}
	o := Options{MaxNewTokens: 12, EOS: 3, RepetitionPenalty: 1.4}
	got, err := p.Generate(t.Context(), in, o)
	if err != nil {
		t.Fatal(err)
	}
	for r, texts := range generated(t, want, in.Seen, o) {
		if show(got[r]) != show(texts) {
			t.Errorf("with prompts that penalties do not see, row %d: %s, want %s", r, show(got[r]), show(texts))
		}
	}
	in.Seen = in.Seen[:2]
	if _, err := p.Generate(t.Context(), in, o); err == nil || !strings.Contains(err.Error(), "3 prompts") {
		t.Errorf("another number of rows: error %v", err)
	}
}
