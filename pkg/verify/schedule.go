package verify

import (
	"fmt"

	"blip2/pkg/trainer"
)

// scheduleItem is one schedule of a case: its settings and the steps whose rate is recorded.
type scheduleItem struct {
	Name          string  `json:"name"`
	Scheduler     string  `json:"scheduler"`
	InitLR        float64 `json:"init_lr"`
	MinLR         float64 `json:"min_lr"`
	WarmupStartLR float64 `json:"warmup_start_lr"`
	WarmupSteps   int     `json:"warmup_steps"`
	DecayRate     float64 `json:"decay_rate"`
	MaxEpoch      int     `json:"max_epoch"`
	StepsPerEpoch int     `json:"steps_per_epoch"`
	TotalSteps    int     `json:"total_steps"`
	Steps         []int   `json:"steps"`
}

// rates evaluates the item's schedule, as the given kind, at its steps.
func (i scheduleItem) rates(kind trainer.ScheduleKind) ([]float64, error) {
	s := trainer.Schedule{Kind: kind, Peak: i.InitLR, Min: i.MinLR, WarmupStart: i.WarmupStartLR,
		WarmupSteps: i.WarmupSteps, TotalSteps: i.TotalSteps, StepsPerEpoch: i.StepsPerEpoch, Epochs: i.MaxEpoch,
		DecayRate: i.DecayRate}
	if err := s.Validate(); err != nil {
		return nil, fmt.Errorf("item %s: %w", i.Name, err)
	}
	rates := make([]float64, len(i.Steps))
	for n, step := range i.Steps {
		rates[n] = s.LR(step)
	}
	return rates, nil
}

// scheduleKinds maps the names of LAVIS's schedulers to ours.
func scheduleKinds() map[string]trainer.ScheduleKind {
	return map[string]trainer.ScheduleKind{
		"linear_warmup_cosine_lr": trainer.ScheduleLAVIS,
		"linear_warmup_step_lr":   trainer.ScheduleStep,
		"constant_lr":             trainer.ScheduleConstant,
	}
}

// lrSchedule runs kind lr-schedule: LAVIS's functions and, where given, the default one, in float64.
func lrSchedule(c *Case, k *checker) error {
	var config struct{ Items []scheduleItem }
	var expected struct {
		Items []struct {
			Name         string
			LAVIS, Paper []float64
		}
	}
	if err := c.config(&config); err != nil {
		return err
	}
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	if _, err := c.tolerance(); err != nil {
		return err
	}
	if len(config.Items) != len(expected.Items) {
		return fmt.Errorf("%d items, but %d expected", len(config.Items), len(expected.Items))
	}
	for n, item := range config.Items {
		want := expected.Items[n]
		kind, ok := scheduleKinds()[item.Scheduler]
		if !ok {
			return fmt.Errorf("item %s: scheduler %q is unknown", item.Name, item.Scheduler)
		}
		if item.Name != want.Name || want.LAVIS == nil {
			return fmt.Errorf("item %s: no rates expected under this name at this place", item.Name)
		}
		if err := compareRates(k, item, "lavis", kind, want.LAVIS); err != nil {
			return err
		}
		if want.Paper == nil {
			continue
		}
		if err := compareRates(k, item, "paper", trainer.ScheduleCosine, want.Paper); err != nil {
			return err
		}
	}
	return nil
}

func compareRates(k *checker, item scheduleItem, label string, kind trainer.ScheduleKind, want []float64) error {
	got, err := item.rates(kind)
	if err != nil {
		return err
	}
	compareFloats(k, item.Name+"/"+label, []int{len(got)}, got, want)
	return nil
}
