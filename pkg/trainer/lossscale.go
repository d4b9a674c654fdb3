package trainer

import (
	"fmt"
	"math"
)

// LossScale says by what the loss is multiplied before gradients are taken, so that they do not vanish in float16.
// Gradients are divided by it again before their norm is taken. The zero value scales nothing.
type LossScale struct {
	// Dynamic lets the scale follow the gradients as PyTorch's GradScaler does (spec/training.md 1): it is halved when a
	// step is skipped because something was not finite, and doubled after 2000 good steps in a row.
	Dynamic bool
	// Value is the scale: of all steps, or of the first one where Dynamic is set; 0 means 1, or 65536.
	Value float64
}

// How a dynamic scale moves.
const (
	firstScale     = 65536
	scaleGrowth    = 2
	scaleBackoff   = 0.5
	growthInterval = 2000
)

// Validate reports a scale that is no positive number in the range of float32.
func (l LossScale) Validate() error {
	if l.Value != 0 && !(l.Value > 0 && l.Value <= math.MaxFloat32) {
		return fmt.Errorf("loss scale %g: give a positive number, or 0 for the default", l.Value)
	}
	return nil
}

// start is the scale of the first step.
func (l LossScale) start() float64 {
	switch {
	case l.Value != 0:
		return l.Value
	case l.Dynamic:
		return firstScale
	}
	return 1
}

// Progress is what a step remembers of the ones before it; a checkpoint keeps it. The zero value is that of a run that
// has skipped nothing.
type Progress struct {
	// Skipped steps were not applied because something was not finite. The bias correction of Adam does not count them.
	Skipped int `json:"skipped,omitempty"`
	// SkippedInARow is how many steps up to now were skipped one after the other.
	SkippedInARow int `json:"skipped_in_a_row,omitempty"`
	// LossScale is the scale of the next step where the task computes in float16; 0 means that of the beginning.
	LossScale float64 `json:"loss_scale,omitempty"`
	// GoodSteps is how many steps in a row were applied with this scale.
	GoodSteps int `json:"good_steps,omitempty"`
}

// count takes note of a step. A dynamic scale moves.
func (p *Progress) count(applied bool, scale LossScale, scaling bool) {
	if applied {
		p.SkippedInARow = 0
	} else {
		p.Skipped++
		p.SkippedInARow++
	}
	if !scaling || !scale.Dynamic {
		return
	}
	current := p.scale(scale)
	if !applied {
		p.LossScale, p.GoodSteps = current*scaleBackoff, 0
		return
	}
	p.LossScale = current
	if p.GoodSteps++; p.GoodSteps == growthInterval {
		p.GoodSteps = 0
		if grown := current * scaleGrowth; grown <= math.MaxFloat32 {
			p.LossScale = grown
		}
	}
}

// scale is the scale of the next step.
func (p *Progress) scale(l LossScale) float64 {
	if l.Dynamic && p.LossScale > 0 {
		return p.LossScale
	}
	return l.start()
}
