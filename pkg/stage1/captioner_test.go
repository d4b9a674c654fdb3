package stage1

import (
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/generate"
	"blip2/pkg/internal/graphtest"
	"blip2/pkg/internal/writetest"
	"blip2/pkg/model/qformer"
)

// TestWriting: with a cache comes out what comes out where every text is read from its first token at every step, for
// all ways to write.
func TestWriting(t *testing.T) {
	cfg := tinyConfig()
	cfg.QFormer.MaxPositions = 9
	q := cfg.QFormer
	stacked := []int{3, 2 * q.Layers, q.Heads, q.Queries, q.Hidden / q.Heads}
	pictures := graphtest.Normals(6, stacked[0]*stacked[1]*stacked[2]*stacked[3]*stacked[4], 1)
	captioner := func() writetest.Captioner {
		return writetest.Captioner{
			Store:   graphtest.Store(t, qformer.Params(q, true), 2),
			Prefill: cfg.Prefill, Advance: cfg.Advance,
			Whole: func(scope *mlx.Scope, pictures, rows, ids, mask *Node) *Node {
				return captionLogits(scope, cfg, ids, mask, unstacked(Gather(pictures, InsertAxes(rows, -1))), nil)
			},
			Pictures: tensors.FromFlatDataAndDimensions(pictures, stacked...),
			BOS:      int32(cfg.BOSID), EOS: int32(cfg.SEPID), Vocab: q.Vocab, Positions: q.MaxPositions,
		}
	}
	t.Run("go", func(t *testing.T) { writetest.Check(t, graphtest.Open(t, "go"), captioner()) })
	t.Run("xla", func(t *testing.T) { writetest.Check(t, graphtest.OpenXLA(t), captioner(), "beams") })
}

// TestWriteRefuses texts that are longer than what the model knows, and another number of prompts than of pictures.
func TestWriteRefuses(t *testing.T) {
	e := newEvalToy(t)
	c, err := NewCaptioner(e.dev.Backend, e.store, e.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	encoded, err := c.Encode(t.Context(), e.pixels(t, 0))
	if err != nil {
		t.Fatal(err)
	}
	for says, tt := range map[string]struct {
		prompts [][]int32
		tokens  int
	}{
		"1 pictures and 2 prompts":                           {[][]int32{nil, nil}, 2},
		"a prompt of 3 and 7 new tokens are more than the 8": {[][]int32{{5, 6}}, 7},
	} {
		_, err := c.Write(t.Context(), encoded, tt.prompts, generate.Options{MaxNewTokens: tt.tokens})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
}
