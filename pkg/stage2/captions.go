package stage2

import (
	"context"
	"fmt"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/generate"
	"blip2/pkg/metrics/caption"
	"blip2/pkg/runlog"
	"blip2/pkg/tokenizer"
	"blip2/pkg/training"
)

// captioner writes captions for the pictures of evaluation sets, batch by batch of one size.
type captioner struct {
	*Generator
	tok     tokenizer.Tokenizer
	prompt  []int32
	options generate.Options
	batch   int
}

func newCaptioner(backend compute.Backend, store *mlx.Store, cfg Config, tok tokenizer.Tokenizer,
	c config.CaptionEval) (*captioner, error) {
	eos, err := cfg.EOS(tok)
	if err != nil {
		return nil, err
	}
	prompt := tok.Encode(c.Prompt, tokenizer.EncodeOptions{Literal: true})
	if n := cfg.QFormer.Queries + len(prompt) + c.MaxTokens; cfg.OPT != nil && n > cfg.OPT.Positions {
		return nil, fmt.Errorf("eval.max_tokens: %d queries, a prompt of %d and %d new tokens are more than the %d positions "+
			"of the language model", cfg.QFormer.Queries, len(prompt), c.MaxTokens, cfg.OPT.Positions)
	}
	g, err := NewGenerator(backend, store, cfg)
	if err != nil {
		return nil, err
	}
	return &captioner{Generator: g, tok: tok, prompt: prompt, batch: c.BatchSize,
		options: generate.Options{Beams: c.Beams, MinNewTokens: c.MinTokens, MaxNewTokens: c.MaxTokens, EOS: eos,
			LengthPenalty: c.LenPower}}, nil
}

// Captions writes a caption for every picture of a set. done is told how many there are so far.
func (c *captioner) Captions(ctx context.Context, set *dataset.EvalSet, done func(int)) ([]string, error) {
	size := c.cfg.Vision.ImageSize
	picture := 3 * size * size
	pixels := make([]float32, c.batch*picture)
	ids := make([][]int32, c.batch)
	for i := range ids {
		ids[i] = c.prompt
	}
	prompts := c.cfg.NewPrompts(ids)
	var out []string
	for lo := 0; lo < set.NumImages(); lo += c.batch {
		hi := min(lo+c.batch, set.NumImages())
		// The last batch is filled up by what the one before left, so that no other program is needed.
		if err := set.Images(ctx, lo, hi, pixels[:(hi-lo)*picture]); err != nil {
			return nil, err
		}
		input := tensors.FromFlatDataAndDimensions(pixels, c.batch, 3, size, size)
		texts, err := c.Generate(ctx, input, prompts, c.options)
		input.MustFinalizeAll()
		if err != nil {
			return nil, err
		}
		for _, row := range texts[:hi-lo] {
			out = append(out, strings.TrimSpace(c.tok.Decode(row[0].Tokens, true)))
		}
		done(hi)
	}
	return out, nil
}

// Score writes and scores captions for every set and, if asked, writes the gallery.
func (s *stage) Score(ctx context.Context, r *training.Run, phase string, gallery bool) (runlog.Scores, error) {
	var scores runlog.Scores
	if s.eval == nil {
		return scores, nil
	}
	scores.Captions = make(map[string]runlog.CaptionScores, len(s.sets))
	written := make([][]string, len(s.sets))
	for i, e := range s.sets {
		shown := r.Progress.Start(phase+" "+e.split+" pictures", 0, e.set.NumImages())
		var err error
		written[i], err = s.eval.Captions(ctx, e.set, shown.Advance)
		shown.Done()
		if err != nil {
			return scores, fmt.Errorf("%s on %s pictures: %w", phase, e.split, err)
		}
		for _, bad := range e.set.BadSamples() {
			r.Log.Warn("picture not evaluated", "key", bad.Key, "reason", bad.Reason)
		}
		if scores.Captions[e.split], err = scoreCaptions(ctx, e.set, written[i]); err != nil {
			return scores, fmt.Errorf("%s on %s pictures: %w", phase, e.split, err)
		}
	}
	if !gallery {
		return scores, nil
	}
	return scores, s.gallery(r, written)
}

// scoreCaptions compares captions with those by people, and with those of other pictures.
func scoreCaptions(ctx context.Context, set *dataset.EvalSet, captions []string) (runlog.CaptionScores, error) {
	out := runlog.CaptionScores{Images: len(captions)}
	items := make([]caption.Item, len(captions))
	for i, text := range captions {
		example, err := set.Example(i)
		if err != nil {
			return out, err
		}
		items[i] = caption.Item{ID: example.Key, Candidate: text, References: example.Captions}
	}
	e, err := caption.Evaluate(ctx, caption.Tokenize(items),
		caption.Options{Metrics: []string{"bleu", "rouge", "cider"}})
	if err != nil {
		return out, err
	}
	out.CIDEr = runlog.Float(e.Metric(caption.NameCIDEr).Corpus)
	out.BLEU4 = runlog.Float(e.Metric(caption.BLEUName(4)).Corpus)
	out.ROUGEL = runlog.Float(e.Metric(caption.NameROUGEL).Corpus)
	for i := range items {
		items[i].Candidate = captions[(i+1)%len(captions)]
	}
	e, err = caption.Evaluate(ctx, caption.Tokenize(items), caption.Options{Metrics: []string{"cider"}})
	if err != nil {
		return out, err
	}
	out.CIDErExchanged = runlog.Float(e.Metric(caption.NameCIDEr).Corpus)
	return out, nil
}

// gallery writes pictures, taken evenly from every set, with the captions that the model gives them.
func (s *stage) gallery(r *training.Run, captions [][]string) error {
	var items []runlog.GalleryItem
	for i, e := range s.sets {
		n := min(s.config.Report.Gallery/len(s.sets), e.set.NumImages())
		for k := range n {
			p := k * e.set.NumImages() / n
			if !e.set.Readable(p) {
				continue
			}
			items = append(items, runlog.GalleryItem{Split: e.split, Generated: captions[i][p]})
			if err := r.ShowPicture(&items[len(items)-1], e.set, p); err != nil {
				return err
			}
		}
	}
	return runlog.WriteGallery(r.RunDir, runlog.Gallery{Items: items})
}
