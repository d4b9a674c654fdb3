package stage1

import (
	"context"
	"fmt"

	"blip2/pkg/dataset"
	"blip2/pkg/retrieval"
	"blip2/pkg/runlog"
	"blip2/pkg/training"
)

// Score ranks every set and, if asked, writes the gallery.
func (s *stage) Score(ctx context.Context, r *training.Run, phase string, gallery bool) (runlog.Scores, error) {
	scores := runlog.Scores{Retrieval: make(map[string]runlog.RetrievalScores, len(s.sets))}
	rankings := make([]*Ranking, len(s.sets))
	for i, e := range s.sets {
		var shown *runlog.Phase
		ranking, err := s.eval.Rank(ctx, e.EvalSet, func(part string, total int) func(int) {
			shown = r.Progress.Start(phase+" "+e.Split+" pictures: "+part, 0, total)
			return shown.Advance
		})
		shown.Done()
		if err != nil {
			return scores, fmt.Errorf("%s on %s pictures: %w", phase, e.Split, err)
		}
		r.WarnBad(e)
		scores.Retrieval[e.Split] = retrievalScores(e.EvalSet, ranking)
		rankings[i] = ranking
	}
	if !gallery || len(s.sets) == 0 {
		return scores, nil
	}
	return scores, s.gallery(ctx, r, rankings)
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
func (s *stage) gallery(ctx context.Context, r *training.Run, rankings []*Ranking) error {
	var items []runlog.GalleryItem
	for i, e := range s.sets {
		pictures := e.Shown(s.config.Report.Gallery / len(s.sets))
		captions, err := s.eval.Captions(ctx, rankings[i], pictures)
		if err != nil {
			return fmt.Errorf("writing captions for the gallery: %w", err)
		}
		matches, err := s.eval.BestMatches(ctx, e.EvalSet, rankings[i], pictures)
		if err != nil {
			return fmt.Errorf("matching texts for the gallery: %w", err)
		}
		for k, p := range pictures {
			best := matches[k]
			items = append(items, runlog.GalleryItem{
				Split: e.Split, Generated: s.tok.Decode(captions[k]), BestMatch: e.Caption(best.Text),
				BestMatchProb: runlog.Float(best.Prob), BestMatchCorrect: e.Txt2Img()[best.Text] == p,
			})
			if err := r.ShowPicture(&items[len(items)-1], e.EvalSet, p); err != nil {
				return err
			}
		}
	}
	return runlog.WriteGallery(r.RunDir, runlog.Gallery{Items: items})
}
