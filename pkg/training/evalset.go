package training

import (
	"blip2/pkg/dataset"
	"blip2/pkg/dataset/configured"
	"blip2/pkg/runlog"
)

// EvalSet is a named set of pictures and captions to evaluate on.
type EvalSet struct {
	*dataset.EvalSet
	Split string // runlog.SplitTrain or SplitHeldout
}

// EvalSets opens what the run is evaluated on: pictures that it trains on, if not all come from streams, and held-out
// ones, if there are any; of each most at the most, 0 for all. Captions get maxTextLen tokens; without a tokenizer only
// pictures and captions may be asked for. To be called by Stage.Prepare.
func (r *Run) EvalSets(tok dataset.Tokenizer, most, maxTextLen int) ([]EvalSet, error) {
	o := configured.EvalOptions(r.config.Data)
	o.ImageSize, o.MaxTextLen, o.Caption = r.inputs.ImageSize, maxTextLen, r.inputs.Caption
	if tok == nil {
		tok, o.MaxTextLen = noTokens{}, noLength
	}
	var sets []EvalSet
	for _, from := range []struct {
		split string
		src   dataset.Source
	}{{runlog.SplitTrain, r.Train}, {runlog.SplitHeldout, r.Heldout}} {
		if from.src == nil {
			continue
		}
		set, err := dataset.NewEvalSet(dataset.First(from.src, most), tok, o)
		if err != nil {
			return nil, err
		}
		sets = append(sets, EvalSet{set, from.split})
	}
	return sets, nil
}

// noTokens stands in for the tokenizer of a set of which no texts are asked for.
type noTokens struct{}

func (noTokens) EncodeCaptionInto([]int32, []int32, string) {}

// noLength is the least text length that an evaluation set takes.
const noLength = 2

// WarnBad logs the pictures that could not be read.
func (r *Run) WarnBad(set EvalSet) {
	for _, bad := range set.BadSamples() {
		r.Log.Warn("picture not evaluated", "key", bad.Key, "reason", bad.Reason)
	}
}

// Shown picks n of the pictures that could be read, at even distances; all if there are fewer.
func (s EvalSet) Shown(n int) []int {
	var good []int
	for i := range s.NumImages() {
		if s.Readable(i) {
			good = append(good, i)
		}
	}
	n = min(n, len(good))
	out := make([]int, n)
	for i := range out {
		out[i] = good[i*len(good)/n]
	}
	return out
}
