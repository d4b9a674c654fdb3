package metrics

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"blip2/pkg/device"
	"blip2/pkg/metrics/caption"
	"blip2/pkg/metrics/meteor"
)

// meteorScorer is METEOR by the data of "blip2 plugin install meteor".
type meteorScorer struct {
	log    *slog.Logger
	once   sync.Once
	scorer *meteor.Scorer
	err    error
}

// METEOR returns the scorer of METEOR 1.5. Making its index, which happens once, is told to the log.
func METEOR(log *slog.Logger) caption.Scorer { return &meteorScorer{log: log} }

// Name is METEOR.
func (*meteorScorer) Name() string { return caption.NameMETEOR }

// Score opens the data the first time. Details are the statistics as METEOR prints them.
func (m *meteorScorer) Score(ctx context.Context, images []caption.Image) (caption.Score, error) {
	m.once.Do(func() { m.scorer, m.err = openMETEOR(ctx, m.log) })
	if m.err != nil {
		return caption.Score{}, m.err
	}
	segments := make([]meteor.Segment, len(images))
	for i, im := range images {
		segments[i] = meteor.Segment(im)
	}
	stats, err := m.scorer.Score(ctx, segments)
	if err != nil {
		return caption.Score{}, tooLarge(err, images)
	}
	score := caption.Score{Corpus: meteor.Corpus(stats)}
	for _, s := range stats {
		score.Images, score.Details = append(score.Images, s.Score()), append(score.Details, s.String())
	}
	return score, nil
}

// openMETEOR finds the installed data. The index stays mapped as long as the program runs.
func openMETEOR(ctx context.Context, log *slog.Logger) (*meteor.Scorer, error) {
	dir, err := device.DataDir(device.KindMETEOR, "")
	if err != nil {
		return nil, unavailable(caption.NameMETEOR, err)
	}
	return meteor.Open(ctx, dir, log)
}

// unavailable makes of missing data that a metric is not computed; other errors stay.
func unavailable(metric string, err error) error {
	var missing *device.MissingDataError
	if errors.As(err, &missing) {
		return &caption.UnavailableError{Metric: metric, Reason: "its data: " + missing.Reason, Remedy: missing.Remedy()}
	}
	return err
}

// tooLarge makes of a caption with more matches than METEOR looks at that the metric is not computed, and says which
// caption it is: the other metrics have values for it. Other errors stay.
func tooLarge(err error, images []caption.Image) error {
	var large *meteor.TooLargeError
	if !errors.As(err, &large) || large.Segment >= len(images) {
		return err
	}
	const most = 40
	text := images[large.Segment].Candidate
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return &caption.UnavailableError{Metric: caption.NameMETEOR,
		Reason: fmt.Sprintf("the caption %q and its reference %d have too many equal words", text, large.Reference+1),
		Remedy: "cut captions that repeat themselves without end"}
}
