package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"blip2/pkg/internal/atomicfile"
	"blip2/pkg/metrics"
	"blip2/pkg/metrics/caption"
)

type scoreCaptionsOptions struct {
	results     string
	annotations string
	metrics     []string
	splitBy     string
	expect      string
	perImage    string
	df          string
	writeDF     string
	strict      bool
}

func newScoreCaptionsCmd(app *App) *cobra.Command {
	var opts scoreCaptionsOptions
	var known []string
	for _, e := range caption.ExpectedSplits() {
		known = append(known, e.Name)
	}
	cmd := &cobra.Command{
		Use:   "captions",
		Short: "BLEU, METEOR, ROUGE-L, CIDEr-D and SPICE of captions",
		Long: `Scores captions as coco-caption (pycocoevalcap 1.2) does: the same tokens (Stanford's PTBTokenizer), the same
BLEU-1 to 4, METEOR 1.5, ROUGE-L, CIDEr-D and SPICE. Papers give the values times 100.

Results: the format of COCO or a list of LAVIS ([{"image_id": 1, "caption": "..."}]), such objects or those of
blip2 generate line by line, an object {"id": "caption"}, or a plain list, as JSON or as a text file with a caption on
each line. Annotations: the format of COCO or NoCaps, a list of
LAVIS ([{"image": "...", "caption": ["..."]}]), an object {"id": ["caption", ...]}, or a plain list in the order of the
results, as JSON or as a text file with a picture on each line and tabs between its references. All may be compressed
with gzip.

Pictures without a result are left out, with a warning; of two results of a picture the first counts. METEOR and SPICE
need data of their own; where these are not installed they are reported as not computed.

--split-by domain scores NoCaps: each domain as a corpus of its own, and all together. It works with any string that
the annotations' images have.`,
		Example: `  blip2 score captions --results results.json --annotations coco_karpathy_test_gt.json
  blip2 score captions --results nocaps.json --annotations nocaps_val_4500_captions.json --split-by domain
  blip2 score captions --results results.json --annotations captions_val2014.json --metrics bleu,cider --json
  blip2 score captions --results out.txt --annotations references.txt --per-image scores.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runScoreCaptions(cmd.Context(), app, opts) },
	}
	flags := cmd.Flags()
	flags.StringVar(&opts.results, "results", "", "file of captions to judge")
	flags.StringVar(&opts.annotations, "annotations", "", "file of reference captions")
	flags.StringSliceVar(&opts.metrics, "metrics", nil,
		"some of "+strings.Join(caption.Kinds(), ",")+" (default: all)")
	flags.StringVar(&opts.splitBy, "split-by", "", "score the parts that this label of the pictures makes, too")
	flags.StringVar(&opts.expect, "expect", "", "split that the annotations should be, or a number of pictures; warn if\n"+
		"they are not: "+strings.Join(known, ", "))
	flags.StringVar(&opts.perImage, "per-image", "", "write the values of each picture to this file, a JSON object a line")
	flags.StringVar(&opts.df, "cider-df", "", "take CIDEr-D's document frequencies from this file (default: from the\n"+
		"references that are scored)")
	flags.StringVar(&opts.writeDF, "write-cider-df", "",
		"write the document frequencies of the scored references to\nthis file")
	completeValues(cmd, "metrics", caption.Kinds()...)
	completeValues(cmd, "expect", known...)
	flags.BoolVar(&opts.strict, "strict", false, "fail on anything that would be a warning, or is not computed")
	return cmd
}

// validate refuses what can be seen to be wrong before anything is read.
func (o scoreCaptionsOptions) validate() error {
	switch {
	case o.results == "":
		return usagef("name the file of captions with --results")
	case o.annotations == "":
		return usagef("name the file of reference captions with --annotations")
	}
	for _, name := range o.metrics {
		if !slices.Contains(caption.Kinds(), name) {
			return usagef("--metrics %q is unknown%s", name, suggest(name, caption.Kinds()))
		}
	}
	if _, err := o.expected(); err != nil {
		return err
	}
	return checkOutputs([]namedFile{{"--results", o.results}, {"--annotations", o.annotations}, {"--cider-df", o.df}},
		namedFile{"--per-image", o.perImage}, namedFile{"--write-cider-df", o.writeDF})
}

// expected reads --expect; nil if it is not given.
func (o scoreCaptionsOptions) expected() (*caption.Expected, error) {
	if o.expect == "" {
		return nil, nil
	}
	if n, err := strconv.Atoi(o.expect); err == nil && n > 0 {
		return &caption.Expected{Name: "--expect", Pictures: n}, nil
	}
	var names []string
	for _, e := range caption.ExpectedSplits() {
		if e.Name == o.expect {
			return &e, nil
		}
		names = append(names, e.Name)
	}
	return nil, usagef("--expect %q is neither a number of pictures nor a known split%s", o.expect,
		suggest(o.expect, names))
}

// captionReport is what score captions prints.
type captionReport struct {
	Results     string             `json:"results"`
	Annotations string             `json:"annotations"`
	Pictures    int                `json:"pictures"` // scored
	Scores      scoreMap           `json:"scores"`
	NotComputed map[string]string  `json:"not_computed"` // metric: why
	SplitBy     string             `json:"split_by,omitempty"`
	Parts       []captionPart      `json:"parts,omitempty"`
	Warnings    []string           `json:"warnings"`
	Seconds     map[string]float64 `json:"seconds"` // metric: time of the whole set

	names []string // of the metrics, in order
}

// captionPart is one part of a split.
type captionPart struct {
	Name     string   `json:"name"`
	Pictures int      `json:"pictures"`
	Scores   scoreMap `json:"scores"` // as a corpus of its own
	Within   scoreMap `json:"within"` // means of the values in the whole set
}

// scoreMap are scores by metric; one without a value is null in JSON.
type scoreMap map[string]float64

// MarshalJSON writes NaN as null.
func (m scoreMap) MarshalJSON() ([]byte, error) {
	out := map[string]*float64{}
	for name, v := range m {
		if out[name] = nil; !math.IsNaN(v) {
			out[name] = &v
		}
	}
	return json.Marshal(out)
}

// scoresOf are the scores that were computed.
func scoresOf(e *caption.Evaluation) scoreMap {
	out := scoreMap{}
	for _, m := range e.Metrics {
		if m.NotComputed == "" {
			out[m.Name] = m.Corpus
		}
	}
	return out
}

// runScoreCaptions reads, scores and prints.
func runScoreCaptions(ctx context.Context, app *App, opts scoreCaptionsOptions) error {
	if err := opts.validate(); err != nil {
		return err
	}
	evaluate := caption.Options{Metrics: opts.metrics, Scorers: metrics.CaptionScorers(app.Log)}
	var err error
	if opts.df != "" {
		if evaluate.DF, err = caption.ReadDocumentFrequency(opts.df); err != nil {
			return err
		}
	}
	set, err := caption.Read(opts.results, opts.annotations)
	if err != nil {
		return err
	}
	if expected, err := opts.expected(); err == nil && expected != nil {
		set.Expect(*expected)
	}
	split, err := scoreSet(ctx, set, opts.splitBy, evaluate)
	if err != nil {
		return err
	}
	set.CheckTokens(split.Images)
	report := newCaptionReport(opts, set, split)
	for _, w := range set.Warnings {
		app.Log.Warn(w)
	}
	if err := writeCaptionFiles(opts, set, split); err != nil {
		return err
	}
	if err := writeCaptionReport(app, report); err != nil {
		return err
	}
	if opts.strict && len(set.Warnings)+len(report.NotComputed) > 0 {
		return fmt.Errorf("--strict: %d warnings, %d metrics not computed", len(set.Warnings), len(report.NotComputed))
	}
	return nil
}

// scoreSet scores the set, and its parts if a label is named.
func scoreSet(ctx context.Context, set *caption.Set, label string, o caption.Options) (*caption.Split, error) {
	if label != "" {
		return caption.EvaluateSplit(ctx, set, label, o)
	}
	images := caption.Tokenize(set.Items)
	e, err := caption.Evaluate(ctx, images, o)
	return &caption.Split{Entire: e, Images: images}, err
}

// newCaptionReport gathers what is printed.
func newCaptionReport(opts scoreCaptionsOptions, set *caption.Set, split *caption.Split) *captionReport {
	r := &captionReport{Results: opts.results, Annotations: opts.annotations, Pictures: split.Entire.Images,
		Scores: scoresOf(split.Entire), NotComputed: map[string]string{}, SplitBy: opts.splitBy,
		Warnings: append([]string{}, set.Warnings...), Seconds: map[string]float64{}}
	for _, m := range split.Entire.Metrics {
		r.names = append(r.names, m.Name)
		if m.NotComputed != "" {
			r.NotComputed[m.Name] = m.NotComputed
			continue
		}
		r.Seconds[m.Name] = m.Seconds
	}
	for _, p := range split.Parts {
		r.Parts = append(r.Parts, captionPart{p.Name, p.Alone.Images, scoresOf(p.Alone), p.Within})
	}
	return r
}

func writeCaptionReport(app *App, r *captionReport) error {
	if app.Globals.JSON {
		return writeJSON(app.Out, r)
	}
	return r.writeText(app.Out)
}

// writeText writes a row per metric and a column per part.
func (r *captionReport) writeText(w io.Writer) error {
	tab := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head, count := "metric\t", "pictures\t"
	for _, p := range r.Parts {
		head += p.Name + "\t"
		count += fmt.Sprintf("%d\t", p.Pictures)
	}
	fmt.Fprintln(tab, head+"entire\t")
	fmt.Fprintln(tab, count+fmt.Sprintf("%d\t", r.Pictures))
	for _, name := range r.names {
		if r.NotComputed[name] != "" {
			continue
		}
		row := name + "\t"
		for _, p := range r.Parts {
			row += fmt.Sprintf("%.4f\t", p.Scores[name])
		}
		fmt.Fprintln(tab, row+fmt.Sprintf("%.4f\t", r.Scores[name]))
	}
	if err := tab.Flush(); err != nil {
		return err
	}
	for _, name := range r.names {
		if why := r.NotComputed[name]; why != "" {
			if _, err := fmt.Fprintf(w, "%s is not computed: %s\n", name, why); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeCaptionFiles writes the files that were asked for.
func writeCaptionFiles(opts scoreCaptionsOptions, set *caption.Set, split *caption.Split) error {
	if opts.perImage != "" {
		err := atomicfile.Write(opts.perImage, func(w io.Writer) error { return writePerImage(w, set, split) })
		if err != nil {
			return fmt.Errorf("--per-image %s: %w", filepath.Clean(opts.perImage), err)
		}
	}
	if opts.writeDF != "" {
		err := atomicfile.Write(opts.writeDF, func(w io.Writer) error {
			return json.NewEncoder(w).Encode(caption.NewDocumentFrequency(split.Images))
		})
		if err != nil {
			return fmt.Errorf("--write-cider-df %s: %w", filepath.Clean(opts.writeDF), err)
		}
	}
	return nil
}

// perImageLine is a picture in the file of --per-image.
type perImageLine struct {
	ImageID    string              `json:"image_id"`
	Candidate  string              `json:"candidate"`
	Tokens     string              `json:"candidate_tokens"`
	References []string            `json:"reference_tokens"`
	Labels     map[string]string   `json:"labels,omitempty"`
	Scores     map[string]*float64 `json:"scores"`
	Details    map[string]any      `json:"details,omitempty"`
}

func writePerImage(w io.Writer, set *caption.Set, split *caption.Split) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	for i, item := range set.Items {
		line := perImageLine{ImageID: item.ID, Candidate: item.Candidate, Tokens: split.Images[i].Candidate,
			References: split.Images[i].References, Labels: set.Labels[i], Scores: map[string]*float64{},
			Details: map[string]any{}}
		for _, m := range split.Entire.Metrics {
			if m.NotComputed != "" {
				continue
			}
			line.Scores[m.Name] = nil
			if v := m.Images[i]; !math.IsNaN(v) {
				line.Scores[m.Name] = &v
			}
			if m.Details != nil {
				line.Details[m.Name] = m.Details[i]
			}
		}
		if err := encoder.Encode(line); err != nil {
			return errors.Join(fmt.Errorf("picture %s", item.ID), err)
		}
	}
	return nil
}
