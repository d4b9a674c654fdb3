package stage1

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	. "github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/internal/measure"
	"blip2/pkg/model"
	"blip2/pkg/model/nn"
	"blip2/pkg/trainer"
)

// partOptimizer is the part of a step that has no matrix products.
const partOptimizer = "optimizer"

// PartTime is what one part of a step takes as a program of its own, with random numbers where the step has the results
// of other parts.
type PartTime struct {
	Part    string         `json:"part"`
	Forward measure.Spread `json:"forward_seconds"` // without gradients; zero for the optimizer
	Whole   measure.Spread `json:"seconds"`         // as in a step: with gradients where the part has any
	CPU     float64        `json:"cpu_seconds"`     // mean processor time of the latter, all cores; 0: not measured
	FLOPs   float64        `json:"flops"`           // matrix products of the latter
	// GFLOPPerS is that by the median of Whole, Share this by the rate of a large matrix product at the same time.
	GFLOPPerS float64 `json:"gflop_per_s"`
	Share     float64 `json:"share_of_product"`
}

// PartsResult says where the time of a step goes.
type PartsResult struct {
	Parts   []PartTime     `json:"parts"`
	Seconds float64        `json:"seconds"`             // of all parts together
	CPU     float64        `json:"cpu_seconds"`         // likewise
	Product measure.Spread `json:"product_gflop_per_s"` // rate of a large matrix product, measured around every part
	// Overhead is the time of a step with as many tensors and pixels, but so narrow layers that there is next to nothing
	// to compute: at most this much is spent outside of the compiled program.
	Overhead measure.Spread `json:"overhead_seconds"`
}

// productRuns is how often the large product runs before every part.
const productRuns = 3

// partsBench measures parts on the weights of a model.
type partsBench struct {
	BenchOptions
	backend compute.Backend
	store   *mlx.Store
	rng     *rand.Rand
	batch   []*tensors.Tensor
	factors []*tensors.Tensor // of the large product
	rates   []float64         // of the large product, in GFLOP/s
}

func newPartsBench(o BenchOptions, backend compute.Backend, store *mlx.Store) *partsBench {
	m := &partsBench{BenchOptions: o, backend: backend, store: store, rng: rand.New(rand.NewPCG(uint64(o.Seed), 1))}
	pixels, ids, mask := randomBatch(o.Config, o.Batch, m.rng)
	m.batch = BatchTensors(o.Config, o.Batch, pixels, ids, mask)
	// The product of a ViT-L's MLP on eight pictures; small models are not held up by it.
	rows, in, out := 2048, 1024, 4096
	if TotalFLOPs(StepFLOPs(o.Config, o.Batch)) < 1e12 {
		rows, in, out = 512, 512, 512
	}
	m.factors = []*tensors.Tensor{m.random(rows, in), m.random(out, in)}
	return m
}

// measureParts takes the time of every part of a step, in programs over the store's weights.
func (o BenchOptions) measureParts(ctx context.Context, backend compute.Backend, store *mlx.Store) (
	*PartsResult, error) {
	m := newPartsBench(o, backend, store)
	flops := map[string]float64{}
	for _, f := range StepFLOPs(o.Config, o.Batch) {
		flops[f.Part] = f.Total()
	}
	r := &PartsResult{}
	for _, p := range append(m.parts(), part{name: partOptimizer}) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		measured := PartTime{Part: p.name, FLOPs: flops[p.name]}
		rate, err := m.productRate()
		if err == nil && p.name == partOptimizer {
			measured.Whole, measured.CPU, err = m.timeOptimizer()
		} else if err == nil {
			err = m.timePart(p, &measured)
		}
		if err != nil {
			return nil, fmt.Errorf("measuring the part %s: %w", p.name, err)
		}
		measured.GFLOPPerS = measured.FLOPs / measured.Whole.Median / 1e9
		measured.Share = measured.GFLOPPerS / rate
		r.Parts = append(r.Parts, measured)
		r.Seconds, r.CPU = r.Seconds+measured.Whole.Median, r.CPU+measured.CPU
	}
	r.Product = measure.SpreadOf(m.rates)
	var err error
	if r.Overhead, err = m.timeOverhead(); err != nil {
		return nil, fmt.Errorf("measuring a step with narrow layers: %w", err)
	}
	return r, nil
}

// random draws a tensor.
func (m *partsBench) random(dims ...int) *tensors.Tensor {
	n := 1
	for _, d := range dims {
		n *= d
	}
	values := make([]float32, n)
	for i := range values {
		values[i] = float32(m.rng.NormFloat64())
	}
	return tensors.FromFlatDataAndDimensions(values, dims...)
}

// productRate measures the large product and returns its rate in GFLOP/s.
func (m *partsBench) productRate() (float64, error) {
	exec, err := mlx.NewExec(m.backend, m.store, func(_ *mlx.Scope, in []*Node) []*Node {
		return []*Node{nn.Project(in[0], in[1])}
	})
	if err != nil {
		return 0, err
	}
	defer exec.Finalize()
	took, _, err := timeRuns(exec, m.factors, productRuns)
	if err != nil {
		return 0, err
	}
	x, w := m.factors[0].Shape().Dimensions, m.factors[1].Shape().Dimensions
	rate := product(float64(x[0]), float64(x[1]), float64(w[0])) / took.Median / 1e9
	m.rates = append(m.rates, rate)
	return rate, nil
}

// timePart measures the part without and, if it has any, with its gradients.
func (m *partsBench) timePart(p part, t *PartTime) error {
	for _, gradients := range []bool{false, true} {
		if gradients && p.frozen {
			t.Whole = t.Forward
			return nil
		}
		exec, err := mlx.NewExec(m.backend, m.store, m.program(p, gradients))
		if err != nil {
			return err
		}
		state, err := RNGStateFromSeed(m.Seed | 1)
		if err != nil {
			return err
		}
		took, cpu, err := timeRuns(exec.WithName(p.name), append([]*tensors.Tensor{state}, p.inputs...), m.Steps)
		exec.Finalize()
		if err != nil {
			return err
		}
		t.CPU = cpu
		if t.Whole = took; !gradients {
			t.Forward = took
		}
	}
	return nil
}

// program builds the part. Its only output is a vector of squared lengths: everything must be computed, and next to
// nothing is returned.
func (m *partsBench) program(p part, gradients bool) func(*mlx.Scope, []*Node) []*Node {
	return func(scope *mlx.Scope, in []*Node) []*Node {
		return []*Node{lengths(m.outputs(p, gradients, scope, in))}
	}
}

// outputs are what the part hands on, or with gradients those of its loss, which is half of the squared length of what
// it hands on if that is no loss itself.
func (m *partsBench) outputs(p part, gradients bool, scope *mlx.Scope, in []*Node) []*Node {
	rng, in := nn.NewRNG(in[0]), in[1:]
	arguments := make([]*Node, len(in))
	for i, x := range in {
		if arguments[i] = x; x.DType() == dtypes.Float32 {
			arguments[i] = nn.Cast(x, m.Config.compute())
		}
	}
	out, drawn := p.build(scope, arguments, rng)
	if !gradients {
		return append(out, drawn...)
	}
	var loss *Node
	for _, x := range out {
		if !x.IsScalar() {
			x = MulScalar(ReduceAllSum(Square(nn.Float32(x))), 0.5)
		}
		if loss == nil {
			loss = x
		} else {
			loss = Add(loss, x)
		}
	}
	sources := append([]*Node{}, in[p.differentiated:]...)
	for v := range m.store.IterVariables() {
		if v.Trainable && v.InUseByGraph(loss.Graph()) {
			sources = append(sources, v.NodeValue(loss.Graph()))
		}
	}
	return append(append(drawn, loss), Gradient(loss, sources...)...)
}

// lengths are the squared lengths of tensors, as one vector.
func lengths(list []*Node) *Node {
	parts := make([]*Node, len(list))
	for i, x := range list {
		flat := Reshape(nn.Float32(x), -1)
		parts[i] = Reshape(Dot(flat, flat).Product(), 1)
	}
	return Concatenate(parts, 0)
}

// timeOptimizer measures the update of all trained parameters by a loss whose gradient costs nothing: half of the sum
// of their squares.
func (m *partsBench) timeOptimizer() (measure.Spread, float64, error) {
	task := trainer.Task{Params: TrainableParams(m.Config), Loss: func(scope *mlx.Scope, in []*Node, _ *nn.RNG) (
		*Node, []*Node) {
		loss := ScalarZero(in[0].Graph(), dtypes.Float32)
		for _, p := range TrainableParams(m.Config) {
			value := scope.Store().GetVariable(model.Path(p.Name)).NodeValue(in[0].Graph())
			loss = Add(loss, MulScalar(ReduceAllSum(Square(value)), 0.5))
		}
		return loss, nil
	}}
	return m.timeSteps(m.store, task, m.batch[1:2], m.Optimizer)
}

// timeOverhead measures a step with layers so narrow that there is next to nothing to compute.
func (m *partsBench) timeOverhead() (measure.Spread, error) {
	o := m.BenchOptions
	o.Config = narrow(o.Config)
	store, err := newBenchStore(m.backend, o)
	if err != nil {
		return measure.Spread{}, err
	}
	defer store.Finalize()
	pixels, ids, mask := randomBatch(o.Config, o.Batch, m.rng)
	took, _, err := m.timeSteps(store, NewTask(o.Config), BatchTensors(o.Config, o.Batch, pixels, ids, mask), o.Optimizer)
	return took, err
}

// narrow is the configuration with as many layers and pixels, and as little else as possible.
func narrow(cfg Config) Config {
	const width = 4
	cfg.Vision.PatchSize, cfg.Vision.Width, cfg.Vision.Heads = cfg.Vision.ImageSize, width, 1
	cfg.QFormer.EncoderWidth, cfg.QFormer.Hidden, cfg.QFormer.Heads, cfg.QFormer.Intermediate = width, width, 1, width
	cfg.QFormer.Queries, cfg.EmbedDim = 1, width
	cfg.QFormer.Vocab, cfg.PadID, cfg.CLSID, cfg.SEPID, cfg.BOSID = 8, 0, 1, 2, 7
	return cfg
}

// timeSteps measures steps of a training on one batch, the first of which compiles and does not count.
func (m *partsBench) timeSteps(store *mlx.Store, task trainer.Task, batch []*tensors.Tensor, optimizer trainer.AdamW) (
	measure.Spread, float64, error) {
	step, err := trainer.NewStep(m.backend, store, task, optimizer, m.Seed)
	if err != nil {
		return measure.Spread{}, 0, err
	}
	defer step.Close()
	at := 0
	return timeCalls(m.Steps, func() error {
		// A copy each time, so that the batch comes from the host as a loader's does.
		fed := make([]*tensors.Tensor, len(batch))
		for i, t := range batch {
			if fed[i], err = t.LocalClone(); err != nil {
				return err
			}
		}
		_, err := step.Run(at, m.LR, fed)
		at++
		for _, t := range fed {
			t.MustFinalizeAll()
		}
		return err
	})
}

// timeRuns measures runs of a program after one that does not count.
func timeRuns(exec *mlx.Exec, inputs []*tensors.Tensor, runs int) (took measure.Spread, cpu float64, err error) {
	args := make([]any, len(inputs))
	for i, t := range inputs {
		args[i] = t
	}
	return timeCalls(runs, func() error {
		out, err := exec.Call(args...)
		if err != nil {
			return err
		}
		for _, t := range out {
			// Programs run on while their outputs are handed out: what is read is done.
			t.MustConstFlatData(func(any) {})
			t.MustFinalizeAll()
		}
		return nil
	})
}

// timeCalls measures calls after one that does not count: seconds and mean processor time.
func timeCalls(runs int, call func() error) (took measure.Spread, cpu float64, err error) {
	var seconds []float64
	var startCPU float64
	for i := range runs + 1 {
		if i == 1 {
			startCPU = measure.CPUSeconds()
		}
		start := time.Now()
		if err := call(); err != nil {
			return took, 0, err
		}
		if i > 0 {
			seconds = append(seconds, time.Since(start).Seconds())
		}
	}
	return measure.SpreadOf(seconds), (measure.CPUSeconds() - startCPU) / float64(runs), nil
}
