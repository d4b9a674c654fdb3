package stage1

import (
	"context"
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/dataset"
	"blip2/pkg/mesh"
	"blip2/pkg/retrieval"
)

// Evaluator measures retrieval and writes captions with a stage-1 model, in batches of a fixed size, so that each
// of its programs is compiled once.
type Evaluator struct {
	cfg   Config
	batch int
	kTest int

	images, texts, match *mesh.Exec
	captioner            *Captioner
}

// NewEvaluator prepares the evaluation of the model in the store: batch pictures, texts or pairs at a time, kTest
// candidates of every query ranked again by ITM.
func NewEvaluator(backend compute.Backend, store *mlx.Store, cfg Config, batch, kTest int) (*Evaluator, error) {
	e := &Evaluator{cfg: cfg, batch: batch, kTest: kTest}
	build := func(name string, f mesh.Function) *mesh.Exec { return mesh.NewExec(backend, store, name, f) }
	e.images = build("image features", func(s *mlx.Scope, in []*graph.Node) []*graph.Node {
		embeds, feats := ImageFeatures(s, cfg, in[0])
		return []*graph.Node{embeds, feats}
	})
	e.texts = build("text features", func(s *mlx.Scope, in []*graph.Node) []*graph.Node {
		return []*graph.Node{TextFeatures(s, cfg, in[0], in[1])}
	})
	e.match = build("image-text matching", func(s *mlx.Scope, in []*graph.Node) []*graph.Node {
		return []*graph.Node{MatchLogits(s, cfg, in[0], in[1], in[2])}
	})
	var err error
	if e.captioner, err = NewCaptioner(backend, store, cfg); err != nil {
		return nil, err
	}
	return e, nil
}

// Close frees the compiled programs.
func (e *Evaluator) Close() {
	for _, exec := range []*mesh.Exec{e.images, e.texts, e.match} {
		exec.Close()
	}
	e.captioner.Close()
}

// RankSet is a set of pictures and texts to be ranked: a dataset.EvalSet, or one from elsewhere.
type RankSet interface {
	NumImages() int
	NumTexts() int
	// Images writes the pixels of the pictures lo ≤ i < hi to dst, [hi−lo, 3, S, S].
	Images(ctx context.Context, lo, hi int, dst []float32) error
	// Texts returns ids and mask of the texts lo ≤ i < hi, [hi−lo, MaxTextLen].
	Texts(lo, hi int) (ids, mask []int32)
}

// Ranking is the result of a retrieval evaluation of M pictures and T texts.
type Ranking struct {
	Images []float32   // [M, Q, E] query features of unit length
	Texts  []float32   // [T, E] text features of unit length
	Cosine [][]float32 // [M][T] greatest cosine over the queries
	I2T    [][]float32 // [M][T] ITM class-1 logit + cosine for the best candidates, retrieval.NotRanked elsewhere
	T2I    [][]float32 // [T][M] likewise

	embeds []float32 // [M, N, W] image features
}

// Meter shows the progress of a part of an evaluation, counted in batches. begin is called with the total at the start
// of each part and returns what to call after each batch.
type Meter func(part string, total int) (advance func(done int))

// Rank evaluates a set as LAVIS does: every picture with every text by cosine, the best candidates again by ITM.
func (e *Evaluator) Rank(ctx context.Context, set RankSet, meter Meter) (*Ranking, error) {
	images, texts := set.NumImages(), set.NumTexts()
	w := &work{advance: meter("features", blocks(images, e.batch)+blocks(texts, e.batch))}
	r := &Ranking{}
	var err error
	if r.Images, err = e.encodeImages(ctx, set, r, w); err != nil {
		return nil, err
	}
	if r.Texts, err = e.encodeTexts(ctx, set, w); err != nil {
		return nil, err
	}
	r.Cosine = similarities(r.Images, r.Texts, images, texts, e.cfg.QFormer.Queries, e.cfg.EmbedDim)
	return r, e.rerank(ctx, set, r, meter)
}

// Recalls returns the recalls of both directions.
func (r *Ranking) Recalls(set *dataset.EvalSet) (i2t, t2i retrieval.Scores) {
	return retrieval.Recall(r.I2T, set.Img2Txt()), retrieval.Recall(r.T2I, single(set.Txt2Img()))
}

// single makes a list of one from every element.
func single(values []int) [][]int {
	out := make([][]int, len(values))
	for i, v := range values {
		out[i] = []int{v}
	}
	return out
}

// work counts the batches of one part.
type work struct {
	done    int
	advance func(done int)
}

func (w *work) add() {
	w.done++
	w.advance(w.done)
}

func blocks(n, size int) int { return (n + size - 1) / size }

// encodeImages fills in the ranking's image features and returns the query features [M, Q, E].
func (e *Evaluator) encodeImages(ctx context.Context, set RankSet, r *Ranking, w *work) ([]float32, error) {
	s := e.cfg.Vision.ImageSize
	pixels := make([]float32, e.batch*3*s*s)
	var feats []float32
	for lo := 0; lo < set.NumImages(); lo += e.batch {
		n := min(e.batch, set.NumImages()-lo)
		if err := set.Images(ctx, lo, lo+n, pixels[:n*3*s*s]); err != nil {
			return nil, err
		}
		out, err := call(ctx, e.images, tensors.FromFlatDataAndDimensions(pixels, e.batch, 3, s, s))
		if err != nil {
			return nil, err
		}
		r.embeds = append(r.embeds, out[0][:n*e.tokenSize()]...)
		feats = append(feats, out[1][:n*e.cfg.QFormer.Queries*e.cfg.EmbedDim]...)
		w.add()
	}
	return feats, nil
}

// tokenSize is the number of values of one picture's features, N·W.
func (e *Evaluator) tokenSize() int { return e.cfg.Vision.Tokens() * e.cfg.Vision.Width }

// encodeTexts returns the text features [T, E].
func (e *Evaluator) encodeTexts(ctx context.Context, set RankSet, w *work) ([]float32, error) {
	var feats []float32
	for lo := 0; lo < set.NumTexts(); lo += e.batch {
		n := min(e.batch, set.NumTexts()-lo)
		ids, mask := set.Texts(lo, lo+n)
		length := len(ids) / n
		out, err := call(ctx, e.texts, padded(ids, e.batch, length), padded(mask, e.batch, length))
		if err != nil {
			return nil, err
		}
		feats = append(feats, out[0][:n*e.cfg.EmbedDim]...)
		w.add()
	}
	return feats, nil
}

// padded fills rows [n, length] up to the batch size with zeros.
func padded(values []int32, batch, length int) *tensors.Tensor {
	full := make([]int32, batch*length)
	copy(full, values)
	return tensors.FromFlatDataAndDimensions(full, batch, length)
}

// call runs a program and brings its float32 outputs to the host. It frees the arguments.
func call(ctx context.Context, exec *mesh.Exec, args ...*tensors.Tensor) ([][]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := exec.Call(mesh.HostAll(args)...)
	for _, a := range args {
		a.MustFinalizeAll()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", exec.Name(), err)
	}
	values := make([][]float32, len(out))
	for i, t := range out {
		if values[i], err = mesh.Copy[float32](t); err != nil {
			return nil, fmt.Errorf("%s: reading the result: %w", exec.Name(), err)
		}
	}
	return values, mesh.Free(out...)
}

// similarities is the greatest cosine over the queries: images [M, Q, E] and texts [T, E] give [M][T].
func similarities(images, texts []float32, m, t, q, e int) [][]float32 {
	out := retrieval.Matrix(m, t, 0)
	for i := range m {
		for j := range t {
			text := texts[j*e:][:e]
			best := float32(-2)
			for k := range q {
				query := images[(i*q+k)*e:][:e]
				var dot float32
				for d, v := range query {
					dot += v * text[d]
				}
				best = max(best, dot)
			}
			out[i][j] = best
		}
	}
	return out
}
