package bert

import "blip2/pkg/model"

// InitStd is the spread of weights drawn from scratch (spec/model.md 5.5).
func (c Config) InitStd() float64 {
	if c.InitializerRange == 0 {
		return 0.02
	}
	return c.InitializerRange
}

// EmbeddingParams lists the word and position tables under the given prefix; their LayerNorm is not among them.
func (c Config) EmbeddingParams(prefix string, vocab, positions int) []model.Param {
	return []model.Param{
		c.matrix(prefix+"word_embeddings", vocab, c.Hidden),
		c.matrix(prefix+"position_embeddings", positions, c.Hidden),
	}
}

// AttentionParams lists the tensors of the layer's named attention, whose keys and values come from tokens of
// keyWidth features. The prefix is the layer's.
func (c Config) AttentionParams(prefix, attention string, keyWidth int) []model.Param {
	name := prefix + attention + "."
	params := c.linear(name+"self.query", c.Hidden, c.Hidden)
	params = append(params, c.linear(name+"self.key", c.Hidden, keyWidth)...)
	params = append(params, c.linear(name+"self.value", c.Hidden, keyWidth)...)
	params = append(params, c.linear(name+"output.dense", c.Hidden, c.Hidden)...)
	return append(params, model.LayerNorm(name+"output.LayerNorm", c.Hidden)...)
}

// FeedForwardParams lists the tensors of the layer's feed-forward network with the suffix. The prefix is the layer's.
func (c Config) FeedForwardParams(prefix, suffix string) []model.Param {
	params := c.linear(prefix+"intermediate"+suffix+".dense", c.Intermediate, c.Hidden)
	params = append(params, c.linear(prefix+"output"+suffix+".dense", c.Hidden, c.Intermediate)...)
	return append(params, model.LayerNorm(prefix+"output"+suffix+".LayerNorm", c.Hidden)...)
}

// HeadParams lists the tensors of the LM head under the given prefix. Its decoder is the word table, which is not
// listed twice.
func (c Config) HeadParams(prefix string, vocab int) []model.Param {
	params := c.linear(prefix+"transform.dense", c.Hidden, c.Hidden)
	params = append(params, model.LayerNorm(prefix+"transform.LayerNorm", c.Hidden)...)
	return append(params, model.Param{Name: prefix + "bias", Shape: []int{vocab}})
}

func (c Config) matrix(name string, rows, columns int) model.Param {
	return model.Param{Name: name + ".weight", Shape: []int{rows, columns}, Init: model.Normal(c.InitStd())}
}

func (c Config) linear(name string, out, in int) []model.Param {
	return []model.Param{c.matrix(name, out, in), {Name: name + ".bias", Shape: []int{out}}}
}
