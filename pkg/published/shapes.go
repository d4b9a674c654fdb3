package published

import (
	"fmt"
	"math"
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

// Hints are sizes that no shape tells, for checkpoints that do not say them, or say them wrong. Zero means what the
// checkpoint says, or else that of the published network of the same width, if there is one.
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

// layers counts the numbered layers below prefix, from 0 on. There are never more than tensors, whatever the numbers
// are.
func (s shapes) layers(prefix string) int {
	most := -1
	for name := range s {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			number, _, _ := strings.Cut(rest, ".")
			if n, err := strconv.Atoi(number); err == nil {
				most = max(most, min(n, len(s)))
			}
		}
	}
	return min(most+1, len(s))
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
// Numbers of attention heads, which no shape tells, are those of the published network of the same width, or 0.
func FromShapes(model string, tensors map[string][]int) (Spec, error) {
	s, spec := shapes(tensors), Spec{Model: model}
	switch model {
	case naming.OPT:
		spec.OPT = s.opt("")
	case naming.T5:
		spec.T5 = s.t5("", nn.GELUNew)
	case naming.CLIP:
		spec.CLIP = s.clip()
	case naming.BLIPCaption:
		spec.BLIP = s.blip()
	case naming.BERT:
		spec.BERT = s.bert()
	case naming.EVAViT, naming.CLIPViT:
		spec.Vision = s.vit(naming.VisionPrefix)
	default:
		spec.Vision = s.vit(naming.VisionPrefix)
		spec.LNVisionEps = LNVisionEps
		spec.QFormer = s.qformer()
		spec.QFormerText = s.has(naming.WordEmbeddings)
		spec.EmbedDim = s.dim("vision_proj.weight", 0)
		spec.LLMWidth = s.dim(projections[model]+".weight", 0)
		if s.has("opt_model.") {
			spec.OPT = s.opt("opt_model.")
		}
		if s.has("t5_model.") {
			spec.T5 = s.t5("t5_model.", nn.GELU)
		}
	}
	return spec, spec.measurable()
}

// size is a number that both a configuration and the shapes of tensors tell.
type size struct {
	what string
	n    int
}

// sizes lists the sizes of the Spec's parts that shapes tell.
func (s Spec) sizes() []size {
	var out []size
	add := func(what string, n int) { out = append(out, size{what, n}) }
	if v := s.vision(); v != nil {
		add("image encoder's width", v.Width)
		add("number of the image encoder's blocks", v.Layers)
		add("width of the image encoder's MLP", v.MLPWidth())
		add("patch size", v.PatchSize)
		add("image size", v.ImageSize)
	}
	if q := s.QFormer; q != nil {
		add("Q-Former's width", q.Hidden)
		add("number of the Q-Former's layers", q.Layers)
		add("number of queries", q.Queries)
		add("width of the Q-Former's feed-forward networks", q.Intermediate)
		add("width that the Q-Former's cross-attention reads", q.EncoderWidth)
	}
	if b := s.BERT; b != nil {
		add("BERT's width", b.Hidden)
		add("number of BERT's layers", b.Layers)
		add("width of BERT's feed-forward networks", b.Intermediate)
		add("BERT's vocabulary", b.Vocab)
	}
	if b := s.BLIP; b != nil {
		add("text decoder's width", b.Hidden)
		add("number of the text decoder's layers", b.Layers)
		add("width of the text decoder's feed-forward networks", b.Intermediate)
		add("text decoder's vocabulary", b.Vocab)
	}
	if c := s.CLIP; c != nil {
		add("number of CLIP's features", c.Embed)
		add("text tower's width", c.Text.Width)
		add("number of the text tower's blocks", c.Text.Layers)
		add("width of the text tower's MLP", c.Text.MLP)
		add("text tower's vocabulary", c.Text.Vocab)
		add("text tower's context", c.Text.Context)
	}
	if o := s.OPT; o != nil {
		add("OPT's width", o.Hidden)
		add("number of OPT's layers", o.Layers)
		add("width of OPT's feed-forward networks", o.FFN)
		add("OPT's vocabulary", o.Vocab)
		add("number of OPT's positions", o.Positions)
	}
	if t := s.T5; t != nil {
		add("T5's width", t.Hidden)
		add("number of T5's encoder blocks", t.EncoderLayers)
		add("number of T5's decoder blocks", t.DecoderLayers)
		add("width of T5's feed-forward networks", t.FFN)
		add("T5's vocabulary", t.Vocab)
		add("number of T5's heads", t.Heads)
		add("width of T5's heads", t.HeadDim)
	}
	return out
}

// measurable reports a size that the shapes should tell and do not.
func (s Spec) measurable() error {
	for _, size := range s.sizes() {
		if size.n <= 0 {
			return fmt.Errorf("the %s cannot be told from the shapes: the tensor that says it is missing or is another's",
				size.what)
		}
	}
	return nil
}

// vit describes the image encoder below prefix; nil if there is none.
func (s shapes) vit(prefix string) *vit.Config {
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
	cfg.Heads = map[string]map[int]int{
		vit.EVA:  {1408: 16},
		vit.CLIP: {768: 12, 1024: 16},
		vit.BLIP: {768: 12, 1024: 16},
	}[cfg.Arch][cfg.Width]
	return cfg
}

// bertHeads is the number of heads of a published BERT of that width.
func bertHeads(width int) int {
	return map[int]int{768: 12, 1024: 16}[width]
}

// qformer describes the Q-Former; nil if there is none.
func (s shapes) qformer() *qformer.Config {
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
	cfg.Heads = bertHeads(cfg.Hidden)
	return cfg
}

// bert describes BERT, whose tensors have the Q-Former's names.
func (s shapes) bert() *qformer.Config {
	const layers = "Qformer.bert.encoder.layer."
	cfg := &qformer.Config{Hidden: s.dim(naming.WordEmbeddings, 1), Layers: s.layers(layers),
		Intermediate: s.dim(layers+"0.intermediate.dense.weight", 0), Vocab: s.dim(naming.WordEmbeddings, 0),
		MaxPositions: s.dim("Qformer.bert.embeddings.position_embeddings.weight", 0), LayerNormEps: 1e-12, Dropout: 0.1}
	cfg.Heads = bertHeads(cfg.Hidden)
	return cfg
}

func (s shapes) opt(prefix string) *opt.Config {
	decoder := prefix + "model.decoder."
	cfg := &opt.Config{Vocab: s.dim(decoder+"embed_tokens.weight", 0),
		Hidden: s.dim(decoder+"layers.0.self_attn.q_proj.weight", 0), Layers: s.layers(decoder + "layers."),
		FFN: s.dim(decoder+"layers.0.fc1.weight", 0), Positions: s.dim(decoder+"embed_positions.weight", 0) - 2,
		PostNorm: !s.has(decoder + "final_layer_norm."), LayerNormEps: 1e-5, Dropout: 0.1}
	if width := s.dim(decoder+"embed_tokens.weight", 1); width != cfg.Hidden {
		cfg.EmbedDim = width
	}
	for _, name := range opt.Presets() {
		if p, err := opt.Preset(name); err == nil && p.Hidden == cfg.Hidden {
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

func (s shapes) clip() *clip.Config {
	cfg := &clip.Config{Embed: s.dim("text_projection", 1), Text: clip.Text{Vocab: s.dim("token_embedding.weight", 0),
		Width: s.dim("token_embedding.weight", 1), Context: s.dim("positional_embedding", 0),
		Layers: s.layers("transformer.resblocks."), MLP: s.dim("transformer.resblocks.0.mlp.c_fc.weight", 0),
		LayerNormEps: 1e-5}}
	if image := s.vit("visual."); image != nil {
		cfg.Image = *image
	}
	cfg.Text.Heads = map[int]int{512: 8, 768: 12}[cfg.Text.Width]
	return cfg
}

func (s shapes) blip() *blip.Config {
	const decoder = "text_decoder.bert."
	words := decoder + "embeddings.word_embeddings.weight"
	cfg := &blip.Config{Hidden: s.dim(words, 1), Vocab: s.dim(words, 0), Layers: s.layers(decoder + "encoder.layer."),
		Intermediate: s.dim(decoder+"encoder.layer.0.intermediate.dense.weight", 0),
		MaxPositions: s.dim(decoder+"embeddings.position_embeddings.weight", 0), LayerNormEps: 1e-12}
	if image := s.vit(naming.VisionPrefix); image != nil {
		cfg.Vision = *image
	}
	cfg.Heads = bertHeads(cfg.Hidden)
	return cfg
}
