// Package stage2 is BLIP-2's second stage (paper section 3.3; spec/stage2.md): the Q-Former's query outputs, projected,
// stand in front of the text of a frozen language model — OPT, which goes on from them, or Flan-T5, whose encoder reads
// them.
package stage2

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gomlx/compute/dtypes"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
	"blip2/pkg/published"
)

// Config describes a stage-2 model.
type Config struct {
	Vision       vit.Config     // the image encoder
	FreezeVision bool           // the encoder gets no gradient
	LNVisionEps  float64        // of the trained LayerNorm behind the encoder
	QFormer      qformer.Config // EncoderWidth is the encoder's width; only its query side is used
	OPT          *opt.Config    // the language model is either OPT
	T5           *t5.Config     // or T5
	Compute      dtypes.DType   // type of activations; the zero value means float32

	// PromptLength is how many tokens of OPT's texts are a prompt that nothing is learned from, its leading </s> included.
	PromptLength int

	MicroBatches int // equal parts of a batch, of whose losses the mean is taken; 0 means 1

	// LossTokens is of how many tokens of a batch the logits are in memory at the same time, rounded to whole positions of
	// all texts: 0 for all of them, AutoLossTokens for as many as autoLogits has room for. Losses and gradients are the same.
	LossTokens int
}

// AutoLossTokens lets Config.LossTokens follow from the vocabulary.
const AutoLossTokens = -1

// autoLogits is how many logits AutoLossTokens holds: 256 MiB of float32.
const autoLogits = 64 << 20

// lossPositions is nn.HeadLoss's number of positions for a batch of texts.
func (c Config) lossPositions(texts int) int {
	tokens := c.LossTokens
	if tokens == AutoLossTokens {
		tokens = max(autoLogits/c.vocab(), 1)
	}
	if tokens == 0 {
		return 0
	}
	return max(tokens/texts, 1)
}

// vocab is the number of rows of the language model's head.
func (c Config) vocab() int {
	if c.OPT != nil {
		return c.OPT.Vocab
	}
	return c.T5.Vocab
}

// NewConfig returns the model of a published checkpoint, for inference.
func NewConfig(s published.Spec) (Config, error) {
	if len(s.Missing()) > 0 {
		return Config{}, fmt.Errorf("%s is not complete: it lacks the %s", s.Model, strings.Join(s.Missing(), " and the "))
	}
	cfg := Config{Vision: *s.Vision, FreezeVision: true, LNVisionEps: s.LNVisionEps, QFormer: *s.QFormer, OPT: s.OPT,
		T5: s.T5}
	cfg.QFormer.Dropout = 0
	return cfg, cfg.Validate()
}

// Validate reports settings that do not fit together.
func (c Config) Validate() error {
	if (c.OPT == nil) == (c.T5 == nil) {
		return errors.New("stage 2 needs one language model, OPT or T5")
	}
	if c.LossTokens < AutoLossTokens {
		return fmt.Errorf("a loss over %d tokens at a time: want at least 1, 0 for all, or %d", c.LossTokens, AutoLossTokens)
	}
	if c.QFormer.EncoderWidth != c.Vision.Width {
		return fmt.Errorf("qformer encoder width %d is not the vision width %d", c.QFormer.EncoderWidth, c.Vision.Width)
	}
	errs := []error{c.Vision.Validate(), c.QFormer.Validate()}
	if c.OPT != nil {
		errs = append(errs, c.OPT.Validate())
	} else {
		errs = append(errs, c.T5.Validate())
	}
	return errors.Join(errs...)
}

// TrainableParams lists the tensors that get gradients: query tokens, the Q-Former's query side, ln_vision, the
// projection, and the image encoder unless it is frozen. The language model is always frozen.
func TrainableParams(cfg Config) []model.Param {
	params := append(bridgeParams(cfg), qformer.ProjectionParams(cfg.QFormer, cfg.projection(), cfg.Width())...)
	if !cfg.FreezeVision {
		params = append(VisionParams(cfg), params...)
	}
	return params
}

// bridgeParams lists what stage 1 has trained and stage 2 goes on with.
func bridgeParams(cfg Config) []model.Param {
	return append(qformer.Params(cfg.QFormer, false), model.LayerNorm("ln_vision", cfg.Vision.Width)...)
}

// VisionParams lists the image encoder's tensors.
func VisionParams(cfg Config) []model.Param {
	return model.Prefixed(naming.VisionPrefix, vit.Params(cfg.Vision))
}

// LLMParams lists the language model's tensors, which are always frozen.
func LLMParams(cfg Config) []model.Param {
	if cfg.OPT != nil {
		return model.Prefixed(cfg.llmPrefix(), opt.Params(*cfg.OPT))
	}
	return model.Prefixed(cfg.llmPrefix(), t5.Params(*cfg.T5))
}

// FrozenParams lists the tensors that get no gradient.
func FrozenParams(cfg Config) []model.Param {
	if cfg.FreezeVision {
		return append(VisionParams(cfg), LLMParams(cfg)...)
	}
	return LLMParams(cfg)
}

// Params lists all tensors of the model under LAVIS names.
func Params(cfg Config) []model.Param { return append(FrozenParams(cfg), TrainableParams(cfg)...) }

// llmPrefix is in front of the language model's names.
func (c Config) llmPrefix() string { return c.llmName() + "_model." }

// llmName is how LAVIS's names of tensors call the language model.
func (c Config) llmName() string {
	if c.OPT != nil {
		return "opt"
	}
	return "t5"
}

// projection is the name of the layer between Q-Former and language model.
func (c Config) projection() string { return c.llmName() + "_proj" }

// Width returns the features of the language model's token embeddings, D.
func (c Config) Width() int {
	if c.OPT != nil {
		return c.OPT.EmbedWidth()
	}
	return c.T5.Hidden
}

// compute is the type of activations.
func (c Config) compute() dtypes.DType {
	if c.Compute == dtypes.InvalidDType {
		return dtypes.Float32
	}
	return c.Compute
}

// withLLMDropout returns the configuration with the rate at which the language model drops what its network drops in
// training (spec/stage2.md 2): sublayer outputs, and with T5 the rest of what t5.Config says. 0 switches it off, OPT's
// dropout of attention probabilities included.
func (c Config) withLLMDropout(rate float64) Config {
	if c.OPT != nil {
		llm := *c.OPT
		if llm.Dropout = rate; rate == 0 {
			llm.AttentionDropout = 0
		}
		c.OPT = &llm
		return c
	}
	llm := *c.T5
	llm.Dropout = rate
	c.T5 = &llm
	return c
}

// withRecompute returns the configuration with or without layers of the language model that are computed again in the
// backward pass.
func (c Config) withRecompute(again bool) Config {
	if c.OPT != nil {
		llm := *c.OPT
		llm.Recompute = again
		c.OPT = &llm
		return c
	}
	llm := *c.T5
	llm.Recompute = again
	c.T5 = &llm
	return c
}

// llm returns the scope of the language model; scope is the model's root.
func (c Config) llm(scope *mlx.Scope) *mlx.Scope {
	return scope.At("%s", strings.TrimSuffix(c.llmPrefix(), "."))
}
