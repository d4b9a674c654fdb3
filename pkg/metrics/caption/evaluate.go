package caption

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"blip2/pkg/metrics/ptb"
)

// Item is one picture with its texts as they are written.
type Item struct {
	ID         string
	Candidate  string
	References []string // at least one
}

// Names of the metrics of this package, as the reference prints them; BLEU is four of them.
const (
	NameROUGEL = "ROUGE_L"
	NameCIDEr  = "CIDEr"
	NameMETEOR = "METEOR"
	NameSPICE  = "SPICE"
)

// BLEUName is "Bleu_1" to "Bleu_4".
func BLEUName(n int) string { return fmt.Sprintf("Bleu_%d", n) }

// Kinds are the words by which metrics are asked for, in the order in which they are reported.
func Kinds() []string { return []string{"bleu", "meteor", "rouge", "cider", "spice"} }

// Options say what Evaluate computes.
type Options struct {
	// Metrics are some of Kinds; empty is all.
	Metrics []string
	// Scorers compute METEOR and SPICE. Without one a metric asked for is reported as not computed.
	Scorers []Scorer
	// DF, if not nil, are the document frequencies of CIDEr-D; else those of the evaluated references.
	DF *DocumentFrequency
}

// Metric is the result of one metric.
type Metric struct {
	Name string
	Score
	// NotComputed says why there is no score; empty if there is one.
	NotComputed string
	// Seconds is the time it took. The four of BLEU are computed together: each has the time of all.
	Seconds float64
}

// Evaluation is what Evaluate found, metric by metric in the order of Kinds.
type Evaluation struct {
	Images  int
	Metrics []Metric
	// PrepareSeconds is the time to number words and n-grams, which BLEU, ROUGE-L and CIDEr-D share.
	PrepareSeconds float64
}

// Metric returns the metric of that name; nil if it was not asked for.
func (e *Evaluation) Metric(name string) *Metric {
	for i := range e.Metrics {
		if e.Metrics[i].Name == name {
			return &e.Metrics[i]
		}
	}
	return nil
}

// Tokenize cuts the texts of all pictures: the references as one batch, the candidates as another, as the reference
// does.
func Tokenize(items []Item) []Image {
	var candidates, references []string
	for _, it := range items {
		candidates = append(candidates, it.Candidate)
		references = append(references, it.References...)
	}
	candidates, references = ptb.Tokenize(candidates), ptb.Tokenize(references)
	images := make([]Image, len(items))
	for i, it := range items {
		n := len(it.References)
		images[i] = Image{Candidate: candidates[i], References: references[:n:n]}
		references = references[n:]
	}
	return images
}

// Evaluate computes metrics of tokenised texts as one corpus. A metric that cannot be computed on this machine is no
// error; pictures without a reference, no pictures and unknown metrics are.
func Evaluate(ctx context.Context, images []Image, o Options) (*Evaluation, error) {
	if len(images) == 0 {
		return nil, errors.New("there are no pictures to score")
	}
	for i, im := range images {
		if len(im.References) == 0 {
			return nil, fmt.Errorf("picture %d has no reference", i)
		}
	}
	for _, kind := range o.Metrics {
		if !slices.Contains(Kinds(), kind) {
			return nil, fmt.Errorf("metric %q is unknown; the metrics are %s", kind, strings.Join(Kinds(), ", "))
		}
	}
	e := &Evaluation{Images: len(images)}
	var numbered *corpus
	for _, kind := range Kinds() {
		if len(o.Metrics) > 0 && !slices.Contains(o.Metrics, kind) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var err error
		switch kind {
		case "meteor":
			err = e.ask(ctx, NameMETEOR, images, o.Scorers)
		case "spice":
			err = e.ask(ctx, NameSPICE, images, o.Scorers)
		default:
			if numbered == nil {
				start := time.Now()
				numbered = newCorpus(images)
				e.PrepareSeconds = time.Since(start).Seconds()
			}
			e.compute(kind, numbered, o.DF)
		}
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

// compute adds a metric of this package.
func (e *Evaluation) compute(kind string, c *corpus, df *DocumentFrequency) {
	start := time.Now()
	var metrics []Metric
	switch kind {
	case "bleu":
		for n, s := range bleu(c) {
			metrics = append(metrics, Metric{Name: BLEUName(n + 1), Score: s})
		}
	case "rouge":
		metrics = []Metric{{Name: NameROUGEL, Score: rougeL(c)}}
	case "cider":
		metrics = []Metric{{Name: NameCIDEr, Score: ciderD(c, df)}}
	}
	for i := range metrics {
		metrics[i].Seconds = time.Since(start).Seconds()
	}
	e.Metrics = append(e.Metrics, metrics...)
}

// ask adds the metric of a scorer.
func (e *Evaluation) ask(ctx context.Context, name string, images []Image, scorers []Scorer) error {
	m := Metric{Name: name, NotComputed: "this program was built without it"}
	start := time.Now()
	for _, s := range scorers {
		if s.Name() != name {
			continue
		}
		score, err := s.Score(ctx, images)
		var unavailable *UnavailableError
		if errors.As(err, &unavailable) {
			m.NotComputed = unavailable.Reason + "; " + unavailable.Remedy
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if len(score.Images) != len(images) {
			return fmt.Errorf("%s: %d values for %d pictures", name, len(score.Images), len(images))
		}
		m.Score, m.NotComputed = score, ""
	}
	m.Seconds = time.Since(start).Seconds()
	e.Metrics = append(e.Metrics, m)
	return nil
}
