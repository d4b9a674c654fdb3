// Package metrics joins the metrics that need data or a program of their own to those that need nothing.
package metrics

import (
	"log/slog"

	"blip2/pkg/metrics/caption"
)

// CaptionScorers returns the scorers of METEOR and SPICE, in the order in which they are reported. Each looks for what
// it needs when it is first asked, and says what is missing. What takes long is told to the log.
func CaptionScorers(log *slog.Logger) []caption.Scorer {
	return []caption.Scorer{METEOR(log), SPICE(log)}
}
