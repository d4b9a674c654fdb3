package report

import (
	"fmt"
	"io"
	"math"
	"strings"

	"blip2/pkg/runlog"
)

// WriteCaptions writes the scores of captions before and after training as a plain-text table for a terminal, in
// percent as papers do; "–" is a score that was not measured. "Exchanged" is the CIDEr of the same captions, each given
// to another picture.
func WriteCaptions(w io.Writer, s runlog.Summary) error {
	var out strings.Builder
	for _, split := range splits {
		after, evaluated := s.Captions[split.key]
		before, evaluatedBefore := s.CaptionsBefore[split.key]
		if !evaluated && !evaluatedBefore {
			continue
		}
		if out.Len() == 0 {
			fmt.Fprintf(&out, "%-18s%9s%11s%9s%9s\n", "Captions", "CIDEr", "exchanged", "BLEU-4", "ROUGE-L")
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
		fmt.Fprintf(out, "%*s", []int{9, 11, 9, 9}[i], v)
	}
	out.WriteByte('\n')
}

// captionCells writes CIDEr, CIDEr of exchanged captions, BLEU-4 and ROUGE-L in percent.
func captionCells(c runlog.CaptionScores, known bool) []string {
	var cells []string
	for _, v := range []runlog.Float{c.CIDEr, c.CIDErExchanged, c.BLEU4, c.ROUGEL} {
		text := "–"
		if known && !math.IsNaN(float64(v)) {
			text = fmt.Sprintf("%.1f", 100*float64(v))
		}
		cells = append(cells, text)
	}
	return cells
}
