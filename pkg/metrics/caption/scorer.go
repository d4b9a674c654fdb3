package caption

import (
	"context"
	"fmt"
)

// Image is one picture's texts after tokenisation: tokens joined by single spaces, "" if none is left.
type Image struct {
	Candidate  string
	References []string // at least one
}

// Score is what a metric gives a corpus.
type Score struct {
	// Corpus is the figure to report; NaN where the metric has no value.
	Corpus float64
	// Images has one value per picture, in the order given; NaN where the metric has no value.
	Images []float64
	// Details, if not nil, has per picture what the value was made from, in a form that JSON can hold, such as the
	// matches of METEOR or the tuples of SPICE.
	Details []any
}

// Scorer computes one metric from tokenised texts. It is the seam at which METEOR and SPICE, which need data or a
// program of their own, join BLEU, ROUGE-L and CIDEr-D.
type Scorer interface {
	// Name is the metric's name as the reference prints it: "METEOR", "SPICE".
	Name() string
	// Score scores all pictures as one corpus. An UnavailableError says that the metric cannot be computed here; it is
	// then reported as not computed. The same scorer is asked again for every part of a split.
	Score(ctx context.Context, images []Image) (Score, error)
}

// UnavailableError says why a metric cannot be computed on this machine and what would help.
type UnavailableError struct {
	Metric string // as Scorer.Name gives it
	Reason string // "its data are not installed"
	Remedy string // "blip2 plugin install meteor"
}

func (e *UnavailableError) Error() string {
	return fmt.Sprintf("%s is not computed: %s; %s", e.Metric, e.Reason, e.Remedy)
}
