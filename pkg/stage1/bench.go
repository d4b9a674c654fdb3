package stage1

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/measure"
	"blip2/pkg/mesh"
	"blip2/pkg/model"
	"blip2/pkg/trainer"
)

// BenchOptions say what Bench measures.
type BenchOptions struct {
	Config    Config
	Optimizer trainer.AdamW
	LR        float64
	Batch     int   // pairs per step, at least 2
	Warmup    int   // steps before those that count
	Steps     int   // steps that count, at least 1
	Seed      int64 // of weights, batches, dropout and hard negatives
	ByParts   bool  // measure every part of a step by itself too

	Devices      int  // that share a batch; 0 means 1
	SpreadFrozen bool // of a frozen matrix each device keeps a part
	// OnStep, if set, is told of every step when it is done, those of the warm-up included (from 0).
	OnStep func(step int, took time.Duration, result trainer.Result)
}

// BenchResult is what one run of Bench measured. Memory is in bytes, 0 where it could not be measured.
type BenchResult struct {
	Batch               int            `json:"batch"`
	MicroBatches        int            `json:"micro_batches"`
	Coupled             bool           `json:"coupled"` // ITC and hard negatives over all of them
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
	StepFLOPs           float64        `json:"step_flops"`      // as StepFLOPs counts them
	GFLOPPerS           float64        `json:"gflop_per_s"`     // of the median step
	RepeatedFLOPs       float64        `json:"repeated_flops"`  // beside them, to save memory
	Parts               []FLOPs        `json:"flops"`
	PeakMemory          uint64         `json:"peak_memory"`       // most host memory the process ever held
	PeakMemoryInit      uint64         `json:"peak_memory_init"`  // most until the weights were drawn
	PeakMemorySteps     uint64         `json:"peak_memory_steps"` // most during the steps that count
	Loss                float64        `json:"loss"`              // of the last step
	Time                *PartsResult   `json:"parts,omitempty"`   // with ByParts
}

// Bench trains a model of random weights on random pairs, by the code that trains real ones, and takes time and
// memory. Batches differ from step to step and come from the host, as a data loader's do; making them is not timed.
//
// It is an error if a step's loss or gradient is not finite, since the step then does less than it should.
func Bench(ctx context.Context, backend compute.Backend, o BenchOptions) (*BenchResult, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	parts := StepFLOPs(o.Config, o.Batch)
	r := &BenchResult{
		Batch: o.Batch, Warmup: o.Warmup, Steps: o.Steps,
		Parameters:          model.Count(Params(o.Config)),
		TrainableParameters: model.Count(TrainableParams(o.Config)),
		MicroBatches:        max(o.Config.MicroBatches, 1),
		Coupled:             o.Config.Coupled,
		StepFLOPs:           TotalFLOPs(parts),
		RepeatedFLOPs:       TotalFLOPs(RepeatedFLOPs(o.Config, o.Batch)),
		Parts:               parts,
	}
	start := time.Now()
	store, err := newBenchStore(backend, o)
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
	step, err := trainer.NewStep(backend, store, NewTask(o.Config), o.Optimizer, o.Seed)
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
	r.ImgPerS = float64(o.Batch) / r.StepSeconds.Median
	r.GFLOPPerS = r.StepFLOPs / r.StepSeconds.Median / 1e9
	if o.ByParts {
		r.Time, err = o.measureParts(ctx, backend, store)
	}
	return r, err
}

func (o BenchOptions) validate() error {
	if err := o.Config.Validate(); err != nil {
		return err
	}
	switch {
	case o.Batch < 2:
		return fmt.Errorf("batch size %d: ITM needs a negative for every pair, so at least 2", o.Batch)
	case o.Batch%max(o.Config.MicroBatches, 1) != 0:
		return fmt.Errorf("a batch of %d cannot be cut into %d equal micro-batches", o.Batch, o.Config.MicroBatches)
	case o.Steps < 1:
		return fmt.Errorf("%d steps: at least 1 must be measured", o.Steps)
	case o.Warmup < 0:
		return fmt.Errorf("%d warm-up steps: give 0 or more", o.Warmup)
	case o.Config.MaxTextLen < 3 || o.Config.QFormer.Vocab < 5:
		return fmt.Errorf("texts of %d tokens out of %d: no room for a word between [CLS] and [SEP]",
			o.Config.MaxTextLen, o.Config.QFormer.Vocab)
	}
	return nil
}

// newBenchStore draws the weights.
func newBenchStore(backend compute.Backend, o BenchOptions) (*mlx.Store, error) {
	store := mlx.NewStore()
	if err := model.InitializeOn(backend, store, Params(o.Config), o.Seed); err != nil {
		return nil, err
	}
	if o.Config.FreezeVision {
		if err := model.SetTrainable(store, VisionParams(o.Config), false); err != nil {
			return nil, err
		}
	}
	return store, nil
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
		batch := benchInputs(o.Config, o.Batch, rng)
		if i == o.Warmup {
			whole = max(whole, measure.PeakMemory())
			_ = measure.ResetPeakMemory()
		}
		start, startCPU := time.Now(), measure.CPUSeconds()
		result, err := runBenchStep(o, step, i, batch)
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

// runBenchStep performs one step and frees its batch.
func runBenchStep(o BenchOptions, step *trainer.Step, i int, batch []*tensors.Tensor) (trainer.Result, error) {
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

// benchInputs is a random batch as a step is fed: every picture is another one.
func benchInputs(cfg Config, batch int, rng *rand.Rand) []*tensors.Tensor {
	pixels, ids, mask := randomBatch(cfg, batch, rng)
	list := BatchTensors(cfg, batch, pixels, ids, mask)
	if cfg.ImageIDs {
		numbers := make([]int32, batch)
		for i := range numbers {
			numbers[i] = int32(i)
		}
		list = append(list, tensors.FromFlatDataAndDimensions(numbers, batch))
	}
	return list
}

// randomBatch draws pixels that are normalised noise, and captions of 3 to L tokens, [CLS] and [SEP] included.
func randomBatch(cfg Config, batch int, rng *rand.Rand) (pixels []float32, ids, mask []int32) {
	size, length := cfg.Vision.ImageSize, cfg.MaxTextLen
	pixels = make([]float32, batch*3*size*size)
	for i := range pixels {
		pixels[i] = float32(rng.NormFloat64())
	}
	special := []int{cfg.PadID, cfg.CLSID, cfg.SEPID, cfg.BOSID}
	ids, mask = make([]int32, batch*length), make([]int32, batch*length)
	for b := range batch {
		row, seen := ids[b*length:][:length], mask[b*length:][:length]
		tokens := 3 + rng.IntN(length-2)
		for i := range row {
			word := rng.IntN(cfg.QFormer.Vocab)
			for slices.Contains(special, word) {
				word = rng.IntN(cfg.QFormer.Vocab)
			}
			row[i] = int32(word)
			if i < tokens {
				seen[i] = 1
			} else {
				row[i] = int32(cfg.PadID)
			}
		}
		row[0], row[tokens-1] = int32(cfg.CLSID), int32(cfg.SEPID)
	}
	return pixels, ids, mask
}
