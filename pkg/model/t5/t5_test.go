package t5

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

// TestSteps: decoding step by step, with several rows for each encoded sequence as beams are, gives what whole
// sequences give that have an encoded one each.
func TestSteps(t *testing.T) {
	const beams = 3
	cfg := tiny()
	ids := make([]int32, batch*beams*steps)
	for i := range ids {
		if i%steps > 0 {
			ids[i] = int32(i * 7 % cfg.Vocab)
		}
	}
	check := func(t *testing.T, backend compute.Backend, splits ...[2]int) {
		weights := store(t, cfg)
		x := []any{floats(embeds(cfg, 5), length, cfg.Hidden), ints(encoderMask, length)}
		want := graphtest.Run(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			rows := Const(in[0].Graph(), [][]int32{{0}, {0}, {0}, {1}, {1}, {1}})
			encoded, mask := Gather(Encode(scope, cfg, in[0], in[1], nil), rows), Gather(in[1], rows)
			out := Decode(scope, cfg, Input{Embeds: Embed(scope, in[2], dtypes.Float32),
				Cross: NewCross(scope, cfg, encoded, mask)}, nil)
			return []*Node{Logits(scope, cfg, out.Hidden)}
		}, append(x, ints(ids, steps))...)[0]
		cross := graphtest.Tensors(t, backend, weights, func(scope *mlx.Scope, in []*Node) []*Node {
			return NewCross(scope, cfg, Encode(scope, cfg, in[0], in[1], nil), in[1]).Nodes()
		}, x...)
		for _, split := range splits {
			s := stepper{cfg: cfg, backend: backend, weights: weights, cross: cross}
			got := s.logits(t, ids, split[0], split[1])
			graphtest.Same(t, fmt.Sprintf("%d tokens, then %d at a time", split[0], split[1]), got, want, 2e-6)
		}
	}
	t.Run("go", func(t *testing.T) {
		check(t, graphtest.Open(t, "go"), [2]int{1, 1}, [2]int{3, 1}, [2]int{1, 2}, [2]int{3, 2})
	})
	t.Run("xla", func(t *testing.T) { check(t, graphtest.OpenXLA(t), [2]int{1, 1}) })
}

// stepper decodes with a cache as generation does: one program for the first tokens, and one that is run again and
// again for the pieces of equal size that follow.
type stepper struct {
	cfg     Config
	backend compute.Backend
	weights *mlx.Store
	cross   []*tensors.Tensor
}

// logits are those of ids [rows, steps]: [rows, steps, Vocab].
func (s stepper) logits(t *testing.T, ids []int32, first, piece int) []float32 {
	t.Helper()
	prefill, step := s.program(t, true), s.program(t, false)
	var cache []*tensors.Tensor
	out := make([]float32, len(ids)*s.cfg.Vocab)
	for at, end := 0, first; at < steps; at, end = end, end+piece {
		exec := prefill
		if at > 0 {
			exec = step
		}
		var piece []int32
		for r := range len(ids) / steps {
			piece = append(piece, ids[r*steps+at:r*steps+end]...)
		}
		args := []any{ints(piece, end-at)}
		for _, x := range append(slices.Clone(s.cross), cache...) {
			args = append(args, x)
		}
		results, err := exec.Call(args...)
		if err != nil {
			t.Fatal(err)
		}
		cache = results[:len(results)-1]
		for i, v := range tensors.MustCopyFlatData[float32](results[len(results)-1]) {
			row, feature := i/s.cfg.Vocab, i%s.cfg.Vocab
			out[(row/(end-at)*steps+at+row%(end-at))*s.cfg.Vocab+feature] = v
		}
	}
	return out
}

// program decodes ids; its other inputs are the cross-attention's source and, unless it is the first, the cache.
func (s stepper) program(t *testing.T, first bool) *mlx.Exec {
	t.Helper()
	exec, err := mlx.NewExec(s.backend, s.weights, func(scope *mlx.Scope, in []*Node) []*Node {
		input := Input{Embeds: Embed(scope, in[0], dtypes.Float32), Cross: CrossOf(in[1 : 1+len(s.cross)])}
		if first {
			input.Capacity = steps + 1
		} else {
			input.Cache = nn.CacheOf(in[1+len(s.cross):])
		}
		out := Decode(scope, s.cfg, input, nil)
		return append(out.Cache.Nodes(), Logits(scope, s.cfg, out.Hidden))
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(exec.Finalize)
	return exec
}

// TestSharedEncoding: the decoder's rows must divide among the encoded sequences.
func TestSharedEncoding(t *testing.T) {
	cfg := tiny()
	_, err := mlx.CallOnceN(graphtest.Open(t, "go"), store(t, cfg), func(scope *mlx.Scope, in []*Node) []*Node {
		cross := NewCross(scope, cfg, in[0], in[1])
		ids := Const(in[0].Graph(), [][]int32{{0}, {0}, {0}})
		return []*Node{Decode(scope, cfg, Input{Embeds: Embed(scope, ids, dtypes.Float32), Cross: cross}, nil).Hidden}
	}, inputs(cfg)[:2]...)
	if err == nil || !strings.Contains(err.Error(), "3 decoder rows") {
		t.Errorf("error %v", err)
	}
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
