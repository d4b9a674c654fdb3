package stage1

import (
	"slices"

	"blip2/pkg/training"
)

// FLOPs is the work of a part of a training step.
type FLOPs = training.FLOPs

// TotalFLOPs returns the work of all parts.
func TotalFLOPs(parts []FLOPs) float64 { return training.TotalFLOPs(parts) }

// Parts of a step that see pictures alone.
const (
	partViT   = "ViT"
	partCross = "cross-attention keys and values"
	partImage = "image pass"
)

func imageParts() []string { return []string{partViT, partCross, partImage} }

// StepFLOPs counts the work of one training step on a batch of pairs, by part (spec/stage1.md 8).
//
// Backwards, every product costs two of its size, one for the gradient of each factor. Two products have one only:
// the ViT's patch projection, whose pixels need no gradient, and ITC's similarities, whose gathered side carries none
// unless ITCGatherGrad is set. A frozen ViT has no backward pass.
//
// Loss weights do not matter: an objective of weight 0 is computed all the same.
func StepFLOPs(cfg Config, batch int) []FLOPs {
	b, q := float64(batch), cfg.QFormer
	s := sizes{h: float64(q.Hidden), i: float64(q.Intermediate), q: float64(q.Queries), l: float64(cfg.MaxTextLen),
		n: float64(cfg.Vision.Tokens()), w: float64(cfg.Vision.Width), e: float64(cfg.EmbedDim), v: float64(q.Vocab)}
	layers := float64(q.Layers)
	crossLayers := 0.0
	for i := range q.Layers {
		if q.HasCross(i) {
			crossLayers++
		}
	}

	vision := trained(partViT, b*cfg.Vision.FLOPs())
	vision.Backward -= b * product(s.n-1, float64(3*cfg.Vision.PatchSize*cfg.Vision.PatchSize), s.w)
	if cfg.FreezeVision {
		vision.Backward = 0
	}
	similarity := trained("ITC similarities", 2*product(b*s.q, s.e, b))
	if !cfg.ITCGatherGrad {
		similarity.Backward /= 2
	}
	text := s.l - 1 // ITG leaves out the last position, which predicts nothing
	return []FLOPs{
		vision,
		trained(partCross, b*crossLayers*2*product(s.n, s.w, s.h)),
		trained(partImage, b*(layers*s.layer(s.q, s.q, s.q)+crossLayers*s.cross()+product(s.q, s.h, s.e))),
		trained("text pass", b*(layers*s.layer(s.l, s.l, s.l)+product(1, s.h, s.e))),
		similarity,
		trained("ITM pass", 3*b*((layers-1)*s.layer(s.q+s.l, s.q+s.l, s.q+s.l)+s.layer(s.q, s.q+s.l, s.q+s.l)+
			crossLayers*s.cross()+product(s.q, s.h, 2))),
		trained("ITG pass", b*layers*s.layer(text, text, s.q+text)),
		trained("LM head", b*(product(text, s.h, s.h)+product(text, s.h, s.v))),
	}
}

// ImageFLOPs counts the work of ImageFeatures on one picture: forward only.
func ImageFLOPs(cfg Config) float64 {
	total := 0.0
	for _, p := range StepFLOPs(cfg, 1) {
		if slices.Contains(imageParts(), p.Part) {
			total += p.Forward
		}
	}
	return total
}

// sizes are the model's dimensions, named as in spec/model.md.
type sizes struct{ h, i, q, l, n, w, e, v float64 }

// layer is a Q-Former layer without cross-attention on one sequence: query and output projection of the rows that
// are computed, keys and values of the fresh ones, scores and mixture over all columns (own tokens and cached ones),
// and the feed-forward network of each row. The ITM pass computes only the queries' rows of its last layer.
func (s sizes) layer(rows, fresh, columns float64) float64 {
	projections := 2*product(rows, s.h, s.h) + 2*product(fresh, s.h, s.h)
	attention := 2 * product(rows, s.h, columns)
	return projections + attention + 2*product(rows, s.h, s.i)
}

// cross is the cross-attention of one picture's queries, without the keys and values, which all passes share.
func (s sizes) cross() float64 { return 2*product(s.q, s.h, s.h) + 2*product(s.q, s.h, s.n) }

// product is the work of [rows, inner] × [inner, columns].
func product(rows, inner, columns float64) float64 { return 2 * rows * inner * columns }

// trained is a part through which gradients flow into both factors of every product.
func trained(part string, forward float64) FLOPs {
	return FLOPs{Part: part, Forward: forward, Backward: 2 * forward}
}
