package blip

import (
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/internal/writetest"
	"blip2/pkg/model/nn"
)

// captioner is the tiny captioner with random tensors and pictures.
func captioner(t *testing.T) writetest.Captioner {
	t.Helper()
	cfg := tiny()
	pictures := graphtest.Normals(5, batch*cfg.Vision.Tokens()*cfg.Vision.Width, 1)
	return writetest.Captioner{
		Store: graphtest.Store(t, DecoderParams(cfg), 2),
		Prefill: func(scope *mlx.Scope, in []*Node, room nn.Room) (*Node, []*Node, []*Node) {
			return Prefill(scope, cfg, in[0], in[1], in[2], room)
		},
		Advance: func(scope *mlx.Scope, fixed, cache []*Node, parents, tokens *Node) (*Node, []*Node) {
			return Advance(scope, cfg, fixed, cache, parents, tokens)
		},
		Whole: func(scope *mlx.Scope, pictures, rows, ids, mask *Node) *Node {
			return whole(scope, cfg, NewCross(scope, cfg, Gather(pictures, InsertAxes(rows, -1))), ids, mask)
		},
		Pictures: tensors.FromFlatDataAndDimensions(pictures, batch, cfg.Vision.Tokens(), cfg.Vision.Width),
		BOS:      18, EOS: 2, Vocab: cfg.Vocab, Positions: cfg.MaxPositions,
	}
}

// TestWriting: with a cache comes out what comes out where every text is read from its first token at every step, for
// all ways to write.
func TestWriting(t *testing.T) {
	t.Run("go", func(t *testing.T) { writetest.Check(t, graphtest.Open(t, "go"), captioner(t)) })
	t.Run("xla", func(t *testing.T) { writetest.Check(t, graphtest.OpenXLA(t), captioner(t), "beams") })
}

// TestPadding: where padding stands changes nothing.
func TestPadding(t *testing.T) {
	cfg := tiny()
	text := []int32{18, 3, 4}
	read := func(ids, mask []int32) []float32 {
		got := run(t, cfg, func(scope *mlx.Scope, pixels, _, _ *Node) []*Node {
			g, first := pixels.Graph(), SliceAxis(pixels, 0, AxisRangeFromStart(1))
			return []*Node{whole(scope, cfg, crossOf(scope, cfg, first), Const(g, [][]int32{ids}), Const(g, [][]int32{mask}))}
		})[0]
		var seen []float32
		for i, m := range mask {
			if m == 1 {
				seen = append(seen, got[i*cfg.Vocab:][:cfg.Vocab]...)
			}
		}
		return seen
	}
	want := read(text, []int32{1, 1, 1})
	same(t, "padding on the right", read([]int32{18, 3, 4, 0, 9}, []int32{1, 1, 1, 0, 0}), want)
	same(t, "padding on the left", read([]int32{5, 0, 18, 3, 4}, []int32{0, 0, 1, 1, 1}), want)
	same(t, "padding between", read([]int32{18, 3, 7, 4}, []int32{1, 1, 0, 1}), want)
}
