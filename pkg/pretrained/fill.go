package pretrained

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/tensors"
	mlx "github.com/gomlx/gomlx/ml/model"

	"blip2/pkg/model"
	"blip2/pkg/naming"
	"blip2/pkg/weights"
)

// Options say where and how loaded tensors are kept.
type Options struct {
	// Backend, if set, gets every tensor on its first device as soon as it is read. Without it tensors stay in host
	// memory until a program uses them.
	Backend compute.Backend
	// Precision chooses the type in which a tensor is kept; nil is Float32.
	Precision Precision
	// AllowMissing leaves tensors that the checkpoint lacks to their initialisation, AllowUnexpected passes over those
	// that the model does not know. Both stay visible in the Coverage.
	AllowMissing, AllowUnexpected bool
}

// Precision says in which type a parameter is kept that the checkpoint holds in another or the same.
type Precision func(p model.Param, file weights.DType) weights.DType

// Float32 keeps everything in float32: what is trained.
func Float32(model.Param, weights.DType) weights.DType { return weights.F32 }

// AsStored keeps the checkpoint's types; float64, which nothing computes with, becomes float32.
func AsStored(_ model.Param, file weights.DType) weights.DType {
	if file == weights.F64 {
		return weights.F32
	}
	return file
}

// Uniform keeps everything in one type.
func Uniform(dtype weights.DType) Precision {
	return func(model.Param, weights.DType) weights.DType { return dtype }
}

// Frozen keeps the matrices of linear layers and convolutions in the given type, everything else in float32
// (spec/model.md 11): what is not trained.
func Frozen(dtype dtypes.DType) Precision {
	return func(p model.Param, _ weights.DType) weights.DType {
		for stored, d := range numberTypes() {
			if d == dtype && model.IsMatrix(p) {
				return stored
			}
		}
		return weights.F32
	}
}

// numberTypes are the types of files in which a model's tensors can be kept.
func numberTypes() map[weights.DType]dtypes.DType {
	return map[weights.DType]dtypes.DType{weights.F32: dtypes.Float32, weights.BF16: dtypes.BFloat16,
		weights.F16: dtypes.Float16}
}

// Reader gives the tensors of a part of the model from an open checkpoint: recognised, checked, fitted to the model's
// shapes and in the type that the options choose.
type Reader struct {
	part     Part
	src      naming.Source
	plan     *naming.Plan
	options  Options
	adapters map[string]adapter
	changes  sync.Mutex // of the coverage
}

// NewReader recognises how the checkpoint's tensors are named and checks names and shapes. With an error the Reader
// only has its Coverage, nil if nothing was recognised.
func NewReader(p Part, src naming.Source, o Options) (*Reader, error) {
	if o.Precision == nil {
		o.Precision = Float32
	}
	p.AllowMissing, p.AllowUnexpected = p.AllowMissing || o.AllowMissing, p.AllowUnexpected || o.AllowUnexpected
	p.Accept = p.accept
	plan, err := naming.NewPlan(p.Part, src)
	r := &Reader{part: p, src: src, plan: plan, options: o}
	if err == nil && p.adapters != nil {
		r.adapters = p.adapters(plan.Table())
	}
	return r, err
}

// Coverage says what becomes of every tensor; its Changes grow as tensors are read.
func (r *Reader) Coverage() *Coverage { return r.plan.Coverage() }

// Tensor returns a tensor of the part; ok is false if the checkpoint does not give it. The data may alias the file's.
// It may be called from several goroutines.
func (r *Reader) Tensor(p model.Param) (t weights.Tensor, ok bool, err error) {
	t, ok, err = r.plan.Tensor(p.Name)
	if err != nil || !ok {
		return t, ok, err
	}
	if a, fits := r.adapters[p.Name]; fits {
		if t, err = r.adapt(a, p, t); err != nil {
			return t, true, err
		}
	}
	to := r.options.Precision(p, t.DType)
	cast, err := t.CastFloat(to)
	if err != nil && to == weights.F16 && t.DType != to {
		err = fmt.Errorf("%w: bf16 has the range of f32", err)
	}
	return cast, true, err
}

// Info is Tensor without the numbers, which are not read.
func (r *Reader) Info(p model.Param) (t weights.Tensor, ok bool, err error) {
	dtype, ok, err := r.plan.DType(p.Name)
	return weights.Tensor{Name: p.Name, DType: r.options.Precision(p, dtype), Shape: p.Shape}, ok, err
}

// adapt fits a tensor of the file to the model's shape, in the file's type.
func (r *Reader) adapt(a adapter, p model.Param, t weights.Tensor) (weights.Tensor, error) {
	if slices.Equal(t.Shape, p.Shape) {
		return t, nil
	}
	values, err := t.Float32s()
	if err != nil {
		return t, err
	}
	values, change, err := a.fit(p, t.Shape, values)
	if err != nil {
		return t, err
	}
	r.changes.Lock()
	defer r.changes.Unlock()
	if cov := r.Coverage(); change != "" && !slices.Contains(cov.Changes, change) {
		cov.Changes = append(cov.Changes, change)
	}
	return weights.FromFloat32(p.Name, p.Shape, values).CastFloat(t.DType)
}

// Done gives back the memory that a tensor's numbers took in the checkpoint's files.
func (r *Reader) Done(p model.Param) { naming.Drop(r.src, r.plan.Sources(p.Name)...) }

// load moves the part's tensors from the open checkpoint into the store.
func (p Part) load(store *mlx.Store, src naming.Source, o Options) (*Coverage, error) {
	r, err := NewReader(p, src, o)
	if err != nil {
		return r.Coverage(), err
	}
	return r.Coverage(), Fill(store, o.Backend, p.Params, r.Tensor, r.Done)
}

// Fill creates the variables of the parameters for which read returns a tensor, on the backend's first device; a nil
// backend keeps the numbers in host memory. done is called when a tensor has been copied. Both must be safe for
// concurrent use. If a tensor cannot be read the store stays as it was.
func Fill(store *mlx.Store, backend compute.Backend, params []model.Param,
	read func(p model.Param) (t weights.Tensor, ok bool, err error), done func(p model.Param)) error {
	copies, err := copyAll(params, func(p model.Param) (*tensors.Tensor, error) {
		t, ok, err := read(p)
		if err != nil || !ok {
			return nil, err
		}
		defer done(p)
		return newTensor(backend, p, t)
	})
	for i, t := range copies {
		if t == nil {
			continue
		}
		if err == nil {
			err = model.Keep(store, params[i], t)
		} else {
			t.MustFinalizeAll()
		}
	}
	return err
}

// Tensors are copied by up to maxCopiers at once: what takes time is that the system hands out pages of fresh memory,
// and it does so for every thread by itself. A tensor that is being copied is in memory twice. That counts least while
// little else is loaded, so the largest come first, and those of more than a bigShare-th of all alone: however long a
// copier is held up, all of them together hold no more than an eighth of the numbers twice.
const (
	maxCopiers = 4
	bigShare   = 32
)

// copyAll calls one for every parameter, for several at once. The results are those of the parameters, whatever of them
// an error has left.
func copyAll(params []model.Param, one func(p model.Param) (*tensors.Tensor, error)) ([]*tensors.Tensor, error) {
	c := copies{params: params, one: one, order: make([]int, len(params)), out: make([]*tensors.Tensor, len(params)),
		errs: make([]error, len(params))}
	for i := range params {
		c.order[i] = i
	}
	slices.SortStableFunc(c.order, func(a, b int) int { return cmp.Compare(params[b].Size(), params[a].Size()) })
	total, big := model.Count(params), 0
	for big < len(c.order) && params[c.order[big]].Size() > total/bigShare {
		big++
	}
	c.work(big)
	var copiers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), maxCopiers) {
		copiers.Go(func() { c.work(len(params)) })
	}
	copiers.Wait()
	return c.out, cmp.Or(c.errs...)
}

// copies is the state of copyAll.
type copies struct {
	params []model.Param
	one    func(p model.Param) (*tensors.Tensor, error)
	order  []int        // in which the parameters are taken
	next   atomic.Int64 // place in that order
	failed atomic.Bool
	out    []*tensors.Tensor
	errs   []error
}

// work copies tensors until the given number of them have been taken, by whomever, or one could not be copied.
func (c *copies) work(until int) {
	for !c.failed.Load() {
		n := c.next.Load()
		if n >= int64(until) {
			return
		}
		if !c.next.CompareAndSwap(n, n+1) {
			continue
		}
		i := c.order[n]
		if c.out[i], c.errs[i] = c.one(c.params[i]); c.errs[i] != nil {
			c.failed.Store(true)
		}
	}
}

// newTensor copies a tensor to the backend's first device.
func newTensor(backend compute.Backend, p model.Param, t weights.Tensor) (*tensors.Tensor, error) {
	dtype, ok := numberTypes()[t.DType]
	if !ok {
		return nil, fmt.Errorf("tensor %s: dtype is %s, expected a floating-point type", p.Name, t.DType)
	}
	return model.NewTensor(backend, p, dtype, t.Data)
}

// accept judges the shape of a tensor in the file.
func (p Part) accept(t naming.Table, param model.Param, shape []int) error {
	if p.adapters != nil {
		if a, ok := p.adapters(t)[param.Name]; ok {
			return a.accepts(param, shape)
		}
	}
	return naming.SameShape(param, shape)
}
