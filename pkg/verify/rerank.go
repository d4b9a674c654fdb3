package verify

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/retrieval"
	"blip2/pkg/stage1"
)

// rerankBatch is how many pictures, texts or pairs are computed at once; it must not matter.
const rerankBatch = 8

// recordedSet is a set of pictures and texts as a case has them.
type recordedSet struct {
	images int
	pixels []float32
	texts  textBatch
}

func (s recordedSet) NumImages() int { return s.images }

func (s recordedSet) NumTexts() int { return s.texts.rows }

func (s recordedSet) Images(_ context.Context, lo, hi int, dst []float32) error {
	size := len(s.pixels) / s.images
	copy(dst, s.pixels[lo*size:hi*size])
	return nil
}

func (s recordedSet) Texts(lo, hi int) (ids, mask []int32) {
	n := s.texts.length
	return s.texts.ids[lo*n : hi*n], s.texts.mask[lo*n : hi*n]
}

// rerank runs kind retrieval-rerank: features, cosines, the scores of the candidates after matching, and the recalls.
func rerank(c *Case, k *checker) error {
	if err := c.requireOutputs(k); err != nil {
		return err
	}
	var config struct {
		stage1Config
		KTest int `json:"k_test"`
	}
	var expected struct {
		Metrics map[string]float64 `json:"metrics"`
		Ties    []string           `json:"metrics_that_depend_on_ties"`
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	cfg, err := config.model()
	if err != nil {
		return err
	}
	set, owner, err := c.recordedSet()
	if err != nil {
		return err
	}
	cfg.MaxTextLen = set.texts.length
	params, unused := featureParams(cfg)
	weights, err := c.weights(unused)
	if err != nil {
		return err
	}
	store, err := weights.store(params)
	if err != nil {
		return err
	}
	defer store.Finalize()
	backend, err := c.backend()
	if err != nil {
		return err
	}
	e, err := stage1.NewEvaluator(backend, store, cfg, rerankBatch, config.KTest)
	if err != nil {
		return err
	}
	defer e.Close()
	r, err := e.Rank(c.env.ctx, set, func(string, int) func(int) { return func(int) {} })
	if err != nil {
		return err
	}
	images, texts, q := set.images, set.texts.rows, cfg.QFormer.Queries
	k.floats("image_feats", []int{images, q, cfg.EmbedDim}, r.Images)
	k.floats("text_feat", []int{texts, cfg.EmbedDim}, r.Texts)
	k.floats("sims", []int{images, texts}, slices.Concat(r.Cosine...))
	k.floats("score_i2t", []int{images, texts}, slices.Concat(r.I2T...))
	k.floats("score_t2i", []int{texts, images}, slices.Concat(r.T2I...))
	for _, name := range expected.Ties {
		delete(expected.Metrics, name)
	}
	got, err := rerankMetrics(r, owner, images)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(expected.Metrics)) {
		value, ok := got[name]
		if !ok {
			return fmt.Errorf("%s: metric %s is unknown", expectedFile, name)
		}
		compareFloats(k, "metrics/"+name, nil, []float64{value}, []float64{expected.Metrics[name]})
	}
	return nil
}

// recordedSet reads the pictures and texts of the case, and which picture every text belongs to.
func (c *Case) recordedSet() (recordedSet, []int32, error) {
	pixels, err := c.floatInput("pixels")
	if err != nil {
		return recordedSet{}, nil, err
	}
	texts, err := c.texts()
	if err != nil {
		return recordedSet{}, nil, err
	}
	_, owner, err := c.intInput("txt2img")
	if err != nil {
		return recordedSet{}, nil, err
	}
	images := pixels.Shape().Dimensions[0]
	if len(owner) != texts.rows || slices.ContainsFunc(owner, func(i int32) bool { return i < 0 || int(i) >= images }) {
		return recordedSet{}, nil, fmt.Errorf("%s: txt2img does not name a picture for each of %d texts", inputsFile,
			texts.rows)
	}
	return recordedSet{images, tensors.MustCopyFlatData[float32](pixels), texts}, owner, nil
}

// rerankMetrics computes the recalls under the reference's names.
func rerankMetrics(r *stage1.Ranking, owner []int32, images int) (map[string]float64, error) {
	img2txt := make([][]int, images)
	for text, image := range owner {
		img2txt[image] = append(img2txt[image], text)
	}
	both, err := retrieval.Evaluate(r.I2T, r.T2I, img2txt)
	if err != nil {
		return nil, err
	}
	return both.Metrics(), nil
}
