package qformer

import (
	"slices"
	"testing"

	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
)

// lengths are the texts of most tests: a full one, one with padding and one of a single token.
var lengths = [batch]int{length, 3, 1}

// start returns the queries of a batch and what they read of the pictures.
func start(scope *mlx.Scope, cfg Config, features *Node, rows int) (queries *Node, cross *Cross) {
	return Queries(scope, cfg, features.Graph(), rows, dtypes.Float32), NewCross(scope, cfg, features)
}

// split cuts hidden states [batch, Q+L, H] into those of queries and text.
func split(cfg Config, x *Node) []*Node {
	return []*Node{
		SliceAxis(x, 1, AxisRangeFromStart(cfg.Queries)), SliceAxis(x, 1, AxisRangeToEnd(cfg.Queries)),
	}
}

// TestCachedQueries: the queries' keys and values of the image pass stand for the queries' rows of the whole ITG
// matrix (spec/stage1.md 3), for the text's hidden states, the queries' and all gradients.
func TestCachedQueries(t *testing.T) {
	cfg := tiny()
	plain := func(scope *mlx.Scope, in []*Node) []*Node {
		queries, cross := start(scope, cfg, in[inFeatures], batch)
		out := Forward(scope, cfg, Input{Queries: queries, TextIDs: in[inIDs], Cross: cross,
			Mask: FullCausalMask(in[inMask], cfg.Queries)}, nil)
		parts := split(cfg, out.Hidden)
		return append(parts, LMLogits(scope, cfg, parts[1]))
	}
	cached := func(scope *mlx.Scope, in []*Node) []*Node {
		queries, cross := start(scope, cfg, in[inFeatures], batch)
		image := Forward(scope, cfg, Input{Queries: queries, Cross: cross}, nil)
		text := Forward(scope, cfg, Input{TextIDs: in[inIDs], Past: image.SelfKV,
			Mask: nn.CausalMask(in[inMask], cfg.Queries)}, nil)
		return []*Node{image.Hidden, text.Hidden, LMLogits(scope, cfg, text.Hidden)}
	}
	sameForms(t, cfg, inputs(t, cfg, lengths), plain, cached)
}

// TestSeparatePasses: the image pass and the text pass are one pass whose matrix is block-diagonal (spec/stage1.md 2).
func TestSeparatePasses(t *testing.T) {
	cfg := tiny()
	plain := func(scope *mlx.Scope, in []*Node) []*Node {
		queries, cross := start(scope, cfg, in[inFeatures], batch)
		// Queries see queries: the ITG matrix's first rows; text sees text: the padding mask, all queries hidden.
		top := SliceAxis(FullCausalMask(in[inMask], cfg.Queries), 2, AxisRangeFromStart(cfg.Queries))
		unseen := MulScalar(OnesLike(SliceAxis(top, 3, AxisRangeFromStart(cfg.Queries))), nn.Hidden)
		unseen = BroadcastToDims(SliceAxis(unseen, 2, AxisRangeFromStart(1)), batch, 1, length, cfg.Queries)
		text := BroadcastToDims(nn.PaddingMask(in[inMask]), batch, 1, length, length)
		bottom := Concatenate([]*Node{unseen, text}, 3)
		out := Forward(scope, cfg, Input{Queries: queries, TextIDs: in[inIDs], Cross: cross,
			Mask: Concatenate([]*Node{top, bottom}, 2)}, nil)
		return split(cfg, out.Hidden)
	}
	separate := func(scope *mlx.Scope, in []*Node) []*Node {
		queries, cross := start(scope, cfg, in[inFeatures], batch)
		image := Forward(scope, cfg, Input{Queries: queries, Cross: cross}, nil)
		text := Forward(scope, cfg, Input{TextIDs: in[inIDs], Mask: nn.PaddingMask(in[inMask])}, nil)
		return []*Node{image.Hidden, text.Hidden}
	}
	sameForms(t, cfg, inputs(t, cfg, lengths), plain, separate)
}

// TestLeavingOutTheLast: nothing sees a causal text's last position, so the others do without it.
func TestLeavingOutTheLast(t *testing.T) {
	cfg := tiny()
	logits := func(used int) form {
		return func(scope *mlx.Scope, in []*Node) []*Node {
			queries, cross := start(scope, cfg, in[inFeatures], batch)
			image := Forward(scope, cfg, Input{Queries: queries, Cross: cross}, nil)
			text := Forward(scope, cfg, Input{
				TextIDs: SliceAxis(in[inIDs], 1, AxisRangeFromStart(used)), Past: image.SelfKV,
				Mask: nn.CausalMask(SliceAxis(in[inMask], 1, AxisRangeFromStart(used)), cfg.Queries),
			}, nil)
			return []*Node{SliceAxis(LMLogits(scope, cfg, text.Hidden), 1, AxisRangeFromStart(length-1))}
		}
	}
	sameForms(t, cfg, inputs(t, cfg, lengths), logits(length), logits(length-1))
}

// TestQueriesOnly: the last layer's text rows are nobody's business, with and without cross-attention in that layer,
// for masks with one row and with many.
func TestQueriesOnly(t *testing.T) {
	for _, layers := range []int{1, 3, 4} {
		for name, mask := range map[string]func(*Node, int) *Node{"one row": MultimodalMask, "all rows": FullCausalMask} {
			cfg := tiny()
			cfg.Layers = layers
			pass := func(only bool) form {
				return func(scope *mlx.Scope, in []*Node) []*Node {
					queries, cross := start(scope, cfg, in[inFeatures], batch)
					out := Forward(scope, cfg, Input{Queries: queries, TextIDs: in[inIDs], Cross: cross, QueriesOnly: only,
						Mask: mask(in[inMask], cfg.Queries)}, nil)
					if only {
						out.Hidden.AssertDims(batch, cfg.Queries, cfg.Hidden)
					}
					return []*Node{SliceAxis(out.Hidden, 1, AxisRangeFromStart(cfg.Queries))}
				}
			}
			t.Run(name, func(t *testing.T) {
				sameForms(t, cfg, inputs(t, cfg, lengths), pass(false), pass(true))
			})
		}
	}
}

// TestWithNegatives: ITM's 3·B rows equal a pass over the pictures' features written out three times.
func TestWithNegatives(t *testing.T) {
	cfg := tiny()
	pass := func(source func(scope *mlx.Scope, features, negatives *Node) *Cross) form {
		return func(scope *mlx.Scope, in []*Node) []*Node {
			again := Gather(in[inIDs], InsertAxes(in[inPicked], -1))
			mask := Gather(in[inMask], InsertAxes(in[inPicked], -1))
			out := Forward(scope, cfg, Input{
				Queries:     Queries(scope, cfg, in[0].Graph(), 3*batch, dtypes.Float32),
				TextIDs:     threes(in[inIDs], in[inIDs], again),
				Mask:        MultimodalMask(threes(in[inMask], in[inMask], mask), cfg.Queries),
				Cross:       source(scope, in[inFeatures], in[inPicked]),
				QueriesOnly: true,
			}, nil)
			return []*Node{out.Hidden}
		}
	}
	plain := pass(func(scope *mlx.Scope, features, negatives *Node) *Cross {
		negative := Gather(features, InsertAxes(negatives, -1))
		return NewCross(scope, cfg, threes(features, negative, features))
	})
	shared := pass(func(scope *mlx.Scope, features, negatives *Node) *Cross {
		return NewCross(scope, cfg, features).WithNegatives(negatives)
	})
	sameForms(t, cfg, inputs(t, cfg, lengths), plain, shared)
}

// threes puts the rows of three nodes [n, ...] together, first with first: [3n, ...].
func threes(a, b, c *Node) *Node {
	dims := slices.Clone(a.Shape().Dimensions)
	dims[0] *= 3
	return Reshape(Stack([]*Node{a, b, c}, 1), dims...)
}

// TestPick: picking projected pictures equals projecting picked ones.
func TestPick(t *testing.T) {
	cfg := tiny()
	pass := func(source func(scope *mlx.Scope, features, indices *Node) *Cross) form {
		return func(scope *mlx.Scope, in []*Node) []*Node {
			queries := Queries(scope, cfg, in[0].Graph(), batch, dtypes.Float32)
			out := Forward(scope, cfg, Input{Queries: queries, Cross: source(scope, in[inFeatures], in[inPicked])}, nil)
			return []*Node{out.Hidden}
		}
	}
	plain := pass(func(scope *mlx.Scope, features, indices *Node) *Cross {
		return NewCross(scope, cfg, Gather(features, InsertAxes(indices, -1)))
	})
	picked := pass(func(scope *mlx.Scope, features, indices *Node) *Cross {
		return NewCross(scope, cfg, features).Pick(indices)
	})
	sameForms(t, cfg, inputs(t, cfg, lengths), plain, picked)
}

// TestDecode: a text behind the queries is the text pass of ITG; padding may stand in front of it.
func TestDecode(t *testing.T) {
	cfg := tiny()
	image := func(scope *mlx.Scope, in []*Node) *Output {
		queries, cross := start(scope, cfg, in[inFeatures], batch)
		return Forward(scope, cfg, Input{Queries: queries, Cross: cross}, nil)
	}
	plain := func(scope *mlx.Scope, in []*Node) []*Node {
		text := Forward(scope, cfg, Input{TextIDs: in[inIDs], Past: image(scope, in).SelfKV,
			Mask: nn.CausalMask(in[inMask], cfg.Queries)}, nil)
		return []*Node{visible(text.Hidden, in[inMask])}
	}
	padded := func(scope *mlx.Scope, in []*Node) []*Node {
		behind := func(x *Node) *Node {
			return Concatenate([]*Node{ZerosLike(SliceAxis(x, 1, AxisRange(0, 2))), x}, 1)
		}
		read := Decode(scope, cfg, bert.Text{IDs: behind(in[inIDs]), Mask: behind(in[inMask]),
			Front: image(scope, in).SelfKV})
		if read.Cache != nil {
			t.Error("there is a cache that was not asked for")
		}
		return []*Node{visible(SliceAxis(read.Hidden, 1, AxisRange(2)), in[inMask])}
	}
	sameForms(t, cfg, inputs(t, cfg, lengths), plain, padded)
}

// visible sets the states [batch, L, H] of padding to 0.
func visible(hidden, mask *Node) *Node {
	return Mul(hidden, BroadcastToDims(InsertAxes(nn.Float32(mask), -1), hidden.Shape().Dimensions...))
}
