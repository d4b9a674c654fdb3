package stage2

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/gomlx/compute/dtypes"

	"blip2/pkg/config"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/published"
	"blip2/pkg/training"
)

// FromConfig returns the model that a configuration describes; the language model's sizes are those of its folder. What
// belongs to the device and the tokenizer is left to the caller: Compute and PromptLength.
func FromConfig(c *config.Stage2) (Config, error) {
	llm, err := readLLM(c.LLM.Path)
	if err != nil {
		return Config{}, fmt.Errorf("llm.path: %w", err)
	}
	return WithLLM(c, llm.OPT, llm.T5)
}

// WithLLM is FromConfig with the language model given: OPT or T5.
func WithLLM(c *config.Stage2, llm *opt.Config, llmT5 *t5.Config) (Config, error) {
	v, q := c.Vision, c.QFormer
	cfg := Config{
		Vision: training.NewVision(v), FreezeVision: v.Freeze, LNVisionEps: v.LNVisionEps,
		QFormer: qformer.Config{Hidden: q.Hidden, Layers: q.Layers, Heads: q.Heads, Intermediate: q.Intermediate,
			Queries: q.QueryTokens, CrossAttentionFreq: q.CrossAttentionFreq, EncoderWidth: v.Width,
			LayerNormEps: q.LayerNormEps, Dropout: q.Dropout, InitializerRange: q.InitStd},
		OPT: llm, T5: llmT5, LossTokens: int(c.LLM.LossChunk), MicroBatches: c.Train.MicroBatches(),
	}
	if c.LLM.LossChunk == config.Auto {
		cfg.LossTokens = AutoLossTokens
	}
	if err := cfg.Validate(); err != nil {
		return cfg, err
	}
	if !c.LLM.Dropout {
		cfg = cfg.withLLMDropout(0)
	}
	if n := cfg.QFormer.Queries + c.Text.MaxLen; cfg.OPT != nil && n > cfg.OPT.Positions {
		return cfg, fmt.Errorf("text.max_len: %d queries and texts of %d tokens are more than the %d positions of the "+
			"language model", cfg.QFormer.Queries, c.Text.MaxLen, cfg.OPT.Positions)
	}
	return cfg.withRecompute(c.LLM.Remat), nil
}

// readLLM reads what the folder of a language model says about it. BLIP-2 computes T5 with the exact GELU, whatever its
// own configuration says (spec/model.md 7).
func readLLM(path string) (published.Spec, error) {
	s, err := published.ReadConfig(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, fmt.Errorf("%w; give the folder of OPT or Flan-T5 as it is on the hub", err)
	case err != nil:
		return s, fmt.Errorf("%s: %w", path, err)
	case s.OPT == nil && s.T5 == nil:
		return s, fmt.Errorf("%s holds %s, which has no language model: give the folder of OPT or Flan-T5", path, s.Model)
	}
	if s.T5 != nil {
		llm := *s.T5
		llm.Activation = nn.GELU
		s.T5 = &llm
	}
	return s, nil
}

// NewTextOptions returns how captions become texts.
func NewTextOptions(c *config.Stage2) TextOptions {
	return TextOptions{MaxLength: c.Text.MaxLen, Prompt: c.Text.Prompt, SplitUnit: c.Text.SplitUnit,
		Prefix: c.Text.Prefix, Seed: c.Seed, PadTo: c.Text.PadTo}
}

// StoredType is the type in which the language model's weights are kept, on a device whose own choice is given.
func StoredType(c config.LLM, device dtypes.DType) dtypes.DType {
	switch c.DType {
	case "f32":
		return dtypes.Float32
	case "bf16":
		return dtypes.BFloat16
	case "f16":
		return dtypes.Float16
	}
	return device
}
