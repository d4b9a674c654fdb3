package stage1

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/gomlx/gomlx/core/tensors"

	"blip2/pkg/dataset"
	"blip2/pkg/model"
	"blip2/pkg/retrieval"
	"blip2/pkg/runlog"
	"blip2/pkg/trainer"
)

// beforeFile keeps the scores of the untrained model for a run that is resumed.
const beforeFile = "retrieval-before.json"

// scoreBefore evaluates the untrained model, or takes the scores from the run's first start.
func (r *run) scoreBefore(ctx context.Context) error {
	if r.eval == nil || !r.Config.Eval.Before {
		return nil
	}
	file := filepath.Join(r.RunDir, beforeFile)
	if r.at.Step > 0 {
		data, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the run was started without
		}
		if err == nil {
			err = json.Unmarshal(data, &r.summary.RetrievalBefore)
		}
		if err != nil {
			return fmt.Errorf("resume: scores of the untrained model in %s: %w; without the file the run goes on", file, err)
		}
		return nil
	}
	scores, err := r.score(ctx, "evaluating before", func(int, *Ranking) {})
	if err != nil {
		return err
	}
	r.summary.RetrievalBefore = scores
	data, err := json.MarshalIndent(scores, "", "  ")
	if err != nil {
		return err
	}
	return runlog.WriteFile(file, append(data, '\n'))
}

// scoreAfter evaluates the trained model and makes the gallery. An interrupted training is not evaluated.
func (r *run) scoreAfter(ctx context.Context) error {
	if r.eval == nil || r.outcome.Status == trainer.Interrupted {
		return nil
	}
	scores, err := r.score(ctx, "evaluating", func(i int, ranking *Ranking) { r.sets[i].after = ranking })
	if err == nil {
		r.summary.Retrieval = scores
		err = r.gallery(ctx)
	}
	if err != nil && ctx.Err() != nil {
		// The training is done and saved: what was interrupted is the evaluation alone.
		r.outcome.Status = trainer.Interrupted
		return nil
	}
	return err
}

// score ranks every set and hands its ranking on.
func (r *run) score(ctx context.Context, unit string, keep func(int, *Ranking)) (
	map[string]runlog.RetrievalScores, error) {
	scores := make(map[string]runlog.RetrievalScores, len(r.sets))
	for i, s := range r.sets {
		var phase *runlog.Phase
		ranking, err := r.eval.Rank(ctx, s.set, func(part string, total int) func(int) {
			phase = r.Progress.Start(unit+" "+s.split+" pictures: "+part, 0, total)
			return phase.Advance
		})
		phase.Done()
		if err != nil {
			return nil, fmt.Errorf("%s on %s pictures: %w", unit, s.split, err)
		}
		for _, bad := range s.set.BadSamples() {
			r.Log.Warn("picture not evaluated", "key", bad.Key, "reason", bad.Reason)
		}
		scores[s.split] = retrievalScores(s.set, ranking)
		keep(i, ranking)
	}
	return scores, nil
}

// retrievalScores are the recalls of a ranking beside those of chance, in percent.
func retrievalScores(set *dataset.EvalSet, r *Ranking) runlog.RetrievalScores {
	i2t, t2i := r.Recalls(set)
	images, texts := set.NumImages(), set.NumTexts()
	chanceI2T := retrieval.Chance(texts, set.Img2Txt())
	chanceT2I := retrieval.Chance(images, single(set.Txt2Img()))
	f := func(v float64) runlog.Float { return runlog.Float(v) }
	return runlog.RetrievalScores{
		Images: images, Texts: texts,
		I2TR1: f(i2t.R1), I2TR5: f(i2t.R5), I2TR10: f(i2t.R10),
		T2IR1: f(t2i.R1), T2IR5: f(t2i.R5), T2IR10: f(t2i.R10),
		ChanceR1: f(chanceI2T.R1), ChanceR5: f(chanceI2T.R5), ChanceR10: f(chanceI2T.R10),
		ChanceT2IR1: f(chanceT2I.R1), ChanceT2IR5: f(chanceT2I.R5), ChanceT2IR10: f(chanceT2I.R10),
	}
}

// gallery writes pictures with the captions that the model gives them, and their best match. It takes pictures evenly
// from every set.
func (r *run) gallery(ctx context.Context) error {
	var items []runlog.GalleryItem
	for _, s := range r.sets {
		share := r.Config.Report.Gallery / len(r.sets)
		pictures := readable(s.set, share)
		captions, err := r.eval.Captions(ctx, s.after, pictures)
		if err != nil {
			return fmt.Errorf("writing captions for the gallery: %w", err)
		}
		matches, err := r.eval.BestMatches(ctx, s.set, s.after, pictures)
		if err != nil {
			return fmt.Errorf("matching texts for the gallery: %w", err)
		}
		for i, p := range pictures {
			item, err := r.galleryItem(s, p, r.tok.Decode(captions[i]), matches[i])
			if err != nil {
				return err
			}
			items = append(items, item)
		}
	}
	return runlog.WriteGallery(r.RunDir, runlog.Gallery{Items: items})
}

// readable picks n of the pictures that could be read, at even distances.
func readable(set *dataset.EvalSet, n int) []int {
	var good []int
	for i := range set.NumImages() {
		if set.Readable(i) {
			good = append(good, i)
		}
	}
	out := spread(len(good), n)
	for i, at := range out {
		out[i] = good[at]
	}
	return out
}

// spread picks n of total indices at even distances.
func spread(total, n int) []int {
	n = min(n, total)
	out := make([]int, n)
	for i := range out {
		out[i] = i * total / n
	}
	return out
}

func (r *run) galleryItem(s evalSet, picture int, generated string, best Match) (runlog.GalleryItem, error) {
	example, err := s.set.Example(picture)
	if err != nil {
		return runlog.GalleryItem{}, fmt.Errorf("gallery: %w", err)
	}
	data, err := readPicture(s.set, picture)
	if err != nil {
		return runlog.GalleryItem{}, fmt.Errorf("gallery: %w", err)
	}
	// With its number in front, as pictures of several sources or folders may have the same name.
	name := fmt.Sprintf("%s-%d-%s", s.split, picture, path.Base(filepath.ToSlash(example.Key)))
	if err := os.MkdirAll(filepath.Join(r.RunDir, runlog.GalleryDir), 0o777); err != nil {
		return runlog.GalleryItem{}, fmt.Errorf("gallery: %w", err)
	}
	if err := runlog.WriteFile(filepath.Join(r.RunDir, runlog.GalleryDir, name), data); err != nil {
		return runlog.GalleryItem{}, fmt.Errorf("gallery: %w", err)
	}
	if err := r.metrics.Image(r.outcome.At.Step, "gallery/"+name, data); err != nil {
		return runlog.GalleryItem{}, fmt.Errorf("gallery: %w", err)
	}
	return runlog.GalleryItem{
		Image: path.Join(runlog.GalleryDir, name), Split: s.split, Key: example.Key, Captions: example.Captions,
		Generated: generated, BestMatch: s.set.Caption(best.Text), BestMatchProb: runlog.Float(best.Prob),
		BestMatchCorrect: s.set.Txt2Img()[best.Text] == picture, Credit: credit(example),
	}, nil
}

func readPicture(set *dataset.EvalSet, i int) ([]byte, error) {
	r, err := set.Open(i)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func credit(e dataset.Example) string {
	return strings.Trim(e.URL+" · "+e.License, " ·")
}

// temperature reads the learned ITC temperature.
func (r *run) temperature() (float64, error) {
	value, err := r.store.GetVariable(model.Path("temp")).Value()
	if err != nil {
		return 0, fmt.Errorf("reading the temperature: %w", err)
	}
	t, err := tensors.CopyFlatData[float32](value)
	if err != nil {
		return 0, fmt.Errorf("reading the temperature: %w", err)
	}
	return float64(t[0]), nil
}
