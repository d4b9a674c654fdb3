package pretrained

import (
	"fmt"
	"math"
	"slices"

	"blip2/pkg/model"
	"blip2/pkg/model/vit"
	"blip2/pkg/naming"
)

// adapter fits a tensor whose shape in the file may differ from the model's.
type adapter interface {
	// accepts says whether a tensor of that shape can be fitted.
	accepts(p model.Param, shape []int) error
	// fit returns the values of the model's shape and what was changed, for the log.
	fit(p model.Param, shape []int, values []float32) (out []float32, change string, err error)
}

// positionTable resizes the image encoder's positions to another grid of patches.
type positionTable struct{ cfg vit.Config }

func (a positionTable) accepts(p model.Param, shape []int) error {
	tokens := len(p.Shape) - 2 // axis: [N, W] or [1, N, W]
	if len(shape) == len(p.Shape) && a.grid(shape[tokens]) > 0 {
		like := slices.Clone(p.Shape)
		like[tokens] = shape[tokens]
		if slices.Equal(shape, like) {
			return nil
		}
	}
	return fmt.Errorf("%s has shape %v: no square grid of patches and a class position, as the model's %v is",
		p.Name, shape, p.Shape)
}

// grid returns g of a table of 1+g² positions, 0 if there is none.
func (positionTable) grid(tokens int) int {
	g := int(math.Round(math.Sqrt(float64(max(tokens-1, 0)))))
	if g*g+1 != tokens {
		return 0
	}
	return g
}

func (a positionTable) fit(p model.Param, shape []int, values []float32) ([]float32, string, error) {
	from, to := a.grid(shape[len(shape)-2]), a.cfg.Grid()
	if from == to {
		return values, "", nil
	}
	out, err := vit.ResizePositions(a.cfg, values, from, to)
	return out, fmt.Sprintf("positions resized from %d×%d to %d×%d patches", from, from, to, to), err
}

// vocabulary checks tensors with one row per token id, and appends rows for ids that the file has not.
type vocabulary struct {
	added int // rows that the file must lack; they are drawn from the parameter's Init
	seed  int64
}

func (a vocabulary) accepts(p model.Param, shape []int) error {
	like := p
	like.Shape = slices.Clone(p.Shape)
	like.Shape[0] -= a.added
	if len(shape) > 0 && shape[0] != like.Shape[0] {
		with := ", [DEC] included,"
		if a.added > 0 {
			with = ""
		}
		return fmt.Errorf("the checkpoint has %d token ids, but text.vocab makes %d%s: give the vocabulary that "+
			"belongs to the checkpoint", shape[0], like.Shape[0], with)
	}
	return naming.SameShape(like, shape)
}

func (a vocabulary) fit(p model.Param, _ []int, values []float32) ([]float32, string, error) {
	if a.added == 0 {
		return values, "", nil
	}
	p.Shape = slices.Clone(p.Shape)
	p.Shape[0] = a.added
	return append(values, model.Draw(p, a.seed)...), "[DEC] appended to the vocabulary", nil
}
