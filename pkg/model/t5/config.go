package t5

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"blip2/pkg/model"
	"blip2/pkg/model/nn"
)

// Config holds a model's dimensions, named as in Hugging Face's config.json where that is given.
type Config struct {
	Vocab         int           // rows of the embedding table, 32,128: more than the tokenizer has ids (vocab_size)
	Hidden        int           // D: features per token (d_model)
	HeadDim       int           // features per attention head (d_kv); HeadDim·Heads need not be Hidden
	Heads         int           // attention heads (num_heads)
	FFN           int           // hidden width of the feed-forward networks (d_ff)
	EncoderLayers int           // blocks of the encoder (num_layers)
	DecoderLayers int           // blocks of the decoder (num_decoder_layers)
	Activation    nn.Activation // of the gate (dense_act_fn): BLIP-2 sets nn.GELU, stock Flan-T5 has nn.GELUNew
	Buckets       int           // of relative positions, 32 (relative_attention_num_buckets)
	MaxDistance   int           // from which on positions share a bucket, 128 (relative_attention_max_distance)
	RMSNormEps    float64       // 1e-6 (layer_norm_epsilon)
	InitFactor    float64       // scales the spread of weights drawn from scratch; 0 means 1 (initializer_factor)
	Dropout       float64       // rate on embeddings, attention probabilities, inside and behind sublayers (dropout_rate)

	// Recompute keeps only the inputs of blocks for the backward pass and computes the rest again: memory for time.
	Recompute bool
}

// presets are the published models by their names on the hub. Their configurations share everything that Preset adds.
var presets = map[string]Config{
	"flan-t5-small": {Hidden: 512, Heads: 6, FFN: 1024, EncoderLayers: 8},
	"flan-t5-base":  {Hidden: 768, Heads: 12, FFN: 2048, EncoderLayers: 12},
	"flan-t5-large": {Hidden: 1024, Heads: 16, FFN: 2816, EncoderLayers: 24},
	"flan-t5-xl":    {Hidden: 2048, Heads: 32, FFN: 5120, EncoderLayers: 24},
	"flan-t5-xxl":   {Hidden: 4096, Heads: 64, FFN: 10240, EncoderLayers: 24},
}

// Presets returns the names that Preset knows, sorted.
func Presets() []string { return slices.Sorted(maps.Keys(presets)) }

// Preset returns the published model of the given name, such as "flan-t5-xl" or "google/flan-t5-xl", as BLIP-2 uses it:
// with the exact gelu instead of the tanh form with which it was trained (spec/model.md 7).
func Preset(name string) (Config, error) {
	cfg, ok := presets[strings.TrimPrefix(name, "google/")]
	if !ok {
		return cfg, fmt.Errorf("T5 model %q is unknown: choose one of %s", name, strings.Join(Presets(), ", "))
	}
	cfg.Vocab, cfg.HeadDim, cfg.DecoderLayers, cfg.Activation = 32128, 64, cfg.EncoderLayers, nn.GELU
	cfg.Buckets, cfg.MaxDistance, cfg.RMSNormEps, cfg.Dropout = 32, 128, 1e-6, 0.1
	return cfg, nil
}

// Validate reports dimensions that do not fit together.
func (c Config) Validate() error {
	for _, d := range []struct {
		what string
		size int
	}{{"vocabulary", c.Vocab}, {"hidden size", c.Hidden}, {"head size", c.HeadDim}, {"number of heads", c.Heads},
		{"ffn width", c.FFN}, {"number of encoder layers", c.EncoderLayers},
		{"number of decoder layers", c.DecoderLayers}} {
		if d.size <= 0 {
			return fmt.Errorf("T5: the %s must be at least 1, not %d", d.what, d.size)
		}
	}
	switch {
	case c.Activation != nn.GELU && c.Activation != nn.GELUNew:
		return fmt.Errorf("T5: activation %q: choose %q (BLIP-2) or %q (stock Flan-T5)", c.Activation, nn.GELU, nn.GELUNew)
	case c.Buckets < 4:
		return fmt.Errorf("T5: %d buckets of relative positions are too few: 4 at least", c.Buckets)
	case c.MaxDistance <= c.Buckets/2:
		return fmt.Errorf("T5: the largest distance %d must be above half the number of buckets, %d", c.MaxDistance,
			c.Buckets)
	case !(c.RMSNormEps > 0):
		return fmt.Errorf("T5: RMSNorm's epsilon must be above 0, not %g", c.RMSNormEps)
	}
	return nil
}

// inner is the width of all heads together.
func (c Config) inner() int { return c.Heads * c.HeadDim }

// KeepsFloat32 reports whether the tensor of the given name stays in float32 in a model that computes in float16: the
// output of a feed-forward network leaves float16's range (spec/model.md 7).
func KeepsFloat32(name string) bool { return strings.HasSuffix(name, ".wo.weight") }

// Params lists the tensors under Hugging Face's names of T5ForConditionalGeneration. Encoder and decoder share the
// embedding table; the LM head is a tensor of its own.
func Params(cfg Config) []model.Param {
	p := declared{cfg: cfg, factor: cfg.InitFactor}
	if p.factor == 0 {
		p.factor = 1
	}
	p.matrix("shared", cfg.Vocab, cfg.Hidden, 1)
	for i := range cfg.EncoderLayers {
		block := fmt.Sprintf("encoder.block.%d.layer.", i)
		p.attention(block+"0", "SelfAttention", i == 0)
		p.feedForward(block + "1")
	}
	p.norm("encoder.final_layer_norm")
	for i := range cfg.DecoderLayers {
		block := fmt.Sprintf("decoder.block.%d.layer.", i)
		p.attention(block+"0", "SelfAttention", i == 0)
		p.attention(block+"1", "EncDecAttention", false)
		p.feedForward(block + "2")
	}
	p.norm("decoder.final_layer_norm")
	p.matrix("lm_head", cfg.Vocab, cfg.Hidden, 1)
	return p.params
}

// declared collects tensors. From scratch, matrices start from N(0, s²) with Mesh TensorFlow's s, as in Hugging Face.
type declared struct {
	cfg    Config
	factor float64
	params []model.Param
}

// matrix declares a weight [rows, columns] with s² = factor²/fanIn.
func (p *declared) matrix(name string, rows, columns, fanIn int) {
	std := p.factor / math.Sqrt(float64(fanIn))
	p.params = append(p.params,
		model.Param{Name: name + ".weight", Shape: []int{rows, columns}, Init: model.Normal(std)})
}

func (p *declared) norm(name string) {
	p.params = append(p.params,
		model.Param{Name: name + ".weight", Shape: []int{p.cfg.Hidden}, Init: model.Constant(p.factor)})
}

func (p *declared) attention(layer, name string, hasBias bool) {
	d, inner := p.cfg.Hidden, p.cfg.inner()
	at := layer + "." + name + "."
	p.matrix(at+"q", inner, d, d*p.cfg.HeadDim) // in place of scaling scores
	p.matrix(at+"k", inner, d, d)
	p.matrix(at+"v", inner, d, d)
	p.matrix(at+"o", d, inner, inner)
	if hasBias {
		p.matrix(at+"relative_attention_bias", p.cfg.Buckets, p.cfg.Heads, d)
	}
	p.norm(layer + ".layer_norm")
}

func (p *declared) feedForward(layer string) {
	d, ffn := p.cfg.Hidden, p.cfg.FFN
	p.matrix(layer+".DenseReluDense.wi_0", ffn, d, d)
	p.matrix(layer+".DenseReluDense.wi_1", ffn, d, d)
	p.matrix(layer+".DenseReluDense.wo", d, ffn, ffn)
	p.norm(layer + ".layer_norm")
}

// EncodeFLOPs counts the multiply-adds of Encode on one sequence of the given length, two operations each; matrix
// products only, as in all these counts.
func (c Config) EncodeFLOPs(length int) float64 {
	return float64(c.EncoderLayers) * (c.selfFLOPs(length, length) + c.feedForwardFLOPs(length))
}

// CrossFLOPs counts the work of NewCross for one encoded sequence.
func (c Config) CrossFLOPs(encoded int) float64 {
	return float64(c.DecoderLayers) * 4 * float64(encoded) * float64(c.Hidden*c.inner())
}

// DecodeFLOPs counts the work of Decode on one sequence: rows are the tokens given, columns what they attend to (the
// same number, or the slots of the cache), encoded the tokens of the encoder.
func (c Config) DecodeFLOPs(rows, columns, encoded int) float64 {
	cross := 4 * float64(rows) * float64(c.inner()) * float64(c.Hidden+encoded)
	return float64(c.DecoderLayers) * (c.selfFLOPs(rows, columns) + cross + c.feedForwardFLOPs(rows))
}

// HeadFLOPs counts the work of Logits for the given number of tokens.
func (c Config) HeadFLOPs(rows int) float64 {
	return 2 * float64(rows) * float64(c.Hidden) * float64(c.Vocab)
}

func (c Config) selfFLOPs(rows, columns int) float64 {
	return float64(rows) * float64(c.inner()) * (8*float64(c.Hidden) + 4*float64(columns))
}

func (c Config) feedForwardFLOPs(rows int) float64 {
	return 6 * float64(rows) * float64(c.Hidden) * float64(c.FFN)
}
