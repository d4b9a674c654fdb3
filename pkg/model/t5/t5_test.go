package t5

import (
	"fmt"
	"math"
	"slices"
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

// whole is the plain form of the model: encoder, and all of the decoder at once, without a cache. in are the encoder's
// embeddings and mask, labels and the decoder's mask.
func whole(scope *mlx.Scope, cfg Config, in []*Node, rng *nn.RNG) (encoded, logits, loss *Node) {
	encoded = Encode(scope, cfg, in[0], in[1], rng)
	decoded := Decode(scope, cfg, Input{Embeds: Embed(scope, DecoderIDs(in[2]), in[0].DType()), Mask: in[3],
		Cross: NewCross(scope, cfg, encoded, in[1])}, rng)
	logits = Logits(scope, cfg, decoded.Hidden)
	return encoded, logits, Loss(logits, in[2])
}

// inputs are those of whole.
func inputs(cfg Config) []any {
	return []any{floats(embeds(cfg, 5), length, cfg.Hidden), ints(encoderMask, length), ints(labels, steps),
		ints(decoderMask, steps)}
}

// TestAgainstLoops compares everything with a plain computation, and the loss's gradient with the loss's slope.
func TestAgainstLoops(t *testing.T) {
	for _, activation := range []nn.Activation{nn.GELU, nn.GELUNew} {
		cfg := tiny()
		cfg.Activation = activation
		weights := store(t, cfg)
		got := graphtest.Run(t, graphtest.Open(t, "go"), weights, func(scope *mlx.Scope, in []*Node) []*Node {
			encoded, logits, loss := whole(scope, cfg, in, nil)
			encoded.AssertDims(batch, length, cfg.Hidden)
			return []*Node{encoded, logits, loss, Gradient(loss, in[0])[0]}
		}, inputs(cfg)...)
		h := host{cfg, graphtest.Values(t, weights, Params(cfg))}
		x := graphtest.Wide(embeds(cfg, 5))
		encoded, logits, loss := h.forward(x)
		graphtest.Near(t, "encoder", visible(got[0], encoderMask), visible(encoded, encoderMask), 2e-6)
		graphtest.Near(t, "logits", visible(got[1], decoderMask), visible(logits, decoderMask), 2e-6)
		graphtest.Near(t, "loss", got[2], []float64{loss}, 1e-6)

		direction := graphtest.Wide(graphtest.Normals(9, len(x), 1))
		at := func(step float64) float64 {
			moved := slices.Clone(x)
			for i, d := range direction {
				moved[i] += step * d
			}
			_, _, loss := h.forward(moved)
			return loss
		}
		var along float64
		for i, d := range direction {
			along += d * float64(got[3][i])
		}
		if slope := (at(1e-5) - at(-1e-5)) / 2e-5; math.Abs(slope-along) > 1e-5*max(1, math.Abs(slope)) {
			t.Errorf("%s: the gradient along a direction is %g, the slope %g", activation, along, slope)
		}
	}
}

// TestPaddingDoesNotMatter: what stands at padding changes nothing, in the encoder as in the decoder.
func TestPaddingDoesNotMatter(t *testing.T) {
	cfg := tiny()
	weights, backend := store(t, cfg), graphtest.Open(t, "go")
	evaluate := func(x []float32, ids []int32) [][]float32 {
		return graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			encoded := Encode(scope, cfg, in[0], in[1], nil)
			out := Decode(scope, cfg, Input{Embeds: Embed(scope, in[2], dtypes.Float32), Mask: in[3],
				Cross: NewCross(scope, cfg, encoded, in[1])}, nil)
			return []*Node{encoded, out.Hidden}
		}, floats(x, length, cfg.Hidden), ints(encoderMask, length), ints(ids, steps), ints(decoderMask, steps))
	}
	x, ids := embeds(cfg, 5), []int32{0, 5, 3, 7, 2, 0, 4, 11, 1, 1}
	want := evaluate(x, ids)
	for i, m := range encoderMask {
		for k := range cfg.Hidden {
			if m == 0 {
				x[i*cfg.Hidden+k] *= 90
			}
		}
	}
	for i, m := range decoderMask {
		if m == 0 {
			ids[i] = 13
		}
	}
	got := evaluate(x, ids)
	if slices.Equal(got[0], want[0]) || slices.Equal(got[1], want[1]) {
		t.Error("the padding was not changed")
	}
	graphtest.Same(t, "encoder", visible(got[0], encoderMask), visible(want[0], encoderMask), 0)
	graphtest.Same(t, "decoder", visible(got[1], decoderMask), visible(want[1], decoderMask), 0)
}

// TestCausality: a token of the decoder changes nothing in front of it, one of the encoder changes everything.
func TestCausality(t *testing.T) {
	cfg := tiny()
	weights, backend := store(t, cfg), graphtest.Open(t, "go")
	evaluate := func(x []float32, ids []int32) []float32 {
		return graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			encoded := Encode(scope, cfg, in[0], in[1], nil)
			out := Decode(scope, cfg, Input{Embeds: Embed(scope, in[2], dtypes.Float32),
				Cross: NewCross(scope, cfg, encoded, in[1])}, nil)
			return []*Node{out.Hidden}
		}, floats(x, length, cfg.Hidden), ints(encoderMask, length), ints(ids, steps))[0]
	}
	x, ids := embeds(cfg, 5), []int32{0, 5, 3, 7, 2, 0, 4, 11, 1, 1}
	before := evaluate(x, ids)
	ids[3], ids[steps+3] = 8, 9
	for i, v := range evaluate(x, ids) {
		if position := i / cfg.Hidden % steps; (v == before[i]) != (position < 3) {
			t.Errorf("position %d, feature %d: %g became %g", position, i%cfg.Hidden, before[i], v)
		}
	}
	before = evaluate(x, ids)
	x[0]++
	after := evaluate(x, ids)
	for r := range steps {
		if row := r * cfg.Hidden; slices.Equal(after[row:row+cfg.Hidden], before[row:row+cfg.Hidden]) {
			t.Errorf("position %d does not depend on the first token of the encoder", r)
		}
	}
}

// TestDecoderIDs: labels move to the right; what is ignored becomes padding.
func TestDecoderIDs(t *testing.T) {
	got := graphtest.Run(t, graphtest.Open(t, "go"), mlx.NewStore(), func(_ *mlx.Scope, in []*Node) []*Node {
		return []*Node{DecoderIDs(in[0])}
	}, ints(labels, steps))[0]
	graphtest.Near(t, "ids", got, []float64{0, 5, 3, 7, 2, 0, 4, 11, 1, 0}, 0)
}

// TestSteps: decoding step by step, where texts go on from others, gives what their whole sequences give.
func TestSteps(t *testing.T) {
	cfg := tiny()
	check := func(t *testing.T, backend compute.Backend, texts int) {
		x := []any{floats(embeds(cfg, 5), length, cfg.Hidden), ints(encoderMask, length)}
		tree := graphtest.NewTree(6, batch, texts, 4, cfg.Vocab)
		weights := store(t, cfg)
		got := searched(t, backend, weights, cfg, tree, x)
		ids, lengths := tree.Whole([][]int32{{StartID}, {StartID}})
		size := 1 + tree.Steps
		rows := make([]int32, len(lengths))
		for i := range rows {
			rows[i] = int32(i / texts % batch)
		}
		all := graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			pick := func(x *Node) *Node { return Gather(x, in[3]) }
			cross := NewCross(scope, cfg, pick(Encode(scope, cfg, in[0], in[1], nil)), pick(in[1]))
			out := Decode(scope, cfg, Input{Embeds: Embed(scope, in[2], dtypes.Float32), Cross: cross}, nil)
			return []*Node{Logits(scope, cfg, out.Hidden)}
		}, append(slices.Clone(x), ints(ids, size), ints(rows, 1))...)[0]
		var want []float32
		for i, n := range lengths {
			want = append(want, all[(i*size+n-1)*cfg.Vocab:][:cfg.Vocab]...)
		}
		graphtest.Same(t, fmt.Sprintf("%d texts", texts), got, want, 2e-6)
	}
	t.Run("go", func(t *testing.T) {
		for _, texts := range []int{1, 2, 5} {
			check(t, graphtest.Open(t, "go"), texts)
		}
	})
	t.Run("xla", func(t *testing.T) { check(t, graphtest.OpenXLA(t), 3) })
}

// searched gives the logits of all texts after each step, with a cache. x are the encoder's input and mask.
func searched(t *testing.T, backend compute.Backend, weights *mlx.Store, cfg Config, tree graphtest.Tree, x []any) (
	logits []float32) {
	t.Helper()
	fixed := 1 + 2*cfg.DecoderLayers // the mask, and every layer's keys and values
	first := graphtest.Tensors(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
		cross := NewCross(scope, cfg, Encode(scope, cfg, in[0], in[1], nil), in[1])
		start := Embed(scope, ZerosLike(SliceAxis(in[1], 1, AxisRangeFromStart(1))), dtypes.Float32)
		out := Decode(scope, cfg, Input{Embeds: start, Cross: cross, Room: nn.Room{Tokens: tree.Steps, Texts: tree.Texts}},
			nil)
		return append(cross.Nodes(), out.Cache.Nodes()...)
	}, x...)
	cross, cache := first[:fixed], first[fixed:]
	for step := range tree.Steps {
		args := []any{ints(tree.Parents[step], tree.Texts), ints(tree.Tokens[step], tree.Texts)}
		for _, x := range slices.Concat(cross, cache) {
			args = append(args, x)
		}
		out := graphtest.Tensors(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			past := nn.CacheOf(in[2+fixed:]).Pick(in[0])
			out := Decode(scope, cfg, Input{Embeds: Embed(scope, in[1], dtypes.Float32), Cross: CrossOf(in[2 : 2+fixed]),
				Cache: past}, nil)
			return append(out.Cache.Nodes(), Logits(scope, cfg, out.Hidden))
		}, args...)
		cache = out[:len(out)-1]
		logits = append(logits, tensors.MustCopyFlatData[float32](out[len(out)-1])...)
	}
	return logits
}

// TestFrozen: the gradient of the embeddings needs none of a weight.
func TestFrozen(t *testing.T) {
	cfg := tiny()
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
		_, _, loss := whole(scope, cfg, in, nil)
		grad := Gradient(loss, in[0])[0]
		for _, n := range graphtest.Behind(grad) {
			if n.Type() == NodeTypeDotGeneral && shapes[fmt.Sprint(n.Shape().Dimensions)] {
				t.Errorf("the gradient needs the product %s", n)
			}
		}
		return []*Node{grad}
	}, inputs(cfg)...)
}

// TestRecompute: the loss and its gradient stay what they are, dropout included.
func TestRecompute(t *testing.T) {
	check := func(t *testing.T, backend compute.Backend, tolerance float64) {
		cfg := tiny()
		cfg.EncoderLayers, cfg.DecoderLayers = 1, 1
		cfg.Dropout = 0.2
		state, err := RNGStateFromSeed(4)
		if err != nil {
			t.Fatal(err)
		}
		got := graphtest.Run(t, backend, store(t, cfg), func(scope *mlx.Scope, in []*Node) []*Node {
			evaluate := func(cfg Config) []*Node {
				_, _, loss := whole(scope, cfg, in, nn.NewRNG(in[4]))
				return []*Node{loss, Gradient(loss, in[0])[0]}
			}
			kept := evaluate(cfg)
			cfg.Recompute = true
			again := evaluate(cfg)
			if graphtest.FLOPs(t, again[1]) <= graphtest.FLOPs(t, kept[1]) {
				t.Error("nothing is computed again")
			}
			return append(kept, again...)
		}, append(inputs(cfg), state)...)
		graphtest.Same(t, "loss", got[2], got[0], tolerance)
		graphtest.Same(t, "gradient", got[3], got[1], tolerance)
	}
	t.Run("go", func(t *testing.T) { check(t, graphtest.Open(t, "go"), 0) })
	t.Run("xla", func(t *testing.T) { check(t, graphtest.OpenXLA(t), 5e-5) }) // it rounds elsewhere in another program
}

// TestDropout: it needs random numbers, and its rate is that of the configuration.
func TestDropout(t *testing.T) {
	state, err := RNGStateFromSeed(4)
	if err != nil {
		t.Fatal(err)
	}
	backend := graphtest.Open(t, "go")
	evaluate := func(rate float64, draw bool) float32 {
		cfg := tiny()
		cfg.Dropout = rate
		return graphtest.Run(t, backend, store(t, cfg), func(scope *mlx.Scope, in []*Node) []*Node {
			var rng *nn.RNG
			if draw {
				rng = nn.NewRNG(in[4])
			}
			_, _, loss := whole(scope, cfg, in, rng)
			return []*Node{loss}
		}, append(inputs(cfg), state)...)[0][0]
	}
	plain := evaluate(0, false)
	if evaluate(0.3, false) != plain || evaluate(0, true) != plain {
		t.Error("there is dropout without random numbers, or at rate 0")
	}
	if evaluate(0.3, true) == plain {
		t.Error("there is no dropout")
	}
}

// TestLowPrecision: weights and activations in bfloat16 and float16 give nearly what float32 gives.
func TestLowPrecision(t *testing.T) {
	backend := graphtest.OpenXLA(t)
	cfg := tiny()
	cfg.EncoderLayers, cfg.DecoderLayers = 1, 1
	evaluate := func(dtype dtypes.DType) [][]float32 {
		weights := store(t, cfg)
		if err := model.SetTrainable(weights, Params(cfg), false); err != nil {
			t.Fatal(err)
		}
		params := slices.DeleteFunc(Params(cfg), func(p model.Param) bool {
			return dtype == dtypes.Float16 && KeepsFloat32(p.Name)
		})
		if err := model.StoreFrozen(weights, params, dtype); err != nil {
			t.Fatal(err)
		}
		return graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			x := ConvertDType(in[0], dtype)
			encoded, logits, loss := whole(scope, cfg, append([]*Node{x}, in[1:]...), nil)
			if encoded.DType() != dtype || logits.DType() != dtypes.Float32 || loss.DType() != dtypes.Float32 {
				t.Errorf("encoder output is %s, logits %s, the loss %s", encoded.DType(), logits.DType(), loss.DType())
			}
			return []*Node{encoded, logits, loss, Gradient(loss, in[0])[0]}
		}, inputs(cfg)...)
	}
	want := evaluate(dtypes.Float32)
	for dtype, tolerance := range map[dtypes.DType]float64{dtypes.BFloat16: 0.05, dtypes.Float16: 0.01} {
		got := evaluate(dtype)
		name := dtype.String()
		graphtest.Same(t, name+" encoder", visible(got[0], encoderMask), visible(want[0], encoderMask), tolerance)
		graphtest.Same(t, name+" logits", visible(got[1], decoderMask), visible(want[1], decoderMask), tolerance)
		graphtest.Same(t, name+" loss", got[2], want[2], tolerance)
		graphtest.Same(t, name+" gradient", got[3], want[3], tolerance)
	}
}

// TestFloat16Range: what leaves a feed-forward network may be out of float16's range, as in the published models.
func TestFloat16Range(t *testing.T) {
	backend := graphtest.OpenXLA(t)
	cfg := tiny()
	weights := store(t, cfg)
	const name = "encoder.block.0.layer.1.DenseReluDense.wo.weight"
	v := weights.GetVariable(model.Path(name))
	values := tensors.MustCopyFlatData[float32](v.MustValue())
	for i := range values {
		values[i] *= 1e6
	}
	if err := model.Set(weights, name, v.Shape().Dimensions, values); err != nil {
		t.Fatal(err)
	}
	got := graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
		half := ConvertDType(in[0], dtypes.Float16)
		return []*Node{Encode(scope, cfg, in[0], in[1], nil), Encode(scope, cfg, half, in[1], nil)}
	}, inputs(cfg)[:2]...)
	graphtest.Same(t, "encoder", visible(got[1], encoderMask), visible(got[0], encoderMask), 0.01)
}
