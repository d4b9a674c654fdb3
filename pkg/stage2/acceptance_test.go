package stage2

import (
	"cmp"
	"math"
	"os"
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
	"blip2/pkg/model/opt"
	"blip2/pkg/model/t5"
	"blip2/pkg/trainer"
)

// onBackends runs a test of the small models on the Go backend, or on the one that BLIP2_TEST_BACKEND names, where
// compiling takes its time.
func onBackends(t *testing.T, f func(t *testing.T, backend compute.Backend)) {
	name := cmp.Or(os.Getenv("BLIP2_TEST_BACKEND"), "go")
	f(t, graphtest.Open(t, name))
}

// TestPicturesMatter: without the queries the loss is another, and so it is with the pictures of other texts.
func TestPicturesMatter(t *testing.T) {
	for name, spec := range tiny() {
		cfg := trainedConfig(t, name)
		got := evaluate(t, graphtest.Open(t, "go"), cfg, graphtest.Store(t, spec.Params(), 2),
			func(scope *mlx.Scope, b Batch, _ []*Node) []*Node {
				o := Forward(scope, cfg, b, nil)
				shifted := Concatenate([]*Node{SliceAxis(o.Queries, 0, AxisRangeToEnd(1)),
					SliceAxis(o.Queries, 0, AxisRangeFromStart(1))}, 0)
				return []*Node{o.Loss, read(scope, cfg, b, o.Queries, nil).Loss,
					read(scope, cfg, b, ZerosLike(o.Queries), nil).Loss, read(scope, cfg, b, shifted, nil).Loss}
			})
		if got[0][0] != got[1][0] {
			t.Errorf("%s: the loss is %g, behind its own queries %g", name, got[0][0], got[1][0])
		}
		for i, what := range map[int]string{2: "zeros", 3: "other pictures"} {
			if d := math.Abs(float64(got[i][0] - got[0][0])); !(d > 1e-3) {
				t.Errorf("%s: %s change the loss %g by %g only", name, what, got[0][0], d)
			}
		}
	}
}

// TestLossInStretches: loss and gradients of all trained tensors are those of the plain form, also where texts have a
// prompt that nothing is learned from.
func TestLossInStretches(t *testing.T) {
	onBackends(t, func(t *testing.T, backend compute.Backend) {
		for name, spec := range tiny() {
			cfg := trainedConfig(t, name)
			if cfg.OPT != nil {
				cfg.PromptLength = 2
			}
			params := TrainableParams(cfg)
			tokens := []int{0, 1, 6, 1000, AutoLossTokens}
			if backend.Name() != "go" {
				tokens = tokens[:3]
			}
			got := evaluate(t, backend, cfg, graphtest.Store(t, spec.Params(), 1),
				func(scope *mlx.Scope, b Batch, _ []*Node) []*Node {
					var outputs []*Node
					for _, n := range tokens {
						cfg.LossTokens = n
						loss := Forward(scope, cfg, b, nil).Loss
						outputs = append(append(outputs, loss), Gradient(loss, values(scope, loss.Graph(), params)...)...)
					}
					return outputs
				})
			each := 1 + len(params)
			for i := range tokens {
				graphtest.Same(t, name+" loss", got[i*each], got[0], 1e-6)
				for k, p := range params {
					graphtest.Same(t, name+" "+p.Name, got[i*each+1+k], got[1+k], 1e-6)
				}
			}
		}
	})
}

// TestGradientReachesTheQFormer: through the language model, to every trained tensor but biases of keys, which shift
// all scores of a row alike.
func TestGradientReachesTheQFormer(t *testing.T) {
	for name, spec := range tiny() {
		cfg := trainedConfig(t, name)
		params := TrainableParams(cfg)
		grads := evaluate(t, graphtest.Open(t, "go"), cfg, graphtest.Store(t, spec.Params(), 2),
			func(scope *mlx.Scope, b Batch, _ []*Node) []*Node {
				loss := Forward(scope, cfg, b, nil).Loss
				return Gradient(loss, values(scope, loss.Graph(), params)...)
			})
		for i, p := range params {
			size := 0.0
			for _, v := range grads[i] {
				size = max(size, math.Abs(float64(v)))
			}
			if none := strings.HasSuffix(p.Name, "key.bias"); none != (size < 1e-7) {
				t.Errorf("%s: %s has a gradient of %g", name, p.Name, size)
			}
		}
	}
}

// TestFrozenStaysFrozen: a step changes every trained tensor, neither image encoder nor language model by a bit; those
// have no optimizer slots, and checkpoints do not hold them. The language model is stored in half precision. That no
// product of the step is a gradient of its weights is what TestStepFLOPs shows.
func TestFrozenStaysFrozen(t *testing.T) {
	for name, spec := range tiny() {
		cfg := trainedConfig(t, name)
		store := mlx.NewStore()
		if err := model.Initialize(store, Params(cfg), 3); err != nil {
			t.Fatal(err)
		}
		if err := model.StoreFrozen(store, FrozenParams(cfg), dtypes.BFloat16); err != nil {
			t.Fatal(err)
		}
		if want := spec.Params(); len(Params(cfg)) != len(want) {
			t.Fatalf("%s: %d tensors, the checkpoint has %d", name, len(Params(cfg)), len(want))
		}
		bytes := func(p model.Param) []byte {
			var out []byte
			value := store.GetVariable(model.Path(p.Name)).MustValue()
			if err := value.ConstBytes(func(data []byte) { out = slices.Clone(data) }); err != nil {
				t.Fatal(err)
			}
			return out
		}
		before := map[string][]byte{}
		for _, p := range Params(cfg) {
			before[p.Name] = bytes(p)
		}
		step, err := trainer.NewStep(graphtest.Open(t, "go"), store, NewTask(cfg),
			trainer.AdamW{Betas: [2]float64{0.9, 0.98}, Eps: 1e-8, DecayRule: trainer.DecayDefault}, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(step.Close)
		pixels := tensors.MustCopyFlatData[float32](pictures(0, 3))
		result, err := step.Run(0, 0.01, BatchTensors(cfg, pixels, sampleTexts(cfg)))
		if err != nil || !result.Applied {
			t.Fatalf("%s: %+v, error %v", name, result, err)
		}
		trained := map[string]bool{}
		for _, p := range TrainableParams(cfg) {
			trained[p.Name] = true
		}
		for _, p := range Params(cfg) {
			if kept := slices.Equal(bytes(p), before[p.Name]); kept == trained[p.Name] {
				t.Errorf("%s: trained %v, unchanged %v", p.Name, trained[p.Name], kept)
			}
		}
		slots := 0
		for v := range store.IterVariables() {
			if rest, ok := strings.CutPrefix(v.Path(), "/opt/"); ok {
				slots++
				if !trained[strings.SplitN(model.Name(rest), ".", 3)[2]] {
					t.Errorf("%s: optimizer slot %s", name, v.Path())
				}
			}
		}
		if slots != 2*len(trained) {
			t.Errorf("%s: %d optimizer slots for %d trained tensors", name, slots, len(trained))
		}
		snapshot, err := trainer.TakeSnapshot(store, TrainableParams(cfg), 1, trainer.State{})
		if err != nil || len(snapshot.Model) != len(trained) {
			t.Errorf("%s: a checkpoint of %d tensors for %d trained, error %v", name, len(snapshot.Model), len(trained), err)
		}
	}
}

// TestOPTReadsEmbeddings: queries that are the embeddings of tokens are these tokens, in a text that begins with them.
func TestOPTReadsEmbeddings(t *testing.T) {
	onBackends(t, func(t *testing.T, backend compute.Backend) {
		spec := tiny()["OPT"]
		cfg := trainedConfig(t, "OPT")
		words := tensors.FromFlatDataAndDimensions([]int32{4, 5, 6, 7, 8, 9, 10, 11, 12}, 3, 3)
		got := evaluate(t, backend, cfg, graphtest.Store(t, spec.Params(), 1),
			func(scope *mlx.Scope, b Batch, more []*Node) []*Node {
				llm := cfg.llm(scope)
				behind := read(scope, cfg, b, opt.Embed(llm, more[0], dtypes.Float32), nil).Logits(scope, cfg)
				ids := Concatenate([]*Node{more[0], b.IDs}, 1)
				mask := Concatenate([]*Node{OnesLike(more[0]), b.Mask}, 1)
				text := opt.Logits(llm, *cfg.OPT, opt.Forward(llm, *cfg.OPT,
					opt.Input{Embeds: opt.Embed(llm, ids, dtypes.Float32), Mask: mask}, nil).Hidden)
				return []*Node{behind, text}
			}, words)
		graphtest.Same(t, "logits", got[0], got[1], 1e-4)
	})
}

// TestT5ReadsEmbeddings is TestOPTReadsEmbeddings on the encoder's side.
func TestT5ReadsEmbeddings(t *testing.T) {
	onBackends(t, func(t *testing.T, backend compute.Backend) {
		spec := tiny()["T5"]
		cfg := trainedConfig(t, "T5")
		words := tensors.FromFlatDataAndDimensions([]int32{4, 5, 6, 7, 8, 9, 10, 11, 12}, 3, 3)
		got := evaluate(t, backend, cfg, graphtest.Store(t, spec.Params(), 1),
			func(scope *mlx.Scope, b Batch, more []*Node) []*Node {
				llm := cfg.llm(scope)
				behind := read(scope, cfg, b, t5.Embed(llm, more[0], dtypes.Float32), nil)
				ids := Concatenate([]*Node{more[0], b.IDs}, 1)
				mask := Concatenate([]*Node{OnesLike(more[0]), b.Mask}, 1)
				encoded := t5.Encode(llm, *cfg.T5, t5.Embed(llm, ids, dtypes.Float32), mask, nil)
				text := T5Logits(scope, cfg, encoded, mask, t5.DecoderIDs(behind.Labels))
				// Padding of the prefix is where the mask of both is 0, and hidden from the decoder.
				keep := nn.Float32(BroadcastToDims(InsertAxes(mask, -1), encoded.Shape().Dimensions...))
				return []*Node{Mul(behind.Encoded, keep), Mul(encoded, keep), shown(behind.Logits(scope, cfg), b.OutputMask),
					shown(text, b.OutputMask)}
			}, words)
		graphtest.Same(t, "encoder", got[0], got[1], 1e-4)
		graphtest.Same(t, "logits", got[2], got[3], 1e-4)
	})
}

// shown zeroes what is at padding.
func shown(logits, mask *Node) *Node {
	return Mul(logits, nn.Float32(BroadcastToDims(InsertAxes(mask, -1), logits.Shape().Dimensions...)))
}

// TestDropoutOfTheLanguageModel: with random numbers, OPT drops the outputs of its sublayers (two a layer); T5 the
// inputs and outputs of both stacks, and of every block the attention's probabilities and sublayer outputs, and the
// inside of the feed-forward network, as in Hugging Face. Without its rates only the Q-Former drops.
func TestDropoutOfTheLanguageModel(t *testing.T) {
	state, err := RNGStateFromSeed(4)
	if err != nil {
		t.Fatal(err)
	}
	backend := graphtest.Open(t, "go")
	for name, want := range map[string]int{"OPT": 2 * 2, "narrow OPT": 2 * 2, "T5": 4 + 2*(2+2) + 2*(2+2+2)} {
		spec := tiny()[name]
		cfg := trainedConfig(t, name)
		cfg.QFormer.Dropout = 0.1
		evaluate(t, backend, cfg, graphtest.Store(t, spec.Params(), 1),
			func(scope *mlx.Scope, b Batch, more []*Node) []*Node {
				draws := func(rate float64) (int, *Node) {
					c := cfg.withLLMDropout(rate)
					loss := Forward(scope, c, b, nn.NewRNG(more[0])).Loss
					n := 0
					for _, node := range graphtest.Behind(loss) {
						if node.Type() == NodeTypeRNGBitGenerator {
							n++
						}
					}
					return n, loss
				}
				with, dropped := draws(0.1)
				without, plain := draws(0)
				if with-without != want || without == 0 {
					t.Errorf("%s: %d draws, %d of them the language model's, want %d", name, with, with-without, want)
				}
				return []*Node{dropped, plain}
			}, state)
	}
}

// TestRematerialisation: loss and gradients stay the same, dropout included, and layers are computed again.
func TestRematerialisation(t *testing.T) {
	onBackends(t, func(t *testing.T, backend compute.Backend) {
		state, err := RNGStateFromSeed(4)
		if err != nil {
			t.Fatal(err)
		}
		for name, spec := range tiny() {
			cfg := trainedConfig(t, name).withLLMDropout(0.1)
			params := TrainableParams(cfg)
			got := evaluate(t, backend, cfg, graphtest.Store(t, spec.Params(), 1),
				func(scope *mlx.Scope, b Batch, more []*Node) []*Node {
					var outputs []*Node
					var work [2]float64
					for i, again := range []bool{false, true} {
						c := cfg.withRecompute(again)
						loss := Forward(scope, c, b, nn.NewRNG(more[0])).Loss
						grads := Gradient(loss, values(scope, loss.Graph(), params)...)
						outputs = append(append(outputs, loss), grads...)
						work[i] = graphtest.FLOPs(t, grads...)
					}
					if work[1] <= work[0] {
						t.Errorf("%s: nothing is computed again", name)
					}
					return outputs
				}, state)
			for i := range 1 + len(params) {
				graphtest.Same(t, name, got[1+len(params)+i], got[i], 1e-5)
			}
		}
	})
}
