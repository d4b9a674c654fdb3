package metrics

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"blip2/pkg/device"
	"blip2/pkg/metrics/caption"
	"blip2/pkg/metrics/meteor"
)

// Without data METEOR and SPICE are not computed, and say what to do; they are never approximated.
func TestCaptionScorersWithoutData(t *testing.T) {
	t.Setenv(device.CacheEnv, t.TempDir())
	images := []caption.Image{{Candidate: "a dog", References: []string{"a dog"}}}
	var names []string
	for _, s := range CaptionScorers(slog.New(slog.DiscardHandler)) {
		names = append(names, s.Name())
		for range 2 { // the second time must not differ
			_, err := s.Score(t.Context(), images)
			var missing *caption.UnavailableError
			if !errors.As(err, &missing) || missing.Metric != s.Name() ||
				missing.Remedy != "blip2 plugin install "+strings.ToLower(s.Name()) {
				t.Errorf("%s: %v", s.Name(), err)
			}
		}
	}
	if got := strings.Join(names, " "); got != "METEOR SPICE" {
		t.Errorf("scorers %s", got)
	}
	e, err := caption.Evaluate(t.Context(), images, caption.Options{Scorers: CaptionScorers(slog.New(slog.DiscardHandler))})
	if err != nil {
		t.Fatal(err)
	}
	if m := e.Metric(caption.NameMETEOR); m.NotComputed == "" || m.Images != nil {
		t.Errorf("METEOR %+v", m)
	}
}

// TestTooLarge: one endless caption does not cost the scores of the other metrics, and is named.
func TestTooLarge(t *testing.T) {
	images := []caption.Image{{Candidate: "a"}, {Candidate: strings.Repeat("dog ", 100)}}
	err := tooLarge(fmt.Errorf("METEOR: %w", &meteor.TooLargeError{Segment: 1, Reference: 2}), images)
	var unavailable *caption.UnavailableError
	if !errors.As(err, &unavailable) || !strings.Contains(unavailable.Reason, `"dog dog`) ||
		!strings.Contains(unavailable.Reason, "reference 3") || len(unavailable.Reason) > 150 {
		t.Errorf("got %v", err)
	}
	for _, other := range []error{io.EOF, &meteor.TooLargeError{Segment: 2}} {
		if got := tooLarge(other, images); got != other {
			t.Errorf("%v became %v", other, got)
		}
	}
}
