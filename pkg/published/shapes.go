package published

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"blip2/pkg/model/blip"
	"blip2/pkg/model/clip"
	"blip2/pkg/model/nn"
	"blip2/pkg/model/opt"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/t5"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
)

// Hints are sizes that no shape tells. Zero means that of the published network of the same width, if there is one.
type Hints struct {
	VisionHeads  int // of the image encoder
	QFormerHeads int // of the Q-Former, or of a text decoder or text tower
	LLMHeads     int // of OPT; T5's tables tell theirs
}

// shapes are the tensors of a checkpoint under the model's names.
type shapes map[string][]int

// dim returns an axis of a tensor, 0 if there is no such tensor or axis; negative axes count from the end.
func (s shapes) dim(name string, axis int) int {
	shape := s[name]
	if axis < 0 {
		axis += len(shape)
	}
	if axis < 0 || axis >= len(shape) {
		return 0
	}
	return shape[axis]
}

// layers counts the numbered layers below prefix, from 0 on.
func (s shapes) layers(prefix string) int {
	most := -1
	for name := range s {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			number, _, _ := strings.Cut(rest, ".")
			if n, err := strconv.Atoi(number); err == nil {
				most = max(most, n)
			}
		}
	}
	return most + 1
}

// has says whether there are tensors below prefix.
func (s shapes) has(prefix string) bool {
	for name := range s {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// FromShapes derives the sizes of the network from the shapes of its tensors, given by the names of package naming.
// Numbers of heads that neither shapes nor the width nor hints tell are 0.
func FromShapes(model string, tensors map[string][]int, h Hints) (Spec, error) {
	s, spec := shapes(tensors), Spec{Model: model}
	switch model {
	case naming.OPT:
		spec.OPT = s.opt("", h)
	case naming.T5:
		spec.T5 = s.t5("", nn.GELUNew)
	case naming.CLIP:
		spec.CLIP = s.clip(h)
	case naming.BLIPCaption:
		spec.BLIP = s.blip(h)
	case naming.BERT:
		spec.BERT = s.bert(h)
	case naming.EVAViT, naming.CLIPViT:
		spec.Vision = s.vit(naming.VisionPrefix, h)
	default:
		spec.Vision = s.vit(naming.VisionPrefix, h)
		spec.LNVisionEps = LNVisionEps
		spec.QFormer = s.qformer(h)
		spec.QFormerText = s.has(naming.WordEmbeddings)
		spec.EmbedDim = s.dim("vision_proj.weight", 0)
		spec.LLMWidth = s.dim(projections[model]+".weight", 0)
		if s.has("opt_model.") {
			spec.OPT = s.opt("opt_model.", h)
		}
		if s.has("t5_model.") {
			spec.T5 = s.t5("t5_model.", nn.GELU)
		}
	}
	return spec, spec.positive()
}

// positive reports a part of which a tensor that tells a size is missing or has another number of axes than it should.
func (s Spec) positive() error {
	sizes := map[string]int{}
	if v := s.vision(); v != nil {
		maps.Copy(sizes, map[string]int{"image encoder's width": v.Width, "patch size": v.PatchSize,
			"image size": v.ImageSize, "number of blocks": v.Layers, "image encoder's MLP": v.MLPWidth()})
	}
	if q := s.QFormer; q != nil {
		maps.Copy(sizes, map[string]int{"Q-Former's width": q.Hidden, "number of queries": q.Queries,
			"number of the Q-Former's layers": q.Layers, "Q-Former's feed-forward network": q.Intermediate,
			"width that the Q-Former's cross-attention reads": q.EncoderWidth})
	}
	if o := s.OPT; o != nil {
		maps.Copy(sizes, map[string]int{"OPT's width": o.Hidden, "number of OPT's layers": o.Layers, "OPT's FFN": o.FFN,
			"OPT's vocabulary": o.Vocab, "number of OPT's positions": o.Positions})
	}
	if t := s.T5; t != nil {
		maps.Copy(sizes, map[string]int{"T5's width": t.Hidden, "number of T5's encoder layers": t.EncoderLayers,
			"number of T5's decoder layers": t.DecoderLayers, "T5's FFN": t.FFN, "T5's vocabulary": t.Vocab,
			"number of T5's heads": t.Heads, "width of T5's heads": t.HeadDim})
	}
	for _, what := range slices.Sorted(maps.Keys(sizes)) {
		if sizes[what] <= 0 {
			return fmt.Errorf("the %s cannot be told from the shapes: the tensor that says it is missing or is another's", what)
		}
	}
	return nil
}

// vit describes the image encoder below prefix; nil if there is none.
func (s shapes) vit(prefix string, h Hints) *vit.Config {
	cfg := &vit.Config{Arch: vit.EVA, LayerNormEps: 1e-6}
	blocks, table, kernel, mlp := "blocks.", "pos_embed", "patch_embed.proj.weight", "mlp.fc1.weight"
	switch {
	case s.has(prefix + "class_embedding"):
		cfg.Arch, cfg.LayerNormEps = vit.CLIP, 1e-5
		blocks, table, kernel, mlp = "transformer.resblocks.", "positional_embedding", "conv1.weight", "mlp.c_fc.weight"
	case s.has(prefix + "blocks.0.attn.qkv.bias"):
		cfg.Arch = vit.BLIP
	case !s.has(prefix + table):
		return nil
	}
	cfg.Width, cfg.PatchSize = s.dim(prefix+kernel, 0), s.dim(prefix+kernel, -1)
	cfg.Layers = s.layers(prefix + blocks)
	if cfg.Width > 0 {
		cfg.MLPRatio = vit.RatioOf(s.dim(prefix+blocks+"0."+mlp, 0), cfg.Width)
	}
	if grid := int(math.Round(math.Sqrt(float64(s.dim(prefix+table, -2) - 1)))); grid > 0 {
		cfg.ImageSize = grid * cfg.PatchSize
	}
	cfg.Heads = h.VisionHeads
	if cfg.Heads == 0 {
		cfg.Heads = map[string]map[int]int{
			vit.EVA:  {1408: 16},
			vit.CLIP: {768: 12, 1024: 16},
			vit.BLIP: {768: 12, 1024: 16},
		}[cfg.Arch][cfg.Width]
	}
	return cfg
}

// bertHeads is the number of heads of a published BERT of that width.
func bertHeads(width, hint int) int {
	if hint != 0 {
		return hint
	}
	return map[int]int{768: 12, 1024: 16}[width]
}

// qformer describes the Q-Former; nil if there is none.
func (s shapes) qformer(h Hints) *qformer.Config {
	if !s.has("Qformer.") && !s.has("query_tokens") {
		return nil
	}
	const layers = "Qformer.bert.encoder.layer."
	cfg := &qformer.Config{Queries: s.dim("query_tokens", 1), Hidden: s.dim("query_tokens", 2), Layers: s.layers(layers),
		Intermediate: s.dim(layers+"0.intermediate_query.dense.weight", 0),
		EncoderWidth: s.dim(layers+"0.crossattention.self.key.weight", 1),
		Vocab:        s.dim(naming.WordEmbeddings, 0),
		MaxPositions: s.dim("Qformer.bert.embeddings.position_embeddings.weight", 0), LayerNormEps: 1e-12, Dropout: 0.1}
	cfg.CrossAttentionFreq = cfg.Layers
	for i := 1; i < cfg.Layers; i++ {
		if s.has(fmt.Sprintf("%s%d.crossattention.", layers, i)) {
			cfg.CrossAttentionFreq = i
			break
		}
	}
	cfg.Heads = bertHeads(cfg.Hidden, h.QFormerHeads)
	return cfg
}

// bert describes BERT, whose tensors have the Q-Former's names.
func (s shapes) bert(h Hints) *qformer.Config {
	const layers = "Qformer.bert.encoder.layer."
	cfg := &qformer.Config{Hidden: s.dim(naming.WordEmbeddings, 1), Layers: s.layers(layers),
		Intermediate: s.dim(layers+"0.intermediate.dense.weight", 0), Vocab: s.dim(naming.WordEmbeddings, 0),
		MaxPositions: s.dim("Qformer.bert.embeddings.position_embeddings.weight", 0), LayerNormEps: 1e-12, Dropout: 0.1}
	cfg.Heads = bertHeads(cfg.Hidden, h.QFormerHeads)
	return cfg
}

func (s shapes) opt(prefix string, h Hints) *opt.Config {
	decoder := prefix + "model.decoder."
	cfg := &opt.Config{Vocab: s.dim(decoder+"embed_tokens.weight", 0),
		Hidden: s.dim(decoder+"layers.0.self_attn.q_proj.weight", 0), Layers: s.layers(decoder + "layers."),
		FFN: s.dim(decoder+"layers.0.fc1.weight", 0), Positions: s.dim(decoder+"embed_positions.weight", 0) - 2,
		PostNorm: !s.has(decoder + "final_layer_norm."), LayerNormEps: 1e-5, Dropout: 0.1}
	if width := s.dim(decoder+"embed_tokens.weight", 1); width != cfg.Hidden {
		cfg.EmbedDim = width
	}
	cfg.Heads = h.LLMHeads
	for _, name := range opt.Presets() {
		if p, err := opt.Preset(name); err == nil && cfg.Heads == 0 && p.Hidden == cfg.Hidden {
			cfg.Heads = p.Heads
		}
	}
	return cfg
}

func (s shapes) t5(prefix string, act nn.Activation) *t5.Config {
	q, bias := prefix+"encoder.block.0.layer.0.SelfAttention.q.weight",
		prefix+"encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
	cfg := &t5.Config{Vocab: s.dim(prefix+"shared.weight", 0), Hidden: s.dim(prefix+"shared.weight", 1),
		Heads: s.dim(bias, 1), Buckets: s.dim(bias, 0), MaxDistance: 128,
		FFN:           s.dim(prefix+"encoder.block.0.layer.1.DenseReluDense.wi_0.weight", 0),
		EncoderLayers: s.layers(prefix + "encoder.block."), DecoderLayers: s.layers(prefix + "decoder.block."),
		Activation: act, RMSNormEps: 1e-6, Dropout: 0.1}
	if cfg.Heads > 0 {
		cfg.HeadDim = s.dim(q, 0) / cfg.Heads
	}
	return cfg
}

func (s shapes) clip(h Hints) *clip.Config {
	cfg := &clip.Config{Embed: s.dim("text_projection", 1), Text: clip.Text{Vocab: s.dim("token_embedding.weight", 0),
		Width: s.dim("token_embedding.weight", 1), Context: s.dim("positional_embedding", 0),
		Layers: s.layers("transformer.resblocks."), MLP: s.dim("transformer.resblocks.0.mlp.c_fc.weight", 0),
		LayerNormEps: 1e-5}}
	if image := s.vit("visual.", h); image != nil {
		cfg.Image = *image
	}
	cfg.Text.Heads = h.QFormerHeads
	if cfg.Text.Heads == 0 {
		cfg.Text.Heads = map[int]int{512: 8, 768: 12}[cfg.Text.Width]
	}
	return cfg
}

func (s shapes) blip(h Hints) *blip.Config {
	const decoder = "text_decoder.bert."
	words := decoder + "embeddings.word_embeddings.weight"
	cfg := &blip.Config{Hidden: s.dim(words, 1), Vocab: s.dim(words, 0), Layers: s.layers(decoder + "encoder.layer."),
		Intermediate: s.dim(decoder+"encoder.layer.0.intermediate.dense.weight", 0),
		MaxPositions: s.dim(decoder+"embeddings.position_embeddings.weight", 0), LayerNormEps: 1e-12}
	if image := s.vit(naming.VisionPrefix, h); image != nil {
		cfg.Vision = *image
	}
	cfg.Heads = bertHeads(cfg.Hidden, h.QFormerHeads)
	return cfg
}
