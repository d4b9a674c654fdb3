package stage2

import (
	"context"
	"fmt"
	"strings"

	"github.com/gomlx/compute"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/config"
	"blip2/pkg/dataset"
	"blip2/pkg/generate"
	"blip2/pkg/metrics/caption"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/t5"
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
	// without is what blind writes: the language model is frozen, so it is always the same.
	without func(ctx context.Context) (string, error)
}

func newCaptioner(backend compute.Backend, store *mlx.Store, cfg Config, tok tokenizer.Tokenizer,
	c config.CaptionEval) (*captioner, error) {
	eos, err := cfg.EOS(tok)
	if err != nil {
		return nil, err
	}
	prompt := tok.Encode(c.Prompt, tokenizer.EncodeOptions{Literal: true})
	if n := cfg.QFormer.Queries + len(prompt) + c.MaxTokens; cfg.OPT != nil && n > cfg.OPT.Positions {
		return nil, fmt.Errorf("eval.max_tokens: %d queries, a prompt of %d and %d new tokens are more than the %d "+
			"positions of the language model", cfg.QFormer.Queries, len(prompt), c.MaxTokens, cfg.OPT.Positions)
	}
	options := generate.Options{Beams: c.Beams, MinNewTokens: c.MinTokens, MaxNewTokens: c.MaxTokens, EOS: eos,
		LengthPenalty: c.LenPower}
	if err := options.Validate(); err != nil { // now, and not after the training
		return nil, fmt.Errorf("eval: %w", err)
	}
	g, err := NewGenerator(backend, store, cfg)
	if err != nil {
		return nil, err
	}
	out := &captioner{Generator: g, tok: tok, prompt: prompt, batch: c.BatchSize, options: options}
	out.without = func(ctx context.Context) (string, error) { return out.blind(ctx, backend, store) }
	return out, nil
}

// blind is what the language model writes behind the prompt alone, without any picture.
func (c *captioner) blind(ctx context.Context, backend compute.Backend, store *mlx.Store) (string, error) {
	d := Decoder{OPT: c.cfg.OPT, T5: c.cfg.T5, LLM: c.cfg.llm}
	d.Prefix = func(scope *mlx.Scope, in []*Node) (embeds, mask *Node) {
		if c.cfg.OPT != nil {
			return opt.Embed(c.cfg.llm(scope), in[0], c.cfg.compute()), in[1]
		}
		return t5.Embed(c.cfg.llm(scope), in[0], c.cfg.compute()), in[1]
	}
	program, err := generate.NewCachedProgram(backend, store, d.Prefill, d.Advance)
	if err != nil {
		return "", err
	}
	defer program.Close()
	p, seen := c.cfg.NewPrompts([][]int32{c.prompt}), []int32(nil)
	if c.cfg.T5 != nil {
		seen = []int32{t5.StartID}
	}
	texts, err := program.Generate(ctx, []*tensors.Tensor{tensors.FromFlatDataAndDimensions(p.IDs, 1, p.Length),
		tensors.FromFlatDataAndDimensions(p.Mask, 1, p.Length)}, [][]int32{seen}, c.options)
	if err != nil {
		return "", err
	}
	text := c.text(texts[0][0])
	c.without = func(context.Context) (string, error) { return text, nil }
	return text, nil
}

// text is a generated text without special tokens and the newline at its end.
func (c *captioner) text(t generate.Text) string {
	return strings.TrimSpace(c.tok.Decode(t.Tokens, true))
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
			out = append(out, c.text(row[0]))
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
	blind, err := s.eval.without(ctx)
	if err != nil {
		return scores, fmt.Errorf("%s without pictures: %w", phase, err)
	}
	for i, e := range s.sets {
		shown := r.Progress.Start(phase+" "+e.Split+" pictures", 0, e.NumImages())
		written[i], err = s.eval.Captions(ctx, e.EvalSet, shown.Advance)
		shown.Done()
		if err != nil {
			return scores, fmt.Errorf("%s on %s pictures: %w", phase, e.Split, err)
		}
		r.WarnBad(e)
		if scores.Captions[e.Split], err = scoreCaptions(ctx, e.EvalSet, written[i], blind); err != nil {
			return scores, fmt.Errorf("%s on %s pictures: %w", phase, e.Split, err)
		}
	}
	if !gallery {
		return scores, nil
	}
	return scores, s.gallery(r, written)
}

// scoreCaptions compares captions with those by people. For comparison it gives every picture the caption of the next
// one, and what was written without a picture.
func scoreCaptions(ctx context.Context, set *dataset.EvalSet, captions []string, blind string) (
	runlog.CaptionScores, error) {
	out := runlog.CaptionScores{Images: len(captions)}
	evaluate := func(metrics []string, text func(i int) string) (*caption.Evaluation, error) {
		items := make([]caption.Item, len(captions))
		for i := range items {
			example, err := set.Example(i)
			if err != nil {
				return nil, err
			}
			items[i] = caption.Item{ID: example.Key, Candidate: text(i), References: example.Captions}
		}
		return caption.Evaluate(ctx, caption.Tokenize(items), caption.Options{Metrics: metrics})
	}
	corpus := func(e *caption.Evaluation, name string) runlog.Float { return runlog.Float(e.Metric(name).Corpus) }
	e, err := evaluate([]string{"bleu", "rouge", "cider"}, func(i int) string { return captions[i] })
	if err != nil {
		return out, err
	}
	out.CIDEr, out.BLEU4, out.ROUGEL = corpus(e, caption.NameCIDEr), corpus(e, caption.BLEUName(4)),
		corpus(e, caption.NameROUGEL)
	if e, err = evaluate([]string{"cider"}, func(i int) string { return captions[(i+1)%len(captions)] }); err != nil {
		return out, err
	}
	out.CIDErExchanged = corpus(e, caption.NameCIDEr)
	if e, err = evaluate([]string{"cider"}, func(int) string { return blind }); err != nil {
		return out, err
	}
	out.CIDErBlind = corpus(e, caption.NameCIDEr)
	return out, nil
}

// gallery writes pictures, taken evenly from every set, with the captions that the model gives them.
func (s *stage) gallery(r *training.Run, captions [][]string) error {
	var items []runlog.GalleryItem
	for i, e := range s.sets {
		for _, p := range e.Shown(s.config.Report.Gallery / len(s.sets)) {
			items = append(items, runlog.GalleryItem{Split: e.Split, Generated: captions[i][p]})
			if err := r.ShowPicture(&items[len(items)-1], e.EvalSet, p); err != nil {
				return err
			}
		}
	}
	return runlog.WriteGallery(r.RunDir, runlog.Gallery{Items: items})
}
