package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"blip2/pkg/internal/measure"
	"blip2/pkg/metrics"
	"blip2/pkg/metrics/caption"
	"blip2/pkg/metrics/ptb"
)

type benchMetricsOptions struct {
	annotations string
	heldOut     int
	runs        int
	spice       bool
}

func newBenchMetricsCmd(app *App) *cobra.Command {
	var opts benchMetricsOptions
	cmd := &cobra.Command{
		Use:   "metrics",
		Short: "Measure how fast captions are scored",
		Long: `Scores the captions of a file of annotations, of each picture one against the others, and prints the time by
part, in the first run and the median of all, and the peak of host memory. Without --annotations it makes up 5,000
pictures with 25,000 captions, as many as the Karpathy test split of COCO has.`,
		Example: `  blip2 bench metrics
  blip2 bench metrics --annotations coco_karpathy_test_gt.json --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBenchMetrics(cmd.Context(), app, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.annotations, "annotations", "", "file of reference captions, as for score captions")
	flags.IntVar(&opts.heldOut, "held-out", 0, "which caption of a picture is judged, from 0")
	flags.IntVar(&opts.runs, "runs", 5, "how often everything is scored")
	flags.BoolVar(&opts.spice, "spice", false, "measure SPICE, too, which takes minutes")
	return cmd
}

// benchMetricsReport is what the command prints.
type benchMetricsReport struct {
	Data        string             `json:"data"`
	Pictures    int                `json:"pictures"`
	Captions    int                `json:"captions"`
	Runs        int                `json:"runs"`
	Parts       []benchPart        `json:"parts"` // the last is all together
	NotComputed map[string]string  `json:"not_computed"`
	Scores      map[string]float64 `json:"scores"`
	CPUSeconds  float64            `json:"cpu_seconds"` // processor time of a run, all cores together; 0: not measured
	PeakMemory  uint64             `json:"peak_memory"` // bytes of the process; 0 is not measured
	Machine     benchMachine       `json:"machine"`
	Build       versionInfo        `json:"build"`
}

// benchPart is the time of one part.
type benchPart struct {
	Name   string  `json:"name"`
	First  float64 `json:"first_seconds"`
	Median float64 `json:"median_seconds"`
}

// runBenchMetrics measures and prints.
func runBenchMetrics(ctx context.Context, app *App, opts benchMetricsOptions) error {
	if opts.runs < 1 {
		return usagef("--runs %d: measure at least 1", opts.runs)
	}
	switch {
	case opts.heldOut < 0:
		return usagef("--held-out %d: captions are counted from 0", opts.heldOut)
	case opts.heldOut > 0 && opts.annotations == "":
		return usagef("--held-out is for the captions of --annotations, which are not given")
	}
	r := benchMetricsReport{Data: opts.annotations, Runs: opts.runs, NotComputed: map[string]string{},
		Scores: map[string]float64{}, Machine: thisMachine(), Build: newVersionInfo(app.buildInfo())}
	items, err := opts.items()
	if err != nil {
		return err
	}
	if r.Data == "" {
		r.Data = "made up"
	}
	r.Pictures = len(items)
	for _, it := range items {
		r.Captions += 1 + len(it.References)
	}
	var runs [][]benchPart
	cpu := measure.CPUSeconds()
	for range opts.runs {
		parts, err := r.measure(ctx, app.Log, items, opts.spice)
		if err != nil {
			return err
		}
		runs = append(runs, parts)
	}
	for k, first := range runs[0] {
		var seconds []float64
		for _, parts := range runs {
			seconds = append(seconds, parts[k].First)
		}
		slices.Sort(seconds)
		r.Parts = append(r.Parts, benchPart{first.Name, first.First, seconds[len(seconds)/2]})
	}
	r.CPUSeconds = (measure.CPUSeconds() - cpu) / float64(opts.runs)
	r.PeakMemory = measure.PeakMemory()
	if app.Globals.JSON {
		return writeJSON(app.Out, r)
	}
	return r.writeText(app.Out)
}

// measure scores everything once and returns the time of each part, and of all.
func (r *benchMetricsReport) measure(ctx context.Context, log *slog.Logger, items []caption.Item, spice bool) (
	[]benchPart, error) {
	var parts []benchPart
	begin := time.Now()
	var candidates, references []string
	for _, it := range items {
		candidates = append(candidates, it.Candidate)
		references = append(references, it.References...)
	}
	timed := func(name string, f func()) {
		start := time.Now()
		f()
		parts = append(parts, benchPart{Name: name, First: time.Since(start).Seconds()})
	}
	timed("tokenise references", func() { references = ptb.Tokenize(references) })
	timed("tokenise candidates", func() { candidates = ptb.Tokenize(candidates) })
	images := make([]caption.Image, len(items))
	for i, it := range items {
		n := len(it.References)
		images[i], references = caption.Image{Candidate: candidates[i], References: references[:n]}, references[n:]
	}
	kinds := caption.Kinds()
	if !spice {
		kinds = slices.DeleteFunc(kinds, func(kind string) bool { return kind == "spice" })
	}
	e, err := caption.Evaluate(ctx, images, caption.Options{Metrics: kinds, Scorers: metrics.CaptionScorers(log)})
	if err != nil {
		return nil, err
	}
	parts = append(parts, benchPart{Name: "number words", First: e.PrepareSeconds})
	for _, m := range e.Metrics {
		name := m.Name
		switch {
		case m.NotComputed != "":
			r.NotComputed[name] = m.NotComputed
			continue
		case name == caption.BLEUName(1):
			name = "BLEU"
		case strings.HasPrefix(name, "Bleu"):
			r.Scores[name] = m.Corpus
			continue
		}
		r.Scores[m.Name] = m.Corpus
		parts = append(parts, benchPart{Name: name, First: m.Seconds})
	}
	return append(parts, benchPart{Name: "all", First: time.Since(begin).Seconds()}), nil
}

// items are the captions to score.
func (o benchMetricsOptions) items() ([]caption.Item, error) {
	if o.annotations == "" {
		return madeUpItems(), nil
	}
	pictures, err := caption.ReadReferences(o.annotations)
	if err != nil {
		return nil, err
	}
	for i, p := range pictures {
		if o.heldOut < 0 || o.heldOut >= len(p.References) || len(p.References) < 2 {
			return nil, fmt.Errorf("%s: picture %s has %d captions: --held-out %d leaves no candidate or no reference",
				o.annotations, p.ID, len(p.References), o.heldOut)
		}
		pictures[i].Candidate = p.References[o.heldOut]
		pictures[i].References = slices.Delete(slices.Clone(p.References), o.heldOut, o.heldOut+1)
	}
	return pictures, nil
}

// madeUpItems are 5,000 pictures with five captions of words drawn with the frequencies of language, where the second
// word is half as frequent as the first, the third a third, and so on.
func madeUpItems() []caption.Item {
	const pictures, captions, words, topic = 5_000, 5, 12_000, 12
	rng := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		k := int(math.Exp(rng.Float64()*math.Log(words))) - 1
		name := []byte{byte('a' + k%26)}
		for ; k > 0; k /= 26 {
			name = append(name, "aeiou"[k%5], byte('a'+k%26))
		}
		return string(name)
	}
	items := make([]caption.Item, pictures)
	for i := range items {
		var common []string // what the captions of a picture share
		for range topic {
			common = append(common, word())
		}
		texts := make([]string, captions)
		for k := range texts {
			var text []string
			for range 7 + rng.IntN(8) {
				if rng.IntN(2) == 0 {
					text = append(text, common[rng.IntN(topic)])
				} else {
					text = append(text, word())
				}
			}
			texts[k] = "A " + strings.Join(text, " ") + "."
		}
		items[i] = caption.Item{ID: fmt.Sprint(i), Candidate: texts[0], References: texts[1:]}
	}
	return items
}

// writeText writes the report as two tables.
func (r *benchMetricsReport) writeText(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"data", fmt.Sprintf("%s: %d pictures, %d captions", r.Data, r.Pictures, r.Captions)},
		{"machine", r.Machine.String()},
		{"build", fmt.Sprintf("commit %s, %s %s", r.Build.commitText(), r.Build.Go, r.Build.Platform)},
		{"processor time", secondsText(r.CPUSeconds, " per run, all cores together")},
		{"host memory", "peak " + gigabytes(r.PeakMemory)},
	} {
		fmt.Fprintf(tab, "%s\t%s\n", row[0], row[1])
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(tab, "\nSECONDS\tFIRST RUN\tMEDIAN OF %d\n", r.Runs)
	for _, p := range r.Parts {
		fmt.Fprintf(tab, "%s\t%.3f\t%.3f\n", p.Name, p.First, p.Median)
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for name, why := range r.NotComputed {
		if _, err := fmt.Fprintf(w, "%s is not computed: %s\n", name, why); err != nil {
			return err
		}
	}
	return nil
}
