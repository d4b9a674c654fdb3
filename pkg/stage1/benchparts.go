package stage1

import (
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model/nn"
	"blip2/pkg/model/qformer"
	"blip2/pkg/model/vit"
)

// part is a piece of a step's graph that is measured by itself.
type part struct {
	name string
	// inputs are activations that other parts would bring; the batch's tensors where the part reads those.
	inputs []*tensors.Tensor
	// differentiated is the first of the inputs that get a gradient in a step; their number if none does.
	differentiated int
	frozen         bool // nothing gets a gradient
	// build returns what the part hands on, activations or its loss as a scalar, and what it computes without gradient.
	build func(scope *model.Scope, in []*Node, rng *nn.RNG) (out, drawn []*Node)
}

// parts lists the pieces, in the order and under the names of StepFLOPs, whose split they follow. Losses of weight 0
// are left out.
func (m *partsBench) parts() []part {
	cfg := m.Config
	list := []part{m.encoderPart(), m.crossPart(), m.imagePart()}
	if cfg.contrasts() {
		list = append(list, m.textPart(), m.contrastPart())
	}
	if cfg.ITMWeight > 0 {
		list = append(list, m.matchPart())
	}
	if cfg.ITGWeight > 0 {
		list = append(list, m.generatePart(), m.headPart())
	}
	return list
}

func (m *partsBench) encoderPart() part {
	cfg := m.Config
	return part{name: partViT, inputs: m.batch[:1], differentiated: 1, frozen: cfg.FreezeVision,
		build: func(scope *model.Scope, in []*Node, _ *nn.RNG) (out, drawn []*Node) {
			return []*Node{vit.Forward(scope.At("visual_encoder"), cfg.Vision, in[0])}, nil
		}}
}

// crossPart is ln_vision and what the passes share of the pictures.
func (m *partsBench) crossPart() part {
	cfg, first := m.Config, 0
	if cfg.FreezeVision {
		first = 1
	}
	return part{name: partCross, inputs: []*tensors.Tensor{m.random(m.Batch, cfg.Vision.Tokens(), cfg.Vision.Width)},
		differentiated: first,
		build: func(scope *model.Scope, in []*Node, _ *nn.RNG) (out, drawn []*Node) {
			x := nn.LayerNorm(scope.At("ln_vision"), in[0], cfg.LNVisionEps)
			kv := qformer.NewCross(scope, cfg.QFormer, x).KeysValues()
			if !cfg.contrasts() {
				kv = kv[:len(kv)-1] // what the last layer reads goes into the projection alone
			}
			for _, layer := range kv {
				if layer.K != nil {
					out = append(out, layer.K, layer.V)
				}
			}
			return out, nil
		}}
}

// imagePart is the image pass with its projection, or what of it ITG alone needs.
func (m *partsBench) imagePart() part {
	cfg := m.Config
	return part{name: partImage, inputs: m.keysValues(), build: func(scope *model.Scope, in []*Node,
		rng *nn.RNG) (out, drawn []*Node) {
		queries := qformer.Queries(scope, cfg.QFormer, in[0].Graph(), m.Batch, cfg.compute())
		pass := qformer.Forward(scope, cfg.QFormer, qformer.Input{Queries: queries, Cross: m.cross(in)}, rng)
		if cfg.contrasts() {
			out = append(out, nn.UnitNorm(nn.Float32(nn.Linear(scope.At("vision_proj"), pass.Hidden))))
		}
		if cfg.ITCWeight == 0 {
			out, drawn = nil, out
		}
		for _, kv := range pass.SelfKV {
			if cfg.ITCWeight == 0 && cfg.ITGWeight > 0 {
				out = append(out, kv.K, kv.V)
			}
		}
		return out, drawn
	}}
}

func (m *partsBench) textPart() part {
	return part{name: partText, inputs: m.batch[1:], differentiated: 2, frozen: m.Config.ITCWeight == 0,
		build: func(scope *model.Scope, in []*Node, rng *nn.RNG) (out, drawn []*Node) {
			hidden := textCLS(scope, m.Config, in[0], in[1], rng)
			return []*Node{nn.UnitNorm(nn.Float32(nn.Linear(scope.At("text_proj"), hidden)))}, nil
		}}
}

// contrastPart is ITC and the draw of hard negatives.
func (m *partsBench) contrastPart() part {
	cfg := m.Config
	return part{name: partITC, frozen: cfg.ITCWeight == 0,
		inputs: []*tensors.Tensor{m.random(m.Batch, cfg.QFormer.Queries, cfg.EmbedDim), m.random(m.Batch, cfg.EmbedDim)},
		build: func(scope *model.Scope, in []*Node, rng *nn.RNG) (out, drawn []*Node) {
			o := noLosses(cfg, in[0].Graph())
			o.ImageFeats, o.TextFeat = nn.UnitNorm(nn.Float32(in[0])), nn.UnitNorm(nn.Float32(in[1]))
			positives := positivePairs(Batch{}, o.TextFeat)
			contrast(scope, cfg, o, positives)
			mine(cfg, o, Batch{}, positives, rng)
			return []*Node{o.LossITC}, []*Node{nn.Float32(o.NegImage), nn.Float32(o.NegText)}
		}}
}

// matchPart is the ITM pass, where every pair's negatives are its neighbour's.
func (m *partsBench) matchPart() part {
	cfg := m.Config
	return part{name: partITM, inputs: append(append([]*tensors.Tensor{}, m.batch[1:]...), m.keysValues()...),
		differentiated: 2,
		build: func(scope *model.Scope, in []*Node, rng *nn.RNG) (out, drawn []*Node) {
			g := in[0].Graph()
			next := AddScalar(Iota(g, shapeInt32(m.Batch), 0), 1)
			next = Where(LessThan(next, Scalar(g, next.DType(), m.Batch)), next, ZerosLike(next))
			o := noLosses(cfg, g)
			o.NegImage, o.NegText = next, next
			match(scope, cfg, o, Batch{TextIDs: in[0], TextMask: in[1]}, m.cross(in[2:]), rng)
			return []*Node{o.LossITM}, nil
		}}
}

// generatePart is the ITG pass without its head.
func (m *partsBench) generatePart() part {
	cfg, q := m.Config, m.Config.QFormer
	inputs := append([]*tensors.Tensor{}, m.batch[1:]...)
	for range q.Layers {
		inputs = append(inputs, m.random(m.Batch, q.Heads, q.Queries, q.Hidden/q.Heads),
			m.random(m.Batch, q.Heads, q.Queries, q.Hidden/q.Heads))
	}
	return part{name: partITG, inputs: inputs, differentiated: 2,
		build: func(scope *model.Scope, in []*Node, rng *nn.RNG) (out, drawn []*Node) {
			length := cfg.MaxTextLen - 1
			past := make([]qformer.KV, q.Layers)
			for i := range past {
				past[i] = qformer.KV{K: in[2+2*i], V: in[3+2*i]}
			}
			return []*Node{qformer.Forward(scope, q, qformer.Input{
				TextIDs: SliceAxis(DecoderIDs(in[0], cfg.BOSID), 1, AxisRangeFromStart(length)), DType: cfg.compute(),
				Mask: nn.CausalMask(SliceAxis(in[1], 1, AxisRangeFromStart(length)), q.Queries), Past: past,
			}, rng).Hidden}, nil
		}}
}

// headPart is the LM head and L_itg.
func (m *partsBench) headPart() part {
	cfg, q := m.Config, m.Config.QFormer
	return part{name: partLM, inputs: []*tensors.Tensor{m.batch[1], m.random(m.Batch, cfg.MaxTextLen-1, q.Hidden)},
		differentiated: 1,
		build: func(scope *model.Scope, in []*Node, _ *nn.RNG) (out, drawn []*Node) {
			labels, counted := captionLabels(cfg, in[0])
			logits := Reshape(qformer.LMLogits(scope, q, in[1]), -1, q.Vocab)
			loss := nn.SmoothedCrossEntropy(logits, labels, cfg.LabelSmoothing)
			return []*Node{Div(ReduceAllSum(Mul(loss, counted)), ReduceAllSum(counted))}, nil
		}}
}

// keysValues draws cross-attention keys and values, layer by layer.
func (m *partsBench) keysValues() []*tensors.Tensor {
	q := m.Config.QFormer
	var list []*tensors.Tensor
	for i := range q.Layers {
		if q.HasCross(i) {
			for range 2 {
				list = append(list, m.random(m.Batch, q.Heads, m.Config.Vision.Tokens(), q.Hidden/q.Heads))
			}
		}
	}
	return list
}

// cross arranges nodes of such keys and values.
func (m *partsBench) cross(in []*Node) *qformer.Cross {
	q := m.Config.QFormer
	kv := make([]qformer.KV, q.Layers)
	for i := range kv {
		if q.HasCross(i) {
			kv[i], in = qformer.KV{K: in[0], V: in[1]}, in[2:]
		}
	}
	return qformer.CrossOf(kv)
}
