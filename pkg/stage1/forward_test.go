package stage1

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
)

// plainForward is Forward without any of its shortcuts: ITG is one pass of queries and all L tokens under the whole
// mask, ITM reads three copies of the image features, every row of every pass is computed, and the cross entropies
// are log-softmax times a target written out.
func plainForward(scope *mlx.Scope, cfg Config, b Batch) *Outputs {
	o := &Outputs{NegImage: b.NegImage, NegText: b.NegText}
	qf, g := cfg.QFormer, b.Pixels.Graph()
	o.ImageEmbeds = EncodeImages(scope, cfg, b.Pixels)
	pass := func(features, ids, mask *Node) *Node {
		queries := qformer.Queries(scope, qf, g, ids.Shape().Dimensions[0], dtypes.Float32)
		return qformer.Forward(scope, qf, qformer.Input{Queries: queries, TextIDs: ids, Mask: mask,
			Cross: qformer.NewCross(scope, qf, features)}, nil).Hidden
	}
	// The image pass is the queries' part of the ITG pass, whose queries see no text.
	itg := pass(o.ImageEmbeds, DecoderIDs(b.TextIDs, cfg.BOSID), qformer.FullCausalMask(b.TextMask, qf.Queries))
	o.QueryHidden = SliceAxis(itg, 1, AxisRangeFromStart(qf.Queries))
	text := qformer.Forward(scope, qf, qformer.Input{TextIDs: b.TextIDs, Mask: nn.PaddingMask(b.TextMask)}, nil)
	o.TextCLSHidden = Reshape(SliceAxis(text.Hidden, 1, AxisRangeFromStart(1)), tinyBatch, -1)

	o.ImageFeats = nn.UnitNorm(nn.Linear(scope.At("vision_proj"), o.QueryHidden))
	o.TextFeat = nn.UnitNorm(nn.Linear(scope.At("text_proj"), o.TextCLSHidden))
	plainContrast(scope, cfg, o, b)

	take := func(x, rows *Node) *Node { return Gather(x, InsertAxes(rows, -1)) }
	three := func(x, second, third *Node) *Node { return Concatenate([]*Node{x, second, third}, 0) }
	mask := qformer.MultimodalMask(three(b.TextMask, b.TextMask, take(b.TextMask, b.NegText)), qf.Queries)
	itm := pass(three(o.ImageEmbeds, take(o.ImageEmbeds, b.NegImage), o.ImageEmbeds),
		three(b.TextIDs, b.TextIDs, take(b.TextIDs, b.NegText)), mask)
	o.ITMQueryHidden = SliceAxis(itm, 1, AxisRangeFromStart(qf.Queries))
	o.ITMLogits = ReduceMean(nn.Linear(scope.At("itm_head"), o.ITMQueryHidden), 1)
	match := Concatenate([]*Node{Ones(g, float32s(tinyBatch)), Zeros(g, float32s(2*tinyBatch))}, 0)
	o.LossITM = plainEntropy(o.ITMLogits, Stack([]*Node{OneMinus(match), match}, -1), nil)

	logits := qformer.LMLogits(scope, qf, SliceAxis(itg, 1, AxisRangeToEnd(qf.Queries)))
	o.LMLogits = SliceAxis(logits, 1, AxisRangeFromStart(tinyLength-1))
	next := SliceAxis(b.TextIDs, 1, AxisRangeToEnd(1))
	target := AddScalar(MulScalar(OneHot(next, qf.Vocab, dtypes.Float32), 1-cfg.LabelSmoothing),
		cfg.LabelSmoothing/float64(qf.Vocab))
	seen := nn.Float32(SliceAxis(b.TextMask, 1, AxisRangeToEnd(1)))
	o.LossLM = plainEntropy(Reshape(o.LMLogits, -1, qf.Vocab), Reshape(target, -1, qf.Vocab), Reshape(seen, -1))
	o.Loss = Add(Add(o.LossITC, o.LossITM), o.LossLM)
	return o
}

func float32s(n int) shapes.Shape { return shapes.Make(dtypes.Float32, n) }

// plainContrast compares picture by picture and query by query.
func plainContrast(scope *mlx.Scope, cfg Config, o *Outputs, b Batch) {
	g := o.TextFeat.Graph()
	temp := scope.GetVariable("temp").NodeValue(g)
	images, texts := o.ImageFeats, o.TextFeat
	if !cfg.ITCGatherGrad {
		images, texts = StopGradient(images), StopGradient(texts)
	}
	// cosine of every row of a with every row of b.
	cosine := func(a, b *Node) *Node { return ReduceMax(Einsum("iqe,te->itq", a, b), -1) }
	o.SimI2T = Div(cosine(o.ImageFeats, texts), temp)
	o.SimT2I = Div(TransposeAllAxes(cosine(images, o.TextFeat), 1, 0), temp)
	equal := Diagonal(g, tinyBatch)
	if b.ImageID != nil {
		equal = Equal(BroadcastToDims(Reshape(b.ImageID, tinyBatch, 1), tinyBatch, tinyBatch),
			BroadcastToDims(Reshape(b.ImageID, 1, tinyBatch), tinyBatch, tinyBatch))
	}
	positive := nn.Float32(equal)
	share := Div(positive, InsertAxes(ReduceSum(positive, -1), -1))
	target := AddScalar(MulScalar(share, 1-cfg.LabelSmoothing), cfg.LabelSmoothing/tinyBatch)
	o.LossITC = MulScalar(Add(plainEntropy(o.SimI2T, target, nil), plainEntropy(o.SimT2I, target, nil)), 0.5)
}

// plainEntropy is the mean cross entropy over the rows that count (all with nil).
func plainEntropy(logits, target, counted *Node) *Node {
	rows := Neg(ReduceSum(Mul(target, LogSoftmax(logits, -1)), -1))
	if counted == nil {
		return ReduceAllMean(rows)
	}
	return Div(ReduceAllSum(Mul(rows, counted)), ReduceAllSum(counted))
}

// outputsOf lists the float outputs that both forms have.
func outputsOf(o *Outputs) map[string]*Node {
	return map[string]*Node{
		"image embeds": o.ImageEmbeds, "query hidden": o.QueryHidden, "text [CLS] hidden": o.TextCLSHidden,
		"image feats": o.ImageFeats, "text feat": o.TextFeat, "i2t": o.SimI2T, "t2i": o.SimT2I,
		"ITM query hidden": o.ITMQueryHidden, "ITM logits": o.ITMLogits, "LM logits": o.LMLogits,
		"ITC": o.LossITC, "ITM": o.LossITM, "ITG": o.LossLM, "loss": o.Loss,
	}
}

// TestPlainForm: the shortcuts change neither an output nor the gradient of any parameter.
func TestPlainForm(t *testing.T) {
	for _, c := range []struct {
		name   string
		ids    bool
		change func(*Config)
	}{
		{"pre-training", false, func(*Config) {}},
		{"gradient through the gather", false, func(c *Config) { c.ITCGatherGrad = true }},
		{"image ids, trained encoder", true, func(c *Config) { c.FreezeVision = false }},
		{"last layer without cross-attention", false, func(c *Config) { c.QFormer.Layers = 2 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := tinyConfig()
			c.change(&cfg)
			d := newHostBatch(cfg)
			d.withIDs = c.ids
			params := TrainableParams(cfg)
			var names []string
			values := evalBatch(t, cfg, randomStore(t, cfg), d, func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
				evaluate := func(o *Outputs) []*Node {
					var out []*Node
					names = names[:0]
					outputs := outputsOf(o)
					for name := range outputs {
						names = append(names, name)
					}
					slices.Sort(names)
					for _, name := range names {
						out = append(out, outputs[name])
					}
					for _, p := range params {
						names = append(names, "gradient of "+p.Name)
					}
					return append(out, Gradient(o.Loss, paramNodes(scope, params, o.Loss.Graph())...)...)
				}
				return append(evaluate(plainForward(scope, cfg, b)), evaluate(Forward(scope, cfg, b, nil))...)
			})
			want, got := values[:len(names)], values[len(names):]
			for i, name := range names {
				sameValues(t, name, got[i], want[i], 1e-5)
				if largestOf(want[i]) < 1e-4 && !strings.HasSuffix(name, "key.bias") && !strings.HasSuffix(name, "in_proj_bias") {
					t.Errorf("%s is %g: the comparison says nothing", name, largestOf(want[i]))
				}
			}
		})
	}
}

// crossEntropy is −Σ target·log softmax(row) on the host.
func crossEntropy(row, target []float64) float64 {
	var loss float64
	for i, p := range hostSoftmax(row) {
		loss -= target[i] * math.Log(p)
	}
	return loss
}

func wide(x []float32) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[i] = float64(v)
	}
	return out
}

// TestLossesOnHost computes similarities and losses again on the host, in float64, from the features and logits,
// as spec/stage1.md 4 to 7 defines them.
func TestLossesOnHost(t *testing.T) {
	for _, withIDs := range []bool{false, true} {
		cfg := tinyConfig()
		cfg.ITCWeight, cfg.ITMWeight, cfg.ITGWeight = 0.5, 2, 3
		d := newHostBatch(cfg)
		d.withIDs = withIDs
		got := evalBatch(t, cfg, randomStore(t, cfg), d, func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
			o := Forward(scope, cfg, b, nil)
			o.ImageFeats.AssertDims(tinyBatch, cfg.QFormer.Queries, cfg.EmbedDim)
			o.LMLogits.AssertDims(tinyBatch, tinyLength-1, cfg.QFormer.Vocab)
			return []*Node{o.ImageFeats, o.TextFeat, scope.GetVariable("temp").NodeValue(b.Pixels.Graph()), o.ITMLogits,
				o.LMLogits, o.SimI2T, o.SimT2I, o.LossITC, o.LossITM, o.LossLM, o.Loss}
		})
		i2t, t2i := hostSimilarities(cfg, wide(got[0]), wide(got[1]), float64(got[2][0]))
		sameValues(t, "i2t", got[5], slices.Concat(i2t...), 1e-5)
		sameValues(t, "t2i", got[6], slices.Concat(t2i...), 1e-5)

		var itc, itm, itg, counted float64
		for b := range tinyBatch {
			target, n := make([]float64, tinyBatch), 0.0
			for g := range target {
				if b == g || withIDs && d.imageID[b] == d.imageID[g] {
					n++
				}
			}
			for g := range target {
				target[g] = cfg.LabelSmoothing / tinyBatch
				if b == g || withIDs && d.imageID[b] == d.imageID[g] {
					target[g] += (1 - cfg.LabelSmoothing) / n
				}
			}
			itc += (crossEntropy(i2t[b], target) + crossEntropy(t2i[b], target)) / (2 * tinyBatch)
		}
		for r := range 3 * tinyBatch {
			target := []float64{1, 0}
			if r < tinyBatch {
				target = []float64{0, 1}
			}
			itm += crossEntropy(wide(got[3][2*r:2*r+2]), target) / (3 * tinyBatch)
		}
		vocab := cfg.QFormer.Vocab
		for i := range tinyBatch * (tinyLength - 1) {
			next := i/(tinyLength-1)*tinyLength + i%(tinyLength-1) + 1
			if d.mask[next] == 0 {
				continue
			}
			target := slices.Repeat([]float64{cfg.LabelSmoothing / float64(vocab)}, vocab)
			target[d.ids[next]] += 1 - cfg.LabelSmoothing
			itg += crossEntropy(wide(got[4][i*vocab:(i+1)*vocab]), target)
			counted++
		}
		itg /= counted
		for i, want := range []float64{itc, itm, itg, 0.5*itc + 2*itm + 3*itg} {
			sameValues(t, fmt.Sprintf("image ids %v, loss %d", withIDs, i), got[7+i], []float64{want}, 1e-5)
		}
	}
}

// hostSimilarities are s_i2t and s_t2i of spec/stage1.md 4, rows of [B][B].
func hostSimilarities(cfg Config, images, texts []float64, temp float64) (i2t, t2i [][]float64) {
	q, e := cfg.QFormer.Queries, cfg.EmbedDim
	for range tinyBatch {
		i2t, t2i = append(i2t, make([]float64, tinyBatch)), append(t2i, make([]float64, tinyBatch))
	}
	for i := range tinyBatch {
		for j := range tinyBatch {
			best := math.Inf(-1)
			for k := range q {
				var cosine float64
				for c := range e {
					cosine += images[(i*q+k)*e+c] * texts[j*e+c]
				}
				best = max(best, cosine)
			}
			i2t[i][j], t2i[j][i] = best/temp, best/temp
		}
	}
	return i2t, t2i
}

// TestDecoderIDs: [DEC] replaces the first token, whatever it is, and nothing else.
func TestDecoderIDs(t *testing.T) {
	in := []any{tensors.FromFlatDataAndDimensions([]int32{1, 5, 2, 0, 1, 1, 2, 9}, 2, 4)}
	got := evalGraph(t, mlx.NewStore(), in, func(_ *mlx.Scope, in []*Node) []*Node {
		return []*Node{nn.Float32(DecoderIDs(in[0], 29))}
	})[0]
	if want := []float32{29, 5, 2, 0, 29, 1, 2, 9}; !slices.Equal(got, want) {
		t.Errorf("ids %v, want %v", got, want)
	}
}

// TestDrawnNegatives: with a random state the pass draws its own negatives, never positives, the same for the same
// state; without one the batch must bring them.
func TestDrawnNegatives(t *testing.T) {
	cfg := tinyConfig()
	cfg.QFormer.Dropout = 0.1
	d := newHostBatch(cfg)
	d.withDrawn, d.withIDs = true, true
	draw := func() [][]float32 {
		return evalBatch(t, cfg, randomStore(t, cfg), d, func(scope *mlx.Scope, b Batch, state *Node) []*Node {
			o := Forward(scope, cfg, b, nn.NewRNG(state))
			return []*Node{nn.Float32(o.NegImage), nn.Float32(o.NegText), o.Loss}
		})
	}
	got, again := draw(), draw()
	for i := range 2 {
		for row, column := range got[i] {
			if d.imageID[row] == d.imageID[int(column)] {
				t.Errorf("row %d of draw %d is the positive %g", row, i, column)
			}
		}
	}
	if !slices.Equal(got[2], again[2]) {
		t.Errorf("the same state gives the losses %g and %g", got[2], again[2])
	}
}

// TestInitialLosses: before training the model knows nothing (spec/stage1.md 10). ITM's head starts with a prejudice.
func TestInitialLosses(t *testing.T) {
	cfg := tinyConfig()
	cfg.QFormer.Hidden, cfg.QFormer.Vocab, cfg.BOSID = 64, 300, 299
	cfg.Temperature = 1 // 0.07 would widen the small differences between features
	store := mlx.NewStore()
	if err := model.Initialize(store, Params(cfg), 3); err != nil {
		t.Fatal(err)
	}
	got := evalBatch(t, cfg, store, newHostBatch(cfg), func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
		o := Forward(scope, cfg, b, nil)
		return []*Node{o.LossITC, o.LossITM, o.LossLM}
	})
	for i, c := range []struct {
		name       string
		want, with float64
	}{{"ITC", math.Log(tinyBatch), 0.1}, {"ITM", math.Ln2, 0.5}, {"ITG", math.Log(300), 0.2}} {
		if d := math.Abs(float64(got[i][0]) - c.want); !(d <= c.with) {
			t.Errorf("%s starts at %g, want %g ± %g", c.name, got[i][0], c.want, c.with)
		}
	}
}

// TestFloors: what a perfect predictor pays for label smoothing (spec/stage1.md 10).
func TestFloors(t *testing.T) {
	const vocab, global, smoothing = 30523, 1680, 0.1
	logits := func(n int) []float32 {
		out := slices.Repeat([]float32{float32(math.Log(smoothing / float64(n)))}, n)
		out[7] = float32(math.Log(1 - smoothing + smoothing/float64(n)))
		return out
	}
	positives := make([]float32, global)
	positives[7] = 1
	in := []any{rowsTensor(1, logits(vocab)...), idsTensor([]int32{7}), rowsTensor(1, logits(global)...),
		rowsTensor(1, positives...)}
	got := evalGraph(t, mlx.NewStore(), in, func(_ *mlx.Scope, in []*Node) []*Node {
		itc := nn.SoftCrossEntropy(in[2], softTarget(in[3], smoothing))
		return []*Node{nn.SmoothedCrossEntropy(in[0], in[1], smoothing), itc}
	})
	floor := func(n float64) float64 {
		first, rest := 1-smoothing+smoothing/n, smoothing/n
		return -first*math.Log(first) - (n-1)*rest*math.Log(rest)
	}
	if itg, itc := floor(vocab), floor(global); math.Abs(itg-1.36) > 0.005 || math.Abs(itc-1.07) > 0.005 {
		t.Errorf("floors %.3f and %.3f, the specification says 1.36 and 1.07", itg, itc)
	}
	sameValues(t, "ITG floor", got[0], []float64{floor(vocab)}, 2e-3) // float32 sums of 30,523 terms
	sameValues(t, "ITC floor", got[1], []float64{floor(global)}, 1e-4)
}

// TestImageIDTargets: a row's positives share 1−ε equally, all columns share ε (spec/stage1.md 4).
func TestImageIDTargets(t *testing.T) {
	in := []any{idsTensor([]int32{7, 3, 7, 7}), rowsTensor(4, make([]float32, 4)...)}
	got := evalGraph(t, mlx.NewStore(), in, func(_ *mlx.Scope, in []*Node) []*Node {
		own := positivePairs(Batch{}, in[1])
		return []*Node{softTarget(positivePairs(Batch{ImageID: in[0]}, in[1]), 0.1), softTarget(own, 0.1), softTarget(own, 0)}
	})
	const e = 0.025
	sameValues(t, "equal ids", got[0], []float64{
		0.3 + e, e, 0.3 + e, 0.3 + e, e, 0.9 + e, e, e, 0.3 + e, e, 0.3 + e, 0.3 + e, 0.3 + e, e, 0.3 + e, 0.3 + e}, 1e-6)
	sameValues(t, "own column", got[1], []float64{
		0.9 + e, e, e, e, e, 0.9 + e, e, e, e, e, 0.9 + e, e, e, e, e, 0.9 + e}, 1e-6)
	sameValues(t, "no smoothing", got[2], []float64{1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, 0)
}
