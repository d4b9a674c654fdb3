package training

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/measure"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/trainer"
)

// FLOPs is the floating-point work of one part of a training step: its matrix products, two operations per
// multiply-add. Everything else (norms, softmax, dropout, optimizer) is left out, as is usual.
type FLOPs struct {
	Part     string  `json:"part"`
	Forward  float64 `json:"forward"`
	Backward float64 `json:"backward"`
}

// Total returns the work of the part in both directions.
func (f FLOPs) Total() float64 { return f.Forward + f.Backward }

// TotalFLOPs returns the work of all parts.
func TotalFLOPs(parts []FLOPs) float64 {
	total := 0.0
	for _, p := range parts {
		total += p.Total()
	}
	return total
}

// BenchOptions say what Bench measures.
type BenchOptions struct {
	Model Model
	Parts []FLOPs // of a step
	// Repeated is the work that a step does beside its parts, to save memory.
	Repeated float64
	// Store makes a store with all tensors of the model.
	Store func() (*mlx.Store, error)
	// After, if set, is called with the store when all steps are done.
	After func(store *mlx.Store) error
	// Batch makes a batch of random pairs, as the task's loss takes it.
	Batch        func(rng *rand.Rand) []*tensors.Tensor
	LR           float64
	Pairs        int   // in a batch
	Warmup       int   // steps before those that count
	Steps        int   // steps that count, at least 1
	Devices      int   // that share a batch; 0 means 1
	SpreadFrozen bool  // of a frozen matrix each device keeps a part
	Seed         int64 // of batches and of what is random in a step
	// OnStep, if set, is told of every step when it is done, those of the warm-up included (from 0).
	OnStep func(step int, took time.Duration, result trainer.Result)
}

// BenchResult is what one run of Bench measured. Memory is in bytes, 0 where it could not be measured.
type BenchResult struct {
	Batch               int            `json:"batch"`
	MicroBatches        int            `json:"micro_batches"`
	Coupled             bool           `json:"coupled"` // the losses see all of them: stage 1's ITC and hard negatives
	Devices             int            `json:"devices"`
	DeviceState         uint64         `json:"device_state"` // weights and optimizer slots on each device
	Warmup              int            `json:"warmup"`
	Steps               int            `json:"steps"`
	Parameters          int            `json:"parameters"`
	TrainableParameters int            `json:"trainable_parameters"`
	InitSeconds         float64        `json:"init_seconds"`    // drawing the weights
	CompileSeconds      float64        `json:"compile_seconds"` // building and compiling the step
	StepSeconds         measure.Spread `json:"step_seconds"`    // a step, from the batch to the losses on the host
	CPUSeconds          float64        `json:"cpu_seconds"`     // mean processor time per step, all cores; 0: not measured
	ImgPerS             float64        `json:"img_per_s"`       // of the median step
	StepFLOPs           float64        `json:"step_flops"`      // of all parts
	GFLOPPerS           float64        `json:"gflop_per_s"`     // of the median step
	RepeatedFLOPs       float64        `json:"repeated_flops"`  // beside them, to save memory
	Parts               []FLOPs        `json:"flops"`
	PeakMemory          uint64         `json:"peak_memory"`       // most host memory the process ever held
	PeakMemoryInit      uint64         `json:"peak_memory_init"`  // most until the weights were drawn
	PeakMemorySteps     uint64         `json:"peak_memory_steps"` // most during the steps that count
	Loss                float64        `json:"loss"`              // of the last step
}

// Bench trains a model of random weights on random pairs, by the code that trains real ones, and takes time and
// memory. Batches differ from step to step and come from the host, as a data loader's do; making them is not timed.
//
// It is an error if a step's loss or gradient is not finite, since the step then does less than it should.
func Bench(ctx context.Context, backend compute.Backend, o BenchOptions) (*BenchResult, error) {
	switch {
	case o.Steps < 1:
		return nil, fmt.Errorf("%d steps: at least 1 must be measured", o.Steps)
	case o.Warmup < 0:
		return nil, fmt.Errorf("%d warm-up steps: give 0 or more", o.Warmup)
	}
	r := &BenchResult{
		Batch: o.Pairs, Warmup: o.Warmup, Steps: o.Steps,
		Parameters: model.Count(o.Model.Params), TrainableParameters: model.Count(o.Model.Task.Params),
		MicroBatches: max(o.Model.Task.MicroBatches, 1), Coupled: o.Model.Task.Coupled != nil,
		StepFLOPs: TotalFLOPs(o.Parts), Parts: o.Parts, RepeatedFLOPs: o.Repeated,
	}
	start := time.Now()
	store, err := o.Store()
	if err != nil {
		return nil, err
	}
	defer store.Finalize()
	m, err := mesh.New(backend, max(o.Devices, 1))
	if err != nil {
		return nil, err
	}
	if err := m.Place(store, o.SpreadFrozen); err != nil {
		return nil, err
	}
	step, err := trainer.NewStep(backend, store, o.Model.Task, o.Model.Optimizer, o.Seed)
	if err != nil {
		return nil, err
	}
	defer step.Close()
	r.Devices, r.DeviceState = m.Devices(), uint64(mesh.Bytes(store))
	r.InitSeconds = time.Since(start).Seconds()
	r.PeakMemoryInit = measure.PeakMemory()

	seconds, err := o.run(ctx, step, r)
	if err != nil {
		return nil, err
	}
	r.CompileSeconds = step.CompileTime().Seconds()
	r.StepSeconds = measure.SpreadOf(seconds)
	r.ImgPerS = float64(o.Pairs) / r.StepSeconds.Median
	r.GFLOPPerS = r.StepFLOPs / r.StepSeconds.Median / 1e9
	if o.After != nil {
		err = o.After(store)
	}
	return r, err
}

// run performs all steps and returns the seconds of those that count.
func (o BenchOptions) run(ctx context.Context, step *trainer.Step, r *BenchResult) ([]float64, error) {
	var seconds, cpu []float64
	rng := rand.New(rand.NewPCG(uint64(o.Seed), 0))
	whole := r.PeakMemoryInit
	for i := range o.Warmup + o.Steps {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("after %d of %d steps: %w", i, o.Warmup+o.Steps, err)
		}
		batch := o.Batch(rng)
		if i == o.Warmup {
			whole = max(whole, measure.PeakMemory())
			_ = measure.ResetPeakMemory()
		}
		start, startCPU := time.Now(), measure.CPUSeconds()
		result, err := o.step(step, i, batch)
		took := time.Since(start)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			took -= step.CompileTime()
		}
		if i >= o.Warmup {
			seconds = append(seconds, took.Seconds())
		}
		if i >= max(o.Warmup, 1) { // the first step's processor time cannot be told from the compiler's
			cpu = append(cpu, measure.CPUSeconds()-startCPU)
		}
		r.Loss = result.Loss
		if o.OnStep != nil {
			o.OnStep(i, took, result)
		}
	}
	r.CPUSeconds = measure.Mean(cpu)
	r.PeakMemorySteps = measure.PeakMemory()
	r.PeakMemory = max(whole, r.PeakMemorySteps)
	return seconds, nil
}

// step performs one step and frees its batch.
func (o BenchOptions) step(step *trainer.Step, i int, batch []*tensors.Tensor) (trainer.Result, error) {
	result, err := step.Run(i, o.LR, batch)
	if err != nil {
		return result, err
	}
	for _, t := range batch {
		t.MustFinalizeAll()
	}
	if !result.Applied {
		return result, fmt.Errorf("step %d: loss %g, gradient norm %g: not finite; try a smaller learning rate or f32",
			i, result.Loss, result.GradNorm)
	}
	return result, nil
}
