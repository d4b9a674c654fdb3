package opt

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"blip2/pkg/model"
)

// Config holds a model's dimensions, named as in Hugging Face's config.json where that is given.
type Config struct {
	Vocab            int     // rows of the embedding table, 50,272: more than the tokenizer has ids (vocab_size)
	Hidden           int     // D: features per token inside the layers (hidden_size)
	Layers           int     // transformer layers (num_hidden_layers)
	Heads            int     // attention heads (num_attention_heads)
	FFN              int     // hidden width of the feed-forward networks (ffn_dim)
	Positions        int     // tokens of the longest sequence (max_position_embeddings); the table has two rows more
	EmbedDim         int     // features of token embeddings (word_embed_proj_dim); 0 means Hidden
	PostNorm         bool    // opt-350m: norms behind the sublayers, none at the end (do_layer_norm_before: false)
	LayerNormEps     float64 // 1e-5
	InitializerRange float64 // spread of weights drawn from scratch; 0 means OPT's 0.02 (init_std)
	Dropout          float64 // rate on sublayer outputs, in training (dropout)
	AttentionDropout float64 // rate on attention probabilities, in training (attention_dropout)

	// Recompute keeps only the inputs of layers for the backward pass and computes the rest again: memory for time.
	Recompute bool
}

// presets are the published models by their names on the hub. Their configurations share everything that Preset adds.
var presets = map[string]Config{
	"opt-125m": {Layers: 12, Hidden: 768, Heads: 12},
	"opt-350m": {Layers: 24, Hidden: 1024, Heads: 16, EmbedDim: 512, PostNorm: true},
	"opt-1.3b": {Layers: 24, Hidden: 2048, Heads: 32},
	"opt-2.7b": {Layers: 32, Hidden: 2560, Heads: 32},
	"opt-6.7b": {Layers: 32, Hidden: 4096, Heads: 32},
	"opt-13b":  {Layers: 40, Hidden: 5120, Heads: 40},
	"opt-30b":  {Layers: 48, Hidden: 7168, Heads: 56},
	"opt-66b":  {Layers: 64, Hidden: 9216, Heads: 72},
}

// Presets returns the names that Preset knows, sorted.
func Presets() []string { return slices.Sorted(maps.Keys(presets)) }

// Preset returns the published model of the given name, such as "opt-2.7b" or "facebook/opt-2.7b".
func Preset(name string) (Config, error) {
	cfg, ok := presets[strings.TrimPrefix(name, "facebook/")]
	if !ok {
		return cfg, fmt.Errorf("OPT model %q is unknown: choose one of %s", name, strings.Join(Presets(), ", "))
	}
	cfg.Vocab, cfg.Positions, cfg.FFN = 50272, 2048, 4*cfg.Hidden
	cfg.LayerNormEps, cfg.Dropout = 1e-5, 0.1
	return cfg, nil
}

// Validate reports dimensions that do not fit together.
func (c Config) Validate() error {
	for _, d := range []struct {
		what string
		size int
	}{{"vocabulary", c.Vocab}, {"hidden size", c.Hidden}, {"number of layers", c.Layers}, {"number of heads", c.Heads},
		{"ffn width", c.FFN}, {"number of positions", c.Positions}} {
		if d.size <= 0 {
			return fmt.Errorf("OPT: the %s must be at least 1, not %d", d.what, d.size)
		}
	}
	switch {
	case c.Hidden%c.Heads != 0:
		return fmt.Errorf("OPT: hidden size %d is not divisible by %d heads", c.Hidden, c.Heads)
	case c.EmbedDim < 0:
		return fmt.Errorf("OPT: the width of token embeddings must not be negative, but is %d", c.EmbedDim)
	case !(c.LayerNormEps > 0):
		return fmt.Errorf("OPT: LayerNorm's epsilon must be above 0, not %g", c.LayerNormEps)
	}
	return nil
}

// EmbedWidth returns the features of token embeddings, which is also the width of a visual prefix.
func (c Config) EmbedWidth() int {
	if c.EmbedDim == 0 {
		return c.Hidden
	}
	return c.EmbedDim
}

// projects reports whether token embeddings have another width than the layers.
func (c Config) projects() bool { return c.EmbedWidth() != c.Hidden }

// initStd is the spread of weights drawn from scratch.
func (c Config) initStd() float64 {
	if c.InitializerRange == 0 {
		return 0.02
	}
	return c.InitializerRange
}

// positionOffset is how many rows of the position table come before that of the first token.
const positionOffset = 2

// Params lists the tensors under Hugging Face's names of OPTForCausalLM. The LM head is the embedding table and is not
// listed twice.
func Params(cfg Config) []model.Param {
	d, std := cfg.Hidden, cfg.initStd()
	params := []model.Param{
		matrix("model.decoder.embed_tokens", cfg.Vocab, cfg.EmbedWidth(), std),
		matrix("model.decoder.embed_positions", cfg.Positions+positionOffset, d, std),
	}
	if cfg.projects() {
		params = append(params,
			matrix("model.decoder.project_in", d, cfg.EmbedWidth(), std),
			matrix("model.decoder.project_out", cfg.EmbedWidth(), d, std))
	}
	if !cfg.PostNorm {
		params = append(params, model.LayerNorm("model.decoder.final_layer_norm", d)...)
	}
	for i := range cfg.Layers {
		layer := fmt.Sprintf("model.decoder.layers.%d.", i)
		for _, name := range []string{"q_proj", "k_proj", "v_proj", "out_proj"} {
			params = append(params, linear(layer+"self_attn."+name, d, d, std)...)
		}
		params = append(params, model.LayerNorm(layer+"self_attn_layer_norm", d)...)
		params = append(params, linear(layer+"fc1", cfg.FFN, d, std)...)
		params = append(params, linear(layer+"fc2", d, cfg.FFN, std)...)
		params = append(params, model.LayerNorm(layer+"final_layer_norm", d)...)
	}
	return params
}

func matrix(name string, rows, columns int, std float64) model.Param {
	return model.Param{Name: name + ".weight", Shape: []int{rows, columns}, Init: model.Normal(std)}
}

func linear(name string, out, in int, std float64) []model.Param {
	return []model.Param{matrix(name, out, in, std), {Name: name + ".bias", Shape: []int{out}}}
}

// FLOPs counts the multiply-adds of Forward on one sequence, two operations each; matrix products only. rows are the
// tokens given, columns what they attend to: the same number, or the slots of the cache. HeadFLOPs is not part of it.
func (c Config) FLOPs(rows, columns int) float64 {
	r, d := float64(rows), float64(c.Hidden)
	layer := 2*r*d*(4*d+2*float64(c.FFN)) + 4*r*d*float64(columns)
	total := float64(c.Layers) * layer
	if c.projects() {
		total += 2 * r * d * float64(c.EmbedWidth())
	}
	return total
}

// HeadFLOPs counts the multiply-adds of Logits for the given number of tokens, two operations each.
func (c Config) HeadFLOPs(rows int) float64 {
	r, e := float64(rows), float64(c.EmbedWidth())
	total := 2 * r * e * float64(c.Vocab)
	if c.projects() {
		total += 2 * r * e * float64(c.Hidden)
	}
	return total
}
