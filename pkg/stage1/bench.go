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

	"blip2/pkg/model"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
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

// BenchResult is what one run of Bench measured.
type BenchResult struct {
	training.BenchResult
	Time *PartsResult `json:"parts,omitempty"` // with ByParts
}

// Bench is training.Bench of stage 1.
func Bench(ctx context.Context, backend compute.Backend, o BenchOptions) (*BenchResult, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	var out BenchResult
	r, err := training.Bench(ctx, backend, training.BenchOptions{
		Model: training.Model{Params: Params(o.Config), Task: NewTask(o.Config), Optimizer: o.Optimizer},
		Parts: StepFLOPs(o.Config, o.Batch), Repeated: TotalFLOPs(RepeatedFLOPs(o.Config, o.Batch)),
		Store: func() (*mlx.Store, error) { return newBenchStore(backend, o) },
		Batch: func(rng *rand.Rand) []*tensors.Tensor { return benchInputs(o.Config, o.Batch, rng) },
		LR:    o.LR, Pairs: o.Batch, Warmup: o.Warmup, Steps: o.Steps, Seed: o.Seed, OnStep: o.OnStep,
		Devices: o.Devices, SpreadFrozen: o.SpreadFrozen,
		After: func(store *mlx.Store) (err error) {
			if o.ByParts {
				out.Time, err = o.measureParts(ctx, backend, store)
			}
			return err
		},
	})
	if err != nil {
		return nil, err
	}
	out.BenchResult = *r
	return &out, nil
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
	if o.Devices > 1 {
		backend = nil // host memory: the first device must not hold what several will share
	}
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
