package metrics

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"blip2/pkg/device"
	"blip2/pkg/metrics/caption"
	"blip2/pkg/metrics/spice"
)

// spiceScorer is SPICE by the program of "blip2 plugin install spice" and the user's Java.
type spiceScorer struct {
	log *slog.Logger
	// known are results of this run: the parts of a split are asked for after the whole.
	known map[string]spice.Result
}

// SPICE returns the scorer of SPICE 1.0. It takes minutes for thousands of pictures, and tells the log how far it is.
func SPICE(log *slog.Logger) caption.Scorer { return &spiceScorer{log: log} }

// Name is SPICE.
func (*spiceScorer) Name() string { return caption.NameSPICE }

// Score runs the program on what it has not seen in this run. Details are caption.SPICEDetail.
func (s *spiceScorer) Score(ctx context.Context, images []caption.Image) (caption.Score, error) {
	var items []spice.Item
	var keys []string
	for _, im := range images {
		key := strings.Join(append([]string{im.Candidate}, im.References...), "\n")
		if _, ok := s.known[key]; !ok {
			keys, items = append(keys, key), append(items, spice.Item(im))
		}
	}
	if len(items) > 0 {
		results, err := runSPICE(ctx, items, s.log)
		if err != nil {
			return caption.Score{}, err
		}
		if s.known == nil {
			s.known = map[string]spice.Result{}
		}
		for i, key := range keys {
			s.known[key] = results[i]
		}
	}
	return s.collect(images), nil
}

// collect puts the known results of pictures together.
func (s *spiceScorer) collect(images []caption.Image) caption.Score {
	var score caption.Score
	var results []spice.Result
	for _, im := range images {
		r := s.known[strings.Join(append([]string{im.Candidate}, im.References...), "\n")]
		results = append(results, r)
		detail := caption.SPICEDetail{Categories: map[string][3]float64{}, Candidate: tupleTexts(r.Candidate),
			References: tupleTexts(r.Reference)}
		for kind, v := range r.Scores {
			detail.Categories[kind] = [3]float64{v.Precision, v.Recall, v.F}
		}
		score.Images, score.Details = append(score.Images, r.F()), append(score.Details, detail)
	}
	score.Corpus = spice.Mean(results)
	return score
}

// tupleTexts writes tuples as "(dog,brown)", with + if they match.
func tupleTexts(tuples []spice.Tuple) []string {
	out := make([]string, len(tuples))
	for i, t := range tuples {
		out[i] = "(" + strings.Join(t.Words, ",") + ")"
		if t.Matched {
			out[i] += "+"
		}
	}
	return out
}

// progressEvery is how often the log says how far SPICE is.
const progressEvery = 15 * time.Second

// runSPICE runs the program; what a user can do something about makes SPICE "not computed".
func runSPICE(ctx context.Context, items []spice.Item, log *slog.Logger) ([]spice.Result, error) {
	dir, err := device.DataDir(device.KindSPICE, "")
	if err != nil {
		return nil, unavailable(caption.NameSPICE, err)
	}
	cache, err := device.CacheDir()
	if err != nil {
		return nil, err
	}
	var said time.Time
	results, err := spice.Run(ctx, items, spice.Options{Dir: dir, ParseDir: filepath.Join(cache, "spice-parses"),
		Logger: log, Progress: func(done, of int) {
			if time.Since(said) > progressEvery {
				said = time.Now()
				log.Info("SPICE", "pictures", done, "of", of)
			}
		}})
	var java *spice.NoJavaError
	var memory *spice.MemoryError
	var length *spice.LengthError
	switch {
	case errors.As(err, &java):
		return nil, &caption.UnavailableError{Metric: caption.NameSPICE, Reason: java.Reason, Remedy: java.Remedy()}
	case errors.As(err, &memory), errors.As(err, &length):
		return nil, &caption.UnavailableError{Metric: caption.NameSPICE, Reason: err.Error(),
			Remedy: "score shorter captions"}
	}
	return results, err
}
