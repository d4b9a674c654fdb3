// Package blip is BLIP's captioner, which writes the synthetic captions of CapFilt (paper section 4.1; spec/model.md
// 10): a ViT and a BERT decoder ("MED") that reads all of its tokens in every layer.
//
// Tensors have LAVIS's names: visual_encoder.* and text_decoder.*. The LM head's decoder is the word table, and its
// bias that of the predictions.
//
// EncodeImage and NewCross are for the picture, once; Decode for texts, whole ones or, with a cache of fixed size,
// token by token, which Prefill and Advance put together.
package blip

import (
	"errors"
	"fmt"

	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/bert"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/vit"
)

// Config holds the captioner's dimensions.
type Config struct {
	Vision       vit.Config
	Hidden       int     // H: features per text token
	Layers       int     // layers of the decoder
	Heads        int     // attention heads of the decoder
	Intermediate int     // hidden width of the decoder's feed-forward networks
	Vocab        int     // word pieces, [DEC] (which starts a text) and [ENC] included
	MaxPositions int     // longest text
	LayerNormEps float64 // 1e-12

	InitializerRange float64 // spread of the decoder's weights drawn from scratch; 0 means BERT's 0.02
}

// Preset returns the captioner of the published name, at the picture size it was trained with: blip-large.
func Preset(name string) (Config, error) {
	if name != "blip-large" {
		return Config{}, fmt.Errorf("no BLIP captioner is called %q: choose blip-large", name)
	}
	vision, err := vit.Preset("blip-vit-l16")
	return Config{Vision: vision, Hidden: 768, Layers: 12, Heads: 12, Intermediate: 3072, Vocab: 30524,
		MaxPositions: 512, LayerNormEps: 1e-12}, err
}

// Validate reports dimensions that do not fit together.
func (c Config) Validate() error {
	switch {
	case c.Vision.Arch != vit.BLIP:
		return fmt.Errorf("vision arch %q: BLIP's image encoder is %q", c.Vision.Arch, vit.BLIP)
	case c.Layers <= 0:
		return fmt.Errorf("a text decoder of %d layers does not see the picture", c.Layers)
	}
	return errors.Join(c.Vision.Validate(), c.bert().Validate())
}

// bert returns what the decoder's layers share with BERT's.
func (c Config) bert() bert.Config {
	return bert.Config{Hidden: c.Hidden, Heads: c.Heads, Intermediate: c.Intermediate, LayerNormEps: c.LayerNormEps,
		InitializerRange: c.InitializerRange}
}

// layer returns the parts of the decoder's layer i; the scope is the model's root.
func (c Config) layer(scope *model.Scope, i int) bert.Layer {
	layers := scope.At("text_decoder").At("bert").At("encoder").At("layer")
	return bert.Layer{Config: c.bert(), Scope: layers.At("%d", i)}
}

// EncodeImage encodes pixels [batch, 3, S, S] (CLIP-normalised) to the features of all tokens [batch, N, W]. The scope
// is the model's root.
func EncodeImage(scope *model.Scope, cfg Config, pixels *Node) *Node {
	return vit.Forward(scope.At("visual_encoder"), cfg.Vision, pixels)
}

// NewCross projects image features [batch, N, W] to the keys and values that every layer's cross-attention reads of
// them. They depend on the picture alone: one projection serves all texts and all steps of writing one.
func NewCross(scope *model.Scope, cfg Config, features *Node) []nn.KV {
	features.AssertDims(-1, -1, cfg.Vision.Width)
	cross := make([]nn.KV, cfg.Layers)
	for i := range cross {
		cross[i] = cfg.layer(scope, i).KeysValues(bert.CrossAttention, features)
	}
	return cross
}

// Decode reads texts, which start with [DEC], in the compute type of the cross-attention; text i is about picture i of
// cross. With a cache, all texts of a row are. The scope is the model's root.
func Decode(scope *model.Scope, cfg Config, cross []nn.KV, text bert.Text) *bert.Read {
	r := bert.NewReader(text)
	x := r.Embed(cfg.bert(), scope.At("text_decoder").At("bert").At("embeddings"), cross[0].K.DType())
	for i, kv := range cross {
		layer := cfg.layer(scope, i)
		x = r.SelfAttention(layer, x)
		x = layer.Attend(bert.CrossAttention, x, kv, nil)
		x = layer.FeedForward("", x)
	}
	return r.End(x)
}

// Logits applies the LM head to hidden states [..., H]: [..., vocab] in float32. Row i of a text predicts token i+1.
// The scope is the model's root.
func Logits(scope *model.Scope, cfg Config, hidden *Node) *Node {
	decoder := scope.At("text_decoder")
	return cfg.bert().LMLogits(decoder.At("cls").At("predictions"), decoder.At("bert").At("embeddings"), hidden)
}
