// Package blip is BLIP's captioner, which writes the synthetic captions of CapFilt (paper section 4.1; spec/model.md
// 10): a ViT and a BERT decoder ("MED") that reads all of its tokens in every layer.
//
// Tensors have LAVIS's names: visual_encoder.* and text_decoder.*. The LM head's decoder is the word table, and its
// bias that of the predictions.
package blip

import (
	"errors"
	"fmt"

	"github.com/gomlx/compute/dtypes"
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

// Pick returns the keys and values of the pictures at the given indices [rows].
func Pick(cross []nn.KV, indices *Node) []nn.KV {
	picked := make([]nn.KV, len(cross))
	for i, kv := range cross {
		picked[i] = nn.KV{K: Gather(kv.K, InsertAxes(indices, -1)), V: Gather(kv.V, InsertAxes(indices, -1))}
	}
	return picked
}

// Hidden runs the decoder over texts whose row b describes picture b of cross: ids are [batch, L] and start with [DEC],
// mask [1|batch, L] is 1 at tokens and 0 at padding. Token i sees the tokens up to itself. It returns the last layer's
// hidden states [batch, L, H] in the compute type of cross.
func Hidden(scope *model.Scope, cfg Config, cross []nn.KV, ids, mask *Node) *Node {
	embeddings := scope.At("text_decoder").At("bert").At("embeddings")
	x := nn.Cast(bert.TextEmbeddings(embeddings, ids), cross[0].K.DType())
	x = cfg.bert().Embed(embeddings, x, nil)
	causal := nn.CausalMask(mask, 0)
	for i, kv := range cross {
		layer := cfg.layer(scope, i)
		x = layer.Attend(bert.SelfAttention, x, layer.KeysValues(bert.SelfAttention, x), causal)
		x = layer.Attend(bert.CrossAttention, x, kv, nil)
		x = layer.FeedForward("", x)
	}
	return x
}

// Logits runs the decoder over whole texts: ids and mask as for Hidden. Row i of the result [batch, L, vocab], float32,
// predicts token i+1. The scope is the model's root.
func Logits(scope *model.Scope, cfg Config, cross []nn.KV, ids, mask *Node) *Node {
	return lmLogits(scope, cfg, Hidden(scope, cfg, cross, ids, mask))
}

// NextLogits predicts the token behind each prefix: ids are [rows, L], of which the first lengths [rows] count (at
// least one). Only those positions go through the LM head: [rows, vocab], float32.
func NextLogits(scope *model.Scope, cfg Config, cross []nn.KV, ids, lengths *Node) *Node {
	// The last token that counts sees none of those behind it: the padding needs no mask.
	all := BroadcastToDims(Scalar(ids.Graph(), dtypes.Int32, 1), 1, ids.Shape().Dimensions[1])
	hidden := Hidden(scope, cfg, cross, ids, all)
	row := Iota(ids.Graph(), lengths.Shape(), 0)
	last := Gather(hidden, Stack([]*Node{row, AddScalar(lengths, -1)}, -1))
	return lmLogits(scope, cfg, last)
}

func lmLogits(scope *model.Scope, cfg Config, hidden *Node) *Node {
	decoder := scope.At("text_decoder")
	return cfg.bert().LMLogits(decoder.At("cls").At("predictions"), decoder.At("bert").At("embeddings"), hidden)
}
