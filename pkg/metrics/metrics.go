// Package metrics joins the metrics that need data or a program of their own to those that need nothing.
package metrics

import "blip2/pkg/metrics/caption"

// CaptionScorers returns the scorers of METEOR and SPICE, in the order in which they are reported. Each looks for what
// it needs when it is first asked, and says what is missing.
func CaptionScorers() []caption.Scorer {
	return []caption.Scorer{&meteorScorer{}, &spiceScorer{}}
}
