package report

import (
	"fmt"
	"io"
	"math"
	"strings"

	"blip2/pkg/runlog"
)

// splits lists the picture sets in the order shown, with what their scores mean.
var splits = [...]struct{ key, title, meaning, note string }{
	{runlog.SplitTrain, "Training pictures", "seen in training",
		"The model trained on these very pairs: this measures how well it fits them, not what it does on new pictures."},
	{runlog.SplitHeldout, "Held-out pictures", "never trained on",
		"The model never trained on these: this measures what it does on new pictures."},
}

// WriteRetrieval writes the retrieval scores before and after training as a plain-text table for a terminal.
// Scores are in percent; "–" is a score that was not measured; "×" says how many times chance R@1 is.
func WriteRetrieval(w io.Writer, s runlog.Summary) error {
	var out strings.Builder
	for _, split := range splits {
		after, evaluated := s.Retrieval[split.key]
		before, evaluatedBefore := s.RetrievalBefore[split.key]
		if !evaluated && !evaluatedBefore {
			continue
		}
		if out.Len() == 0 {
			fmt.Fprintf(&out, "%-16s%21s%21s%16s\n", "Retrieval in %", "before training", "after training", "chance")
			fmt.Fprintf(&out, "%-16s%7s%7s%7s%7s%7s%7s%9s%7s\n",
				"", "R@1", "R@5", "R@10", "R@1", "R@5", "R@10", "R@1", "×")
		}
		sizes := after
		if !evaluated {
			sizes = before
		}
		fmt.Fprintf(&out, "%s, %s (%s)\n", split.title, split.meaning, pairs(sizes))
		writeDirection(&out, "  image → text", evaluatedBefore, before.I2T(), evaluated, after.I2T(), sizes.ChanceI2T())
		writeDirection(&out, "  text → image", evaluatedBefore, before.T2I(), evaluated, after.T2I(), sizes.ChanceT2I())
	}
	if out.Len() == 0 {
		out.WriteString("Retrieval was not evaluated.\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func writeDirection(out *strings.Builder, name string, hasBefore bool, before [3]runlog.Float,
	hasAfter bool, after [3]runlog.Float, chance [3]runlog.Float) {
	fmt.Fprintf(out, "%-16s", name) // %-16s counts runes, so the arrow does not shift the columns
	for _, v := range before {
		fmt.Fprintf(out, "%7s", score(v, hasBefore))
	}
	for _, v := range after {
		fmt.Fprintf(out, "%7s", score(v, hasAfter))
	}
	fmt.Fprintf(out, "%9s%7s\n", score(chance[0], chance[0] > 0), timesChance(after[0], chance[0], hasAfter))
}

// score writes a percentage, or a dash.
func score(v runlog.Float, known bool) string {
	if !known || math.IsNaN(float64(v)) {
		return "–"
	}
	return fmt.Sprintf("%.1f", float64(v))
}

// timesChance writes how many times the chance level a score is, or a dash.
func timesChance(v, chance runlog.Float, known bool) string {
	times := float64(v / chance)
	switch {
	case !known || !(chance > 0) || math.IsNaN(times):
		return "–"
	case times < 9.95:
		return fmt.Sprintf("%.1f×", times)
	default:
		return fmt.Sprintf("%.0f×", times)
	}
}

func pairs(s runlog.RetrievalScores) string {
	return plural(s.Images, "picture") + ", " + plural(s.Texts, "caption")
}

// scoreTable is the table of one picture set on the page.
type scoreTable struct {
	Title, Sizes, Note string
	Directions         []direction
}

// direction is image → text or text → image.
type direction struct {
	Name  string
	Times string // "41× chance at R@1", or empty
	Cells [3]cell
}

// cell is one score: R@1, R@5 or R@10.
type cell struct {
	After, Before, Chance string
	Bar, Mark             string // percent of the width: the score, and the chance level or empty
}

// scoreTables words the retrieval scores of a summary.
func scoreTables(s *runlog.Summary) []scoreTable {
	var out []scoreTable
	if s == nil {
		return nil
	}
	for _, split := range splits {
		after, evaluated := s.Retrieval[split.key]
		before, evaluatedBefore := s.RetrievalBefore[split.key]
		if !evaluated && !evaluatedBefore {
			continue
		}
		sizes := after
		if !evaluated {
			sizes = before
		}
		out = append(out, scoreTable{Title: split.title, Sizes: pairs(sizes), Note: split.note, Directions: []direction{
			newDirection("Image → text", evaluatedBefore, before.I2T(), evaluated, after.I2T(), sizes.ChanceI2T()),
			newDirection("Text → image", evaluatedBefore, before.T2I(), evaluated, after.T2I(), sizes.ChanceT2I()),
		}})
	}
	return out
}

func newDirection(name string, hasBefore bool, before [3]runlog.Float, hasAfter bool, after [3]runlog.Float,
	chance [3]runlog.Float) direction {
	d := direction{Name: name}
	if times := timesChance(after[0], chance[0], hasAfter); times != "–" {
		d.Times = times + " chance"
	}
	for i := range d.Cells {
		d.Cells[i] = cell{After: score(after[i], hasAfter), Before: score(before[i], hasBefore),
			Chance: score(chance[i], chance[i] > 0), Bar: "0"}
		if hasAfter && !math.IsNaN(float64(after[i])) {
			d.Cells[i].Bar = percent(min(max(float64(after[i])/100, 0), 1))
		}
		if chance[i] > 0 {
			d.Cells[i].Mark = percent(min(float64(chance[i])/100, 1))
		}
	}
	return d
}
