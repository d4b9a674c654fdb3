package stage1

import (
	"math"
	"testing"
)

// TestOneTrainingInParts: a training whose batches are cut into micro-batches, with image ids and an encoder that is
// trained with layer-wise rates, counts its steps and data as any other and goes on bit for bit behind a break.
func TestOneTrainingInParts(t *testing.T) {
	for name, set := range map[string][]string{
		"accumulate":  {"train.accumulate=2"},
		"contrastive": {"train.micro_batch_size=1", "train.contrastive_accumulation=true"},
		"whole":       {},
	} {
		y := newToy(t)
		set = append([]string{quick, "loss.image_ids=true", "vision.freeze=false", "vision.remat=true",
			"optim.layer_decay=0.8", "train.steps=6"}, set...)
		whole := y.mustTrain(t, start{run: "whole", set: set})
		if s := whole.Summary; s.Steps != 6 || s.Epochs != 1.5 {
			t.Errorf("%s: %d steps, %g epochs", name, s.Steps, float64(s.Epochs))
		}
		y.mustTrain(t, start{run: "broken", set: set, stopAt: "step 3/6"})
		resumed := y.mustTrain(t, start{run: "broken", set: set, resume: true})
		sameCheckpoint(t, name+", resumed", resumed, whole, 6)
		sameSeries(t, name+", resumed", resumed, whole)
	}
}

// TestLeftOutLoss: a loss of weight 0 is shown as 0 and its pass is no work.
func TestLeftOutLoss(t *testing.T) {
	y := newToy(t)
	f := y.mustTrain(t, start{run: "no-itg", set: []string{quick, "loss.itg=0"}})
	if s := f.Summary; s.LossITG != 0 || s.LossITC <= 0 || s.LossITM <= 0 ||
		math.Abs(float64(s.Loss-s.LossITC-s.LossITM)) > 1e-6 {
		t.Errorf("losses %g = %g + %g + %g", s.Loss, s.LossITC, s.LossITM, s.LossITG)
	}
}
