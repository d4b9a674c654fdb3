// Package plan says what a training needs before it runs: parameters, memory, work and time, and how large a
// micro-batch may be. Memory is predicted from the step's own graph (package footprint).
package plan

import (
	"errors"
	"fmt"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"

	"blip2/pkg/model"
	"blip2/pkg/trainer"
	"blip2/pkg/training"
)

// Subject is a training to be planned.
type Subject struct {
	Task      trainer.Task
	Optimizer trainer.AdamW
	Frozen    []trainer.Frozen
	Compute   dtypes.DType
	Inputs    func(rows int) []shapes.Shape   // of a batch
	FLOPs     func(rows int) []training.FLOPs // of a step
	Batch     int                             // pairs of a step, of all devices together
	Steps     int
	Devices   int  // that share a batch
	Spread    bool // of frozen weights each device holds a part
	Smallest  int  // pairs that a micro-batch must have at least
}

// Device is what a training runs on.
type Device struct {
	Name   string  `json:"name"`
	Memory int64   `json:"memory"` // bytes
	Half   float64 `json:"half"`   // greatest rate in FLOP/s, 16-bit types
	Single float64 `json:"single"` // in float32
}

// rate is the device's greatest rate in the type.
func (d Device) rate(dtype dtypes.DType) float64 {
	if dtype == dtypes.Float32 {
		return d.Single
	}
	return d.Half
}

// Names of the GPUs that are known.
const (
	A100with40 = "A100-40G"
	A100with80 = "A100-80G"
	H100       = "H100"
	H200       = "H200"
)

// GPUs are the known GPUs, by NVIDIA's data sheets: memory as the driver gives it, rates of dense products.
func GPUs() []Device {
	const mega, tera = 1 << 20, 1e12
	return []Device{
		{A100with40, 40_537 * mega, 312 * tera, 156 * tera},
		{A100with80, 81_251 * mega, 312 * tera, 156 * tera},
		{H100, 81_559 * mega, 989 * tera, 495 * tera},
		{H200, 143_771 * mega, 989 * tera, 495 * tera},
	}
}

// Plan is what a training needs on a device.
type Plan struct {
	Device     Device           `json:"device"`
	Devices    int              `json:"devices"`
	Trained    int              `json:"trained_parameters"`
	NotTrained int              `json:"frozen_parameters"`
	Batch      int              `json:"batch"`
	MicroBatch int              `json:"micro_batch"` // pairs that one device holds at a time
	Memory     trainer.Memory   `json:"memory"`      // on each device, with this micro-batch
	Total      int64            `json:"memory_total"`
	Fits       bool             `json:"fits"`
	Largest    int              `json:"largest_micro_batch"` // that fits on a device; 0 if none does
	Parts      []training.FLOPs `json:"flops"`               // of a step
	FLOPs      float64          `json:"step_flops"`
	Utilise    float64          `json:"utilisation"`
	Step       float64          `json:"step_seconds"`
	ImgPerS    float64          `json:"img_per_s"`
	Wall       time.Duration    `json:"wall_nanoseconds"`
}

// usable is the part of a device's memory that a training can have: the rest is the driver's, the libraries' and lost
// between allocations.
const usable = 0.9

// Make plans. Utilisation is the part of the device's greatest rate that the step's products reach, 0 to 1. The graphs
// are built on the backend, which need not be the device's.
func Make(backend compute.Backend, s Subject, d Device, utilisation float64) (*Plan, error) {
	if !(utilisation > 0 && utilisation <= 1) {
		return nil, fmt.Errorf("a utilisation of %g: it must be above 0 and at most 1", utilisation)
	}
	if d.Memory <= 0 || d.rate(s.Compute) <= 0 {
		return nil, fmt.Errorf("the memory or the speed of %s is not known", d.Name)
	}
	devices, parts := max(s.Devices, 1), max(s.Task.MicroBatches, 1)
	p := &Plan{Device: d, Devices: devices, Trained: model.Count(s.Task.Params), Batch: s.Batch,
		MicroBatch: s.Batch / parts / devices, Parts: s.FLOPs(s.Batch), Utilise: utilisation}
	for _, f := range s.Frozen {
		p.NotTrained += model.Count(f.Params)
	}
	if p.MicroBatch < s.Smallest {
		return nil, fmt.Errorf("%d pairs in %d micro-batches on %d devices: each must have at least %d", s.Batch, parts,
			devices, s.Smallest)
	}
	if s.Batch%(parts*devices) != 0 {
		return nil, fmt.Errorf("a batch of %d in %d micro-batches cannot be shared evenly by %d devices: change "+
			"train.batch_size or the number of devices", s.Batch, parts, devices)
	}
	m := memory{backend, s, devices}
	var err error
	if p.Memory, err = m.predict(p.MicroBatch); err != nil {
		return nil, err
	}
	p.Total = p.Memory.Total()
	room := int64(usable * float64(d.Memory))
	p.Fits = p.Total <= room
	if p.Largest, err = m.largest(room, s.Smallest); err != nil {
		return nil, err
	}
	p.FLOPs = training.TotalFLOPs(p.Parts)
	p.Step = p.FLOPs / (d.rate(s.Compute) * float64(devices) * utilisation)
	p.ImgPerS = float64(s.Batch) / p.Step
	p.Wall = time.Duration(p.Step * float64(s.Steps) * float64(time.Second))
	return p, nil
}

// memory predicts what a device holds.
type memory struct {
	backend compute.Backend
	s       Subject
	devices int
}

func (m memory) predict(rows int) (trainer.Memory, error) {
	out, err := trainer.Predict(m.backend, m.s.Task, m.s.Optimizer, m.s.Frozen, m.s.Inputs(rows))
	if m.s.Spread {
		out.Frozen /= int64(m.devices)
	}
	return out, err
}

// largest is the largest micro-batch that fits into the room. Memory grows in a straight line once the activations of a
// batch outweigh what does not depend on it, so that a line through two predictions finds it, and a third one checks
// it.
func (m memory) largest(room int64, smallest int) (int, error) {
	low, high := smallest, 4*smallest
	a, errA := m.predict(low)
	b, errB := m.predict(high)
	if err := errors.Join(errA, errB); err != nil {
		return 0, err
	}
	if a.Total() > room {
		return 0, nil
	}
	slope := float64(b.Total()-a.Total()) / float64(high-low)
	rows := low + int(float64(room-a.Total())/slope)
	for rows > low {
		at, err := m.predict(rows)
		if err != nil {
			return 0, err
		}
		over := at.Total() - room
		if over <= 0 {
			return rows, nil
		}
		slope = float64(at.Total()-a.Total()) / float64(rows-low)
		rows -= max(1, int(float64(over)/slope))
	}
	return low, nil
}
