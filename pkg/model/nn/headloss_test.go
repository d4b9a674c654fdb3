package nn_test

import (
	"os"
	"runtime"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/graphtest"
	"blip2/pkg/internal/measure"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// Sizes of the tests of HeadLoss.
const (
	headRows, headLength, headWidth, headVocab = 3, 7, 6, 11
)

// headLabels has positions without a label at the start, inside, at the end, and a row without any.
var headLabels = []int32{
	-100, -100, 3, 4, 0, 10, 9,
	1, -100, 2, -100, -100, 5, -100,
	-100, -100, -100, -100, -100, -100, -100,
}

// TestHeadLossInStretches: loss and gradient are those of the plain form, whatever the length of the stretches, also
// behind another factor, and where nothing has a label.
func TestHeadLossInStretches(t *testing.T) {
	check := func(t *testing.T, backend compute.Backend) {
		store := mlx.NewStore()
		if err := model.Set(store, "w", []int{headVocab, headWidth}, graphtest.Normals(2, headVocab*headWidth, 1)); err != nil {
			t.Fatal(err)
		}
		x := tensors.FromFlatDataAndDimensions(graphtest.Normals(1, headRows*headLength*headWidth, 1),
			headRows, headLength, headWidth)
		none := make([]int32, len(headLabels))
		for i := range none {
			none[i] = nn.IgnoredLabel
		}
		for name, labels := range map[string][]int32{"some": headLabels, "none": none} {
			positions := []int{0, 1, 2, 3, headLength - 1, headLength, 100}
			got := graphtest.Run(t, backend, store, func(scope *mlx.Scope, in []*Node) []*Node {
				w := scope.GetVariable("w").NodeValue(in[0].Graph())
				plain := nn.TokenLoss(nn.Project(in[0], w), in[1])
				outputs := []*Node{plain, Gradient(MulScalar(plain, -3), in[0])[0]}
				for _, n := range positions {
					loss := nn.HeadLoss(in[0], w, in[1], n)
					outputs = append(outputs, loss, Gradient(MulScalar(loss, -3), in[0])[0])
				}
				return outputs
			}, x, tensors.FromFlatDataAndDimensions(labels, headRows, headLength))
			for i := range positions {
				graphtest.Same(t, name+": loss", got[2+2*i], got[0], 1e-6)
				graphtest.Same(t, name+": gradient", got[3+2*i], got[1], 1e-6)
			}
			if name == "some" && got[0][0] == 0 {
				t.Error("the loss is 0: the test tells nothing")
			}
		}
	}
	t.Run("go", func(t *testing.T) { check(t, graphtest.Open(t, "go")) })
	t.Run("xla", func(t *testing.T) { check(t, graphtest.OpenXLA(t)) })
}

// TestHeadLossInHalf: in bfloat16 and float16 too, to their rounding.
func TestHeadLossInHalf(t *testing.T) {
	for _, dtype := range []dtypes.DType{dtypes.BFloat16, dtypes.Float16} {
		w := graphtest.Normals(2, headVocab*headWidth, 1)
		got := graphtest.Run(t, graphtest.OpenXLA(t), mlx.NewStore(), func(_ *mlx.Scope, in []*Node) []*Node {
			x, w := nn.Cast(in[0], dtype), nn.Cast(in[2], dtype)
			plain, parts := nn.TokenLoss(nn.Project(x, w), in[1]), nn.HeadLoss(x, w, in[1], 2)
			return []*Node{plain, Gradient(plain, in[0])[0], parts, Gradient(parts, in[0])[0]}
		}, tensors.FromFlatDataAndDimensions(graphtest.Normals(1, headRows*headLength*headWidth, 1), headRows, headLength,
			headWidth), tensors.FromFlatDataAndDimensions(headLabels, headRows, headLength),
			tensors.FromFlatDataAndDimensions(w, headVocab, headWidth))
		graphtest.Same(t, dtype.String()+" loss", got[2], got[0], 0x1p-7)
		graphtest.Same(t, dtype.String()+" gradient", got[3], got[1], 0x1p-7)
	}
}

// TestHeadLossHoldsOneStretch: nothing behind loss and gradient is as large as the logits of two stretches.
func TestHeadLossHoldsOneStretch(t *testing.T) {
	graphtest.Run(t, graphtest.Open(t, "go"), mlx.NewStore(), func(_ *mlx.Scope, in []*Node) []*Node {
		loss := nn.HeadLoss(in[0], in[2], in[1], 2)
		grad := Gradient(loss, in[0])[0]
		stretches := 0
		for _, n := range graphtest.Behind(loss, grad) {
			size := n.Shape().Size()
			if size >= 2*headRows*2*headVocab {
				t.Errorf("%s has the size of several stretches' logits", n)
			}
			if n.Type() == NodeTypeSchedulingBarrier {
				stretches++
			}
		}
		if stretches != 3 { // behind the first of four
			t.Errorf("%d stretches wait for the one before, want 3", stretches)
		}
		return []*Node{loss, grad}
	}, tensors.FromFlatDataAndDimensions(graphtest.Normals(1, headRows*headLength*headWidth, 1), headRows, headLength,
		headWidth), tensors.FromFlatDataAndDimensions(headLabels, headRows, headLength),
		tensors.FromFlatDataAndDimensions(graphtest.Normals(2, headVocab*headWidth, 1), headVocab, headWidth))
}

// TestHeadLossMemory: with a large vocabulary, stretches take a fraction of the memory on XLA.
func TestHeadLossMemory(t *testing.T) {
	if os.Getenv("BLIP2_TEST_BACKEND") == "" {
		t.Skip("measures XLA: set BLIP2_TEST_BACKEND")
	}
	const rows, length, width, vocab = 48, 32, 32, 50_272
	backend := graphtest.OpenXLA(t)
	peak := func(positions int) uint64 {
		labels := make([]int32, rows*length)
		for i := range labels {
			labels[i] = int32(i * 31 % vocab)
		}
		runtime.GC()
		if err := measure.ResetPeakMemory(); err != nil {
			t.Skipf("peaks cannot be measured here: %v", err)
		}
		before := measure.PeakMemory()
		graphtest.Run(t, backend, mlx.NewStore(), func(_ *mlx.Scope, in []*Node) []*Node {
			loss := nn.HeadLoss(in[0], in[2], in[1], positions)
			return []*Node{loss, Gradient(loss, in[0])[0]}
		}, tensors.FromFlatDataAndDimensions(graphtest.Normals(1, rows*length*width, 1), rows, length, width),
			tensors.FromFlatDataAndDimensions(labels, rows, length),
			tensors.FromFlatDataAndDimensions(graphtest.Normals(2, vocab*width, 1), vocab, width))
		return measure.PeakMemory() - before
	}
	peak(4) // what XLA keeps from its first compilation
	parts, whole := peak(4), peak(0)
	t.Logf("%.0f MB for all logits at once, %.0f MB in stretches", float64(whole)/1e6, float64(parts)/1e6)
	if logits := uint64(rows * length * vocab * 4); whole < logits || parts > whole/2 {
		t.Errorf("the logits are %d bytes; at once the loss takes %d, in stretches %d", logits, whole, parts)
	}
}
