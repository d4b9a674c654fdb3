package report

import (
	"fmt"
	"io"
	"math"
	"strings"

	"blip2/pkg/runlog"
)

// WriteCaptions writes the scores of captions before and after training as a plain-text table for a terminal, in
// percent as papers do; "–" is a score that was not measured. For comparison there is the CIDEr of the same captions, each
// given to another picture, and of what the language model writes without a picture.
func WriteCaptions(w io.Writer, s runlog.Summary) error {
	var out strings.Builder
	for _, split := range splits {
		after, evaluated := s.Captions[split.key]
		before, evaluatedBefore := s.CaptionsBefore[split.key]
		if !evaluated && !evaluatedBefore {
			continue
		}
		if out.Len() == 0 {
			fmt.Fprintf(&out, "%-18s%9s%18s%18s%9s%9s\n", "Captions", "CIDEr", "of other pictures", "without pictures",
				"BLEU-4", "ROUGE-L")
		}
		n := max(after.Images, before.Images)
		fmt.Fprintf(&out, "%s, %s (%d pictures)\n", split.title, split.meaning, n)
		writeCaptionRow(&out, "  before training", before, evaluatedBefore)
		writeCaptionRow(&out, "  after training", after, evaluated)
	}
	if out.Len() == 0 {
		out.WriteString("Captions were not evaluated.\n")
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func writeCaptionRow(out *strings.Builder, name string, c runlog.CaptionScores, known bool) {
	fmt.Fprintf(out, "%-18s", name)
	for i, v := range captionCells(c, known) {
		fmt.Fprintf(out, "%*s", []int{9, 18, 18, 9, 9}[i], v)
	}
	out.WriteByte('\n')
}

// captionCells writes CIDEr, CIDEr of exchanged captions and without pictures, BLEU-4 and ROUGE-L in percent.
func captionCells(c runlog.CaptionScores, known bool) []string {
	var cells []string
	for _, v := range []runlog.Float{c.CIDEr, c.CIDErExchanged, c.CIDErBlind, c.BLEU4, c.ROUGEL} {
		text := "–"
		if known && !math.IsNaN(float64(v)) {
			text = fmt.Sprintf("%.1f", 100*float64(v))
		}
		cells = append(cells, text)
	}
	return cells
}

// WriteSamples writes what the model says about n pictures of a gallery, and what people do, taken evenly.
func WriteSamples(w io.Writer, g runlog.Gallery, n int) error {
	n = min(n, len(g.Items))
	var out strings.Builder
	for k := range n {
		item := g.Items[k*len(g.Items)/n]
		people := ""
		if len(item.Captions) > 0 {
			people = item.Captions[0]
		}
		fmt.Fprintf(&out, "%s (%s)\n  model   %s\n  people  %s\n", item.Key, item.Split, item.Generated, people)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

// captionTable are the scores of the captions of one set, for the page.
type captionTable struct {
	Title, Sizes, Note string
	Columns            []string
	Rows               []captionRow
}

type captionRow struct {
	Name  string
	After bool
	Cells []string
}

// captionTables puts the scores of captions into tables, none if captions were not evaluated.
func captionTables(s *runlog.Summary) []captionTable {
	if s == nil {
		return nil
	}
	var out []captionTable
	for _, split := range splits {
		after, evaluated := s.Captions[split.key]
		before, evaluatedBefore := s.CaptionsBefore[split.key]
		if !evaluated && !evaluatedBefore {
			continue
		}
		out = append(out, captionTable{Title: split.title, Note: split.note,
			Sizes:   plural(max(after.Images, before.Images), "picture"),
			Columns: []string{"CIDEr", "of others", "blind", "BLEU-4", "ROUGE-L"},
			Rows: []captionRow{{"after training", true, captionCells(after, evaluated)},
				{"before training", false, captionCells(before, evaluatedBefore)}}})
	}
	return out
}
