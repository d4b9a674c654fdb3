package runlog

import (
	"maps"
	"slices"
)

// Scores are what an evaluation measures, by SplitTrain and SplitHeldout. A set that was not evaluated is absent.
type Scores struct {
	Retrieval map[string]RetrievalScores `json:"retrieval,omitempty"`
	Captions  map[string]CaptionScores   `json:"captions,omitempty"`
}

// CaptionScores are the scores of the captions that a model writes for one set of pictures, against those by people.
type CaptionScores struct {
	Images int   `json:"images"`
	CIDEr  Float `json:"cider"` // CIDEr-D, with 1 where papers write 100
	BLEU4  Float `json:"bleu4"` // 0 to 1
	ROUGEL Float `json:"rouge_l"`
	// CIDErExchanged is CIDEr-D of the same captions, each given to the next picture of the set: what they are worth
	// where the picture does not matter.
	CIDErExchanged Float `json:"cider_exchanged,omitzero"`
	// CIDErBlind is CIDEr-D of what the language model writes without a picture, the same text for all of them.
	CIDErBlind Float `json:"cider_blind,omitzero"`
}

// Empty reports whether nothing was evaluated.
func (s Scores) Empty() bool { return len(s.Retrieval) == 0 && len(s.Captions) == 0 }

// Fields names the scores for metrics.jsonl and TensorBoard, such as "heldout/i2t_r1" and "train/cider".
func (s Scores) Fields() []Field {
	var out []Field
	for _, split := range slices.Sorted(maps.Keys(s.Retrieval)) {
		r := s.Retrieval[split]
		for i, k := range []string{"r1", "r5", "r10"} {
			out = append(out, F(split+"/i2t_"+k, float64(r.I2T()[i])), F(split+"/t2i_"+k, float64(r.T2I()[i])))
		}
	}
	for _, split := range slices.Sorted(maps.Keys(s.Captions)) {
		c := s.Captions[split]
		out = append(out, F(split+"/cider", float64(c.CIDEr)), F(split+"/bleu4", float64(c.BLEU4)),
			F(split+"/rouge_l", float64(c.ROUGEL)))
	}
	return out
}
