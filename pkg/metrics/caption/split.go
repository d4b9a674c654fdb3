package caption

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Split is the scores of all pictures and of the parts that a label divides them into, such as NoCaps' domains.
type Split struct {
	Entire *Evaluation
	Images []Image // of Entire
	Parts  []Part  // by name
}

// Part is the scores of the pictures with one value of the label.
type Part struct {
	Name string
	// Alone is the part as a corpus of its own: the figures to report.
	Alone *Evaluation
	// Within are the means over the part of the values of the whole run, of the metrics whose score is a mean.
	Within map[string]float64
}

// Part returns the part of that name; nil if there is none.
func (s *Split) Part(name string) *Part {
	for i := range s.Parts {
		if s.Parts[i].Name == name {
			return &s.Parts[i]
		}
	}
	return nil
}

// EvaluateSplit scores all pictures together and each part as a corpus of its own. A picture without the label is an
// error.
func EvaluateSplit(ctx context.Context, set *Set, label string, o Options) (*Split, error) {
	places := map[string][]int{}
	for i, labels := range set.Labels {
		name := labels[label]
		if name == "" {
			return nil, fmt.Errorf("picture %s: the annotations do not say its %s; take the official file, whose images have "+
				"it", set.Items[i].ID, label)
		}
		places[name] = append(places[name], i)
	}
	s := &Split{Images: Tokenize(set.Items)}
	var err error
	if s.Entire, err = Evaluate(ctx, s.Images, o); err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(places)) {
		var items []Item
		for _, i := range places[name] {
			items = append(items, set.Items[i])
		}
		part := Part{Name: name, Within: map[string]float64{}}
		// Cut again: a batch of its own, as the reference takes it.
		if part.Alone, err = Evaluate(ctx, Tokenize(items), o); err != nil {
			return nil, fmt.Errorf("%s %s: %w", label, name, err)
		}
		for _, metric := range []string{NameROUGEL, NameCIDEr, NameSPICE} {
			if m := s.Entire.Metric(metric); m != nil && m.NotComputed == "" {
				var values []float64
				for _, i := range places[name] {
					values = append(values, m.Images[i])
				}
				part.Within[metric] = mean(values)
			}
		}
		s.Parts = append(s.Parts, part)
	}
	return s, nil
}
