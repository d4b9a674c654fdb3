package trainer

import (
	"math"
	"strings"
	"testing"
)

func near(got, want float64) bool { return math.Abs(got-want) <= 1e-15+1e-12*math.Abs(want) }

func TestScheduleLR(t *testing.T) {
	base := Schedule{Peak: 1e-4, Min: 1e-5, WarmupStart: 1e-6, WarmupSteps: 10}
	with := func(kind ScheduleKind, change func(*Schedule)) Schedule {
		s := base
		s.Kind = kind
		change(&s)
		return s
	}
	cosine := with(ScheduleCosine, func(s *Schedule) { s.TotalSteps = 110 })
	lavis := with(ScheduleLAVIS, func(s *Schedule) { s.StepsPerEpoch, s.Epochs = 20, 4 })
	cut := with(ScheduleLAVIS, func(s *Schedule) { s.StepsPerEpoch, s.Epochs = 5, 4 })
	cold := with(ScheduleLAVIS, func(s *Schedule) { s.StepsPerEpoch, s.Epochs, s.WarmupSteps = 5, 4, 0 })
	noStart := with(ScheduleLAVIS, func(s *Schedule) { s.StepsPerEpoch, s.Epochs, s.WarmupStart = 20, 4, -1 })
	step := with(ScheduleStep, func(s *Schedule) { s.StepsPerEpoch, s.DecayRate = 20, 0.2 })
	constant := with(ScheduleConstant, func(s *Schedule) { s.StepsPerEpoch = 20 })
	for _, c := range []struct {
		name string
		s    Schedule
		at   int
		want float64
	}{
		{"cosine starts at the warm-up rate", cosine, 0, 1e-6},
		{"cosine warms up linearly", cosine, 5, 5.05e-5},
		{"cosine peaks after the warm-up", cosine, 10, 1e-4},
		{"cosine is half-way in the middle", cosine, 60, 5.5e-5},
		{"cosine ends at the minimum", cosine, 110, 1e-5},
		{"cosine does not rise again", cosine, 180, 1e-5},
		{"lavis holds the peak in epoch 0", lavis, 19, 1e-4},
		{"lavis jumps at epoch 1", lavis, 20, 1e-5 + 0.5*9e-5*(1+math.Cos(math.Pi/4))},
		{"lavis is constant within an epoch", lavis, 39, 1e-5 + 0.5*9e-5*(1+math.Cos(math.Pi/4))},
		{"lavis is half-way in the middle", lavis, 40, 5.5e-5},
		{"lavis stays at the minimum", lavis, 100, 1e-5},
		{"warm-up is cut off by epoch 1", cut, 4, 4.06e-5},
		{"step 0 without warm-up", cold, 0, 1e-6},
		{"step 1 without warm-up", cold, 1, 1e-4},
		{"no warm-up rate means the peak", noStart, 0, 1e-4},
		{"step decays by epoch", step, 25, 2e-5},
		{"step has a floor", step, 65, 1e-5},
		{"constant stays", constant, 1000, 1e-4},
		{"constant warms up", constant, 1, 1.09e-5},
	} {
		if err := c.s.Validate(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := c.s.LR(c.at); !near(got, c.want) {
			t.Errorf("%s: LR(%d) = %v, want %v", c.name, c.at, got, c.want)
		}
	}
}

func TestScheduleValidate(t *testing.T) {
	good := Schedule{Kind: ScheduleStep, Peak: 1, Min: 0.1, WarmupSteps: 1, TotalSteps: 2, StepsPerEpoch: 2, Epochs: 1,
		DecayRate: 0.5}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Schedule){
		"unknown":       func(s *Schedule) { s.Kind = "linear" },
		"Peak":          func(s *Schedule) { s.Peak = 0 },
		"Min":           func(s *Schedule) { s.Min = 2 },
		"WarmupStart":   func(s *Schedule) { s.WarmupStart = math.NaN() },
		"WarmupSteps":   func(s *Schedule) { s.WarmupSteps = -1 },
		"TotalSteps":    func(s *Schedule) { s.Kind, s.TotalSteps = ScheduleCosine, 0 },
		"StepsPerEpoch": func(s *Schedule) { s.StepsPerEpoch = 0 },
		"Epochs":        func(s *Schedule) { s.Kind, s.Epochs = ScheduleLAVIS, 0 },
		"DecayRate":     func(s *Schedule) { s.DecayRate = 1.5 },
	} {
		s := good
		spoil(&s)
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v does not name it", name, err)
		}
	}
}
