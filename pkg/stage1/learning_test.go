package stage1

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/gomlx/compute/gobackend"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/trainer"
)

// TestLearning trains a tiny model on one batch: all losses fall towards their floors, every trained tensor moves,
// and the frozen encoder does not change by a bit.
func TestLearning(t *testing.T) {
	cfg := tinyConfig()
	cfg.QFormer.Layers, cfg.QFormer.CrossAttentionFreq, cfg.QFormer.Dropout = 2, 1, 0.05
	store := mlx.NewStore()
	if err := model.Initialize(store, Params(cfg), 3); err != nil {
		t.Fatal(err)
	}
	values := func(p model.Param) []float32 {
		return tensors.MustCopyFlatData[float32](store.GetVariable(model.Path(p.Name)).MustValue())
	}
	before := map[string][]float32{}
	for _, p := range Params(cfg) {
		before[p.Name] = values(p)
	}
	backend, err := gobackend.New("ops_sequential")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Finalize)
	optimizer := trainer.AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, WeightDecay: 0.05, DecayRule: trainer.DecayDefault}
	step, err := trainer.NewStep(backend, store, NewTask(cfg), optimizer, 4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(step.Close)
	d := newHostBatch(cfg)
	batch := BatchTensors(cfg, tinyBatch, d.pixels, d.ids, d.mask)
	var first, last trainer.Result
	for i := range 90 {
		r, err := step.Run(i, 0.015, batch)
		if err != nil {
			t.Fatal(err)
		}
		if !r.Applied || math.Abs(r.Loss-r.Terms[0]-r.Terms[1]-r.Terms[2]) > 1e-4 {
			t.Fatalf("step %d: %+v; want a loss that is the sum of its terms, applied", i, r)
		}
		if last = r; i == 0 {
			first = r
		}
	}
	for i, name := range NewTask(cfg).Terms {
		if !(last.Terms[i] < 0.75*first.Terms[i]) {
			t.Errorf("%s went from %g to %g", name, first.Terms[i], last.Terms[i])
		}
	}
	for _, p := range Params(cfg) {
		frozen, kept := strings.HasPrefix(p.Name, VisionPrefix), slices.Equal(values(p), before[p.Name])
		if frozen != kept {
			t.Errorf("%s: frozen %v, unchanged %v", p.Name, frozen, kept)
		}
	}
}

// TestFeaturesAgree: what evaluation and captioning compute is what the losses see.
func TestFeaturesAgree(t *testing.T) {
	cfg := tinyConfig()
	var next int
	got := evalBatch(t, cfg, randomStore(t, cfg), newHostBatch(cfg), func(scope *mlx.Scope, b Batch, _ *Node) []*Node {
		o := Forward(scope, cfg, b, nil)
		embeds, images := ImageFeatures(scope, cfg, b.Pixels)
		tokens := nextTokens(scope, cfg, embeds, DecoderIDs(b.TextIDs, cfg.BOSID), b.TextMask)
		tokens.AssertDims(tinyBatch, tinyLength)
		out := []*Node{
			o.ImageEmbeds, embeds, o.ImageFeats, images, o.TextFeat, TextFeatures(scope, cfg, b.TextIDs, b.TextMask),
			SliceAxis(o.ITMLogits, 0, AxisRangeFromStart(tinyBatch)), MatchLogits(scope, cfg, embeds, b.TextIDs, b.TextMask),
		}
		next = len(out)
		return append(out, o.LMLogits, nn.Float32(tokens))
	})
	for i := 0; i < next; i += 2 {
		sameValues(t, []string{"image embeds", "image feats", "text feat", "ITM logits"}[i/2], got[i+1], got[i], 1e-5)
	}
	vocab := cfg.QFormer.Vocab
	for i := range tinyBatch * (tinyLength - 1) {
		logits := got[next][i*vocab : (i+1)*vocab]
		token := int(got[next+1][i/(tinyLength-1)*tinyLength+i%(tinyLength-1)])
		if logits[token] != slices.Max(logits) {
			t.Errorf("position %d: token %d with logit %g, the largest is %g", i, token, logits[token], slices.Max(logits))
		}
	}
}
