package verify

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"text/tabwriter"
)

// WriteText writes the report for people: a row per case, below it the reason of each failure, and a summary.
func (r Report) WriteText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "case\tkind\tcompared\tworst abs\tworst rel\tof tolerance\tresult\tseconds")
	for _, c := range r.Results {
		if c.Compared == 0 {
			fmt.Fprintf(t, "%s\t%s\t0\t-\t-\t-\t%s\t%.2f\n", c.Name, c.Kind, c.Status, c.Seconds)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.2g\t%.2g\t%s\t%s\t%.2f\n", c.Name, c.Kind, c.Compared, c.WorstAbs, c.WorstRel,
			percent(c.Share), c.Status, c.Seconds)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, c := range r.Results {
		if c.Status == Failed {
			if _, err := fmt.Fprintf(w, "\n%s: %v\n", c.Name, c.Err); err != nil {
				return err
			}
		}
	}
	for _, c := range r.Results {
		for _, part := range slices.Sorted(maps.Keys(c.NotChecked)) {
			if _, err := fmt.Fprintf(w, "\n%s: %s not checked: %s\n", c.Name, part, c.NotChecked[part]); err != nil {
				return err
			}
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", r.Summary())
	return err
}

// Summary says in one line how many cases passed and failed. Pending ones count as failed.
func (r Report) Summary() string {
	pending := r.Count(Pending)
	s := fmt.Sprintf("%d passed, %d failed", r.Count(Passed), r.Count(Failed)+pending)
	if pending > 0 {
		s += fmt.Sprintf(" (%d of them pending)", pending)
	}
	partly := 0
	for _, c := range r.Results {
		if len(c.NotChecked) > 0 {
			partly++
		}
	}
	if partly > 0 {
		s += fmt.Sprintf("; parts of %d not checked", partly)
	}
	return s
}

// MarshalJSON encodes the report as {"passed", "failed", "cases": [{"name", "kind", "pass", "worst_abs", "worst_rel",
// "seconds", "error", "not_checked"}]}. Pending cases count as failed. JSON has no infinity: it becomes the greatest
// float64.
func (r Report) MarshalJSON() ([]byte, error) {
	type row struct {
		Name     string  `json:"name"`
		Kind     string  `json:"kind"`
		Pass     bool    `json:"pass"`
		WorstAbs float64 `json:"worst_abs"`
		WorstRel float64 `json:"worst_rel"`
		Seconds  float64 `json:"seconds"`
		Error    string  `json:"error"`

		NotChecked map[string]string `json:"not_checked,omitempty"`
	}
	out := struct {
		Passed int   `json:"passed"`
		Failed int   `json:"failed"`
		Cases  []row `json:"cases"`
	}{r.Count(Passed), r.Count(Failed) + r.Count(Pending), []row{}}
	for _, c := range r.Results {
		x := row{Name: c.Name, Kind: c.Kind, Pass: c.Status == Passed, WorstAbs: min(c.WorstAbs, math.MaxFloat64),
			WorstRel: min(c.WorstRel, math.MaxFloat64), Seconds: c.Seconds, NotChecked: c.NotChecked}
		if c.Status == Pending {
			x.Error = "pending: " + c.Err.Error()
		} else if c.Err != nil {
			x.Error = c.Err.Error()
		}
		out.Cases = append(out.Cases, x)
	}
	return json.Marshal(out)
}

// percent writes a part of the tolerance; a case far outside is told by its errors, not by digits.
func percent(share float64) string {
	if share > 100 {
		return ">10000%"
	}
	return fmt.Sprintf("%.1f%%", 100*share)
}
