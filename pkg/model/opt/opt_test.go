package opt

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// logits is the plain form of the model: everything at once, without a cache.
func logits(scope *mlx.Scope, cfg Config, x, mask *Node) *Node {
	return Logits(scope, cfg, Forward(scope, cfg, Input{Embeds: x, Mask: mask}, nil).Hidden)
}

// TestAgainstLoops compares logits, loss and the loss's gradient with a plain computation, for every kind of padding.
func TestAgainstLoops(t *testing.T) {
	backend := graphtest.Open(t, "go")
	for _, postNorm := range []bool{false, true} {
		cfg := tiny(postNorm)
		params := Params(cfg)
		weights := store(t, cfg)
		h := host{cfg, graphtest.Values(t, weights, params)}
		x := embeds(cfg, 5)
		for name, mask := range masks {
			t.Run(fmt.Sprintf("post-norm %t, %s", postNorm, name), func(t *testing.T) {
				labels := make([]int32, len(mask))
				for i, m := range mask {
					labels[i] = nn.IgnoredLabel
					if m == 1 && i%3 > 0 && mask[i-1] == 1 { // not what padding predicts
						labels[i] = int32(i % cfg.Vocab)
					}
				}
				got := graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
					y := logits(scope, cfg, in[0], in[1])
					y.AssertDims(batch, length, cfg.Vocab)
					loss := LMLoss(y, in[2])
					return []*Node{y, loss, Gradient(loss, in[0])[0]}
				}, embedsTensor(cfg, x), maskTensor(mask), maskTensor(labels))
				wide := graphtest.Wide(x)
				want := h.batch(wide, mask)
				var rows []float64
				for i, m := range mask {
					if m == 1 {
						rows = append(rows, want[i*cfg.Vocab:(i+1)*cfg.Vocab]...)
					}
				}
				graphtest.Near(t, "logits", visible(got[0], mask), rows, 5e-6)
				graphtest.Near(t, "loss", got[1], []float64{h.loss(want, labels)}, 1e-6)

				// The derivative along a direction is the gradient's part in it.
				direction := graphtest.Wide(graphtest.Normals(9, len(x), 1))
				at := func(step float64) float64 {
					moved := slices.Clone(wide)
					for i, d := range direction {
						moved[i] += step * d
					}
					return h.loss(h.batch(moved, mask), labels)
				}
				var along float64
				for i, d := range direction {
					along += d * float64(got[2][i])
				}
				if slope := (at(1e-5) - at(-1e-5)) / 2e-5; math.Abs(slope-along) > 1e-5*max(1, math.Abs(slope)) {
					t.Errorf("the gradient along a direction is %g, the slope %g", along, slope)
				}
			})
		}
	}
}

// TestPaddingDoesNotMatter: neither what stands at padding nor where the padding is changes a token's logits.
func TestPaddingDoesNotMatter(t *testing.T) {
	cfg := tiny(false)
	weights := store(t, cfg)
	backend := graphtest.Open(t, "go")
	e := cfg.EmbedWidth()
	tokens := graphtest.Normals(3, 3*e, 0.5) // one sequence of three tokens
	var want []float32
	for _, mask := range [][]int32{
		{1, 1, 1, 0, 0, 0}, {0, 0, 0, 1, 1, 1}, {0, 0, 1, 1, 1, 0}, {1, 0, 0, 1, 0, 1}, {1, 1, 0, 0, 0, 1},
	} {
		x := graphtest.Normals(uint64(mask[1])+70, length*e, 40) // large, to matter if it can
		next := 0
		for i, m := range mask {
			if m == 1 {
				copy(x[i*e:(i+1)*e], tokens[next*e:(next+1)*e])
				next++
			}
		}
		got := visible(graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			return []*Node{logits(scope, cfg, in[0], in[1])}
		}, embedsTensor(cfg, x), maskTensor(mask))[0], mask)
		if want == nil {
			want = got
		}
		graphtest.Same(t, fmt.Sprintf("logits with mask %v", mask), got, want, 2e-6)
	}
}

// TestCausality: a token changes nothing in front of it, and everything from there on.
func TestCausality(t *testing.T) {
	cfg := tiny(true)
	weights := store(t, cfg)
	backend := graphtest.Open(t, "go")
	mask := slices.Repeat([]int32{1}, batch*length)
	evaluate := func(x []float32) []float32 {
		return graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			return []*Node{logits(scope, cfg, in[0], in[1])}
		}, embedsTensor(cfg, x), maskTensor(mask))[0]
	}
	const changed = 3
	x := embeds(cfg, 5)
	before := evaluate(x)
	for b := range batch {
		x[(b*length+changed)*cfg.EmbedWidth()] += 0.5
	}
	for i, v := range evaluate(x) {
		if position := i / cfg.Vocab % length; (v == before[i]) != (position < changed) {
			t.Errorf("position %d, logit %d: %g became %g", position, i%cfg.Vocab, before[i], v)
		}
	}
}

// TestIDs: ids give what their embeddings give, and the head is the embedding table.
func TestIDs(t *testing.T) {
	cfg := tiny(false)
	weights := store(t, cfg)
	ids := make([]int32, batch*length)
	for i := range ids {
		ids[i] = int32(i * 5 % cfg.Vocab)
	}
	table := graphtest.Values(t, weights, Params(cfg))["model.decoder.embed_tokens.weight"]
	var looked []float64
	for _, id := range ids {
		looked = append(looked, table[int(id)*cfg.Hidden:(int(id)+1)*cfg.Hidden]...)
	}
	got := graphtest.Run(t, graphtest.Open(t, "go"), weights, func(scope *mlx.Scope, in []*Node) []*Node {
		x := Embed(scope, in[0], dtypes.Float32)
		return []*Node{x, Logits(scope, cfg, x)}
	}, maskTensor(ids))
	graphtest.Near(t, "embeddings", got[0], looked, 0)
	h := host{cfg, map[string][]float64{"head.weight": table}}
	graphtest.Near(t, "head", got[1], h.linear(looked, "head", cfg.Vocab), 1e-6)
}

// TestSteps: decoding step by step, where texts go on from others, gives what their whole sequences give, wherever the
// padding is.
func TestSteps(t *testing.T) {
	mask := slices.Concat(masks["right"], masks["left"], masks["hole"])
	check := func(t *testing.T, backend compute.Backend, cfg Config, texts int) {
		tree := graphtest.NewTree(6, len(mask)/length, texts, 3, cfg.Vocab)
		weights := store(t, cfg)
		got := searched(t, backend, weights, cfg, tree, mask)
		want := wholes(t, backend, weights, cfg, tree, mask)
		graphtest.Same(t, fmt.Sprintf("post-norm %t, %d texts", cfg.PostNorm, texts), got, want, 2e-6)
	}
	t.Run("go", func(t *testing.T) {
		backend := graphtest.Open(t, "go")
		for _, postNorm := range []bool{false, true} {
			for _, texts := range []int{1, 2, 4} {
				check(t, backend, tiny(postNorm), texts)
			}
		}
	})
	t.Run("xla", func(t *testing.T) { check(t, graphtest.OpenXLA(t), tiny(false), 4) })
}

// prompt is a row's.
func prompt(cfg Config, row int) []int32 {
	ids := make([]int32, length)
	for i := range ids {
		ids[i] = int32((row*length+i)*5%(cfg.Vocab-1) + 1)
	}
	return ids
}

// searched gives the logits of all texts after each step, with a cache.
func searched(t *testing.T, backend compute.Backend, weights *mlx.Store, cfg Config, tree graphtest.Tree,
	mask []int32) (logits []float32) {
	t.Helper()
	var prompts []int32
	for r := range tree.Rows {
		prompts = append(prompts, prompt(cfg, r)...)
	}
	cache := graphtest.Tensors(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
		return Forward(scope, cfg, Input{Embeds: Embed(scope, in[0], dtypes.Float32), Mask: in[1],
			Room: nn.Room{Tokens: tree.Steps, Texts: tree.Texts}}, nil).Cache.Nodes()
	}, maskTensor(prompts), maskTensor(mask))
	for step := range tree.Steps {
		args := []any{tensors.FromFlatDataAndDimensions(tree.Parents[step], tree.Rows, tree.Texts),
			tensors.FromFlatDataAndDimensions(tree.Tokens[step], tree.Rows, tree.Texts)}
		for _, c := range cache {
			args = append(args, c)
		}
		out := graphtest.Tensors(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			past := nn.CacheOf(in[2:]).Pick(in[0])
			out := Forward(scope, cfg, Input{Embeds: Embed(scope, in[1], dtypes.Float32), Cache: past}, nil)
			return append(out.Cache.Nodes(), Logits(scope, cfg, out.Hidden))
		}, args...)
		cache = out[:len(out)-1]
		logits = append(logits, tensors.MustCopyFlatData[float32](out[len(out)-1])...)
	}
	return logits
}

// wholes gives the same logits, every text being read from its start.
func wholes(t *testing.T, backend compute.Backend, weights *mlx.Store, cfg Config, tree graphtest.Tree,
	mask []int32) (out []float32) {
	t.Helper()
	var prompts [][]int32
	for r := range tree.Rows {
		prompts = append(prompts, prompt(cfg, r))
	}
	ids, lengths := tree.Whole(prompts)
	size := length + tree.Steps
	visible := make([]int32, len(ids))
	for i, n := range lengths {
		row := i / tree.Texts % tree.Rows
		copy(visible[i*size:], mask[row*length:][:length])
		for k := length; k < n; k++ {
			visible[i*size+k] = 1
		}
	}
	all := graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
		return []*Node{logits(scope, cfg, Embed(scope, in[0], dtypes.Float32), in[1])}
	}, tensors.FromFlatDataAndDimensions(ids, len(lengths), size),
		tensors.FromFlatDataAndDimensions(visible, len(lengths), size))[0]
	for i, n := range lengths {
		out = append(out, all[(i*size+n-1)*cfg.Vocab:][:cfg.Vocab]...)
	}
	return out
}

// TestFrozen: the gradient of the embeddings needs none of a weight.
func TestFrozen(t *testing.T) {
	cfg := tiny(true)
	weights := store(t, cfg)
	if err := model.SetTrainable(weights, Params(cfg), false); err != nil {
		t.Fatal(err)
	}
	shapes := map[string]bool{}
	for _, p := range Params(cfg) {
		if len(p.Shape) == 2 {
			shapes[fmt.Sprint(p.Shape)], shapes[fmt.Sprint([]int{p.Shape[1], p.Shape[0]})] = true, true
		}
	}
	graphtest.Run(t, graphtest.Open(t, "go"), weights, func(scope *mlx.Scope, in []*Node) []*Node {
		grad := Gradient(LMLoss(logits(scope, cfg, in[0], in[1]), in[1]), in[0])[0]
		for _, n := range graphtest.Behind(grad) {
			if n.Type() == NodeTypeDotGeneral && shapes[fmt.Sprint(n.Shape().Dimensions)] {
				t.Errorf("the gradient needs the product %s", n)
			}
		}
		return []*Node{grad}
	}, embedsTensor(cfg, embeds(cfg, 5)), maskTensor(masks["right"]))
}

// TestRecompute: the loss and its gradient stay what they are, dropout included.
func TestRecompute(t *testing.T) {
	check := func(t *testing.T, backend compute.Backend, tolerance float64) {
		cfg := tiny(false)
		cfg.Layers, cfg.Dropout, cfg.AttentionDropout = 1, 0.2, 0.1
		state, err := RNGStateFromSeed(4)
		if err != nil {
			t.Fatal(err)
		}
		got := graphtest.Run(t, backend, store(t, cfg), func(scope *mlx.Scope, in []*Node) []*Node {
			evaluate := func(cfg Config) []*Node {
				out := Forward(scope, cfg, Input{Embeds: in[0], Mask: in[1]}, nn.NewRNG(in[2]))
				loss := LMLoss(Logits(scope, cfg, out.Hidden), in[1])
				return []*Node{loss, Gradient(loss, in[0])[0]}
			}
			kept := evaluate(cfg)
			cfg.Recompute = true
			again := evaluate(cfg)
			if products(again[1]) <= products(kept[1]) {
				t.Error("nothing is computed again")
			}
			return append(kept, again...)
		}, embedsTensor(cfg, embeds(cfg, 5)), maskTensor(masks["hole"]), state)
		graphtest.Same(t, "loss", got[2], got[0], tolerance)
		graphtest.Same(t, "gradient", got[3], got[1], tolerance)
	}
	t.Run("go", func(t *testing.T) { check(t, graphtest.Open(t, "go"), 0) })
	t.Run("xla", func(t *testing.T) { check(t, graphtest.OpenXLA(t), 5e-5) }) // it rounds elsewhere in another program
}

// products counts the matrix products behind the node.
func products(n *Node) int {
	count := 0
	for _, n := range graphtest.Behind(n) {
		if n.Type() == NodeTypeDotGeneral {
			count++
		}
	}
	return count
}

// TestDropout: it needs random numbers, and its rates are those of the configuration.
func TestDropout(t *testing.T) {
	state, err := RNGStateFromSeed(4)
	if err != nil {
		t.Fatal(err)
	}
	backend := graphtest.Open(t, "go")
	evaluate := func(dropout, attention float64, draw bool) []float32 {
		cfg := tiny(false)
		cfg.Dropout, cfg.AttentionDropout = dropout, attention
		return visible(graphtest.Run(t, backend, store(t, cfg), func(scope *mlx.Scope, in []*Node) []*Node {
			var rng *nn.RNG
			if draw {
				rng = nn.NewRNG(in[2])
			}
			return []*Node{Forward(scope, cfg, Input{Embeds: in[0], Mask: in[1]}, rng).Hidden}
		}, embedsTensor(cfg, embeds(cfg, 5)), maskTensor(masks["left"]), state)[0], masks["left"])
	}
	plain := evaluate(0, 0, false)
	for _, c := range []struct {
		dropout, attention float64
		draw, same         bool
	}{{0.1, 0.1, false, true}, {0, 0, true, true}, {0.1, 0, true, false}, {0, 0.1, true, false}} {
		if same := slices.Equal(evaluate(c.dropout, c.attention, c.draw), plain); same != c.same {
			t.Errorf("%+v: the result without dropout came out: %t", c, same)
		}
	}
}

// TestLowPrecision: weights and activations in bfloat16 and float16 give nearly what float32 gives.
func TestLowPrecision(t *testing.T) {
	backend := graphtest.OpenXLA(t)
	cfg := tiny(false)
	cfg.Layers = 1
	evaluate := func(dtype dtypes.DType) [][]float32 {
		weights := store(t, cfg)
		if err := model.SetTrainable(weights, Params(cfg), false); err != nil {
			t.Fatal(err)
		}
		if err := model.StoreFrozen(weights, Params(cfg), dtype); err != nil {
			t.Fatal(err)
		}
		return graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			out := Forward(scope, cfg, Input{Embeds: ConvertDType(in[0], dtype), Mask: in[1],
				Room: nn.Room{Tokens: 1, Texts: 1}}, nil)
			if out.Hidden.DType() != dtype || out.Cache.KV[0].K.DType() != dtype {
				t.Errorf("hidden states are %s, keys %s, not %s", out.Hidden.DType(), out.Cache.KV[0].K.DType(), dtype)
			}
			y := Logits(scope, cfg, out.Hidden)
			loss := LMLoss(y, in[1])
			if y.DType() != dtypes.Float32 || loss.DType() != dtypes.Float32 {
				t.Errorf("logits are %s, the loss is %s", y.DType(), loss.DType())
			}
			return []*Node{y, loss, Gradient(loss, in[0])[0]}
		}, embedsTensor(cfg, embeds(cfg, 5)), maskTensor(masks["hole"]))
	}
	want := evaluate(dtypes.Float32)
	for dtype, tolerance := range map[dtypes.DType]float64{dtypes.BFloat16: 0.05, dtypes.Float16: 0.01} {
		got := evaluate(dtype)
		mask := masks["hole"]
		graphtest.Same(t, dtype.String()+" logits", visible(got[0], mask), visible(want[0], mask), tolerance)
		graphtest.Same(t, dtype.String()+" loss", got[1], want[1], tolerance)
		graphtest.Same(t, dtype.String()+" gradient", got[2], want[2], tolerance)
	}
}

// TestTooLong: more tokens than positions are an error.
func TestTooLong(t *testing.T) {
	cfg := tiny(false)
	cfg.Positions = length - 1
	weights := store(t, cfg)
	_, err := mlx.CallOnceN(graphtest.Open(t, "go"), weights, func(scope *mlx.Scope, in []*Node) []*Node {
		return []*Node{logits(scope, cfg, in[0], in[1])}
	}, embedsTensor(cfg, embeds(cfg, 5)), maskTensor(masks["right"]))
	if err == nil || !strings.Contains(err.Error(), "5 positions") {
		t.Errorf("error %v", err)
	}
}

// TestLossWithoutPrefix: the loss of positions with a label does not change when leading ones are left out.
func TestLossWithoutPrefix(t *testing.T) {
	cfg := tiny(false)
	labels := tensors.FromFlatDataAndDimensions([]int32{-100, -100, -100, 4, 5, 6}, 1, length)
	x := graphtest.Normals(3, length*cfg.Vocab, 1)
	got := graphtest.Run(t, graphtest.Open(t, "go"), mlx.NewStore(), func(_ *mlx.Scope, in []*Node) []*Node {
		tail := AxisRangeToEnd(2)
		return []*Node{LMLoss(in[0], in[1]), LMLoss(SliceAxis(in[0], 1, tail), SliceAxis(in[1], 1, tail))}
	}, tensors.FromFlatDataAndDimensions(x, 1, length, cfg.Vocab), labels)
	graphtest.Same(t, "loss", got[1], got[0], 1e-7)
}
