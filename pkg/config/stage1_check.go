package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// checkStage1 holds the rules between fields of Stage1.
func checkStage1(s *Stage1, c *Checker) {
	checkVision(s.Vision, c)
	checkQFormer(s, c)
	checkLoss(s.Loss, c)
	checkShares(s.Train, s.Devices, s.Loss.Replicas, c)
	checkData(s.Data, c)
	checkOptim(s.Optim, s.Train.Steps, s.Vision.Freeze, c)
	checkMicroBatches(s.Train, s.Loss, c)
	checkBest(s.Checkpoint.Best, s.Eval.Retrieval && s.Eval.Every > 0, s.Data, RetrievalScores(), c)
	checkRun(s.Run, c)
}

// RetrievalScores are the scores of a set of pictures that stage 1 evaluates.
func RetrievalScores() []string {
	return []string{"i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"}
}

// CaptionScores are those of stage 2.
func CaptionScores() []string { return []string{"cider", "bleu4", "rouge_l"} }

// checkBest holds the rules of checkpoint.best; evaluated says whether the training is evaluated on its way.
func checkBest(best string, evaluated bool, d Data, scores []string, c *Checker) {
	const key = "checkpoint.best"
	if best == "" {
		return
	}
	set, score, _ := strings.Cut(best, "/")
	switch {
	case set != "train" && set != "heldout" || !slices.Contains(scores, score):
		c.Failf([]string{key}, "%q is no score of this training; want train/ or heldout/ with one of %s behind it", best,
			strings.Join(scores, ", "))
	case set == "heldout" && len(d.Heldout) == 0 && !c.d.partial:
		c.Failf([]string{key, "data.heldout"}, "there are no pictures for %s: name some with data.heldout, or take train/%s",
			best, score)
	case !evaluated:
		c.Warnf("checkpoint.best has no effect: nothing is evaluated during the training (eval.every)")
	}
}

func checkRun(r Run, c *Checker) {
	if r.Name != "" && (r.Name != filepath.Base(r.Name) || r.Name == "." || r.Name == "..") {
		c.Failf([]string{"run.name"}, "%q must be a plain folder name; the folder above it is run.dir", r.Name)
	}
}

func checkVision(v Vision, c *Checker) {
	if v.PatchSize > 0 && v.ImageSize%v.PatchSize != 0 {
		lower := v.ImageSize / v.PatchSize * v.PatchSize
		nearest := fmt.Sprintf("the nearest are %d and %d", lower, lower+v.PatchSize)
		if lower == 0 {
			nearest = fmt.Sprintf("the smallest is %d", v.PatchSize)
		}
		c.Failf([]string{"vision.image_size", "vision.patch_size"},
			"image_size %d is not a multiple of patch_size %d; %s", v.ImageSize, v.PatchSize, nearest)
	}
	if hidden := float64(v.Width) * v.MLPRatio; v.Width > 0 && hidden > 0 && hidden < 1 {
		c.Failf([]string{"vision.mlp_ratio", "vision.width"}, "mlp_ratio %g of width %d leaves the MLP no hidden feature",
			v.MLPRatio, v.Width)
	}
	if v.Heads > 0 && v.Width%v.Heads != 0 {
		c.Failf([]string{"vision.heads", "vision.width"}, "width %d is not a multiple of heads %d", v.Width, v.Heads)
	}
	if v.Freeze && v.Remat {
		c.Warnf("vision.remat has no effect: vision.freeze is true, so that no activations are kept")
	}
	if v.Freeze && v.Weights == "" {
		c.Warnf("vision.freeze is true and vision.weights is empty: the image encoder keeps its random weights")
	}
}

func checkQFormer(s *Stage1, c *Checker) {
	q := s.QFormer
	if q.Heads > 0 && q.Hidden%q.Heads != 0 {
		c.Failf([]string{"qformer.heads", "qformer.hidden"}, "hidden %d is not a multiple of heads %d",
			q.Hidden, q.Heads)
	}
	if s.Text.MaxLen > q.MaxPositions {
		c.Failf([]string{"text.max_len", "qformer.max_positions"},
			"max_len %d is more than the %d rows of the position table (qformer.max_positions)",
			s.Text.MaxLen, q.MaxPositions)
	}
	if s.Eval.MaxLen > q.MaxPositions {
		c.Failf([]string{"eval.max_len", "qformer.max_positions"},
			"max_len %d is more than the %d rows of the position table (qformer.max_positions)",
			s.Eval.MaxLen, q.MaxPositions)
	}
}

func checkLoss(l Loss, c *Checker) {
	if l.ITC == 0 && l.ITM == 0 && l.ITG == 0 {
		c.Failf([]string{"loss.itc", "loss.itm", "loss.itg"}, "all objectives have weight 0; nothing would be trained")
	}
}

// checkShares holds the rules of what a micro-batch is shared by: devices, and the parts with an ITG mean of their own.
func checkShares(t Train, devices Devices, replicas int, c *Checker) {
	parts := max(t.MicroBatches(), 1)
	keys := []string{"train.batch_size", "train.accumulate", "train.micro_batch_size"}
	replicated := parts
	if t.ContrastiveAccumulation {
		replicated = 1 // the replicas are parts of the whole batch
	}
	if n := max(replicas, 1) * replicated; t.BatchSize%n != 0 && replicas > 1 {
		c.Failf(append([]string{"loss.replicas"}, keys...), "batch_size %d in %d micro-batches does not make %d equal parts "+
			"of each (loss.replicas)", t.BatchSize, replicated, replicas)
	}
	if n := max(int(devices), 1) * parts; t.BatchSize%n != 0 && devices > 1 {
		c.Failf(append([]string{"devices"}, keys...), "batch_size %d in %d micro-batches cannot be shared evenly by %d "+
			"devices; the nearest that can are %d and %d", t.BatchSize, parts, int(devices), t.BatchSize/n*n,
			(t.BatchSize/n+1)*n)
	}
}

func checkData(d Data, c *Checker) {
	checkSources("data.train", d.Train, d.Mix.By, c)
	checkSources("data.heldout", d.Heldout, "images", c)
	checkMix(d, c)
	checkOrdered("data.augment.crop_scale", d.Augment.CropScale, c)
	checkOrdered("data.augment.crop_ratio", d.Augment.CropRatio, c)
}

func checkOrdered(key string, pair [2]float64, c *Checker) {
	if pair[0] > pair[1] {
		c.Failf([]string{key}, "want the smaller number first, got %s", FormatValue(pair))
	}
}

// checkOptim holds the rules of an optimizer for so many steps; frozen says that no block of the ViT is trained.
func checkOptim(o Optim, steps Count, frozen bool, c *Checker) {
	if o.MinLR > o.LR {
		c.Failf([]string{"optim.min_lr", "optim.lr"}, "min_lr %g is above lr %g", o.MinLR, o.LR)
	}
	if o.WarmupLR > o.LR {
		c.Failf([]string{"optim.warmup_lr", "optim.lr"}, "warmup_lr %g is above lr %g", o.WarmupLR, o.LR)
	}
	if o.LayerDecay < 1 && frozen {
		c.Warnf("optim.layer_decay has no effect: vision.freeze is true, so that no block of the ViT is trained")
	}
	if o.WarmupSteps > steps {
		c.Failf([]string{"optim.warmup_steps", "train.steps"}, "warmup_steps %d is more than train.steps %d",
			o.WarmupSteps.Int(), steps.Int())
	}
}

// checkMicroBatches holds the rules of batches that are cut; those of the contrastive losses do not apply to weights 0.
func checkMicroBatches(t Train, l Loss, c *Checker) {
	const batch, accumulate, micro = "train.batch_size", "train.accumulate", "train.micro_batch_size"
	switch parts := t.MicroBatches(); {
	case t.MicroBatchSize > 0 && t.BatchSize%t.MicroBatchSize != 0:
		c.Failf([]string{micro, batch}, "batch_size %d is not a multiple of micro_batch_size %d", t.BatchSize,
			t.MicroBatchSize)
	case t.MicroBatchSize > 0 && t.Accumulate > 1 && t.Accumulate != parts:
		c.Failf([]string{accumulate, micro, batch}, "%d micro-batches of %d are not the batch_size %d; give accumulate or "+
			"micro_batch_size alone", t.Accumulate, t.MicroBatchSize, t.BatchSize)
	case t.BatchSize%max(parts, 1) != 0:
		c.Failf([]string{accumulate, batch}, "batch_size %d cannot be cut into %d equal micro-batches", t.BatchSize, parts)
	case t.ContrastiveAccumulation && parts == 1:
		c.Failf([]string{"train.contrastive_accumulation"}, "there is nothing to accumulate: give train.micro_batch_size "+
			"or train.accumulate")
	case t.ContrastiveAccumulation && l.ITC == 0 && l.ITM == 0:
		c.Failf([]string{"train.contrastive_accumulation", "loss.itc", "loss.itm"}, "is for ITC and the negatives of ITM, "+
			"which have weight 0; leave it out")
	case !t.ContrastiveAccumulation && l.ITM > 0 && parts > 1 && t.BatchSize/parts < 2:
		c.Failf([]string{accumulate, micro, batch}, "micro-batches of one pair have no negatives for ITM; make them "+
			"larger or set train.contrastive_accumulation")
	}
}
