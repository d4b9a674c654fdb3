package stage1

import (
	"slices"

	"blip2/pkg/training"
)

// FLOPs is the work of a part of a training step.
type FLOPs = training.FLOPs

// TotalFLOPs returns the work of all parts.
func TotalFLOPs(parts []FLOPs) float64 { return training.TotalFLOPs(parts) }

// Parts of a step; the first three see pictures alone.
const (
	partViT   = "ViT"
	partCross = "cross-attention keys and values"
	partImage = "image pass"
	partText  = "text pass"
	partITC   = "ITC similarities"
	partITM   = "ITM pass"
	partITG   = "ITG pass"
	partLM    = "LM head"
)

func imageParts() []string { return []string{partViT, partCross, partImage} }

// StepFLOPs counts the work of one training step on a batch of pairs, by part (spec/stage1.md 8). It is the model's:
// what is computed more than once to save memory is RepeatedFLOPs.
//
// Backwards, every product costs two of its size, one for the gradient of each factor. Two products have one only:
// the ViT's patch projection, whose pixels need no gradient, and ITC's similarities, whose gathered side carries none
// unless ITCGatherGrad is set. A frozen ViT has no backward pass. A loss of weight 0 has no pass, or none backwards
// where only the draw of negatives needs it.
func StepFLOPs(cfg Config, batch int) []FLOPs {
	s := cfg.sizes(batch)
	vision := trained(partViT, s.b*cfg.Vision.FLOPs())
	vision.Backward -= s.b * product(s.n-1, float64(3*cfg.Vision.PatchSize*cfg.Vision.PatchSize), s.w)
	if cfg.FreezeVision {
		vision.Backward = 0
	}
	cross := trained(partCross, s.keysValues(cfg, cfg.contrasts()))
	image := FLOPs{Part: partImage, Forward: s.imagePass(cfg, cfg.contrasts()),
		Backward: 2 * s.imagePass(cfg, cfg.ITCWeight > 0)}
	seen := s.b // pairs that a pair is compared with
	if cfg.MicroBatches > 1 && !cfg.Coupled {
		seen /= float64(cfg.MicroBatches)
	}
	similarity := trained(partITC, 2*product(s.b*s.q, s.e, seen))
	if !cfg.ITCGatherGrad {
		similarity.Backward /= 2
	}
	text := trained(partText, s.textPass())
	if cfg.ITCWeight == 0 {
		similarity.Backward, text.Backward = 0, 0
	}
	rows := s.l - 1 // ITG leaves out the last position, which predicts nothing
	match := trained(partITM, 3*s.b*((s.layers-1)*s.layer(s.q+s.l, s.q+s.l, s.q+s.l)+s.layer(s.q, s.q+s.l, s.q+s.l)+
		s.crossed(cfg, cfg.QFormer.Layers)*s.cross()+product(s.q, s.h, 2)))
	return []FLOPs{
		vision, cross, image,
		unless(text, !cfg.contrasts()),
		unless(similarity, !cfg.contrasts()),
		unless(match, cfg.ITMWeight == 0),
		unless(trained(partITG, s.b*s.layers*s.layer(rows, rows, s.q+rows)), cfg.ITGWeight == 0),
		unless(trained(partLM, s.b*(product(rows, s.h, s.h)+product(rows, s.h, s.v))), cfg.ITGWeight == 0),
	}
}

// RepeatedFLOPs counts what a step computes beside StepFLOPs to save memory: with Vision.Remat the blocks of a trained
// ViT once more, and with Coupled the passes that lead to the features once more, and the negatives of each
// micro-batch, of which one batch computes nothing that it has not already.
func RepeatedFLOPs(cfg Config, batch int) []FLOPs {
	s := cfg.sizes(batch)
	pictures := s.b // that the trained ViT sees with gradient
	vision, cross := FLOPs{Part: partViT}, FLOPs{Part: partCross}
	image, text := FLOPs{Part: partImage}, FLOPs{Part: partText}
	if cfg.Coupled && cfg.MicroBatches > 1 && cfg.contrasts() {
		once := StepFLOPs(cfg, batch)
		if !cfg.FreezeVision {
			vision.Forward = once[0].Forward
		}
		cross.Forward = s.keysValues(cfg, true)
		image.Forward = s.imagePass(cfg, cfg.ITCWeight > 0)
		if cfg.ITCWeight > 0 {
			text.Forward = s.textPass()
		}
		if cfg.ITMWeight > 0 {
			negatives := trained(partCross, s.keysValues(cfg, true))
			cross = FLOPs{Part: partCross, Forward: negatives.Forward + cross.Forward, Backward: negatives.Backward}
		}
		if cfg.ITMWeight > 0 && !cfg.FreezeVision {
			pictures *= 2
			vision.Forward += once[0].Forward
			vision.Backward += once[0].Backward
		}
	}
	if cfg.Vision.Remat && !cfg.FreezeVision {
		vision.Backward += pictures * cfg.Vision.RematFLOPs()
	}
	return []FLOPs{vision, cross, image, text}
}

// ImageFLOPs counts the work of ImageFeatures on one picture: forward only.
func ImageFLOPs(cfg Config) float64 {
	total := 0.0
	cfg.ITCWeight = 1 // whatever is trained: ITG alone would leave out the end of the image pass
	for _, p := range StepFLOPs(cfg, 1) {
		if slices.Contains(imageParts(), p.Part) {
			total += p.Forward
		}
	}
	return total
}

// CaptionFLOPs counts the work of a captioner behind the image encoder: that of the queries of a picture, and that of
// reading a text of the given length and predicting one token.
func CaptionFLOPs(cfg Config, length int) (queries, text float64) {
	s, l := cfg.sizes(1), float64(length)
	queries = s.keysValues(cfg, true) + s.layers*s.layer(s.q, s.q, s.q) + s.crossed(cfg, cfg.QFormer.Layers)*s.cross()
	return queries, s.layers*s.layer(l, l, s.q+l) + product(1, s.h, s.h) + product(1, s.h, s.v)
}

// sizes are the dimensions of the model and its batch, named as in spec/model.md.
type sizes struct{ b, h, i, q, l, n, w, e, v, layers float64 }

func (c Config) sizes(batch int) sizes {
	q := c.QFormer
	return sizes{b: float64(batch), h: float64(q.Hidden), i: float64(q.Intermediate), q: float64(q.Queries),
		l: float64(c.MaxTextLen), n: float64(c.Vision.Tokens()), w: float64(c.Vision.Width), e: float64(c.EmbedDim),
		v: float64(q.Vocab), layers: float64(q.Layers)}
}

// crossed is how many of the first layers have cross-attention.
func (s sizes) crossed(cfg Config, layers int) float64 {
	n := 0.0
	for i := range layers {
		if cfg.QFormer.HasCross(i) {
			n++
		}
	}
	return n
}

// keysValues is the projection of the pictures to keys and values of all layers, or of those that ITG alone needs.
func (s sizes) keysValues(cfg Config, all bool) float64 {
	layers := cfg.QFormer.Layers
	if !all {
		layers--
	}
	return s.b * s.crossed(cfg, layers) * 2 * product(s.n, s.w, s.h)
}

// imagePass is the image pass with its projection, or what of it ITG alone needs: the self-attention keys and values of
// every layer, which are made from the layer's input. Without ITG that is nothing.
func (s sizes) imagePass(cfg Config, whole bool) float64 {
	layer, cross := s.layer(s.q, s.q, s.q), s.cross()
	switch {
	case whole:
		return s.b * (s.layers*layer + s.crossed(cfg, cfg.QFormer.Layers)*cross + product(s.q, s.h, s.e))
	case cfg.ITGWeight > 0:
		return s.b * ((s.layers-1)*layer + s.crossed(cfg, cfg.QFormer.Layers-1)*cross + 2*product(s.q, s.h, s.h))
	}
	return 0
}

// textPass is the text pass with its projection.
func (s sizes) textPass() float64 {
	return s.b * (s.layers*s.layer(s.l, s.l, s.l) + product(1, s.h, s.e))
}

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

// unless is a part, or nothing of it if it is left out.
func unless(f FLOPs, left bool) FLOPs {
	if left {
		return FLOPs{Part: f.Part}
	}
	return f
}
