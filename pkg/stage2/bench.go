package stage2

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/pretrained"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
	"blip2/pkg/weights"
)

// BenchOptions say what Bench measures.
type BenchOptions struct {
	Config       Config
	Optimizer    trainer.AdamW
	LR           float64
	Batch        int          // pairs per step
	Length       int          // tokens of OPT's texts, or of T5's prefixes
	Output       int          // tokens of T5's suffixes
	Stored       dtypes.DType // of the frozen matrices
	Warmup       int          // steps before those that count
	Steps        int          // steps that count, at least 1
	Seed         int64        // of weights, batches and dropout
	Devices      int          // that share a batch; 0 means 1
	SpreadFrozen bool         // of a frozen matrix each device keeps a part
	// OnStep, if set, is told of every step when it is done, those of the warm-up included (from 0).
	OnStep func(step int, took time.Duration, result trainer.Result)
}

// Bench is training.Bench of stage 2.
func Bench(ctx context.Context, backend compute.Backend, o BenchOptions) (*training.BenchResult, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	to := backend
	if o.Devices > 1 {
		to = nil // tensors stay on the host until they are placed
	}
	return training.Bench(ctx, backend, training.BenchOptions{
		Model: training.Model{Params: Params(o.Config), Task: NewTask(o.Config), Optimizer: o.Optimizer},
		Parts: StepFLOPs(o.Config, o.Batch, o.Length, o.Output),
		Store: func() (*mlx.Store, error) {
			store := mlx.NewStore()
			return store, o.fill(store, to)
		},
		Batch: o.randomBatch,
		LR:    o.LR, Pairs: o.Batch, Warmup: o.Warmup, Steps: o.Steps, Seed: o.Seed, OnStep: o.OnStep,
		Devices: o.Devices, SpreadFrozen: o.SpreadFrozen,
	})
}

func (o BenchOptions) validate() error {
	if err := o.Config.Validate(); err != nil {
		return err
	}
	switch {
	case o.Batch < 1:
		return fmt.Errorf("batch size %d: at least 1 is needed", o.Batch)
	case o.Batch%max(o.Config.MicroBatches, 1) != 0:
		return fmt.Errorf("a batch of %d cannot be cut into %d equal micro-batches", o.Batch, o.Config.MicroBatches)
	case o.Length < 2 || o.Config.T5 != nil && o.Output < 2:
		return fmt.Errorf("texts of %d and %d tokens: at least 2 are needed", o.Length, o.Output)
	case o.Config.vocab() < 5:
		return fmt.Errorf("a vocabulary of %d has no words beside special tokens", o.Config.vocab())
	}
	if n := o.Config.QFormer.Queries + o.Length; o.Config.OPT != nil && n > o.Config.OPT.Positions {
		return fmt.Errorf("%d queries and texts of %d tokens are more than the %d positions of the language model",
			o.Config.QFormer.Queries, o.Length, o.Config.OPT.Positions)
	}
	return nil
}

// fill draws the weights. The matrices of frozen parts repeat a short sequence of random numbers, as nobody has the
// time to draw billions of them.
func (o BenchOptions) fill(store *mlx.Store, backend compute.Backend) error {
	rng := rand.New(rand.NewPCG(uint64(o.Seed), 1))
	block := make([]float32, 1<<16+1)
	for i := range block {
		block[i] = float32(rng.NormFloat64() * 0.02)
	}
	stored := llmPrecision(o.Config, o.Stored)
	err := pretrained.Fill(store, backend, FrozenParams(o.Config), func(p model.Param) (weights.Tensor, bool, error) {
		values := make([]float32, p.Size())
		if model.IsMatrix(p) {
			for at := 0; at < len(values); at += copy(values[at:], block) {
			}
		} else {
			values = model.Draw(p, o.Seed)
		}
		t, err := weights.FromFloat32(p.Name, p.Shape, values).CastFloat(stored(p, weights.F32))
		return t, true, err
	}, func(model.Param) {})
	if err != nil {
		return err
	}
	if err := model.Initialize(store, TrainableParams(o.Config), o.Seed); err != nil {
		return err
	}
	return model.SetTrainable(store, FrozenParams(o.Config), false)
}

// randomBatch draws pixels that are normalised noise, and texts of full length, as the longest of a large batch are.
func (o BenchOptions) randomBatch(rng *rand.Rand) []*tensors.Tensor {
	size := o.Config.Vision.ImageSize
	pixels := make([]float32, o.Batch*3*size*size)
	for i := range pixels {
		pixels[i] = float32(rng.NormFloat64())
	}
	draw := func(length int) (ids, mask []int32) {
		ids, mask = make([]int32, o.Batch*length), make([]int32, o.Batch*length)
		for i := range ids {
			ids[i], mask[i] = int32(3+rng.IntN(o.Config.vocab()-3)), 1
		}
		return ids, mask
	}
	texts := Texts{Rows: o.Batch, Length: o.Length, OutputLength: o.Output}
	texts.IDs, texts.Mask = draw(o.Length)
	if o.Config.T5 != nil {
		texts.OutputIDs, texts.OutputMask = draw(o.Output)
	}
	return BatchTensors(o.Config, pixels, texts)
}
