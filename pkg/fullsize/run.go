package fullsize

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/device"
	"blip2/pkg/internal/measure"
	"blip2/pkg/model"
	"blip2/pkg/naming"
	"blip2/pkg/pretrained"
	"blip2/pkg/weights"
)

// Options say what Run measures.
type Options struct {
	Network Network
	Sizes   Sizes
	// Path is the checkpoint, a file or folder as weights.OpenAny takes it.
	Path string
	// Precision chooses the types in which tensors are kept; nil keeps those of the checkpoint.
	Precision pretrained.Precision
	Warmup    int   // runs of a pass before those that count
	Steps     int   // runs that count, at least 1
	Seed      int64 // of the inputs
	// OnEvent, if set, is told of everything that is done: "read", "loaded", or a pass's name with its time.
	OnEvent func(what string, took time.Duration)
}

// Result is what one run measured. Sizes are in bytes, 0 where they could not be measured.
type Result struct {
	Batch       int            `json:"batch"`
	Tokens      int            `json:"tokens,omitempty"`
	Compute     string         `json:"compute"` // type of activations
	Warmup      int            `json:"warmup"`
	Steps       int            `json:"steps"`
	Parameters  int            `json:"parameters"`
	Tensors     int            `json:"tensors"`
	WeightBytes int64          `json:"weight_bytes"` // of the tensors as they are kept
	Types       map[string]int `json:"types"`        // how many tensors are kept in which type
	Load        LoadResult     `json:"load"`
	Passes      []PassResult   `json:"passes"`
	PeakMemory  uint64         `json:"peak_memory"` // most host memory that the process held while Run ran
}

// LoadResult says how the weights were loaded.
type LoadResult struct {
	Container   string         `json:"container"`
	FileBytes   int64          `json:"file_bytes"`
	ReadSeconds float64        `json:"read_seconds"` // reading the files once before, into the page cache
	Seconds     float64        `json:"seconds"`      // from opening the checkpoint to the last tensor on the device
	CPUSeconds  float64        `json:"cpu_seconds"`  // processor time of that, all cores; 0: not measured
	ReadBytes   int64          `json:"read_bytes"`   // of the tensors in the files that were used
	GBPerS      float64        `json:"gb_per_s"`     // of those
	Before      measure.Memory `json:"memory_before"`
	Peak        measure.Memory `json:"memory_peak"` // while loading, each part by itself
	After       measure.Memory `json:"memory_after"`
	Ratio       float64        `json:"ratio"` // what Peak has beyond Before, by the bytes of the tensors; 0: not measured
}

// PassResult is what was measured of one pass.
type PassResult struct {
	Name           string         `json:"name"`
	CompileSeconds float64        `json:"compile_seconds"` // building and compiling the program
	StepSeconds    measure.Spread `json:"step_seconds"`    // from inputs on the host to the result on the host
	CPUSeconds     float64        `json:"cpu_seconds"`     // mean processor time of a run, all cores; 0: not measured
	FLOPs          float64        `json:"flops"`           // of its matrix products
	GFLOPPerS      float64        `json:"gflop_per_s"`     // of the median run
	WeightBytes    int64          `json:"weight_bytes"`    // of the tensors that it reads as a whole
	WeightGBPerS   float64        `json:"weight_gb_per_s"` // of the median run; 0: not a pass of single tokens
	PeakCompile    measure.Memory `json:"memory_peak_compile"`
	PeakSteps      measure.Memory `json:"memory_peak_steps"` // in the runs that count
	Result         float64        `json:"result"`            // mean absolute value of the last result
}

// Run loads a checkpoint and measures loading and every pass of the network. All weights are frozen and stay on the
// backend's first device. It is an error if a result is not finite.
func Run(ctx context.Context, backend compute.Backend, o Options) (*Result, error) {
	if err := o.Network.Validate(o.Sizes); err != nil {
		return nil, err
	}
	if o.Steps < 1 || o.Warmup < 0 {
		return nil, fmt.Errorf("%d runs after %d: at least 1 must be measured, after 0 or more", o.Steps, o.Warmup)
	}
	if o.Precision == nil {
		o.Precision = pretrained.AsStored
	}
	if o.OnEvent == nil {
		o.OnEvent = func(string, time.Duration) {}
	}
	r := &Result{Batch: o.Sizes.Batch, Tokens: o.Sizes.Tokens, Compute: o.Sizes.Compute.String(), Warmup: o.Warmup,
		Steps: o.Steps, Parameters: model.Count(o.Network.Params()), Tensors: len(o.Network.Params())}
	store := mlx.NewStore()
	defer store.Finalize()
	if err := o.load(ctx, backend, store, r); err != nil {
		return nil, err
	}
	r.PeakMemory = r.Load.Peak.Total
	var past []*tensors.Tensor
	defer func() { free(past) }()
	inputs := newRandom(o.Seed)
	for _, p := range o.Network.passes(o.Sizes) {
		next, result, err := o.measure(ctx, backend, store, p, inputs, past)
		free(past)
		past = next
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		r.Passes = append(r.Passes, result)
		r.PeakMemory = max(r.PeakMemory, result.PeakCompile.Total, result.PeakSteps.Total)
	}
	return r, nil
}

// load reads the checkpoint into the page cache and then into the store.
func (o Options) load(ctx context.Context, backend compute.Backend, store *mlx.Store, r *Result) error {
	start := time.Now()
	src, err := weights.OpenAny(o.Path)
	if err != nil {
		return err
	}
	load := &r.Load
	load.Container = src.Container()
	load.FileBytes, err = readThrough(ctx, src.Files())
	if err = errors.Join(err, src.Close()); err != nil {
		return err
	}
	load.ReadSeconds = time.Since(start).Seconds()
	o.OnEvent("read", time.Since(start))

	device.ReturnMemory() // what writing and reading have left behind is not loading's
	load.Before = measure.MemoryNow()
	watch := measure.StartWatch()
	start, startCPU := time.Now(), measure.CPUSeconds()
	load.ReadBytes, err = o.fill(backend, store)
	took := time.Since(start)
	load.CPUSeconds = measure.CPUSeconds() - startCPU
	load.Peak, load.After = watch.Stop(), measure.MemoryNow()
	if err != nil {
		return err
	}
	o.OnEvent("loaded", took)
	if err := model.SetTrainable(store, o.Network.Params(), false); err != nil {
		return err
	}
	r.Types = map[string]int{}
	for v := range store.IterVariables() {
		r.WeightBytes += int64(v.Shape().ByteSize())
		r.Types[v.DType().String()]++
	}
	load.Seconds = took.Seconds()
	load.GBPerS = float64(load.ReadBytes) / load.Seconds / 1e9
	if load.Peak.Total > 0 {
		load.Ratio = float64(load.Peak.Total-load.Before.Total) / float64(r.WeightBytes)
	}
	return nil
}

// fill is the loading that is measured: what the program does with any checkpoint. It returns the bytes of the tensors
// that were used.
func (o Options) fill(backend compute.Backend, store *mlx.Store) (read int64, err error) {
	src, err := weights.OpenAny(o.Path)
	if err != nil {
		return 0, err
	}
	defer src.Close() // read only: nothing can be lost
	cov, err := pretrained.Load(store, o.Network.part, src, pretrained.Options{Backend: backend, Precision: o.Precision})
	if err != nil {
		return 0, fmt.Errorf("%s: %w", o.Path, err)
	}
	for _, name := range cov.Consumed {
		info, err := src.Info(name)
		if err != nil {
			return 0, err
		}
		elements, err := info.Elements()
		if err != nil {
			return 0, err
		}
		read += int64(elements * info.DType.Size())
	}
	return read, nil
}

// measure compiles and runs one pass. next is what the pass hands on; the caller frees it, also after an error.
func (o Options) measure(ctx context.Context, backend compute.Backend, store *mlx.Store, p pass, inputs *random,
	past []*tensors.Tensor) (next []*tensors.Tensor, r PassResult, err error) {
	r = PassResult{Name: p.name, FLOPs: p.flops}
	program, err := newProgram(backend, store, p, len(past))
	if err != nil {
		return nil, r, err
	}
	defer program.exec.Finalize()
	watch := measure.StartWatch()
	start := time.Now()
	err = program.compile(p.inputs(inputs), past)
	r.PeakCompile = watch.Stop()
	if err != nil {
		return nil, r, err
	}
	r.CompileSeconds = time.Since(start).Seconds()
	r.WeightBytes = program.read
	o.OnEvent(p.name+": compiled", time.Since(start))

	var seconds, cpu []float64
	watch = measure.StartWatch()
	defer func() { r.PeakSteps = watch.Stop() }()
	for i := range o.Warmup + o.Steps {
		if err := ctx.Err(); err != nil {
			return next, r, fmt.Errorf("after %d of %d runs: %w", i, o.Warmup+o.Steps, err)
		}
		fed := p.inputs(inputs)
		free(next)
		start, startCPU := time.Now(), measure.CPUSeconds()
		var values []float32
		values, next, err = program.run(fed, past)
		took := time.Since(start)
		free(fed)
		if err != nil {
			return next, r, err
		}
		if r.Result = meanAbs(values); math.IsNaN(r.Result) || math.IsInf(r.Result, 0) {
			return next, r, errors.New("the result is not finite: try f32")
		}
		o.OnEvent(p.name, took)
		if i >= o.Warmup {
			seconds, cpu = append(seconds, took.Seconds()), append(cpu, measure.CPUSeconds()-startCPU)
		}
	}
	r.StepSeconds, r.CPUSeconds = measure.SpreadOf(seconds), measure.Mean(cpu)
	r.GFLOPPerS = r.FLOPs / r.StepSeconds.Median / 1e9
	if p.step {
		r.WeightGBPerS = float64(r.WeightBytes) / r.StepSeconds.Median / 1e9
	}
	return next, r, nil
}

// program is a pass that can be compiled and run.
type program struct {
	pass
	exec *mlx.Exec
	read int64 // bytes of the weights that it reads as a whole; known once it is compiled
}

// newProgram prepares a pass that gets the given number of tensors from the one before.
func newProgram(backend compute.Backend, store *mlx.Store, p pass, past int) (*program, error) {
	prog := &program{pass: p}
	exec, err := mlx.NewExec(backend, store, func(scope *mlx.Scope, in []*Node) []*Node {
		own := len(in) - past
		result, next := p.build(scope, in[:own], in[own:])
		prog.read = readBytes(store, result.Graph(), p.lookups)
		return append([]*Node{result}, next...)
	})
	if err != nil {
		return nil, err
	}
	prog.exec = exec.WithName(p.name)
	return prog, nil
}

// readBytes adds up the variables that a graph uses, but for those of which it looks up rows.
func readBytes(store *mlx.Store, g *Graph, lookups []string) int64 {
	total := int64(0)
	for v := range store.IterVariables() {
		lookup := false
		for _, pattern := range lookups {
			lookup = lookup || naming.Matches(pattern, model.Name(v.Path()))
		}
		if v.InUseByGraph(g) && !lookup {
			total += int64(v.Shape().ByteSize())
		}
	}
	return total
}

// compile builds and compiles the program for the arguments' shapes and frees the inputs.
func (p *program) compile(inputs, past []*tensors.Tensor) error {
	defer free(inputs)
	var list []shapes.Shape
	for _, t := range inputs {
		list = append(list, t.Shape())
	}
	for _, t := range past {
		list = append(list, t.Shape())
	}
	_, err := p.exec.Compile(list...)
	return err
}

// run runs the program once: the result on the host, and what it hands on.
func (p *program) run(inputs, past []*tensors.Tensor) (values []float32, next []*tensors.Tensor, err error) {
	args := make([]any, 0, len(inputs)+len(past))
	for _, t := range inputs {
		args = append(args, t)
	}
	for _, t := range past {
		args = append(args, t)
	}
	out, err := p.exec.Call(args...)
	if err != nil {
		return nil, nil, err
	}
	defer out[0].MustFinalizeAll()
	values, err = tensors.CopyFlatData[float32](out[0])
	return values, out[1:], err
}

func free(list []*tensors.Tensor) {
	for _, t := range list {
		t.MustFinalizeAll()
	}
}

// meanAbs is the mean absolute value, in which everything that is not finite shows.
func meanAbs(values []float32) float64 {
	sum := 0.0
	for _, v := range values {
		sum += math.Abs(float64(v))
	}
	return sum / max(float64(len(values)), 1)
}

// ComputeType returns the type of activations that goes with weights of the given type.
func ComputeType(dtype weights.DType) dtypes.DType {
	switch dtype {
	case weights.BF16:
		return dtypes.BFloat16
	case weights.F16:
		return dtypes.Float16
	}
	return dtypes.Float32
}
