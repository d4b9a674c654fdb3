package stage1

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/dataset"
	"blip2/pkg/internal/toydata"
	"blip2/pkg/model"
	"blip2/pkg/retrieval"
	"blip2/pkg/tokenizer"
)

// evalToy is a model with random tensors and the training pictures of the toy data.
type evalToy struct {
	*toy
	tok   *tokenizer.WordPiece
	set   *dataset.EvalSet
	cfg   Config
	store *mlx.Store
}

func newEvalToy(t *testing.T) *evalToy {
	t.Helper()
	e := &evalToy{toy: newToy(t), cfg: tinyConfig()}
	var err error
	if e.tok, err = tokenizer.LoadWordPiece(e.path(toydata.VocabFile)); err != nil {
		t.Fatal(err)
	}
	v := VocabularyOf(e.tok)
	e.cfg.QFormer.Vocab, e.cfg.PadID, e.cfg.CLSID, e.cfg.SEPID, e.cfg.BOSID = v.Size, v.Pad, v.CLS, v.SEP, v.DEC
	src, err := dataset.OpenCaptions(dataset.CaptionFile{Annotations: e.path(toydata.CaptionFile),
		Images: e.path(toydata.ImagesDir), Split: "train"})
	if err != nil {
		t.Fatal(err)
	}
	e.set, err = dataset.NewEvalSet(dataset.First(src, 7), e.tok, dataset.EvalOptions{ImageSize: e.cfg.Vision.ImageSize,
		MaxTextLen: e.cfg.MaxTextLen, Workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	e.store = randomStore(t, e.cfg)
	return e
}

// evaluator evaluates in batches of the given size.
func (e *evalToy) evaluator(t *testing.T, batch, kTest int) *Evaluator {
	t.Helper()
	v, err := NewEvaluator(e.dev.Backend, e.store, e.cfg, batch, kTest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func (e *evalToy) rank(t *testing.T, batch, kTest int) *Ranking {
	t.Helper()
	parts := map[string]int{}
	r, err := e.evaluator(t, batch, kTest).Rank(t.Context(), e.set, func(part string, total int) func(int) {
		return func(done int) {
			if parts[part]++; done != parts[part] || done > total {
				t.Errorf("%s: %d of %d after %d", part, done, total, parts[part])
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// pixels is one picture [1, 3, S, S].
func (e *evalToy) pixels(t *testing.T, picture int) *tensors.Tensor {
	t.Helper()
	s := e.cfg.Vision.ImageSize
	values := make([]float32, 3*s*s)
	if err := e.set.Images(t.Context(), picture, picture+1, values); err != nil {
		t.Fatal(err)
	}
	return tensors.FromFlatDataAndDimensions(values, 1, 3, s, s)
}

// plain scores every pair alone: the greatest cosine over the queries, and the ITM logits.
func (e *evalToy) plain(t *testing.T) (cosine [][]float64, logits [][][2]float64) {
	t.Helper()
	exec, err := mlx.NewExec(e.dev.Backend, e.store, func(scope *mlx.Scope, in []*Node) []*Node {
		embeds, images := ImageFeatures(scope, e.cfg, in[0])
		text := TextFeatures(scope, e.cfg, in[1], in[2])
		return []*Node{images, text, MatchLogits(scope, e.cfg, embeds, in[1], in[2])}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(exec.Finalize)
	for i := range e.set.NumImages() {
		cosine, logits = append(cosine, nil), append(logits, nil)
		for x := range e.set.NumTexts() {
			ids, mask := e.set.Texts(x, x+1)
			out, err := exec.Call(e.pixels(t, i), tensors.FromFlatDataAndDimensions(ids, 1, len(ids)),
				tensors.FromFlatDataAndDimensions(mask, 1, len(mask)))
			if err != nil {
				t.Fatal(err)
			}
			images, text := tensors.MustCopyFlatData[float32](out[0]), tensors.MustCopyFlatData[float32](out[1])
			best := math.Inf(-1)
			for q := 0; q < len(images); q += len(text) {
				dot := 0.0
				for d, v := range text {
					dot += float64(v) * float64(images[q+d])
				}
				best = max(best, dot)
			}
			l := tensors.MustCopyFlatData[float32](out[2])
			cosine[i] = append(cosine[i], best)
			logits[i] = append(logits[i], [2]float64{float64(l[0]), float64(l[1])})
		}
	}
	return cosine, logits
}

// TestSimilarities: of the queries the one nearest to the text counts, wherever it stands.
func TestSimilarities(t *testing.T) {
	images := []float32{1, 0, 0, 1, -1, 0, 0, -1} // two pictures with two queries
	texts := []float32{1, 0, 0, 1, 0.6, -0.8}
	got := similarities(images, texts, 2, 3, 2, 2)
	want := [][]float32{{1, 1, 0.6}, {0, 0, 0.8}}
	if !slices.EqualFunc(got, want, slices.Equal[[]float32]) {
		t.Errorf("%v, want %v", got, want)
	}
}

func nearTo(got float32, want float64) bool {
	return math.Abs(float64(got)-want) <= 1e-4*max(1, math.Abs(want))
}

// TestRank compares with scoring every pair alone: all candidates, a few, none.
func TestRank(t *testing.T) {
	e := newEvalToy(t)
	cosine, logits := e.plain(t)
	images, texts := e.set.NumImages(), e.set.NumTexts()
	for _, tt := range []struct{ batch, kTest int }{{4, 99}, {1, texts}, {5, 3}, {32, 1}, {3, 0}} {
		r := e.rank(t, tt.batch, tt.kTest)
		ranked := 0
		for i := range images {
			for x := range texts {
				if !nearTo(r.Cosine[i][x], cosine[i][x]) {
					t.Fatalf("batch %d: cosine of picture %d and text %d is %g, want %g", tt.batch, i, x, r.Cosine[i][x], cosine[i][x])
				}
				score := cosine[i][x]
				if tt.kTest > 0 {
					score += logits[i][x][1]
				}
				for direction, v := range map[string]struct {
					got       float32
					candidate bool
				}{
					"image to text": {r.I2T[i][x], slices.Contains(retrieval.TopK(r.Cosine[i], tt.kTest), x)},
					"text to image": {r.T2I[x][i], slices.Contains(retrieval.TopK(retrieval.Transpose(r.Cosine)[x], tt.kTest), i)},
				} {
					want := score
					if tt.kTest > 0 && !v.candidate {
						want = retrieval.NotRanked
					} else {
						ranked++
					}
					if !nearTo(v.got, want) {
						t.Errorf("batch %d, %d candidates, %s, picture %d, text %d: %g, want %g",
							tt.batch, tt.kTest, direction, i, x, v.got, want)
					}
				}
			}
		}
		want := images*min(tt.kTest, texts) + texts*min(tt.kTest, images)
		if tt.kTest == 0 {
			want = 2 * images * texts
		}
		if ranked != want {
			t.Errorf("%d candidates: %d scores, want %d", tt.kTest, ranked, want)
		}
		i2t, t2i := r.Recalls(e.set)
		if i2t != retrieval.Recall(r.I2T, e.set.Img2Txt()) || t2i.R10 == 0 || i2t.R1 > i2t.R5 {
			t.Errorf("recalls %+v and %+v", i2t, t2i)
		}
	}
}

// TestBestMatches compares with the ITM probabilities of all pairs.
func TestBestMatches(t *testing.T) {
	e := newEvalToy(t)
	_, logits := e.plain(t)
	pictures := []int{5, 0, 2}
	v := e.evaluator(t, 4, 0)
	r, err := v.Rank(t.Context(), e.set, func(string, int) func(int) { return func(int) {} })
	if err != nil {
		t.Fatal(err)
	}
	got, err := v.BestMatches(t.Context(), e.set, r, pictures)
	if err != nil || len(got) != len(pictures) {
		t.Fatalf("%v, %v", got, err)
	}
	for i, p := range pictures {
		best, prob := -1, 0.0
		for x, l := range logits[p] {
			if q := 1 / (1 + math.Exp(l[0]-l[1])); q > prob {
				best, prob = x, q
			}
		}
		if got[i].Text != best || math.Abs(got[i].Prob-prob) > 1e-4 {
			t.Errorf("picture %d: %+v, want text %d with %g", p, got[i], best, prob)
		}
	}
	if none, err := v.BestMatches(t.Context(), e.set, r, nil); err != nil || len(none) != 0 {
		t.Errorf("no pictures: %v, %v", none, err)
	}
}

// plainCaption writes a caption of one picture alone, without padding, one token per round.
func (e *evalToy) plainCaption(t *testing.T, picture int) []int32 {
	t.Helper()
	ids := []int32{int32(e.cfg.BOSID)}
	for len(ids) < e.cfg.MaxTextLen {
		mask := slices.Repeat([]int32{1}, len(ids))
		in := []any{e.pixels(t, picture), tensors.FromFlatDataAndDimensions(ids, 1, len(ids)),
			tensors.FromFlatDataAndDimensions(mask, 1, len(ids))}
		out, err := mlx.CallOnce(e.dev.Backend, e.store, func(scope *mlx.Scope, in []*Node) *Node {
			embeds, _ := ImageFeatures(scope, e.cfg, in[0])
			return nextTokens(scope, e.cfg, embeds, in[1], in[2])
		}, in...)
		if err != nil {
			t.Fatal(err)
		}
		next := tensors.MustCopyFlatData[int32](out)
		token := next[len(next)-1]
		if token == int32(e.cfg.SEPID) {
			break
		}
		ids = append(ids, token)
	}
	return ids[1:]
}

// TestCaptions compares with captions written one picture at a time. The bias of [SEP] makes them end at different
// places.
func TestCaptions(t *testing.T) {
	e := newEvalToy(t)
	pictures := []int{6, 1, 3, 0, 2}
	lengths := map[int]bool{}
	for _, bias := range []float32{-30, 1, 30} {
		name := "Qformer.cls.predictions.bias"
		values := tensors.MustCopyFlatData[float32](e.store.GetVariable(model.Path(name)).MustValue())
		values[e.cfg.SEPID] = bias
		if err := model.Set(e.store, name, []int{len(values)}, values); err != nil {
			t.Fatal(err)
		}
		v := e.evaluator(t, 2, 0)
		r, err := v.Rank(t.Context(), e.set, func(string, int) func(int) { return func(int) {} })
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Captions(t.Context(), r, pictures)
		if err != nil || len(got) != len(pictures) {
			t.Fatalf("%v, %v", got, err)
		}
		for i, p := range pictures {
			if want := e.plainCaption(t, p); !slices.Equal(got[i], want) {
				t.Errorf("bias %g, picture %d: %v, want %v", bias, p, got[i], want)
			}
			if len(got[i]) > e.cfg.MaxTextLen-1 || slices.Contains(got[i], int32(e.cfg.SEPID)) {
				t.Errorf("bias %g, picture %d: %v does not end where it should", bias, p, got[i])
			}
			if text := e.tok.Decode(got[i]); strings.Contains(text, "[SEP]") || len(got[i]) > 0 && bias < 0 && text == "" {
				t.Errorf("picture %d: %v decodes to %q", p, got[i], text)
			}
			lengths[len(got[i])] = true
		}
	}
	if !lengths[0] || !lengths[e.cfg.MaxTextLen-1] || len(lengths) < 3 {
		t.Errorf("captions of the lengths %v say little", lengths)
	}
}

// TestEvaluationStops: an interrupt ends an evaluation within a batch.
func TestEvaluationStops(t *testing.T) {
	e := newEvalToy(t)
	v := e.evaluator(t, 2, 4)
	for _, stopIn := range []string{"features", "matching"} {
		ctx, cancel := context.WithCancel(t.Context())
		after := 0
		_, err := v.Rank(ctx, e.set, func(part string, _ int) func(int) {
			return func(int) {
				if ctx.Err() != nil {
					after++
				}
				if part == stopIn {
					cancel()
				}
			}
		})
		if !errors.Is(err, context.Canceled) || after > 0 {
			t.Errorf("stopped in %s: %v, and %d batches more", stopIn, err, after)
		}
		cancel()
	}
	r := e.rank(t, 4, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Captions(ctx, r, []int{0}); !errors.Is(err, context.Canceled) {
		t.Errorf("captions: %v", err)
	}
	if _, err := v.BestMatches(ctx, e.set, r, []int{0}); !errors.Is(err, context.Canceled) {
		t.Errorf("best matches: %v", err)
	}
}
