package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"blip2/pkg/runlog"
)

func scores(images int, v float64) runlog.RetrievalScores {
	n := runlog.Float(images)
	r := runlog.Float(v)
	return runlog.RetrievalScores{Images: images, Texts: 5 * images, I2TR1: r, I2TR5: r + 20, I2TR10: r + 30.25,
		T2IR1: r - 0.5, T2IR5: r + 18, T2IR10: r + 28, ChanceR1: 100 / n, ChanceT2IR1: 100 / n, ChanceT2IR5: 500 / n}
}

func exampleSummary() runlog.Summary {
	return runlog.Summary{Status: runlog.StatusFinished, Command: `blip2 pretrain-stage1 --set run.name="<x>"`,
		Backend: "go", Steps: 600, Epochs: 19.2, BatchSize: 32, Seconds: 287.4, ImgPerS: 62.314, Loss: 3.2,
		Parameters: 7_812_344, TrainableParameters: 812_344, TrainImages: 100, TrainTexts: 500,
		Scores: runlog.Scores{
			Retrieval: map[string]runlog.RetrievalScores{"train": scores(100, 64), "heldout": scores(18, 11.1)}},
		RetrievalBefore: map[string]runlog.RetrievalScores{"train": scores(100, 1), "heldout": scores(18, 5.6)}}
}

func TestWriteRetrieval(t *testing.T) {
	partial := exampleSummary()
	partial.RetrievalBefore = nil
	delete(partial.Retrieval, "train")
	diverged := exampleSummary()
	s := scores(18, 1)
	s.I2TR1, s.ChanceT2IR1 = runlog.Float(nan), 0
	diverged.Retrieval = map[string]runlog.RetrievalScores{"heldout": s}
	diverged.RetrievalBefore = nil
	for name, s := range map[string]runlog.Summary{"full": exampleSummary(), "partial": partial, "diverged": diverged,
		"none": {}} {
		var out strings.Builder
		if err := WriteRetrieval(&out, s); err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", "retrieval-"+name+".txt")
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if out.String() != string(want) {
			t.Errorf("%s:\n%s\nwant\n%s", golden, out.String(), want)
		}
		columns := 0
		for line := range strings.Lines(out.String()) {
			if n := len([]rune(strings.TrimSpace(line))); strings.HasPrefix(line, "  ") && strings.Contains(line, "→") {
				if columns != 0 && n != columns {
					t.Errorf("%s: rows of %d and %d columns", name, columns, n)
				}
				columns = n
			}
		}
	}
}

func TestTimesChance(t *testing.T) {
	for _, tc := range []struct {
		v, chance runlog.Float
		known     bool
		want      string
	}{{64, 1, true, "64×"}, {5.6, 5.6, true, "1.0×"}, {0, 1, true, "0.0×"}, {9.96, 1, true, "10×"}, {5, 0, true, "–"},
		{5, 1, false, "–"}, {runlog.Float(nan), 1, true, "–"}, {1, runlog.Float(nan), true, "–"}} {
		if got := timesChance(tc.v, tc.chance, tc.known); got != tc.want {
			t.Errorf("%v of %v: %s, want %s", tc.v, tc.chance, got, tc.want)
		}
	}
}

func TestScoreTables(t *testing.T) {
	s := exampleSummary()
	tables := scoreTables(&s)
	if len(tables) != 2 || tables[0].Title != "Training pictures" || tables[1].Sizes != "18 pictures, 90 captions" {
		t.Fatalf("tables %+v", tables)
	}
	d := tables[0].Directions[0]
	if d.Times != "64× chance" || d.Cells[0] != (cell{"64.0", "1.0", "1.0", "64.00", "1.00"}) ||
		d.Cells[1].Chance != "–" || d.Cells[1].Mark != "" {
		t.Errorf("image → text: %+v", d)
	}
	if d := tables[1].Directions[1]; d.Cells[1].Mark != "27.78" {
		t.Errorf("text → image: %+v", d)
	}
	if scoreTables(nil) != nil {
		t.Error("tables without a summary")
	}
}
