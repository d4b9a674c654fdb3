package verify

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"blip2/pkg/metrics/caption"
	"blip2/pkg/metrics/ptb"
)

// ptbTokenize runs kind ptb-tokenize: captions, one batch, as tokens; equal strings.
func ptbTokenize(c *Case, k *checker) error {
	var inputs struct{ Captions []string }
	var expected struct{ Tokens, Raw []string }
	if err := c.readJSON("inputs.json", &inputs); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	equalLists(k, "tokens", ptb.Tokenize(inputs.Captions), expected.Tokens)
	if expected.Raw != nil {
		equalLists(k, "raw", ptb.Lines(inputs.Captions), expected.Raw)
	}
	return nil
}

// captionValues are recorded scores by metric; a SPICE of null has no value, and kinds without METEOR or SPICE lack
// them.
type captionValues map[string]*float64

// captionCase is what a case of kind caption-metrics records.
type captionCase struct {
	Corpus captionValues `json:"corpus"`
	Images []captionImage
	Sums   *struct {
		Bleu   []float64
		ROUGEL float64 `json:"ROUGE_L"`
		CIDEr  float64
		METEOR *float64
	} `json:"per_image_sums"`
	Some map[string][]float64 `json:"images_bleu4_meteor_rouge_cider"`
}

// captionImage is what is recorded for one picture.
type captionImage struct {
	ImageID    any      `json:"image_id"`
	Candidate  *string  `json:"candidate_tokens"`
	References []string `json:"reference_tokens"`
	Bleu       []float64
	ROUGEL     *float64 `json:"ROUGE_L"`
	CIDEr      *float64
	METEOR     *float64
	Stats      *string `json:"meteor_stats"`
	SPICE      *float64

	Categories      map[string][3]*float64 `json:"spice_by_category"`
	CandidateTuples []string               `json:"candidate_tuples"`
	ReferenceTuples []string               `json:"reference_tuples"`
}

// captionMetrics runs kind caption-metrics: tokens, BLEU, ROUGE-L and CIDEr-D of a corpus and of its pictures, METEOR
// and SPICE where this machine can compute them.
func captionMetrics(c *Case, k *checker) error {
	items, err := captionItems(c)
	if err != nil {
		return err
	}
	var expected captionCase
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if _, err := c.tolerance(); err != nil {
		return err
	}
	images := caption.Tokenize(items)
	e, err := caption.Evaluate(c.env.ctx, images, caption.Options{Scorers: c.env.scorers,
		Metrics: recordedKinds(expected.Corpus)})
	if err != nil {
		return err
	}
	compareCorpus(k, "corpus", e, expected.Corpus)
	if expected.Images == nil && expected.Sums == nil {
		return fmt.Errorf("%s has neither images nor per_image_sums", expectedFile)
	}
	if expected.Images != nil {
		_, spice := expected.Corpus[caption.NameSPICE]
		return compareImages(k, e, images, expected.Images, spice)
	}
	return compareSums(k, e, items, expected)
}

// recordedKinds are the metrics to compute: all but those that take long and are not recorded.
func recordedKinds(corpus captionValues) []string {
	return slices.DeleteFunc(caption.Kinds(), func(kind string) bool {
		_, recorded := corpus[caption.NameSPICE]
		return kind == "spice" && !recorded
	})
}

// captionItems reads the pictures of a case: its own, or a file of the data folder of which one caption is held out.
func captionItems(c *Case) ([]caption.Item, error) {
	var config struct {
		Input   string
		HeldOut *int `json:"held_out"`
	}
	if err := c.config(&config); err != nil {
		return nil, err
	}
	if config.Input == "" {
		var inputs struct {
			Images []struct {
				ImageID    any `json:"image_id"`
				Candidate  string
				References []string
			}
		}
		if err := c.readJSON("inputs.json", &inputs); err != nil {
			return nil, err
		}
		items := make([]caption.Item, len(inputs.Images))
		for i, im := range inputs.Images {
			items[i] = caption.Item{ID: fmt.Sprint(im.ImageID), Candidate: im.Candidate, References: im.References}
		}
		return items, nil
	}
	if config.HeldOut == nil {
		return nil, fmt.Errorf("%s names an input, but not which caption is held out", caseFile)
	}
	var rows []struct {
		Image   string
		Caption []string
	}
	if err := c.readJSON(config.Input, &rows); err != nil {
		return nil, err
	}
	items := make([]caption.Item, len(rows))
	for i, r := range rows {
		at := *config.HeldOut
		if at < 0 || at >= len(r.Caption) {
			return nil, fmt.Errorf("%s, entry %d: no caption %d among %d", config.Input, i, at, len(r.Caption))
		}
		items[i] = caption.Item{ID: fileImageID(r.Image), Candidate: r.Caption[at],
			References: slices.Delete(slices.Clone(r.Caption), at, at+1)}
	}
	return items, nil
}

// fileImageID is the number after the last underscore of a file name of COCO.
func fileImageID(file string) string {
	name := strings.TrimSuffix(path.Base(file), path.Ext(file))
	n, err := strconv.Atoi(name[strings.LastIndexByte(name, '_')+1:])
	if err != nil {
		return file
	}
	return strconv.Itoa(n)
}

// compareCorpus compares scores of a corpus. Every recorded one must be computed, METEOR and SPICE excepted: without
// their data they are noted as not checked.
func compareCorpus(k *checker, name string, e *caption.Evaluation, want captionValues) {
	for _, metric := range slices.Sorted(maps.Keys(want)) {
		m := e.Metric(metric)
		switch {
		case m == nil:
			k.problem("%s/%s: recorded, but no metric of this program", name, metric)
		case m.NotComputed != "":
			k.notChecked(metric, m.NotComputed)
		default:
			compareValue(k, name+"/"+metric, m.Corpus, want[metric])
		}
	}
}

// compareValue compares a number of which null stands for none.
func compareValue(k *checker, name string, got float64, want *float64) {
	if want == nil && math.IsNaN(got) {
		k.compared++
		return
	}
	if want == nil {
		k.problem("%s: got %v, recorded null", name, got)
		return
	}
	compareFloats(k, name, nil, []float64{got}, []float64{*want})
}

// compareImages compares what is recorded of every picture.
func compareImages(k *checker, e *caption.Evaluation, images []caption.Image, want []captionImage, spice bool) error {
	if len(want) != len(images) {
		return fmt.Errorf("%d pictures, but %d expected", len(images), len(want))
	}
	for i, w := range want {
		name := fmt.Sprintf("images[%d]", i)
		if w.Candidate != nil {
			equalLists(k, name+"/candidate_tokens", []string{images[i].Candidate}, []string{*w.Candidate})
			equalLists(k, name+"/reference_tokens", images[i].References, w.References)
		}
		if len(w.Bleu) != 4 || w.ROUGEL == nil || w.CIDEr == nil {
			return fmt.Errorf("%s: want four values of Bleu, ROUGE_L and CIDEr", name)
		}
		for n, v := range w.Bleu {
			compareImage(k, name, e.Metric(caption.BLEUName(n+1)), i, &v)
		}
		compareImage(k, name, e.Metric(caption.NameROUGEL), i, w.ROUGEL)
		compareImage(k, name, e.Metric(caption.NameCIDEr), i, w.CIDEr)
		if w.METEOR != nil {
			compareImage(k, name, e.Metric(caption.NameMETEOR), i, w.METEOR)
			compareStats(k, name, e.Metric(caption.NameMETEOR), i, w.Stats)
		}
		if spice {
			compareImage(k, name, e.Metric(caption.NameSPICE), i, w.SPICE)
			compareSPICE(k, name, e.Metric(caption.NameSPICE), i, w)
		}
	}
	return nil
}

// compareImage compares one picture's value of a metric, if it was computed.
func compareImage(k *checker, name string, m *caption.Metric, i int, want *float64) {
	if m.NotComputed == "" {
		compareValue(k, name+"/"+m.Name, m.Images[i], want)
	}
}

// compareStats compares METEOR's statistics of a picture.
func compareStats(k *checker, name string, m *caption.Metric, i int, want *string) {
	if m.NotComputed != "" || want == nil {
		return
	}
	if m.Details == nil {
		k.problem("%s/meteor_stats: METEOR gives no statistics", name)
		return
	}
	equalLists(k, name+"/meteor_stats", []string{fmt.Sprint(m.Details[i])}, []string{*want})
}

// compareSPICE compares SPICE's tuples and its scores by category of a picture.
func compareSPICE(k *checker, name string, m *caption.Metric, i int, want captionImage) {
	if m.NotComputed != "" || want.Categories == nil {
		return
	}
	detail, ok := caption.SPICEDetail{}, false
	if m.Details != nil {
		detail, ok = m.Details[i].(caption.SPICEDetail)
	}
	if !ok {
		k.problem("%s/spice_by_category: SPICE gives no details", name)
		return
	}
	for _, category := range slices.Sorted(maps.Keys(want.Categories)) {
		for j, v := range want.Categories[category] {
			compareValue(k, fmt.Sprintf("%s/spice_by_category/%s[%d]", name, category, j), detail.Categories[category][j], v)
		}
	}
	if want.CandidateTuples != nil {
		equalLists(k, name+"/candidate_tuples", unordered(detail.Candidate), unordered(want.CandidateTuples))
		equalLists(k, name+"/reference_tuples", unordered(detail.References), unordered(want.ReferenceTuples))
	}
}

// unordered sorts tuples, and the merged words inside them, whose order the reference does not fix.
func unordered(tuples []string) []string {
	out := make([]string, len(tuples))
	for i, t := range tuples {
		end := strings.LastIndexByte(t, ')')
		if !strings.HasPrefix(t, "(") || end < 0 {
			out[i] = t
			continue
		}
		parts := strings.Split(t[1:end], ",")
		for j, part := range parts {
			words := strings.Split(part, "/")
			slices.Sort(words)
			parts[j] = strings.Join(words, "/")
		}
		out[i] = "(" + strings.Join(parts, ",") + t[end:]
	}
	slices.Sort(out)
	return out
}

// compareSums compares the sums over all pictures, and the pictures that are listed.
func compareSums(k *checker, e *caption.Evaluation, items []caption.Item, want captionCase) error {
	names := []string{caption.BLEUName(4), caption.NameMETEOR, caption.NameROUGEL, caption.NameCIDEr}
	if len(want.Sums.Bleu) != 4 {
		return fmt.Errorf("%s: want four values of Bleu in per_image_sums", expectedFile)
	}
	for n, v := range want.Sums.Bleu {
		compareSum(k, e.Metric(caption.BLEUName(n+1)), &v)
	}
	compareSum(k, e.Metric(caption.NameROUGEL), &want.Sums.ROUGEL)
	compareSum(k, e.Metric(caption.NameCIDEr), &want.Sums.CIDEr)
	compareSum(k, e.Metric(caption.NameMETEOR), want.Sums.METEOR)
	place := map[string]int{}
	for i, it := range items {
		place[it.ID] = i
	}
	for _, id := range slices.Sorted(maps.Keys(want.Some)) {
		i, ok := place[id]
		if values := want.Some[id]; !ok || len(values) != len(names) {
			return fmt.Errorf("images_bleu4_meteor_rouge_cider: picture %s: %d values, want %d of a picture of the case", id,
				len(values), len(names))
		}
		for n, name := range names {
			compareImage(k, "images["+id+"]", e.Metric(name), i, &want.Some[id][n])
		}
	}
	return nil
}

// compareSum compares the sum of a metric over all pictures, if it was computed and is recorded.
func compareSum(k *checker, m *caption.Metric, want *float64) {
	if want == nil || m.NotComputed != "" {
		return
	}
	sum := 0.0
	for _, v := range m.Images {
		sum += v
	}
	compareValue(k, "per_image_sums/"+m.Name, sum, want)
}

// nocapsSplit runs kind nocaps-split: scores of all pictures, of each domain as a corpus of its own, and means per
// domain of the values in the whole, from files in the official formats.
func nocapsSplit(c *Case, k *checker) error {
	var expected struct {
		Count  map[string]int
		Entire captionValues
		Alone  map[string]captionValues
		Within map[string]captionValues
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if _, err := c.tolerance(); err != nil {
		return err
	}
	set, err := readCaptionSet(c)
	if err != nil {
		return err
	}
	split, err := caption.EvaluateSplit(c.env.ctx, set, "domain", caption.Options{Scorers: c.env.scorers,
		Metrics: recordedKinds(expected.Entire)})
	if err != nil {
		return err
	}
	compareCorpus(k, "entire", split.Entire, expected.Entire)
	for _, domain := range slices.Sorted(maps.Keys(expected.Count)) {
		part := split.Part(domain)
		if part == nil {
			return fmt.Errorf("there is no picture of domain %q", domain)
		}
		equalLists(k, "count/"+domain, []int{part.Alone.Images}, []int{expected.Count[domain]})
		compareCorpus(k, "alone/"+domain, part.Alone, expected.Alone[domain])
		for _, metric := range slices.Sorted(maps.Keys(expected.Within[domain])) {
			if got, ok := part.Within[metric]; ok {
				compareValue(k, "within/"+domain+"/"+metric, got, expected.Within[domain][metric])
			} else if m := split.Entire.Metric(metric); m != nil && m.NotComputed != "" {
				k.notChecked(metric, m.NotComputed)
			} else {
				k.problem("within/%s/%s: recorded, but no mean of this program", domain, metric)
			}
		}
	}
	if len(split.Parts) != len(expected.Count) {
		k.problem("%d domains, recorded %d", len(split.Parts), len(expected.Count))
	}
	return nil
}

// readCaptionSet reads the files of a case as a user's.
func readCaptionSet(c *Case) (*caption.Set, error) {
	results, err := c.file("results.json")
	if err != nil {
		return nil, err
	}
	annotations, err := c.file("annotations.json")
	if err != nil {
		return nil, err
	}
	set, err := caption.Read(results, annotations)
	if err != nil {
		return nil, err
	}
	if len(set.Warnings) > 0 {
		return nil, fmt.Errorf("the files do not match: %s", strings.Join(set.Warnings, "; "))
	}
	return set, nil
}
