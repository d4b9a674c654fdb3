package blip

import (
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/internal/writetest"
	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
)

// captioner is the tiny captioner with random tensors and pictures.
func captioner(t *testing.T) writetest.Captioner {
	t.Helper()
	cfg := tiny()
	pictures := graphtest.Normals(5, batch*cfg.Vision.Tokens()*cfg.Vision.Width, 1)
	return writetest.Captioner{
		Store: graphtest.Store(t, DecoderParams(cfg), 2),
		Prefill: func(scope *mlx.Scope, in []*Node, newTokens, width int) (*Node, []*Node, []*Node) {
			return Prefill(scope, cfg, in[0], in[1], in[2], newTokens, width)
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

// TestSharedPictures: texts that stand together read one picture as if each had its own.
func TestSharedPictures(t *testing.T) {
	cfg := tiny()
	got := run(t, cfg, func(scope *mlx.Scope, pixels, ids, mask *Node) []*Node {
		features := EncodeImage(scope, cfg, pixels)
		first := SliceAxis(features, 0, AxisRangeFromStart(1))
		thrice := BroadcastToDims(first, features.Shape().Dimensions...)
		read := func(features *Node) *Node { return whole(scope, cfg, NewCross(scope, cfg, features), ids, mask) }
		return []*Node{read(first), read(thrice), read(features)}
	})
	same(t, "logits", got[0], got[1])
	if slices.Equal(got[1], got[2]) {
		t.Error("the pictures do not matter")
	}
}

// TestPicturesAndTexts: a number of texts that the pictures cannot share is an error.
func TestPicturesAndTexts(t *testing.T) {
	_, err := mlx.CallOnceN(graphtest.Open(t, "go"), captioner(t).Store, func(scope *mlx.Scope, in []*Node) []*Node {
		ids := Const(in[0].Graph(), [][]int32{{1}, {2}, {3}, {4}})
		read := Decode(scope, tiny(), Input{Text: bert.Text{IDs: ids, Mask: OnesLike(ids)},
			Cross: []nn.KV{{K: in[0], V: in[0]}, {K: in[0], V: in[0]}}})
		return []*Node{read.Hidden}
	}, tensors.FromFlatDataAndDimensions(make([]float32, 3*2*4), 3, 2, 1, 4))
	if err == nil || !strings.Contains(err.Error(), "4 texts cannot share 3 pictures") {
		t.Errorf("error %v", err)
	}
}
