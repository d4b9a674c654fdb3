package mesh

import (
	"blip2/pkg/internal/inplace"
	"fmt"
	"strings"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/distributed"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
	"github.com/gomlx/gomlx/core/tensors/dtensor"
	mlx "github.com/gomlx/gomlx/ml/model"
)

// Function builds a program: the nodes of its results from those of its inputs; the scope is the model's root.
type Function = func(scope *mlx.Scope, inputs []*graph.Node) []*graph.Node

// Exec is a program of a store's model. It runs where the store's tensors are: on the backend's first device, or on the
// mesh that the store was placed on. It is compiled for every combination of input shapes that it meets.
//
// On a mesh the rows of an input are shared by the devices if they make equal parts, and so are those of a result;
// anything else is on every device. Tensors that the program changes must be on every device.
type Exec struct {
	backend  compute.Backend
	store    *mlx.Store
	function Function
	name     string
	max      int
	state    int                 // number of the inputs that make up a state; see Advance
	building string              // name of the graph that was announced to be compiled for Advance
	programs map[string]*program // by the places of their inputs; "" on one device
}

// program is an Exec for one way in which the inputs lie on the devices.
type program struct {
	exec    *mlx.Exec
	places  []*distributed.ShardingSpec                   // of the inputs
	results map[graph.GraphId][]*distributed.ShardingSpec // of the results
}

// NewExec prepares a program. A store that is to be on a mesh must be placed there before the first call.
func NewExec(backend compute.Backend, store *mlx.Store, name string, f Function) *Exec {
	return &Exec{backend: backend, store: store, function: f, name: name,
		max: graph.DefaultExecMaxCacheSize, programs: map[string]*program{}}
}

// WithMaxPrograms sets for how many combinations of shapes the program is compiled at most; one more is an error.
func (e *Exec) WithMaxPrograms(n int) *Exec {
	e.max = n
	return e
}

// Name is the name of the program.
func (e *Exec) Name() string { return e.name }

// Close frees the compiled programs.
func (e *Exec) Close() {
	if e == nil {
		return
	}
	for _, p := range e.programs {
		p.exec.Finalize()
	}
	e.programs = map[string]*program{}
}

// Compile builds and compiles the program for arguments of these shapes, without running it.
func (e *Exec) Compile(args ...*Value) error {
	p, err := e.programFor(args)
	if err != nil {
		return err
	}
	var list []shapes.Shape
	m := Of(e.store)
	for range m.Devices() {
		for i, a := range args {
			shape := a.Shape()
			if m != nil {
				shape = partOf(shape, p.places[i])
			}
			list = append(list, shape)
		}
	}
	_, err = p.exec.Compile(list...)
	return err
}

// Call runs the program. Arguments stay the caller's, results become the caller's.
func (e *Exec) Call(args ...*Value) ([]*Value, error) { return e.call(args, 0) }

// Advance runs a program whose last inputs are a state and whose first results are the next one, of the same shapes. It
// takes the place of the old one in memory: the old one is used up, whether or not the call succeeds. An Exec that
// advances a state does so in all calls.
func (e *Exec) Advance(state []*Value, args ...*Value) (next, results []*Value, err error) {
	defer func() { _ = Free(state...) }() // what the program did not take
	e.state = len(state)
	defer func() { inplace.Withdraw(e.building) }()
	out, err := e.call(append(args[:len(args):len(args)], state...), len(state))
	if err != nil {
		return nil, nil, err
	}
	return out[:len(state)], out[len(state):], nil
}

// call runs the program and gives it the memory of the last arguments.
func (e *Exec) call(args []*Value, given int) ([]*Value, error) {
	p, err := e.programFor(args)
	if err != nil {
		return nil, err
	}
	m := Of(e.store)
	list := make([]any, m.Devices()*len(args)) // device after device
	for i, a := range args {
		shards := []*tensors.Tensor{a.whole}
		if m != nil {
			parts := a.parts
			if parts == nil {
				if parts, err = m.distribute(a.whole, p.places[i]); err != nil {
					return nil, fmt.Errorf("input %d: %w", i, err)
				}
				defer func() { _ = parts.Finalize() }() // the call is over, and nothing but memory can be lost
			}
			shards = parts.Shards()
		}
		for d, shard := range shards {
			list[d*len(args)+i] = shard
			if i < len(args)-given {
				continue
			}
			if list[d*len(args)+i], err = graph.DonateTensorBuffer(shard, e.backend, compute.DeviceNum(d)); err != nil {
				return nil, fmt.Errorf("input %d: %w", i, err)
			}
		}
	}
	out, g, err := p.exec.CallWithGraph(list...)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return HostAll(out), nil
	}
	return m.collect(out, p.results[g.GraphId()])
}

// Run is Call with whole tensors, whose results are whole tensors too; see Whole.
func (e *Exec) Run(args ...*tensors.Tensor) ([]*tensors.Tensor, error) {
	out, err := e.Call(HostAll(args)...)
	if err != nil {
		return nil, err
	}
	return Whole(out)
}

// collect makes values of the results' parts, which stand device after device.
func (m *Mesh) collect(out []*tensors.Tensor, places []*distributed.ShardingSpec) ([]*Value, error) {
	values := make([]*Value, len(places))
	for i, place := range places {
		shards := make([]*tensors.Tensor, m.Devices())
		for d := range shards {
			shards[d] = out[d*len(places)+i]
		}
		parts, err := dtensor.NewTensor(place, shards)
		if err != nil {
			return nil, fmt.Errorf("result %d: %w", i, err)
		}
		values[i] = &Value{parts: parts}
	}
	return values, nil
}

// programFor finds or prepares the program for the way in which the arguments lie on the devices.
func (e *Exec) programFor(args []*Value) (*program, error) {
	var places []*distributed.ShardingSpec
	var key strings.Builder
	m := Of(e.store)
	if m != nil {
		for _, a := range args {
			place := m.placeOf(a.Shape())
			if a.parts != nil {
				place = a.parts.ShardingSpec()
			}
			places = append(places, place)
			key.WriteString(place.String())
		}
	}
	if p := e.programs[key.String()]; p != nil {
		return p, nil
	}
	p, err := e.prepare(m, places)
	if err != nil {
		return nil, fmt.Errorf("preparing %s: %w", e.name, err)
	}
	e.programs[key.String()] = p
	return p, nil
}

// prepare makes the program for inputs at the given places.
func (e *Exec) prepare(m *Mesh, places []*distributed.ShardingSpec) (*program, error) {
	p := &program{places: places, results: map[graph.GraphId][]*distributed.ShardingSpec{}}
	function := func(scope *mlx.Scope, inputs []*graph.Node) []*graph.Node {
		results := e.function(scope, inputs)
		if m != nil {
			e.placeResults(m, p, results)
		}
		e.announce(inputs)
		return results
	}
	exec, err := mlx.NewExec(e.backend, e.store, function)
	if err != nil {
		return nil, err
	}
	p.exec = exec.WithName(e.name).SetMaxCache(e.max)
	if m == nil {
		return p, nil
	}
	exec.AutoSharding(m.devices).WithInputShardingSpecs(places...)
	return p, Settle(e.store)
}

// announce lets the graph that is about to be compiled write its state over the old one.
func (e *Exec) announce(inputs []*graph.Node) {
	if e.state == 0 {
		return
	}
	var names []string
	for _, n := range inputs[len(inputs)-e.state:] {
		names = append(names, n.GetParameterName())
	}
	e.building = inputs[0].Graph().Name()
	inplace.Announce(e.building, names)
}

// placeResults says where the results of a graph that has just been built lie. GoMLX reads it after the function has
// returned, and has the changed variables in front.
func (e *Exec) placeResults(m *Mesh, p *program, results []*graph.Node) {
	var all []*distributed.ShardingSpec
	g := results[0].Graph()
	for v := range e.store.IterVariables() {
		if v.ChangedInGraph(g) {
			all = append(all, m.replicated)
		}
	}
	own := make([]*distributed.ShardingSpec, len(results))
	for i, r := range results {
		own[i] = m.placeOf(r.Shape())
	}
	p.results[g.GraphId()] = own
	p.exec.WithOutputShardingSpecs(append(all, own...)...)
}
