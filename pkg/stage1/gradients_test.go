package stage1

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
	"blip2/pkg/trainer"
)

// The losses, as bits.
const (
	itc = 1 << iota
	itm
	itg
	every = itc | itm | itg
)

// teachers says which losses give a tensor a gradient (spec/stage1.md 10). The last layer is special: ITG reads the
// queries' keys and values, which are made from the layer's input, and ITM reads no text row of the output.
func teachers(cfg Config, name string) int {
	last := fmt.Sprintf("layer.%d.", cfg.QFormer.Layers-1)
	switch {
	case strings.HasSuffix(name, "key.bias"):
		return 0 // shifts all scores of a row alike
	case strings.HasPrefix(name, "vision_proj"), strings.HasPrefix(name, "text_proj"), name == "temp":
		return itc
	case strings.HasPrefix(name, "itm_head"):
		return itm
	case strings.HasPrefix(name, "Qformer.cls."):
		return itg
	case strings.Contains(name, last+"crossattention"), strings.Contains(name, last+"intermediate_query"),
		strings.Contains(name, last+"output_query"):
		return itc | itm
	case strings.Contains(name, last+"intermediate."), strings.Contains(name, last+"output."):
		return itc | itg
	}
	return every
}

// TestWhoTrainsWhat compares the losses' gradients of every tensor with what the specification says.
func TestWhoTrainsWhat(t *testing.T) {
	for _, frozen := range []bool{true, false} {
		cfg := tinyConfig()
		cfg.FreezeVision = frozen
		params := Params(cfg)
		grads := evalBatch(t, cfg, randomStore(t, cfg), newHostBatch(cfg),
			func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
				o := Forward(scope, cfg, b, nil)
				nodes := paramNodes(scope, params, b.Pixels.Graph())
				out := Gradient(o.LossITC, nodes...)
				out = append(out, Gradient(o.LossITM, nodes...)...)
				return append(out, Gradient(o.LossLM, nodes...)...)
			})
		for i, p := range params {
			want := teachers(cfg, p.Name)
			if frozen && strings.HasPrefix(p.Name, VisionPrefix) {
				want = 0
			}
			for loss, name := range []string{"ITC", "ITM", "ITG"} {
				size := largestOf(grads[loss*len(params)+i])
				if trains := want>>loss&1 == 1; trains && !(size > 1e-5) || !trains && !(size < 1e-6) {
					t.Errorf("encoder frozen %v: %s gives %s a gradient of %g", frozen, name, p.Name, size)
				}
				if frozen && strings.HasPrefix(p.Name, VisionPrefix) && size != 0 {
					t.Errorf("%s reaches the frozen %s", name, p.Name)
				}
			}
		}
	}
}

// TestLeftOutLosses: tensors that only losses of weight 0 teach stay as they are, without even decaying: their gradient
// is None in PyTorch. All others move. So it is with gradient caching.
func TestLeftOutLosses(t *testing.T) {
	for name, on := range map[string]int{"no ITC": itm | itg, "no ITM": itc | itg, "no ITG": itc | itm, "ITG alone": itg} {
		for _, parts := range []int{1, 2} {
			cfg := tinyConfig()
			cfg.MicroBatches, cfg.Coupled, cfg.FreezeVision = parts, parts > 1, false
			for loss, weight := range map[int]*float64{itc: &cfg.ITCWeight, itm: &cfg.ITMWeight, itg: &cfg.ITGWeight} {
				if on&loss == 0 {
					*weight = 0
				}
			}
			store := randomStore(t, cfg)
			value := func(p model.Param) []float32 {
				return tensors.MustCopyFlatData[float32](store.GetVariable(model.Path(p.Name)).MustValue())
			}
			before := map[string][]float32{}
			for _, p := range Params(cfg) {
				before[p.Name] = value(p)
			}
			step, err := trainer.NewStep(openGo(t).Backend, store, NewTask(cfg), trainer.AdamW{Betas: [2]float64{0.9, 0.98},
				Eps: 1e-8, WeightDecay: 0.3, DecayRule: trainer.DecayLAVIS}, 3)
			if err != nil {
				t.Fatal(err)
			}
			if r, err := step.Run(0, 0.01, newHostBatch(cfg).tensors(cfg)); err != nil || !r.Applied {
				t.Fatalf("%s in %d parts: %+v, error %v", name, parts, r, err)
			}
			step.Close()
			for _, p := range Params(cfg) {
				taught, moves := teachers(cfg, p.Name)&on != 0, !slices.Equal(value(p), before[p.Name])
				if taught != moves && !strings.HasSuffix(p.Name, "key.bias") { // whose gradient is 0 but for rounding
					t.Errorf("%s in %d parts: %s taught %v, moved %v", name, parts, p.Name, taught, moves)
				}
			}
			store.Finalize()
		}
	}
}

// TestFrozenEncoderIsNotTrained: a frozen encoder is no trained parameter, whichever it is; ln_vision always is.
func TestFrozenEncoderIsNotTrained(t *testing.T) {
	for _, arch := range []string{vit.CLIP, vit.EVA} {
		cfg := tinyConfig()
		cfg.Vision.Arch = arch
		isFrozen, thawed := map[string]bool{}, cfg
		thawed.FreezeVision = false
		for _, p := range Params(cfg) {
			isFrozen[p.Name] = true
		}
		for _, p := range TrainableParams(cfg) {
			delete(isFrozen, p.Name)
		}
		if isFrozen["ln_vision.weight"] || len(isFrozen) != len(VisionParams(cfg)) {
			t.Errorf("%s: frozen are %v", arch, isFrozen)
		}
		if len(TrainableParams(thawed)) != len(Params(cfg)) {
			t.Errorf("%s: an encoder that is not frozen is not trained whole", arch)
		}
	}
}

// TestGatherRegimes: without gradient through the gather, i2t trains only the pictures' side and t2i only the texts';
// with it both train both (spec/stage1.md 4). The temperature learns from both always.
func TestGatherRegimes(t *testing.T) {
	for _, through := range []bool{false, true} {
		cfg := tinyConfig()
		cfg.ITCGatherGrad = through
		store := mlx.NewStore()
		if err := model.Set(store, "temp", nil, []float32{0.5}); err != nil {
			t.Fatal(err)
		}
		features := normals(1, tinyBatch*2*cfg.EmbedDim)
		in := []any{rowsTensor(2*tinyBatch, features...), rowsTensor(tinyBatch, normals(2, tinyBatch*cfg.EmbedDim)...)}
		grads := evalGraph(t, store, in, func(scope *mlx.Scope, in []*Node) []*Node {
			images, texts := Reshape(in[0], tinyBatch, 2, cfg.EmbedDim), in[1]
			o := &Outputs{ImageFeats: nn.UnitNorm(images), TextFeat: nn.UnitNorm(texts)}
			positives := positivePairs(Batch{}, texts)
			contrast(scope, cfg, o, positives)
			target := softTarget(positives, cfg.LabelSmoothing)
			temp := scope.GetVariable("temp").NodeValue(texts.Graph())
			var out []*Node
			for _, sim := range []*Node{o.SimI2T, o.SimT2I} {
				loss := ReduceAllMean(nn.SoftCrossEntropy(sim, target))
				out = append(out, Gradient(loss, images, texts, temp)...)
			}
			return append(out, Gradient(o.LossITC, images, texts, temp)...)
		})
		for i, trains := range []bool{true, through, true, through, true, true} {
			name := []string{"i2t", "t2i"}[i/3] + " " + []string{"pictures", "texts", "temperature"}[i%3]
			size := largestOf(grads[i])
			if trains && !(size > 1e-3) || !trains && size != 0 {
				t.Errorf("gather gradient %v: %s have gradient %g", through, name, size)
			}
		}
		// The loss is the mean of both directions.
		for i := range 3 {
			half := make([]float64, len(grads[i]))
			for k := range half {
				half[k] = (float64(grads[i][k]) + float64(grads[3+i][k])) / 2
			}
			sameValues(t, "gradient of the loss", grads[6+i], half, 1e-6)
		}
	}
}

// TestNegativePicturesCarryGradient: ITM's gathered negatives train the picture they come from, as the reference's do.
func TestNegativePicturesCarryGradient(t *testing.T) {
	cfg := tinyConfig()
	cfg.FreezeVision = false
	d := newHostBatch(cfg)
	d.negImage, d.negText = []int32{1, 0, 0, 0}, []int32{1, 0, 0, 0}
	shares := func(negImage []int32) []float32 {
		d.negImage = negImage
		return evalBatch(t, cfg, randomStore(t, cfg), d, func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
			o := Forward(scope, cfg, b, nil)
			negative := Slice(o.ITMLogits, AxisRange(tinyBatch, 2*tinyBatch), AxisRange())
			grad := Gradient(ReduceAllSum(Mul(negative, negative)), b.Pixels)[0]
			return []*Node{ReduceSum(Abs(Reshape(grad, tinyBatch, -1)), -1)}
		})[0]
	}
	for _, negImage := range [][]int32{{1, 0, 0, 0}, {3, 3, 3, 2}} {
		for picture, size := range shares(negImage) {
			chosen := false
			for _, n := range negImage {
				chosen = chosen || int(n) == picture
			}
			if chosen != (size > 0) {
				t.Errorf("negatives %v: picture %d has a gradient of %g", negImage, picture, size)
			}
		}
	}
}
