package pretrained

import (
	"fmt"
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
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

// dropper is a source that can give back the memory of a tensor's data, which its next use reads again.
type dropper interface{ Drop(name string) }

// load moves the part's tensors from the open checkpoint into the store.
func (p part) load(store *mlx.Store, src naming.Source, o Options) (*Coverage, error) {
	if o.Precision == nil {
		o.Precision = Float32
	}
	p.AllowMissing, p.AllowUnexpected = p.AllowMissing || o.AllowMissing, p.AllowUnexpected || o.AllowUnexpected
	p.Accept = p.accept
	plan, err := naming.NewPlan(p.Part, src)
	if err != nil {
		return plan.Coverage(), err
	}
	f := filler{part: p, plan: plan, store: store, options: o}
	if p.adapters != nil {
		f.adapters = p.adapters(plan.Table())
	}
	drop, _ := src.(dropper)
	for _, param := range p.Params {
		if err := f.fill(param); err != nil {
			return plan.Coverage(), err
		}
		if drop != nil {
			for _, name := range plan.Sources(param.Name) {
				drop.Drop(name)
			}
		}
	}
	return plan.Coverage(), nil
}

// accept judges the shape of a tensor in the file.
func (p part) accept(t naming.Table, param model.Param, shape []int) error {
	if p.adapters != nil {
		if a, ok := p.adapters(t)[param.Name]; ok {
			return a.accepts(param, shape)
		}
	}
	return naming.SameShape(param, shape)
}

// filler moves a plan's tensors into a store.
type filler struct {
	part     part
	plan     *naming.Plan
	store    *mlx.Store
	options  Options
	adapters map[string]adapter
}

func (f filler) fill(p model.Param) error {
	t, ok, err := f.plan.Tensor(p.Name)
	if err != nil || !ok {
		return err
	}
	if a, ok := f.adapters[p.Name]; ok {
		if t, err = f.adapt(a, p, t); err != nil {
			return err
		}
	}
	if t, err = t.As(f.options.Precision(p, t.DType)); err != nil {
		return err
	}
	dtype, ok := numberTypes()[t.DType]
	if !ok {
		return fmt.Errorf("tensor %s: dtype is %s, expected a floating-point type", p.Name, t.DType)
	}
	return model.Put(f.store, f.options.Backend, p, dtype, t.Data)
}

// adapt fits a tensor of the file to the model's shape.
func (f filler) adapt(a adapter, p model.Param, t weights.Tensor) (weights.Tensor, error) {
	values, err := t.Float32s()
	if err != nil {
		return t, err
	}
	values, change, err := a.fit(p, t.Shape, values)
	if err != nil {
		return t, err
	}
	if cov := f.plan.Coverage(); change != "" && !slices.Contains(cov.Changes, change) {
		cov.Changes = append(cov.Changes, change)
	}
	return weights.FromFloat32(p.Name, p.Shape, values), nil
}
