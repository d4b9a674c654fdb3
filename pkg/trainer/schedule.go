package trainer

import (
	"fmt"
	"math"
)

// ScheduleKind names one of the learning-rate schedules.
type ScheduleKind string

const (
	// ScheduleCosine is the paper's schedule and the default: linear warm-up over WarmupSteps, then one cosine over all
	// the remaining steps up to TotalSteps.
	ScheduleCosine ScheduleKind = "cosine"
	// ScheduleLAVIS is LAVIS's linear_warmup_cosine_lr: warm-up inside epoch 0 only, whose end holds the peak, and from
	// epoch 1 on a rate that is constant within an epoch and follows a cosine over the epochs.
	ScheduleLAVIS ScheduleKind = "lavis"
	// ScheduleStep is LAVIS's linear_warmup_step_lr: warm-up as in ScheduleLAVIS, then the peak times DecayRate^epoch,
	// but not below Min.
	ScheduleStep ScheduleKind = "step"
	// ScheduleConstant is LAVIS's constant_lr: warm-up as in ScheduleLAVIS, then the peak for ever.
	ScheduleConstant ScheduleKind = "constant"
)

// Schedule gives the learning rate of every optimizer step. It is a pure function of the step, evaluated on the host in
// float64 and fed to the train step as a scalar, so that a resumed run goes on where it stopped without any state.
// See spec/training.md §1 for the formulas and for LAVIS's deviations from the paper.
type Schedule struct {
	// Kind selects the function; the comments below say which kinds read a field.
	Kind ScheduleKind
	// Peak is the learning rate at the end of the warm-up. All kinds.
	Peak float64
	// Min is the rate at which the cosine ends, and the floor of ScheduleStep.
	Min float64
	// WarmupStart is the rate of step 0; below 0 it means Peak, as in LAVIS. All kinds.
	WarmupStart float64
	// WarmupSteps is the length of the linear warm-up. All kinds.
	WarmupSteps int
	// TotalSteps is the length of the run. ScheduleCosine; later steps stay at Min.
	TotalSteps int
	// StepsPerEpoch divides the run into LAVIS's (inner) epochs. All kinds but ScheduleCosine.
	StepsPerEpoch int
	// Epochs is the number of epochs over which LAVIS's cosine falls. ScheduleLAVIS; later epochs stay at Min.
	Epochs int
	// DecayRate is the factor per epoch of ScheduleStep.
	DecayRate float64
}

// Validate reports the first field that makes no sense for the kind, with what is allowed.
func (s Schedule) Validate() error {
	type rule struct {
		name   string
		value  float64
		ok     bool
		remedy string
	}
	rules := []rule{
		{"Peak", s.Peak, s.Peak > 0 && !math.IsInf(s.Peak, 0), "must be above 0"},
		{"Min", s.Min, s.Min >= 0 && s.Min <= s.Peak, "must lie between 0 and the peak"},
		{"WarmupStart", s.WarmupStart, s.WarmupStart <= s.Peak, "must not exceed the peak (below 0 means the peak)"},
		{"WarmupSteps", float64(s.WarmupSteps), s.WarmupSteps >= 0, "must not be negative"},
	}
	switch s.Kind {
	case ScheduleCosine:
		rules = append(rules, rule{"TotalSteps", float64(s.TotalSteps), s.TotalSteps > 0, "must be above 0"})
	case ScheduleLAVIS, ScheduleStep, ScheduleConstant:
		rules = append(rules, rule{"StepsPerEpoch", float64(s.StepsPerEpoch), s.StepsPerEpoch > 0, "must be above 0"})
	default:
		return fmt.Errorf("learning-rate schedule %q is unknown: use %s, %s, %s or %s",
			s.Kind, ScheduleCosine, ScheduleLAVIS, ScheduleStep, ScheduleConstant)
	}
	if s.Kind == ScheduleLAVIS {
		rules = append(rules, rule{"Epochs", float64(s.Epochs), s.Epochs > 0, "must be above 0"})
	}
	if s.Kind == ScheduleStep {
		rules = append(rules, rule{"DecayRate", s.DecayRate, s.DecayRate > 0 && s.DecayRate <= 1, "must lie in (0, 1]"})
	}
	for _, r := range rules {
		if !r.ok {
			return fmt.Errorf("learning-rate schedule %s: %s = %v %s", s.Kind, r.name, r.value, r.remedy)
		}
	}
	return nil
}

// LR returns the learning rate of the given step, which counts from 0 and is the rate before that step's update.
// It expects a schedule that Validate accepts.
func (s Schedule) LR(step int) float64 {
	if s.Kind == ScheduleCosine {
		if step < s.WarmupSteps {
			return s.warmup(step)
		}
		return s.cosine(step-s.WarmupSteps, s.TotalSteps-s.WarmupSteps)
	}
	// LAVIS decides by the epoch, not by the step: a warm-up longer than epoch 0 is cut off before it reaches the peak,
	// and a shorter one is followed by the peak until epoch 1 begins.
	epoch := step / s.StepsPerEpoch
	switch {
	case epoch == 0:
		return s.warmup(step)
	case s.Kind == ScheduleLAVIS:
		return s.cosine(epoch, s.Epochs)
	case s.Kind == ScheduleStep:
		return max(s.Min, s.Peak*math.Pow(s.DecayRate, float64(epoch)))
	default:
		return s.Peak
	}
}

// warmup rises linearly from WarmupStart at step 0 to Peak at step WarmupSteps and stays there. With no warm-up steps
// LAVIS still takes WarmupStart for step 0, which the lower bound of 1 on the length reproduces.
func (s Schedule) warmup(step int) float64 {
	start := s.WarmupStart
	if start < 0 {
		start = s.Peak
	}
	return min(s.Peak, start+(s.Peak-start)*float64(step)/float64(max(s.WarmupSteps, 1)))
}

// cosine falls from Peak at position 0 to Min at position length.
func (s Schedule) cosine(position, length int) float64 {
	if position >= length {
		return s.Min
	}
	return s.Min + 0.5*(s.Peak-s.Min)*(1+math.Cos(math.Pi*float64(position)/float64(length)))
}
