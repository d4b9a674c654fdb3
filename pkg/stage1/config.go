// Package stage1 is BLIP-2's first stage (paper section 3.2; spec/stage1.md): the Q-Former learns, on a frozen image
// encoder, to extract what of a picture matters to its text, by three losses on the same batch — image-text
// contrast (ITC), image-text matching with hard negatives (ITM) and image-grounded text generation (ITG).
package stage1

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"

	"blip2/pkg/model"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
)

// The ways to weight hard negatives (spec/stage1.md 5).
const (
	// NegativesMaskedSoftmax samples from the softmax over all pairs but the positives: the released code's current form.
	NegativesMaskedSoftmax = "masked_softmax"
	// NegativesSoftmaxEps samples from softmax + 1e-4 over all pairs, positives then set to 0: its earlier form.
	NegativesSoftmaxEps = "softmax_eps"
)

// Config describes a stage-1 model and its losses.
type Config struct {
	Vision       vit.Config     // the image encoder
	FreezeVision bool           // the encoder gets no gradient
	LNVisionEps  float64        // of the trained LayerNorm behind the encoder
	QFormer      qformer.Config // EncoderWidth is the encoder's width
	EmbedDim     int            // E: width of the ITC features
	Temperature  float64        // start value of the learned ITC temperature

	MaxTextLen                 int // L: tokens per caption
	PadID, CLSID, SEPID, BOSID int // BOSID is [DEC]

	LabelSmoothing       float64 // of ITC and ITG
	ITCGatherGrad        bool    // let gradient flow into the gathered side of both ITC directions
	HardNegatives        string  // NegativesMaskedSoftmax or NegativesSoftmaxEps
	ITCWeight, ITMWeight float64 // factors of the losses in the total
	ITGWeight            float64 // 0 leaves a loss out; what only it needs is not computed
	ImageIDs             bool    // captions of one picture are positives of each other; see BatchInputs
	// Replicas is R, the data-parallel processes whose arithmetic is computed: the batch is R equal parts, replica after
	// replica, and ITG is the mean of their token means. Of the other losses the mean is the same for any R. 0 means 1.
	Replicas int
	Compute  dtypes.DType // type of activations; the zero value means float32

	MicroBatches int // parts of a batch that are worked on one after the other; 0 means 1
	// Coupled lets ITC and the draw of hard negatives see the whole batch in spite of MicroBatches; otherwise each part
	// is a batch of its own, of all replicas, and losses are means over the parts.
	Coupled bool
}

// Validate reports settings that do not fit together.
func (c Config) Validate() error {
	if err := c.Vision.Validate(); err != nil {
		return err
	}
	if err := c.QFormer.Validate(); err != nil {
		return err
	}
	switch {
	case c.QFormer.EncoderWidth != c.Vision.Width:
		return fmt.Errorf("qformer encoder width %d is not the vision width %d", c.QFormer.EncoderWidth, c.Vision.Width)
	case c.MaxTextLen > c.QFormer.MaxPositions:
		return fmt.Errorf("texts of %d tokens do not fit %d positions", c.MaxTextLen, c.QFormer.MaxPositions)
	case c.Replicas < 0:
		return fmt.Errorf("%d replicas: there must be 1 or more", c.Replicas)
	case c.HardNegatives != NegativesMaskedSoftmax && c.HardNegatives != NegativesSoftmaxEps:
		return fmt.Errorf("hard negatives %q: choose %q or %q", c.HardNegatives, NegativesMaskedSoftmax, NegativesSoftmaxEps)
	}
	return nil
}

func (c Config) replicas() int { return max(c.Replicas, 1) }

// VisionPrefix is in front of the image encoder's names in LAVIS checkpoints.
const VisionPrefix = "visual_encoder."

// VisionParams lists the image encoder's tensors.
func VisionParams(cfg Config) []model.Param {
	return model.Prefixed(VisionPrefix, vit.Params(cfg.Vision))
}

// HeadParams lists the tensors beside the image encoder and the Q-Former: ln_vision, projections, ITM head and
// temperature. Linear layers start as PyTorch starts them.
func HeadParams(cfg Config) []model.Param {
	return append(model.LayerNorm("ln_vision", cfg.Vision.Width),
		qformer.HeadParams(cfg.QFormer, cfg.EmbedDim, cfg.Temperature)...)
}

// Params lists all tensors of the model under LAVIS names, the image encoder's first.
func Params(cfg Config) []model.Param { return append(VisionParams(cfg), QFormerParams(cfg)...) }

// QFormerParams lists what stage 1 always trains: all tensors but the image encoder's.
func QFormerParams(cfg Config) []model.Param {
	return append(qformer.Params(cfg.QFormer, true), HeadParams(cfg)...)
}

// TrainableParams lists the tensors that get gradients.
func TrainableParams(cfg Config) []model.Param {
	if cfg.FreezeVision {
		return QFormerParams(cfg)
	}
	return Params(cfg)
}
