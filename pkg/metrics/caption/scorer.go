package caption

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
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

// SPICEDetail is what SPICE's value of a picture was made from.
type SPICEDetail struct {
	// Categories has precision, recall and F of "All", "Object", "Relation", "Attribute", "Color", "Size" and
	// "Cardinality"; NaN where there are no tuples of the kind.
	Categories map[string][3]float64
	// Candidate and References are the tuples, as "(dog,brown)"; those that match end in +.
	Candidate, References []string
}

// MarshalJSON writes NaN as null.
func (d SPICEDetail) MarshalJSON() ([]byte, error) {
	categories := map[string][3]*float64{}
	for name, values := range d.Categories {
		var out [3]*float64
		for i, v := range values {
			if !math.IsNaN(v) {
				out[i] = &v
			}
		}
		categories[name] = out
	}
	return json.Marshal(struct {
		Categories map[string][3]*float64 `json:"categories"`
		Candidate  []string               `json:"candidate_tuples"`
		References []string               `json:"reference_tuples"`
	}{categories, d.Candidate, d.References})
}
