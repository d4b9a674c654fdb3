package lm

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"

	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/dataset/configured"
	"blip2/pkg/model"
	"blip2/pkg/published"
	"blip2/pkg/tokenizer"
	"blip2/pkg/weights"
)

// readTexts reads the captions of every picture, processed as for stage 2, each with what ends it.
func readTexts(ctx context.Context, c *config.LM, end string, log *slog.Logger) ([][]string, error) {
	process := dataset.CaptionProcessor{MaxWords: c.Data.MaxWords}
	src, err := configured.Evaluation(ctx, "data.train", c.Data.Train, configured.Shards(log))
	if err != nil {
		return nil, err
	}
	var texts [][]string
	for i := range src.Len() {
		example, err := src.Example(i)
		if err != nil {
			return nil, fmt.Errorf("data.train: %s: %w", src.Name(), err)
		}
		var captions []string
		for _, caption := range example.Captions {
			if text := process.Process(caption); text != "" {
				captions = append(captions, text+end)
			}
		}
		if len(captions) > 0 {
			texts = append(texts, captions)
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("data.train: no caption is left after processing")
	}
	return texts, nil
}

// newTokenizer trains a tokenizer on the texts; the files are those that it is loaded from.
func newTokenizer(texts [][]string, size int, train func([]string, int) (map[string][]byte, error)) (
	tokenizer.Tokenizer, map[string][]byte, error) {
	files, err := train(slices.Concat(texts...), size)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "blip2-tokenizer-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	if err := writeFiles(dir, files); err != nil {
		return nil, nil, err
	}
	tok, err := tokenizer.Load(dir)
	return tok, files, err
}

// rows makes the texts of the training.
type rows struct {
	texts  [][][]int32 // every picture's captions, as ids
	length int
	seed   int64
}

func newRows(tok tokenizer.Tokenizer, texts [][]string, length int, seed int64) *rows {
	return &rows{texts: encodeAll(tok, texts, false), length: length, seed: seed}
}

// encodeAll turns texts into ids, with the special tokens of a text or without.
func encodeAll(tok tokenizer.Tokenizer, texts [][]string, noSpecial bool) [][][]int32 {
	var all [][][]int32
	for _, captions := range texts {
		var ids [][]int32
		for _, caption := range captions {
			ids = append(ids, tok.Encode(caption, tokenizer.EncodeOptions{Literal: true, NoSpecial: noSpecial}))
		}
		all = append(all, ids)
	}
	return all
}

// drawing returns the random numbers of a step.
func drawing(seed int64, step int) *rand.Rand {
	h := fnv.New64a()
	_ = binary.Write(h, binary.LittleEndian, [2]int64{seed, int64(step)}) // a hash does not fail
	return rand.New(rand.NewPCG(h.Sum64(), uint64(seed)))
}

// batch makes the texts of a step, ids and mask [size, length], from the seed and the number of the step: each is the
// captions of one picture in a drawn order, begun anew where they are over, until the text is full.
func (r *rows) batch(step, size int) (ids, mask []int32) {
	rng := drawing(r.seed, step)
	ids, mask = make([]int32, 0, size*r.length), make([]int32, size*r.length)
	for row := range size {
		captions := r.texts[rng.IntN(len(r.texts))]
		end := (row + 1) * r.length
		for len(ids) < end {
			for _, k := range rng.Perm(len(captions)) {
				ids = append(ids, captions[k]...)
			}
		}
		ids = ids[:end]
	}
	for i := range mask {
		mask[i] = 1
	}
	return ids, mask
}

// write writes the model and its tokenizer as a folder of Hugging Face's layout.
func write(ctx context.Context, dir string, store *mlx.Store, net *network, files map[string][]byte) error {
	configs, err := published.HFFiles(net.spec, weights.F32)
	if err != nil {
		return err
	}
	var list []weights.Lazy
	for _, p := range net.params {
		list = append(list, weights.Lazy{Name: p.Name, DType: weights.F32, Shape: p.Shape, Data: func() ([]byte, error) {
			value, err := store.GetVariable(model.Path(p.Name)).Value()
			if err != nil {
				return nil, err
			}
			values, err := tensors.CopyFlatData[float32](value)
			return weights.FromFloat32(p.Name, p.Shape, values).Data, err
		}})
	}
	return weights.WriteDir(ctx, dir, list, weights.DirOptions{Add: func(temp string) error {
		if err := writeFiles(temp, files); err != nil {
			return err
		}
		return writeFiles(temp, configs)
	}})
}
